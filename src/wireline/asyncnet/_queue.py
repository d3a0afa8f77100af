"""The tasks that wait for one direction of a descriptor, first come first served.

A task waits for an ``Operation``, which is in an ``OperationQueue``. When the loop says that the descriptor is ready,
the callback tries the operation right there. If it would block, the task sleeps on. If it is done, the task gets the
result and goes on at once, from inside the callback. So nothing is taken from the kernel that no task has, and a
cancellation loses nothing.

A loop without readiness (Windows' default one) has another queue, see ``_completion_queue``.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from wireline._core.deadline import CallDeadline
from wireline._socket_base import closed_meanwhile
from wireline.asyncnet._deadline_timer import DeadlineTimer
from wireline.asyncnet._port import Completion, Completions, Port
from wireline.asyncnet._waiters import Waiter
from wireline.errors import SocketTimeout

__all__ = [
    "NOT_YET",
    "LoopOperation",
    "NotYet",
    "Operation",
    "OperationQueue",
    "QueuedWaiter",
    "ReadinessQueue",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Turns of the loop in which an operation that was started for another call ends, if the kernel has bytes for it: the
# event, the operation's task, its end, and this task runs first in each.
_TURNS_OF_AN_OPERATION = 4


class NotYet:
    """The type of ``NOT_YET``: an operation is not done, and its task sleeps on."""


NOT_YET: Final = NotYet()


class Operation(Protocol[T_co]):
    """One thing that a task waits for."""

    __slots__ = ()

    def try_once(self) -> T_co | NotYet:
        """Make one system call that does not wait, and return its result.

        Raises:
            BlockingIOError: it would have to wait.
        """
        ...


class LoopOperation(Operation[T_co], Protocol[T_co]):
    """One that a loop without readiness can perform, too."""

    __slots__ = ()

    result_reusable: bool = True
    """If the caller was cancelled, the next operation in the queue may have the result: true of reads and accepts."""
    committed_on_start: bool = False
    """Once started it counts as done, so ``close`` lets it finish: true of sends, whose bytes count as sent."""

    def start(self, completions: Completions) -> Completion:
        """Start the system call as an operation of the loop."""
        ...

    def complete(self, result: Any) -> T_co | NotYet:
        """Return the result of an operation that the loop has performed."""
        ...

    def on_error(self, error: OSError) -> T_co | NotYet:
        """Return the result of an operation that failed in the loop, or raise."""
        raise error

    def dispose(self, result: Any) -> None:
        """Free a result that no task will take."""
        del result  # most results own nothing

    def cancel(self, completion: Completion) -> None:
        """End an operation in the loop, because its descriptor is about to be closed."""
        completion.cancel()


class QueuedWaiter(Waiter, Generic[T]):
    """One operation in a queue, and the task that sleeps until it is done."""

    __slots__ = ("_queue", "deadline", "queued", "result_value")

    def __init__(self, queue: OperationQueue, port: Port) -> None:
        super().__init__(port)
        self._queue = queue
        self.result_value: T | None = None

    def enter(self, queued: Operation[T], operation: str, deadline: CallDeadline | None) -> None:
        """Get ready for a new sleep."""
        self.queued = queued
        self.operation = operation
        self.deadline = deadline
        self.pending = True

    def abandoned(self) -> None:
        self._queue.remove(self)


class _Watching(Protocol):
    """How a queue is served, which differs between its two kinds."""

    def _watch(self) -> bool:
        """Have the first operation tried, or performed by the loop; False if the descriptor is closed."""
        ...

    def _unwatch(self) -> None:
        """Leave the descriptor alone from now on."""


class OperationQueue(_Watching):
    """The operations that wait for one direction of one descriptor.

    Attributes:
        free_waiter: a ``QueuedWaiter`` that is not in use.
        closed: the descriptor is closed, or about to be: no operation may be queued any more.
        held: a task waits by itself for the direction of this queue.
        closing: after ``close``: an operation of the loop that uses the descriptor until it is done.
    """

    def __init__(self, port: Port, sock: socket.socket) -> None:
        self._port = port
        self._sock = sock
        self._queue: deque[QueuedWaiter[Any]] = deque()
        self._timer = DeadlineTimer()
        self.free_waiter: QueuedWaiter[Any] | None = None
        self.closing: Completion | None = None
        self.closed = self.held = False

    @property
    def in_flight(self) -> bool:
        """Whether an operation of the loop may hold a result that no task has got yet."""
        return False

    @property
    def has_orphan(self) -> bool:
        """Whether an operation is done whose caller was cancelled before."""
        return False

    def take_orphan(self) -> Completion | None:
        """Take over an operation that is done, and whose caller was cancelled before."""
        return None

    @property
    def busy(self) -> bool:
        """Whether a task waits."""
        return self.held or bool(self._queue)

    @property
    def needs_loop(self) -> bool:
        """Whether there is a task to wake, or a timer to cancel."""
        return bool(self._queue) or self._timer.is_armed

    async def perform(
        self, queued: Operation[T], operation: str, deadline: CallDeadline | None, *, try_now: bool = True
    ) -> T:
        """Perform an operation at once if that is possible, else wait for it; see ``wait``."""
        at_once = deadline is not None and deadline.seconds == 0
        if try_now and not self.busy and not self.in_flight:
            try:
                result = queued.try_once()
            except BlockingIOError:
                pass
            else:
                if not isinstance(result, NotYet):
                    return result
            if at_once:
                raise SocketTimeout(operation, 0)
        if at_once:
            await self.drain_orphan()
        return await self.wait(queued, operation, deadline)

    async def drain_orphan(self) -> None:
        """Give an operation that was started for a cancelled call the time to end, if the kernel has bytes for it."""
        for _ in range(_TURNS_OF_AN_OPERATION):
            if self.in_flight:
                await self._port.sleep(0)

    async def wait(self, queued: Operation[T], operation: str, deadline: CallDeadline | None) -> T:
        """Queue an operation, and sleep until it is done.

        Args:
            queued: the operation.
            operation: its name in errors.
            deadline: on the loop's clock, if there is one.

        Raises:
            ClosedError: the descriptor is closed.
            OSError: the loop refuses to watch it; nothing is left of the call.
        """
        waiter = self.free_waiter or QueuedWaiter(self, self._port)
        self.free_waiter = None
        waiter.enter(queued, operation, deadline)
        try:
            self._queue.append(waiter)
            # `close` finds the waiter from here on. If it was called before, it did not: so `closed` is read last.
            if not self._watch() or self.closed:
                raise closed_meanwhile(operation)
            if deadline is not None:
                self._timer.arm(self._port, deadline.at, self._expire)
            await self._port.park(waiter)
        except BaseException:
            if waiter.pending:  # not woken: a signal handler may raise until the task sleeps
                self.remove(waiter)
            raise
        # Only here is it certain that the task has its result, and the waiter can be used again.
        result = cast(T, waiter.result_value)
        waiter.result_value = None
        self.free_waiter = waiter
        return result

    def remove(self, waiter: QueuedWaiter[Any]) -> None:
        """Take an operation out of the queue whose task was cancelled."""
        with contextlib.suppress(ValueError):  # it timed out in the same moment
            self._queue.remove(waiter)

    def close(self, error: Callable[[str], BaseException]) -> None:
        """Wake all tasks with an error, in the next turn of the loop, and leave the descriptor alone."""
        self._stop()
        if not self._port.is_over():
            for waiter in self._queue:
                waiter.wake_soon(error(waiter.operation))
        self._queue.clear()

    def close_now(self, error: Callable[[str], BaseException]) -> None:
        """The same, from a callback of the loop: the tasks go on at once."""
        self._stop()
        while self._queue:
            waiter = self._queue.popleft()
            if waiter.pending:
                waiter.wake_with(error(waiter.operation))

    def _stop(self) -> None:
        self.closed = True
        self._timer.cancel()
        self._unwatch()

    def _finish_first(self, call: Callable[..., object], *args: object) -> None:
        """Wake the first task with the result of a call, or its error, if there is one of them already."""
        waiter = self._queue[0]
        try:
            result = call(*args)
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:  # noqa: BLE001 -- it belongs to the task that waits
            if self.closed:
                return  # `close` wakes it, with an error of its own
            waiter.set_error(error)
        except BaseException as error:
            if self._port.callbacks_may_raise:
                raise
            waiter.set_error(error)
        else:
            if result is NOT_YET:
                return
            waiter.result_value = result
        # Not inside `except`: this error is not the context of the next exception that the task raises.
        del self._queue[0]
        waiter.wake()

    def _expire(self) -> None:
        """The timer has gone off: wake the tasks whose deadlines have passed."""
        self._timer.cancel()
        now = self._port.time()
        timed = [(waiter, waiter.deadline) for waiter in self._queue if waiter.deadline is not None]
        late = [(waiter, deadline) for waiter, deadline in timed if deadline.passed(now)]
        if len(late) < len(timed):
            earliest = min(deadline.at for _, deadline in timed if not deadline.passed(now))
            self._timer.arm(self._port, earliest, self._expire)
        late.sort(key=lambda entry: entry[1].at)  # a busy loop may be late for several
        for waiter, _ in late:
            self._queue.remove(waiter)
        for waiter, deadline in late:
            if waiter.pending:
                waiter.wake_with(SocketTimeout(waiter.operation, deadline.seconds))


class ReadinessQueue(OperationQueue):
    """Operations that are tried when the poller says that the descriptor is ready."""

    def __init__(self, port: Port, sock: socket.socket, *, write: bool) -> None:
        super().__init__(port, sock)
        self._write = write
        self._watched = False

    def _watch(self) -> bool:
        if not self._watched:
            self._watched = self._port.watch(self._sock, self._on_ready, write=self._write)
        return self._watched

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._port.unwatch(self._sock.fileno(), self._on_ready, write=self._write)

    def _on_ready(self) -> None:
        if self._queue:
            self._finish_first(self._queue[0].queued.try_once)
        else:
            # No task wants these bytes yet: they stay in the kernel, and the peer is held back.
            self._unwatch()
