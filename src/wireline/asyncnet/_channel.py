"""What a task may wait for on a descriptor, and who is first in the queue.

Theory of operation. What a task waits for is a ``Job``, and it lies with a ``Channel``: one direction of one
descriptor. When the loop says that the descriptor is ready, the callback attempts the job right there. Not yet: the
task sleeps on. Done: the result is handed over and the task goes on at once, from inside the callback. So nothing is
taken from the kernel that is not in somebody's hands, and a cancellation can lose nothing.

Timeouts share one timer a channel. It is set for the earliest deadline and looks for itself, when it goes off, whether
there is a later one by now: a timeout that never fires makes no timer.

A loop without ``add_reader`` (Windows' default one) has a second way in: ``loop.sock_recv`` and its kin, which lose
bytes when they are cancelled. So there they never are: an operation goes on when its task has left, and what it
brings is kept for the next.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, Generic, TypeVar, cast

from wireline._core.deadline import Deadline
from wireline._os.linger import DEFAULT_LINGER
from wireline._socket_base import closed_meanwhile
from wireline.asyncnet._asyncio import Loop, Operation, Sleep, Timer, can_poll, operate
from wireline.asyncnet._readiness import loop_state
from wireline.errors import BusyError, SocketTimeout

__all__ = [
    "NOT_YET",
    "Channel",
    "Job",
    "NotYet",
    "PolledChannel",
    "PortableChannel",
    "Waiting",
    "open_channel",
]

T = TypeVar("T")


class NotYet:
    """The type of ``NOT_YET``: a job is not done, and its task sleeps on."""


NOT_YET: Final = NotYet()


class Job(Generic[T]):
    """One thing that a task waits for."""

    __slots__ = ()

    transferable = True
    """Whether what an operation brought may go to the next job, when the task that asked for it has left."""
    counts_when_begun = False
    """Whether what an operation has begun is taken for done, so that a ``close`` lets it come to its end."""

    def attempt(self) -> T | NotYet:
        """Make one system call that does not wait, and look what it gave.

        Raises:
            BlockingIOError: it would have to wait.
        """
        raise NotImplementedError

    def operate(self, loop: Loop) -> Awaitable[object]:
        """The same call as an operation of the loop."""
        raise NotImplementedError

    def conclude(self, result: Any) -> T | NotYet:
        """Look what an operation gave."""
        raise NotImplementedError

    def failed(self, error: OSError) -> T | NotYet:
        """Look how an operation failed."""
        raise error

    def discard(self, result: Any) -> None:
        """Nobody will ever want what an operation gave."""

    def abandon(self, operation: Operation) -> None:
        """End an operation whose descriptor is about to be closed."""
        operation.cancel()


class Waiting(Sleep, Generic[T]):
    """One job, and the task that sleeps until it is done."""

    __slots__ = ("_channel", "answer", "deadline", "job")

    def __init__(self, channel: Channel, loop: Loop) -> None:
        super().__init__(loop)
        self._channel = channel
        self.answer: T | None = None

    def __await__(self) -> Generator[Waiting[T], None, T]:
        self._asyncio_future_blocking = True
        yield self
        # Only here is it certain that the task has taken what it was woken with.
        answer = cast(T, self.answer)
        self.answer = None
        self._channel.spare = self
        return answer

    def begin(self, job: Job[T], operation: str, deadline: Deadline | None) -> None:
        """Get ready for a new sleep."""
        self.job = job
        self.operation = operation
        self.deadline = deadline
        self.pending = True

    def left(self) -> None:
        self._channel.forget(self)


class Channel:
    """One direction of one descriptor, and the jobs that wait for it, first come first served.

    Attributes:
        spare: a ``Waiting`` that nobody uses.
        closed: the descriptor is closed, or about to be: nothing may be begun any more.
        ending: after ``close``: an operation that has the descriptor in its hands until it is done.
    """

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._queue: deque[Waiting[Any]] = deque()
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self.spare: Waiting[Any] | None = None
        self.ending: Operation | None = None
        self.closed = False

    @property
    def in_flight(self) -> bool:
        """Whether an operation of the loop may be holding something that is not in the core yet."""
        return False

    def take_kept(self) -> Operation | None:
        """Take over an operation that is done, and whose task has left before."""
        return None

    @property
    def busy(self) -> bool:
        """Whether a job waits."""
        return bool(self._queue)

    @property
    def needs_loop(self) -> bool:
        """Whether there is a task to wake, or a timer to cancel."""
        return bool(self._queue) or self._timer is not None

    def wait(
        self, job: Job[T], operation: str, deadline: Deadline | None, *, alone: bool = False
    ) -> Waiting[T]:
        """Queue a job; await what is returned, at once.

        Args:
            job: what to wait for.
            operation: its name in errors.
            deadline: on the loop's clock, if there is one.
            alone: refuse to be the second.

        Raises:
            BusyError: see ``alone``.
            ClosedError: the descriptor is closed.
            OSError: the loop refuses to watch it; nothing is left of the call.
        """
        if alone and self._queue:
            raise BusyError(f"{operation}: another task is reading this socket")
        waiting = self.spare or Waiting(self, self._loop)
        self.spare = None
        waiting.begin(job, operation, deadline)
        self._queue.append(waiting)
        try:
            # After `closed` it is too late to be found by `close`, before that it is not: so this is asked last.
            if not self._watch() or self.closed:
                raise closed_meanwhile(operation)
            if deadline is not None:
                self._set_timer(deadline.at)
        except BaseException:
            self.forget(waiting)
            raise
        return waiting

    def forget(self, waiting: Waiting[Any]) -> None:
        """Take a job out of the queue whose task was cancelled."""
        with contextlib.suppress(ValueError):  # its time was up in the same moment
            self._queue.remove(waiting)

    def close(self, error: Callable[[str], BaseException]) -> None:
        """Wake all tasks that wait with an error, in the next turn of the loop, and let go of the descriptor."""
        self._end()
        if not self._loop.is_closed():
            for waiting in self._queue:
                waiting.wake_soon(error(waiting.operation))
        self._queue.clear()

    def close_now(self, error: Callable[[str], BaseException]) -> None:
        """The same, from a callback of the loop: they go on at once."""
        self._end()
        while self._queue:
            waiting = self._queue.popleft()
            if waiting.pending:
                waiting.wake_with(error(waiting.operation))

    def _end(self) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unwatch()

    def _watch(self) -> bool:
        """See to it that the jobs are attempted when the time comes; False if the descriptor is closed."""
        raise NotImplementedError

    def _unwatch(self) -> None:
        """Leave the descriptor alone from now on."""
        raise NotImplementedError

    def _conclude(self, conclusion: Callable[[Job[Any]], object]) -> bool:
        """Let the first job come to its conclusion; False if it was not done yet."""
        waiting = self._queue[0]
        try:
            answer = conclusion(waiting.job)
        except (BlockingIOError, InterruptedError):
            return False
        except Exception as error:  # noqa: BLE001 -- it belongs to the task that waits
            if self.closed:
                return False  # `close` wakes it, with an error of its own
            waiting._tell(error)
        else:
            if answer is NOT_YET:
                return False
            waiting.answer = answer
        # Not inside `except`: what the task raises from here on has nothing to do with this error.
        del self._queue[0]
        waiting.wake()
        return True

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at  # of uvloop it may be a handle that does not know
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        timed = [(waiting, waiting.deadline) for waiting in self._queue if waiting.deadline is not None]
        late = [(waiting, deadline) for waiting, deadline in timed if deadline.passed(now)]
        later = [deadline.at for _, deadline in timed if not deadline.passed(now)]
        if later:
            self._set_timer(min(later))
        late.sort(key=lambda entry: entry[1].at)  # a busy loop may come to several at once
        for waiting, _ in late:
            self._queue.remove(waiting)
        for waiting, deadline in late:
            if waiting.pending:
                waiting.wake_with(SocketTimeout(waiting.operation, deadline.seconds))


class PolledChannel(Channel):
    """The way in by the poller of the loop."""

    def __init__(self, loop: Loop, sock: socket.socket, *, write: bool) -> None:
        super().__init__(loop, sock)
        self._state = loop_state(loop)
        self._write = write
        self._registered = False

    def _watch(self) -> bool:
        if not self._registered:
            self._registered = self._state.watch(self._sock, self._on_ready, write=self._write)
        return self._registered

    def _unwatch(self) -> None:
        if self._registered:
            self._registered = False
            self._state.unwatch(self._sock.fileno(), self._on_ready, write=self._write)

    def _on_ready(self) -> None:
        if self._queue:
            self._conclude(_attempt)
        else:
            # Bytes that nobody waits for: they stay in the kernel, and the peer is held back.
            self._unwatch()


class PortableChannel(Channel):
    """The way in by ``loop.sock_recv`` and its kin, one operation at a time, cancelled only by ``close``."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        super().__init__(loop, sock)
        self._operation: Operation | None = None
        self._for: Job[Any] | None = None
        self._kept: Operation | None = None

    @property
    def in_flight(self) -> bool:
        return self._operation is not None or self._kept is not None

    def _watch(self) -> bool:
        if self.closed:
            return False
        if self._operation is not None:
            return True
        if self._kept is not None:
            self._operation, self._kept = self._kept, None
            self._loop.call_soon(self._on_done, self._operation)
            return True
        self._for = self._queue[0].job
        self._operation = operate(self._for.operate(self._loop), self._loop)
        self._operation.add_done_callback(self._on_done)
        return True

    def _unwatch(self) -> None:
        if self.ending is not None:
            return  # a second `close`, while the operation ends
        if self._operation is not None and self._for is not None and not self._loop.is_closed():
            self.ending = self._operation
            if self._queue or not self._for.counts_when_begun:
                self._for.abandon(self._operation)
            else:  # nobody waits for it any more, and what it has is as good as sent
                limit = self._loop.call_later(DEFAULT_LINGER, self._operation.cancel)
                self._operation.add_done_callback(lambda _: limit.cancel())
        if self._kept is not None and self._for is not None and self._kept.exception() is None:
            self._for.discard(self._kept.result())
        self._kept = None

    def take_kept(self) -> Operation | None:
        operation, self._kept = self._kept, None
        return operation

    def _on_done(self, operation: Operation) -> None:
        self._operation = None
        asked_for, self._for = self._for, None
        if operation.cancelled():
            if self._queue:  # not by `close`, but by somebody who cancels all tasks of the loop
                self._go_on_after_cancellation(asked_for)
            return
        error = operation.exception()
        if self.ending is not None:
            if asked_for is not None and error is None:
                asked_for.discard(operation.result())
            return
        if not self._queue:
            if asked_for is not None and asked_for.transferable:
                self._for, self._kept = asked_for, operation
            return
        if self._queue[0].job is asked_for or (asked_for is not None and asked_for.transferable):
            if isinstance(error, OSError):
                self._conclude(lambda job: job.failed(error))
            else:
                self._conclude(lambda job: job.conclude(operation.result()))
        if self._queue and self._operation is None:
            self._watch()

    def _go_on_after_cancellation(self, asked_for: Job[Any] | None) -> None:
        if asked_for is not None and asked_for is self._queue[0].job and not asked_for.transferable:
            # Nobody knows how far it came, so it cannot be begun again.
            error = OSError(errno.ECANCELED, "the operation was cancelled inside the event loop")
            self._conclude(lambda job: job.failed(error))
        if self._queue and self._operation is None:
            self._watch()


def open_channel(loop: Loop, sock: socket.socket, *, write: bool = False) -> Channel:
    """Open the best way in that the loop has."""
    if not can_poll(loop):
        return PortableChannel(loop, sock)
    return PolledChannel(loop, sock, write=write)


def _attempt(job: Job[Any]) -> object:
    return job.attempt()
