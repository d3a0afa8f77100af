"""``relay`` of the blocking flavour: one thread, the caller's, waits for both sockets in ``poll``.

A second thread would save the ``poll``, but it may be impossible to start one, and two threads would need a lock.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from wireline._relay_common import ACK_INTERVAL, READ, WRITE, AckWait, Relay, Side, check_arguments
from wireline._relay_report import RelayReport
from wireline.net._send_file import not_blocking
from wireline.net._socket import Socket
from wireline.net._write_lock import Permit

__all__ = ["relay"]

# poll(2) takes an int of milliseconds.
_LONGEST_POLL = 2**31 - 1

# Seconds between two looks whether a socket was closed, where no event says so. A guess.
_LOOK = 0.2


def relay(
    a: Socket,
    b: Socket,
    *,
    idle_timeout: float | None = None,
    half_close_timeout: float | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> RelayReport:
    """Copy bytes between two connected streams, in both directions, until both have ended.

    A half-close of one side is passed on, and the other direction goes on. Bytes that a socket has received and that no
    read has returned are sent first. Between two plain sockets large amounts are moved by splice(2) where the system
    has it. A slow reader holds the other side back; memory does not grow. Descriptors that a Unix peer passes are not
    relayed: the socket keeps them, at most 253, as for any other read.

    A side that reads no more, as a Unix peer may choose, and stays, is no end: its answer may be late. The other
    direction goes on until that side ends or a time limit passes, and then the report has the error.

    It closes neither socket. Until it returns, another read of one of them raises ``BusyError``, and a send may have to
    wait. A cancellation ends it.

    Bytes that could not be delivered, because the relay was idle or cancelled, or because the other side is gone, are
    returned by the next read of the socket that received them: none is lost, and none is sent twice.

    A failure that a peer causes is no exception: the report has it as ``reason``. With the reason ``"reset"`` the call
    waits until the other side has acknowledged the bytes that were sent to it, or stops acknowledging. Then
    ``close(linger=0)`` passes the reset on.

    Args:
        a: a connected stream, TLS or not.
        b: another one.
        idle_timeout: seconds without a byte in either direction after which the relay ends; None means no limit.
        half_close_timeout: the same once one direction has ended; None means that ``idle_timeout`` still applies.
        progress: called with the numbers of bytes sent, from ``a`` to ``b`` and from ``b`` to ``a``, whenever they have
            grown. An exception that it raises ends the relay and leaves the call.

    Returns:
        A ``RelayReport``: the bytes sent in each direction, the duration and the reason.

    Raises:
        BusyError: another thread or task is using one of the sockets.
        ClosedError: this side closed one of them, before or during the call.
        OSError: one of them is not connected.
        TypeError, ValueError: an argument has the wrong type, or is negative; a datagram socket; ``a`` is ``b``.
    """
    idle_timeout, half_close_timeout = check_arguments(
        a, b, Socket, idle_timeout, half_close_timeout, progress
    )
    with _reading(a), _reading(b):
        running = Relay(a, b, idle_timeout, half_close_timeout, progress, time.monotonic())
        try:
            with _Permits(a, b) as permits, _Waiting(running, a, b) as waiting:
                _run(running, permits, waiting)
            _wait_until_acked(running)
        finally:
            running.put_back()
        return running.report(time.monotonic())


@contextlib.contextmanager
def _reading(sock: Socket) -> Iterator[None]:
    """Let no other call read during the block."""
    held = sock._io.take_core_or_raise(sock, "relay")
    try:
        sock._io.relayed = True
        yield
    finally:
        del held
        sock._io.relayed = False
        sock._io.return_core(sock)


class _Permits:
    """The permits to write both sockets, at the end of the block given back.

    Between two steps only that of a socket is kept whose send buffer is full. ``close`` must wake the wait for that one
    by SHUT_WR, which sends FIN; for the other SHUT_RD is enough, and ``close(linger=0)`` then sends a reset alone.
    """

    def __init__(self, a: Socket, b: Socket) -> None:
        self._sockets = {"a": a, "b": b}
        self._held: dict[str, Permit] = {}

    def take(self) -> None:
        """Take both, and wait for the sends of other threads."""
        for name, sock in self._sockets.items():
            if name not in self._held:
                self._held[name] = sock._io.acquire_permit(sock, "relay", None)
            sock._fd.write_waits = False

    @contextlib.contextmanager
    def without_blocking(self) -> Iterator[None]:
        """Let no system call wait in the block."""
        a, b = self._sockets.values()
        with not_blocking(a._io), not_blocking(b._io):
            yield

    def give_back(self, sides: Iterable[Side]) -> None:
        """Let other threads send to these."""
        for side in sides:
            sock = self._sockets[side.name]
            sock._fd.write_waits = True
            if self._held.pop(side.name, None) is not None:
                sock._io.release_permit(sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for name, sock in self._sockets.items():
            sock._fd.write_waits = True
            if self._held.pop(name, None) is not None:
                sock._io.release_permit(sock)


def _run(running: Relay, permits: _Permits, waiting: _Waiting) -> None:
    while True:
        now = time.monotonic()
        permits.take()
        if running.prepare(now):
            with permits.without_blocking():
                running.advance(now)
        else:
            running.advance(now)
        running.on_alarm(time.monotonic())
        if running.finished:
            return
        permits.give_back(side for side in running.sides if not side.events & WRITE)
        waiting.until(now if running.unfinished else running.alarm())


class _Waiting:
    """Waits until one of the two sockets can be used, or is closed.

    ``close`` wakes the wait for a socket by ``shutdown``. A socket from which nothing is wanted, as after its end, is
    not in the ``poll``, which would report its state without end; for it there is its waker.
    """

    def __init__(self, running: Relay, a: Socket, b: Socket) -> None:
        self._running = running
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._masks: dict[int, int] = {}
        self._guards = {"a": a._fd, "b": b._fd}

    def until(self, moment: float | None) -> None:
        """Wait, at most until the clock shows ``moment``, and note the events."""
        seconds = None if moment is None else max(0.0, moment - time.monotonic())
        if self._poll is None:
            self._select(seconds)
            return
        sides: dict[int, Side] = {}
        for side in self._running.sides:
            if side.events & WRITE:
                # Before it looks whether the socket is closed: `close` marks it first, and looks here then.
                self._guards[side.name].write_waits = True
            fd = side.owner.fileno()
            if fd < 0:
                return  # closed in this moment
            sides[fd] = side
            read = select.POLLIN if side.events & READ else 0
            self._register(fd, read | (select.POLLOUT if side.events & WRITE else 0))
            if not side.events:
                try:
                    self._register(self._guards[side.name].waker.fileno(), select.POLLIN)
                except OSError:  # no descriptor is left
                    seconds = _LOOK if seconds is None else min(seconds, _LOOK)
        for fd, mask in self._poll.poll(None if seconds is None else min(seconds * 1000, _LONGEST_POLL)):
            events = {select.POLLIN: READ, select.POLLOUT: WRITE}.get(mask, READ | WRITE)
            if fd in sides:
                self._running.on_event(sides[fd], events)

    def _register(self, fd: int, mask: int) -> None:
        if mask == self._masks.get(fd, 0):
            return
        self._masks[fd] = mask
        if mask:
            self._poll.register(fd, mask)  # type: ignore[union-attr] # called where there is `poll`
        else:
            self._poll.unregister(fd)  # type: ignore[union-attr]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for guard in self._guards.values():
            guard.waker.close()

    def _select(self, seconds: float | None) -> None:
        sides = self._running.sides
        readers, writers = ([side.owner for side in sides if side.events & each] for each in (READ, WRITE))
        select.select(readers, writers, writers, seconds)
        for side in sides:
            self._running.on_event(side, side.events)


def _wait_until_acked(running: Relay) -> None:
    """After a reset, wait until the other side has all, or acknowledges nothing for a while."""
    wait = AckWait(running.unacked, time.monotonic())
    while not wait.is_over(time.monotonic()):
        time.sleep(ACK_INTERVAL)
        running.raise_if_closed()
