"""``relay`` of the async flavour: the callbacks of the loop move the bytes, and the task sleeps until the end.

On a loop without readiness two tasks do, by reads and sends.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import Context

from wireline._relay_common import (
    ACK_INTERVAL,
    PIECE,
    READ,
    WRITE,
    AckWait,
    Direction,
    Relay,
    Side,
    check_arguments,
)
from wireline._relay_report import RelayReport
from wireline.asyncnet._port import Port, running_tasks
from wireline.asyncnet._socket import AsyncSocket
from wireline.asyncnet._sync import Notifier
from wireline.errors import ClosedError
from wireline.options import SocketFlag

__all__ = ["relay"]

_NO_FLAGS = SocketFlag(0)


async def relay(
    a: AsyncSocket,
    b: AsyncSocket,
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
        a, b, AsyncSocket, idle_timeout, half_close_timeout, progress
    )
    port = a._fd.enter(a)
    b._fd.enter(b)
    notifier = Notifier(port)
    with contextlib.ExitStack() as stack:
        for sock in (a, b):
            if port.completions is None:
                stack.enter_context(_held(sock))
            else:
                with _held(sock):
                    pass  # no other task uses it; from now on two tasks of ours do
            stack.enter_context(sock._fd.notifying_of_close(notifier))
        running = Relay(a, b, idle_timeout, half_close_timeout, progress, port.time())
        await port.checkpoint()
        if port.completions is None:
            await _Callbacks(running, port, notifier).run()
        else:
            await _Tasks(running, port, notifier, a, b).run()
        return running.report(port.time())


@contextlib.contextmanager
def _held(sock: AsyncSocket) -> Iterator[None]:
    """Let no other call read or write during the block."""
    sock._io.hold(sock, "relay")
    sock._io.relayed = True
    try:
        yield
    finally:
        sock._io.relayed = False
        sock._io.publish(sock)


class _Runner:
    """What the two ways have in common: the wait for the end."""

    def __init__(self, running: Relay, port: Port, notifier: Notifier) -> None:
        self._running = running
        self._port = port
        self._notifier = notifier
        self._error: BaseException | None = None
        self._until: float | None = None

    async def _wait(self) -> None:
        """Sleep until the relay is finished."""
        running = self._running
        while True:
            running.raise_if_closed()
            if self._error is not None:
                raise self._error
            running.on_alarm(self._port.time())
            if running.finished:
                return
            self._until = running.alarm()
            await self._notifier.wait(self._until)

    def _notify_if_needed(self) -> None:
        """Wake the task at the end, and when it has to wake earlier than it thinks."""
        alarm = self._running.alarm()
        earlier = alarm is not None and (self._until is None or alarm < self._until)
        if earlier or self._running.finished or self._error is not None:
            self._notifier.notify()

    async def _wait_until_acked(self) -> None:
        """After a reset, wait until the other side has all, or acknowledges nothing for a while."""
        running, port = self._running, self._port
        wait = AckWait(running.unacked, port.time())
        while not wait.is_over(port.time()):
            await self._notifier.wait(port.time() + ACK_INTERVAL)
            running.raise_if_closed()


class _Callbacks(_Runner):
    """Moves the bytes in the callbacks of the loop."""

    def __init__(self, running: Relay, port: Port, notifier: Notifier) -> None:
        super().__init__(running, port, notifier)
        self._watched: dict[tuple[str, int], Callable[[], None]] = {}
        self._over = False

    async def run(self) -> None:
        """Relay until the end."""
        try:
            self._advance()
            await self._wait()
            self._unwatch()
            await self._wait_until_acked()
        finally:
            self._over = True
            self._unwatch()
            self._running.put_back()

    def _advance(self) -> None:
        running = self._running
        if self._over or running.finished or self._error is not None:
            return
        now = self._port.time()
        try:
            if running.prepare(now):
                for side in running.sides:
                    # As in `accept_now`: splice(2) has no MSG_DONTWAIT.
                    side.owner._fd.sock.setblocking(False)
            running.advance(now)
            for side in running.sides:
                self._watch(side, READ)
                self._watch(side, WRITE)
            if running.unfinished:
                self._port.call_soon(self._advance, context=Context())
        except BaseException as error:  # noqa: BLE001 -- it belongs to the task that waits
            self._error = error
        self._notify_if_needed()

    def _on_event(self, side: Side, event: int) -> None:
        self._running.on_event(side, event)
        self._advance()

    def _watch(self, side: Side, event: int) -> None:
        key = side.name, event
        wanted = bool(side.events & event)
        if wanted is (key in self._watched):
            return
        sock = side.owner._fd.sock
        if wanted:
            callback = functools.partial(self._on_event, side, event)
            if self._port.watch(sock, callback, write=event is WRITE):
                self._watched[key] = callback
        else:
            self._port.unwatch(sock.fileno(), self._watched.pop(key), write=event is WRITE)

    def _unwatch(self) -> None:
        for side in self._running.sides:
            side.events = 0
            self._watch(side, READ)
            self._watch(side, WRITE)


class _Tasks(_Runner):
    """Moves the bytes in two tasks, by the methods of the sockets."""

    def __init__(
        self, running: Relay, port: Port, notifier: Notifier, a: AsyncSocket, b: AsyncSocket
    ) -> None:
        super().__init__(running, port, notifier)
        self._sockets = a, b

    async def run(self) -> None:
        """Relay until the end."""
        running, tasks, (a, b) = self._running, running_tasks(), self._sockets
        copying = [
            tasks.spawn(self._copy(direction, source, sink), "wireline-relay")
            for direction, source, sink in ((running.up, a, b), (running.down, b, a))
        ]
        for task in copying:
            task.add_done_callback(lambda _: self._notifier.notify(), context=Context())
        try:
            await self._wait()
        finally:
            for task in copying:
                task.cancel()
            while not all(task.done() for task in copying):  # what they have not sent, they put back
                await self._notifier.wait(None)
        await self._wait_until_acked()

    async def _copy(self, direction: Direction, source: AsyncSocket, sink: AsyncSocket) -> None:
        running = self._running
        try:
            while data := await source.recv_some(PIECE, None, _NO_FLAGS):
                running.touch(self._port.time())
                if not await self._send(direction, source, sink, data):
                    return
                running.touch(self._port.time())
                running.show_progress()
            await sink.shutdown_write()
            direction.over = True
            running.touch(self._port.time())
            running.conclude()
        except ClosedError as error:
            self._error = error
        except OSError as error:
            running.fail(direction.source, error)
        except Exception as error:  # noqa: BLE001 -- it belongs to the task that waits
            self._error = error
        finally:
            self._notify_if_needed()

    async def _send(self, direction: Direction, source: AsyncSocket, sink: AsyncSocket, data: bytes) -> bool:
        """Send a piece; False if the sink is gone."""
        try:
            await sink.send(data, _NO_FLAGS)
        except ClosedError:
            raise
        except OSError as error:
            direction.error = error
            direction.over = True
            self._running.conclude()
            return False
        finally:
            sent = sink.last_bytes_sent
            direction.moved += sent
            if sent < len(data) and not source.is_closed:
                source.unread(data[sent:])
        return True
