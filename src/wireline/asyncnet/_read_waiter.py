"""How a task waits for the bytes of a stream. This is the hot path of the async flavour, so one object does the work
of several in ``_queue``: a stream has one reader at a time.

Theory of operation. A waiting read is a *request*: a method of the core and its arguments. When the loop says that the
descriptor is readable, the callback receives straight into the core and repeats the request. If there is no result yet,
the task sleeps on; if there is one, the task goes on at once, from inside the callback. So a task is woken when its
request has a result, not whenever bytes arrive; and there is no await between the kernel and the buffer, which is why a
cancellation cannot lose any.

Fast path: with an empty buffer, one recv(2) is often the complete result of ``recv_some`` or ``recv_line``. The core
then returns it without a way through its buffer (``accept``), and the next such request is not made at all
(``fast_recv_ok``).

The registration with the poller stays from one read to the next. It is dropped when bytes arrive that no task waits
for: they stay in the kernel, and a slow consumer holds its peer back.

``core_slot`` is a list of at most one, shared with the socket. A reader takes the core out of it and puts it back when
it is done, so an empty slot tells a second reader that it is the second.
"""

from __future__ import annotations

import errno
import socket
import types
from collections.abc import Callable, Generator
from typing import Any, TypeVar, TypeVarTuple

from wireline._core.stream import StreamCore
from wireline._socket_base import closed_meanwhile
from wireline.asyncnet._deadline_timer import DeadlineTimer
from wireline.asyncnet._operations import WeakAnnotator
from wireline.asyncnet._port import Port
from wireline.asyncnet._waiter import Waiter
from wireline.errors import SocketTimeout, copy_for_reraise
from wireline.options import DONT_WAIT

__all__ = ["ReadWaiter"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ReadWaiter(Waiter):
    """The one reader of a stream, on a loop with readiness.

    Attributes:
        closed: the descriptor is closed, or about to be.
        core: the core of the stream.
    """

    __slots__ = (
        "_annotator",
        "_answer",
        "_args",
        "_core_slot",
        "_deadline",
        "_request",
        "_seconds",
        "_sock",
        "_timer",
        "_watched",
        "closed",
        "core",
    )

    def __init__(
        self, port: Port, sock: socket.socket, core_slot: list[StreamCore], annotator: WeakAnnotator
    ) -> None:
        super().__init__(port)
        self._sock = sock
        self.core = core_slot[0]
        self._core_slot = core_slot
        self._annotator = annotator
        self._request: Callable[..., Any] = StreamCore.recv
        self._args: tuple[Any, ...] = ()
        self._answer: Any = b""
        self._watched = False
        self.closed = False
        self._timer: DeadlineTimer | None = None  # most connections never have a timeout
        self._deadline: float | None = None

    @types.coroutine
    def wait(
        self,
        request: Callable[[StreamCore, *Ts], T | None],
        args: tuple[*Ts],
        timeout: float | None,
    ) -> Generator[Any, Any, T]:
        """Take the core, and sleep until a request has a result.

        Args:
            request: a method of the core, which has just returned None.
            args: its arguments.
            timeout: seconds to wait.
        """
        if not self._watched:
            self._watched = self.port.watch(self._sock, self)
            if not self._watched:
                self.closed = True
        self.core.fast_recv_ok = False
        self._core_slot.clear()
        self._request = request
        self._args = args
        if timeout is None:
            self._deadline = None
        else:
            self._seconds = timeout
            self._deadline = deadline = self.port.time() + timeout
            timer = self._timer
            if timer is None:
                timer = self._timer = DeadlineTimer()
            if deadline < timer.at:
                timer.arm(self.port, deadline, self._expire)
        self.pending = True
        try:
            if self.closed:
                # Read after `pending` was set: a `close` from now on finds the waiter and wakes it.
                self._stop()
                raise closed_meanwhile(request.__name__)
            if self.port.takes_waiters:
                self._asyncio_future_blocking = True
                yield self  # `port.park` without the call
            else:
                yield from self.port.park(self).__await__()
        except BaseException:
            self.pending = False
            self._core_slot.append(self.core)
            raise
        answer: T = self._answer
        self._answer = b""
        return answer

    def __call__(self) -> None:
        """Receive: the descriptor is readable. (A method with a name would be 64 bytes more a connection.)"""
        if not self.pending:
            self._unwatch()  # no task wants these bytes yet
            return
        core = self.core
        answer = None
        try:
            try:
                data = self._sock.recv(core.recv_size, DONT_WAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if self.closed:
                    return  # `close` wakes the task, with a `ClosedError`
                core.fail(self._annotator.annotate(error, self._request.__name__))
            else:
                answer = core.accept(data)
            if answer is None:
                try:
                    answer = self._request(core, *self._args)
                except Exception as error:  # noqa: BLE001 -- it belongs to the task that waits
                    self.set_error(error)
                else:
                    if answer is None:
                        return  # the task sleeps on
        except BaseException as error:
            self._interrupted(error)
            if isinstance(error, Exception):
                return  # the task has it
            raise
        # `wake` without the call. The task's state first: on asyncio the task runs inside `callback`.
        self.pending = False
        if answer is not None:
            self._answer = answer
            self._core_slot.append(core)
        callback, self._callback = self._callback, None
        if callback is not None:
            self._context.run(callback, self)

    def _interrupted(self, error: BaseException) -> None:
        """An exception of a signal handler, or a fault of this library, between the kernel and the task (FA7).

        Received bytes may be lost, and there is no way to find out. So the connection fails from here on, with an error
        that says so, and the task is woken: it neither sleeps forever nor reads on as if nothing had happened.
        """
        if self.closed or not self.pending:
            return
        operation = self._request.__name__
        broken = OSError(errno.EIO, f"{operation}: {error!r} while bytes were received, which may be lost")
        StreamCore.fail(self.core, broken)
        self.wake_soon(error if isinstance(error, Exception) else copy_for_reraise(broken))

    @property
    def needs_loop(self) -> bool:
        """Whether there is a task to wake, or a timer to cancel."""
        return self.pending or (self._timer is not None and self._timer.is_armed)

    def close(self, error: Callable[[str], BaseException]) -> None:
        """Wake the task with an error, in the next turn of the loop, and leave the descriptor alone."""
        self._stop()
        if self.pending and not self.port.is_over():
            self.wake_soon(error(self._request.__name__))

    def close_now(self, error: Callable[[str], BaseException]) -> None:
        """The same, from a callback of the loop: the task goes on at once."""
        self._stop()
        if self.pending:
            self.wake_with(error(self._request.__name__))

    def _stop(self) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._unwatch()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self.port.unwatch(self._sock.fileno(), self)

    def _expire(self) -> None:
        """The timer has gone off."""
        timer = self._timer
        if timer is None:
            return
        timer.cancel()
        if not self.pending or self._deadline is None:
            return
        if self.port.time() < self._deadline:
            timer.arm(self.port, self._deadline, self._expire)
        else:
            self.wake_with(SocketTimeout(self._request.__name__, self._seconds))
