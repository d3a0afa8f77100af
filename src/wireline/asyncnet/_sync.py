"""Waiting for one of several things: signals, the turn to write, connections that are attempted side by side."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from wireline._core.deadline import Deadline
from wireline._os.descriptor import CONNECTING, connect_result
from wireline._os.resolver import Lookup
from wireline.asyncnet._asyncio import (
    Cancelled,
    Loop,
    Operation,
    Ticket,
    can_poll,
    operate,
    running_loop,
    when_done,
)
from wireline.errors import SockAddr, SocketTimeout

__all__ = ["Attempts", "Signal", "WriteTurn", "lookup_result"]


class Signal:
    """Something happened: what a task waits for when it waits for several things at once."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiters: set[Ticket] = set()
        self._rung = False

    def ring(self) -> None:
        """Wake who waits now, or, if nobody does, the next who does."""
        self._rung = not self._waiters
        for waiter in self._waiters:
            _call(waiter, True)

    def ring_from_thread(self) -> None:
        """The same from any thread, and when the loop is no more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.ring)

    def now(self) -> float:
        """What the loop's clock shows."""
        return self._loop.time()

    async def wait(self, until: float | None) -> bool:
        """Sleep until the signal is rung, or until the loop's clock shows ``until``; whether it was rung."""
        if self._rung:
            self._rung = False
            return True
        waiter: Ticket = self._loop.create_future()
        timer = None if until is None else self._loop.call_at(until, _call, waiter, False)
        self._waiters.add(waiter)
        try:
            rung: bool = await waiter
            return rung
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


class WriteTurn:
    """Who may write: one task at a time, in the order in which they came (W5).

    Whoever finds it not ``held`` may set that, without more ado: the fast path of every send. It begins held, for a
    socket is not writable before it is connected.

    Attributes:
        held: somebody writes, or nobody may.
        over: nobody may ever again.
        queue: those who wait; None until somebody had to. Ten thousand sockets have a turn each: an empty list would
            be 56 bytes a socket, an empty deque 700.
    """

    __slots__ = ("held", "over", "queue")

    def __init__(self) -> None:
        self.held = True
        self.over = False
        self.queue: list[Ticket] | None = None

    async def acquire(self, seconds: float | None) -> bool:
        """Queue for the turn; False if the time was up first, or the queue was sent away."""
        loop = running_loop()
        ticket: Ticket = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _call, ticket, False)
        if self.queue is None:
            self.queue = []
        self.queue.append(ticket)
        granted: bool = False
        try:
            if self.over:
                return False  # asked last: an end of the turn from now on finds a ticket
            granted = await ticket
            return granted
        except Cancelled:
            if ticket.done() and not ticket.cancelled() and ticket.result():
                self.release()  # the turn came in the same moment as the cancellation
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if not granted:
                with contextlib.suppress(ValueError):  # sent away, or handed the turn
                    (self.queue or []).remove(ticket)

    def release(self) -> None:
        """Hand the turn to the next in the queue, or let it go."""
        while self.queue:
            if _call(self.queue.pop(0), True):
                return
        self.held = self.over

    def end(self) -> None:
        """Let nobody write any more. From any thread; who queues is sent away by ``send_away``."""
        self.over = self.held = True

    def send_away(self) -> None:
        """Refuse everybody who queues."""
        if self.queue:
            refused, self.queue = self.queue, None
            for ticket in refused:
                _call(ticket, False)


def _call(ticket: Ticket, granted: bool) -> bool:
    """Tell a ticket's holder; False if it has left."""
    if ticket.done():
        return False
    ticket.set_result(granted)
    return True


class Attempts:
    """Connections that are being attempted side by side; ``signal`` is rung when one is over."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._loop = running_loop()
        self._polls = can_poll(self._loop)
        self._running: dict[int, socket.socket] = {}
        self._operations: dict[int, Operation] = {}
        self._over: list[int] = []

    def begin(self, sock: socket.socket, target: SockAddr, index: int) -> None:
        """Start an attempt, and own ``sock`` from now on.

        Raises:
            OSError: it failed at once; the socket is closed again.
        """
        self._running[index] = sock  # first: an exception at any moment finds it there
        try:
            if self._polls:
                code = sock.connect_ex(target)
                if code and code not in CONNECTING:
                    raise OSError(code, os.strerror(code))
                self._loop.add_writer(sock.fileno(), self._ready, index)
            else:
                operation = operate(self._loop.sock_connect(sock, target), self._loop)
                operation.add_done_callback(lambda _: self._ready(index))
                self._operations[index] = operation
        except BaseException:
            del self._running[index]
            if self._polls:
                self._loop.remove_writer(sock.fileno())
            sock.close()
            raise

    def _ready(self, index: int) -> None:
        self._over.append(index)
        if self._polls and index in self._running:
            self._loop.remove_writer(self._running[index].fileno())
        self._signal.ring()

    def over(self) -> Iterator[tuple[int, OSError | None]]:
        """Yield the attempts that are over, with their errors; those that failed are closed."""
        while self._over:
            index = self._over.pop(0)
            sock = self._running[index]
            if self._polls:
                error: BaseException | None = connect_result(sock)
            else:
                error = self._operations.pop(index).exception()
                if isinstance(error, OSError) and error.errno:
                    error = OSError(
                        error.errno, os.strerror(error.errno)
                    )  # in the system's words, as everywhere
                error = error or connect_result(sock)
            if error is not None:
                del self._running[index]
                sock.close()
            if error is not None and not isinstance(error, OSError):
                raise error
            yield index, error

    def winner(self, index: int) -> socket.socket:
        """Give up the socket of an attempt."""
        return self._running.pop(index)

    def close(self) -> None:
        """Give up the attempts that still run."""
        for index, sock in self._running.items():
            operation = self._operations.get(index)
            if self._polls:
                self._loop.remove_writer(sock.fileno())
            if operation is not None:
                operation.cancel()
            # Not before the operation has let go of it: the number may be somebody else's in the next moment.
            when_done([operation], sock.close)
        self._running.clear()


async def lookup_result(lookup: Lookup, signal: Signal, operation: str, deadline: Deadline | None) -> None:
    """Wait until a lookup is done, or ``signal`` is rung by somebody else.

    Raises:
        SocketTimeout: the deadline passed first. The lookup goes on by itself.
    """
    if lookup.done():
        return

    def ring(_: Lookup) -> None:
        signal.ring_from_thread()

    lookup.add_done_callback(ring)
    try:
        rung = await signal.wait(None if deadline is None else deadline.at)
    finally:
        lookup.remove_done_callback(ring)
    if not rung and deadline is not None:
        raise SocketTimeout(operation, deadline.seconds)
