"""How a task sleeps, and how it waits for the bytes of a stream.

A ``Waiter`` is a future that can be used again: one object serves for sleep after sleep. asyncio's tasks await it
directly, because it follows the protocol by which asyncio recognizes the futures of others (``asyncio.isfuture``). Any
other loop parks its task by its own means and is called back (``Port.park``). A task of asyncio is woken from inside a
callback of the loop, at once, where a ``Future`` would wake it one turn later.

``ReadWaiter`` is the hot path of the async flavour, so one object does the work of several in ``_queue``: a stream has
one reader at a time.

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
import functools
import socket
import types
from collections.abc import Callable, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from wireline._core.stream import StreamCore
from wireline._socket_base import closed_meanwhile
from wireline.asyncnet._deadline_timer import DeadlineTimer
from wireline.errors import SocketTimeout, copy_for_reraise
from wireline.options import DONT_WAIT
from wireline.timing import trio_if_it_runs

if TYPE_CHECKING:
    from wireline._os.passed_fds import Receiver
    from wireline.asyncnet._operations import WeakAnnotator
    from wireline.asyncnet._port import Port

__all__ = ["OneShot", "ReadWaiter", "Waiter"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# `Task` calls `result()` when it is woken. `bool` is the cheapest callable that returns without doing anything.
_no_error = bool

_no_context = Context()


def refuse_trio(error: BaseException) -> None:
    """Replace the ``TypeError`` of trio, which does not know a ``Waiter`` of asyncio.

    In guest mode asyncio's loop runs in the thread of trio's tasks too, so that the comparison of loops finds nothing.
    """
    if isinstance(error, TypeError) and trio_if_it_runs() is not None:
        raise RuntimeError("the socket belongs to another event loop") from None


class Waiter:
    """A task's sleep.

    Once woken, a task cannot be cancelled out of this sleep any more: it gets the result, or raises the cancellation
    with the result still there (R5).

    Attributes:
        pending: a task sleeps, or is about to, and was not woken.
        port: the loop that the task's socket belongs to.
        operation: the name of the call that waits.
        callback, context: what wakes the task, and the context to call it in. On trio they are the task, and an object
            that wakes it.
        error: what the task is to raise.
        message: what a sleep yields to trio, once there was one.
        get_loop, result: ``asyncio.Task`` calls both for every sleep, so both are C functions (up to 0.2 us).
            ``get_loop`` may be the function that returns the running loop, because a socket is only awaited on its own.
    """

    __slots__ = (
        "__weakref__",
        "_asyncio_future_blocking",
        "callback",
        "context",
        "error",
        "get_loop",
        "message",
        "operation",
        "pending",
        "port",
        "result",
    )

    def __init__(self, port: Port) -> None:
        self._asyncio_future_blocking = False
        self.port = port
        self.callback: Callable[[Any], object] | None = None
        self.context = _no_context  # until there is a callback
        self.error: BaseException | None = None
        self.get_loop = port.running_loop
        self.result: Callable[[], object] = _no_error
        self.operation = ""
        self.message: object = None
        self.pending = False

    def wake(self) -> None:
        """Let the task go on, now. Only from a callback of the loop, where no task is running.

        A task of asyncio runs before this returns: the caller must have finished with the state that they share.
        """
        self.pending = False
        callback, self.callback = self.callback, None
        if callback is not None:
            self.context.run(callback, self)

    def wake_with(self, error: BaseException) -> None:
        """The same with an exception."""
        self.set_error(error)
        del error  # its traceback will have this frame, which must not refer back to it
        self.wake()

    def wake_soon(self, error: BaseException | None = None) -> None:
        """Let the task go on in the next turn of the loop. From any code in the loop's thread."""
        self.pending = False
        if error is not None:
            self.set_error(error)
        callback, self.callback = self.callback, None
        if callback is not None:
            self.port.call_soon(callback, self, context=self.context)

    def forget_task(self) -> None:
        """The task was cancelled in its sleep and must not be woken. (asyncio calls ``cancel``.)"""
        self.pending = False
        self.callback = None
        self.abandoned()

    def abandoned(self) -> None:
        """The task was cancelled in its sleep. To override, where another object refers to this one."""

    def set_error(self, error: BaseException) -> None:
        """Let the task raise ``error`` when it is woken."""
        self.error = error
        self.result = self._raise_error

    def take_error(self) -> BaseException | None:
        """Return the error that the task is to raise."""
        self.result = _no_error
        error, self.error = self.error, None
        return error

    def _raise_error(self) -> None:
        error = self.take_error()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback has this frame

    # The rest of what `asyncio.Task` calls.

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        self.callback = callback
        self.context = context

    def cancel(self, msg: object = None) -> bool:
        if not self.pending:
            return False  # it was woken already; the task raises the cancellation by itself
        self.abandoned()
        error = self.port.cancelled_error
        self.wake_soon(error() if msg is None else error(msg))
        return True

    def done(self) -> bool:
        return not self.pending

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation or 'unused'}{', pending' if self.pending else ''}>"


class OneShot(Waiter):
    """A bool that one task waits for, and another sets once.

    Attributes:
        value: the bool that was set.
    """

    __slots__ = ("value",)

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.pending = True
        self.value = False

    def set(self, value: bool) -> bool:
        """Wake the task in the next turn; False if it has left, or was woken before."""
        if not self.pending:
            return False
        self.value = value
        self.wake_soon()
        return True

    async def wait(self, until: float | None) -> bool:
        """Sleep until it is set; False if the loop's clock shows ``until`` first."""
        timer = None if until is None else self.port.call_at(until, functools.partial(self.set, False))
        try:
            await self.port.park(self)
            return self.value
        finally:
            self.pending = False
            if timer is not None:
                timer.cancel()


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
        "_source",
        "_timer",
        "_watched",
        "closed",
        "core",
    )

    def __init__(
        self,
        port: Port,
        sock: socket.socket,
        source: Receiver,
        core_slot: list[StreamCore],
        annotator: WeakAnnotator,
    ) -> None:
        super().__init__(port)
        self._sock = sock
        self._source = source
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
        try:
            self._core_slot.clear()  # in here: the handler of a signal may raise as soon as it is done
            self.pending = True
            if self.closed:
                # Read after `pending` was set: a `close` from now on finds the waiter and wakes it.
                self._stop()
                raise closed_meanwhile(request.__name__)
            if self.port.takes_waiters:
                self._asyncio_future_blocking = True
                yield self  # `port.park` without the call
            else:
                yield from self.port.park(self)  # type: ignore[misc] # it is a coroutine, which may be entered here
                # The others ran while it slept. On asyncio the poller begins the budget anew, once a turn for all.
                self.port.budget = self.port.turn_budget
        except BaseException as error:
            self.pending = False
            self._core_slot[:] = (self.core,)
            refuse_trio(error)
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
                data = self._source.recv(core.recv_size, DONT_WAIT)
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
                    if self.closed:
                        return  # as above: a signal handler has ended TLS while the bytes were decrypted
                    self.set_error(error)
                else:
                    if answer is None:
                        return  # the task sleeps on
        except BaseException as error:
            self._interrupted(error)
            if isinstance(error, Exception) or not self.port.callbacks_may_raise:
                return  # the task has it
            raise
        # `wake` without the call. The task's state first: on asyncio the task runs inside `callback`.
        self.pending = False
        if answer is not None:
            self._answer = answer
            self._core_slot.append(core)
        callback, self.callback = self.callback, None
        if callback is not None:
            self.context.run(callback, self)

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
        takes_it = isinstance(error, Exception) or not self.port.callbacks_may_raise
        self.wake_soon(error if takes_it else copy_for_reraise(broken))

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
