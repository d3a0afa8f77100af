"""The one file that knows asyncio: how a task waits for a descriptor.

Theory of operation. What a task waits for is a ``Job``, and it lies with a ``Channel``: one direction of one
descriptor. When the loop says that the descriptor is ready, the callback attempts the job right there, from the
kernel into the core with no await in between, which is why a cancellation cannot lose a byte. Not yet: the task
sleeps on. Done: the result is handed over and the task goes on at once, from inside the callback. So a reader is woken when its
request can be answered, not whenever bytes arrive.

What makes it fast, each measured (docs/decisions):

* The registration with the loop stays from one read to the next. It is dropped when bytes arrive that nobody
  waits for, so that a slow consumer holds its peer back.
* ``Waiting`` is an awaitable of our own, used again and again. It follows the protocol that ``asyncio.Task`` expects of
  a future, but calls the task back when it is resolved and not one turn of the loop later.
* Timeouts share one timer a channel. It is set for the earliest deadline and looks for itself, when it goes off,
  whether there is a later one by now: a timeout that never fires makes no timer.

A loop without ``add_reader`` (Windows' default one) has a second way in: ``loop.sock_recv`` and its kin, which lose
bytes when they are cancelled. So there they never are: an operation goes on when its task has left, and what it brings
is kept for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future as ConcurrentFuture
from contextvars import Context
from typing import Any, Final, Generic, TypeVar, cast

from wireline._descriptor import CONNECTING, connect_result
from wireline._sansio.deadline import Deadline
from wireline.errors import BusyError, SockAddr, SocketTimeout

__all__ = [
    "NOT_YET",
    "Attempts",
    "Channel",
    "Job",
    "Loop",
    "NotYet",
    "PolledChannel",
    "PortableChannel",
    "Signal",
    "Task",
    "Waiting",
    "WriteTurn",
    "can_poll",
    "current_task",
    "lookup_result",
    "open_channel",
    "pause",
    "running_loop",
    "spawn",
]

T = TypeVar("T")

Loop = asyncio.AbstractEventLoop
Task = asyncio.Task[None]


class NotYet:
    """The type of ``NOT_YET``: a job is not done, and its task sleeps on."""


NOT_YET: Final = NotYet()

FORCE_PORTABLE = bool(os.environ.get("WIRELINE_PORTABLE"))
"""Use only what every loop has. For tests, on systems whose loops have more."""


class Job(Generic[T]):
    """One thing that a task waits for."""

    __slots__ = ()

    transferable = True
    """Whether what an operation brought may go to the next job, when the task that asked for it has left."""

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


class Waiting(Generic[T]):
    """A task's sleep; what ``asyncio.Task`` takes for a future.

    ``Task`` looks for ``_asyncio_future_blocking``, registers its wake-up by ``add_done_callback``, may ``cancel``, and
    asks for the ``result`` when it is woken. This is the protocol by which asyncio recognizes futures of others
    (``asyncio.isfuture``); uvloop runs the same tasks.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_channel",
        "_context",
        "_error",
        "_loop",
        "answer",
        "at",
        "job",
        "operation",
        "pending",
        "seconds",
    )

    def __init__(self, channel: Channel, loop: Loop) -> None:
        self._asyncio_future_blocking = False
        self._channel = channel
        self._loop = loop
        self._callback: Callable[[Waiting[T]], object] | None = None
        self._context: Context | None = None
        self._error: BaseException | None = None
        self.answer: T | None = None
        self.pending = False

    def __await__(self) -> Generator[Waiting[T], None, T]:
        self._asyncio_future_blocking = True
        yield self
        # Only here is it certain that the task has taken what it was woken with.
        answer = cast(T, self.answer)
        self.answer = None
        self._channel.spare = self
        return answer

    def begin(self, job: Job[T], operation: str, seconds: float | None) -> None:
        """Get ready for a new sleep."""
        self.job = job
        self.operation = operation
        self.seconds = seconds
        self.at = None if seconds is None else self._loop.time() + seconds
        self._error = None
        self.pending = True

    def resolve(self) -> None:
        """Let the task go on, now. Only from a callback of the loop, where no task is running."""
        self.pending = False
        callback, self._callback = self._callback, None
        if callback is not None and self._context is not None:
            self._context.run(callback, self)

    def resolve_with(self, error: BaseException) -> None:
        """The same with an exception."""
        self._error = error
        self.resolve()

    def resolve_soon(self, error: BaseException) -> None:
        """Let the task go on with an exception in the next turn of the loop. From anywhere."""
        self.pending = False
        self._error = error
        callback, self._callback = self._callback, None
        if callback is not None:
            self._loop.call_soon(callback, self, context=self._context)

    # What `asyncio.Task` calls.

    def get_loop(self) -> Loop:
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Waiting[T]], object], *, context: Context | None = None
    ) -> None:
        self._callback = callback
        self._context = context

    def result(self) -> None:
        if self._error is not None:
            raise self._error

    def cancel(self, msg: object = None) -> bool:
        if not self.pending:
            return False  # it was woken already; the task will notice the cancellation by itself
        self._channel.forget(self)
        self.resolve_soon(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    def done(self) -> bool:
        return not self.pending

    def __repr__(self) -> str:
        return f"<{self.operation} waiting>" if self.pending else "<wireline wait>"


class Channel:
    """One direction of one descriptor, and the jobs that wait for it, first come first served.

    Attributes:
        spare: a ``Waiting`` that nobody uses.
    """

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._queue: deque[Waiting[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.spare: Waiting[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job waits."""
        return bool(self._queue)

    def wait(self, job: Job[T], operation: str, seconds: float | None, *, alone: bool = False) -> Waiting[T]:
        """Queue a job; await what is returned, at once.

        Args:
            job: what to wait for.
            operation: its name in errors.
            seconds: the timeout, if there is one.
            alone: refuse to be the second.

        Raises:
            BusyError: see ``alone``.
        """
        if alone and self._queue:
            raise BusyError(f"{operation}: another task is reading this socket")
        waiting = self.spare or Waiting(self, self._loop)
        self.spare = None
        waiting.begin(job, operation, seconds)
        self._queue.append(waiting)
        if waiting.at is not None:
            self._set_timer(waiting.at)
        self._watch()
        return waiting

    def forget(self, waiting: Waiting[Any]) -> None:
        """Take a job out of the queue whose task was cancelled."""
        with contextlib.suppress(ValueError):  # its time was up in the same moment
            self._queue.remove(waiting)

    def close(self, error: Callable[[str], BaseException]) -> None:
        """Wake everybody with an error, and let go of the descriptor."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._loop.is_closed():
            self._unwatch()
            for waiting in self._queue:
                waiting.resolve_soon(error(waiting.operation))
            self._queue.clear()

    def _watch(self) -> None:
        """See to it that the jobs are attempted when the time comes."""
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
            del self._queue[0]
            waiting.resolve_with(error)
            return True
        if answer is NOT_YET:
            return False
        del self._queue[0]
        waiting.answer = answer
        waiting.resolve()
        return True

    def _set_timer(self, at: float) -> None:
        timer = self._timer
        if timer is not None:
            if timer.when() <= at:
                return
            timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = [waiting for waiting in self._queue if waiting.at is not None and waiting.at <= now]
        later = [waiting.at for waiting in self._queue if waiting.at is not None and waiting.at > now]
        if later:
            self._set_timer(min(later))
        for waiting in late:
            self._queue.remove(waiting)
        for waiting in late:
            if waiting.pending and waiting.seconds is not None:
                waiting.resolve_with(SocketTimeout(waiting.operation, waiting.seconds))


class PolledChannel(Channel):
    """The way in by ``add_reader`` and ``add_writer``."""

    def __init__(self, loop: Loop, sock: socket.socket, *, write: bool) -> None:
        super().__init__(loop, sock)
        self._fd = sock.fileno()
        self._write = write
        self._registered = False

    def _watch(self) -> None:
        if not self._registered:
            add = self._loop.add_writer if self._write else self._loop.add_reader
            add(self._fd, self._on_ready)
            self._registered = True

    def _unwatch(self) -> None:
        if self._registered:
            self._registered = False
            remove = self._loop.remove_writer if self._write else self._loop.remove_reader
            remove(self._fd)

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
        self._operation: asyncio.Future[object] | None = None
        self._for: Job[Any] | None = None
        self._kept: asyncio.Future[object] | None = None

    @property
    def in_flight(self) -> bool:
        """Whether an operation may be holding something that is not in the core yet."""
        return self._operation is not None or self._kept is not None

    def _watch(self) -> None:
        if self._operation is not None:
            return
        if self._kept is not None:
            self._operation, self._kept = self._kept, None
            self._loop.call_soon(self._on_done, self._operation)
            return
        self._for = self._queue[0].job
        self._operation = asyncio.ensure_future(self._for.operate(self._loop), loop=self._loop)
        self._operation.add_done_callback(self._on_done)

    def _unwatch(self) -> None:
        if self._operation is not None:
            self._operation.cancel()
        if self._kept is not None and self._for is not None and self._kept.exception() is None:
            self._for.discard(self._kept.result())
        self._kept = None

    def _on_done(self, operation: asyncio.Future[object]) -> None:
        self._operation = None
        if operation.cancelled():
            return
        error = operation.exception()
        asked_for, self._for = self._for, None
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


class Signal:
    """Something happened: what a task waits for when it waits for several things at once."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiters: set[asyncio.Future[None]] = set()
        self._rung = False

    def ring(self) -> None:
        """Wake who waits now, or, if nobody does, the next who does."""
        self._rung = not self._waiters
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def ring_from_thread(self) -> None:
        """The same from any thread, and when the loop is no more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.ring)

    def now(self) -> float:
        """What the loop's clock shows."""
        return self._loop.time()

    async def wait(self, until: float | None) -> None:
        """Sleep until the signal is rung, or until the loop's clock shows ``until``."""
        if self._rung:
            self._rung = False
            return
        waiter = self._loop.create_future()
        timer = None if until is None else self._loop.call_at(until, _wake, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class WriteTurn:
    """Who may write: one task at a time, in the order in which they came (W5)."""

    def __init__(self) -> None:
        self.held = False
        self.queue: deque[asyncio.Future[bool]] = deque()

    async def acquire(self, seconds: float | None) -> bool:
        """Queue for the turn; False if the time was up first, or the queue was sent away."""
        loop = asyncio.get_running_loop()
        ticket = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _call, ticket, False)
        self.queue.append(ticket)
        try:
            granted: bool = await ticket
            return granted
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled() and ticket.result():
                self.release()  # the turn came in the same moment as the cancellation
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def release(self) -> None:
        """Hand the turn to the next in the queue, or let it go."""
        while self.queue:
            if _call(self.queue.popleft(), True):
                return
        self.held = False

    def send_away(self) -> None:
        """Refuse everybody who queues."""
        while self.queue:
            _call(self.queue.popleft(), False)


def _call(ticket: asyncio.Future[bool], granted: bool) -> bool:
    """Tell a ticket's holder; False if it has left."""
    if ticket.done():
        return False
    ticket.set_result(granted)
    return True


def open_channel(loop: Loop, sock: socket.socket, *, write: bool = False) -> Channel:
    """Open the best way in that the loop has."""
    if not can_poll(loop):
        return PortableChannel(loop, sock)
    return PolledChannel(loop, sock, write=write)


def can_poll(loop: Loop) -> bool:
    """Whether the loop has ``add_reader``: all have the name, Windows' default one only that."""
    return not FORCE_PORTABLE and type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


class Attempts:
    """Connections that are being attempted side by side; ``signal`` is rung when one is over."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._loop = running_loop()
        self._polls = can_poll(self._loop)
        self._running: dict[int, socket.socket] = {}
        self._operations: dict[int, asyncio.Future[None]] = {}
        self._over: list[int] = []

    def begin(self, sock: socket.socket, target: SockAddr, index: int) -> None:
        """Start an attempt, and own ``sock`` from now on.

        Raises:
            OSError: it failed at once; the socket is closed again.
        """
        try:
            if self._polls:
                code = sock.connect_ex(target)
                if code and code not in CONNECTING:
                    raise OSError(code, os.strerror(code))
                self._loop.add_writer(sock.fileno(), self._ready, index)
            else:
                operation = asyncio.ensure_future(self._loop.sock_connect(sock, target), loop=self._loop)
                operation.add_done_callback(lambda _: self._ready(index))
                self._operations[index] = operation
        except BaseException:
            sock.close()
            raise
        self._running[index] = sock

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
        for operation in self._operations.values():
            operation.cancel()
        for sock in self._running.values():
            if self._polls:
                self._loop.remove_writer(sock.fileno())
            sock.close()
        self._running.clear()


def running_loop() -> Loop:
    """The loop that runs the calling task."""
    return asyncio.get_running_loop()


async def pause(seconds: float) -> None:
    """Let the others go on, for at least that long."""
    await asyncio.sleep(seconds)


async def lookup_result(
    lookup: ConcurrentFuture[T], signal: Signal, operation: str, deadline: Deadline | None
) -> bool:
    """Wait until a lookup is done; False if ``signal`` was rung by somebody else first.

    Raises:
        SocketTimeout: the deadline passed first. The lookup goes on by itself.
    """
    lookup.add_done_callback(lambda _: signal.ring_from_thread())
    if not lookup.done():
        await signal.wait(None if deadline is None else deadline.at)
    if not lookup.done() and deadline is not None and deadline.passed(signal.now()):
        raise SocketTimeout(operation, deadline.seconds)
    return lookup.done()


def current_task() -> Task | None:
    """The task that is running."""
    return asyncio.current_task()


def spawn(coroutine: Coroutine[Any, Any, None], name: str) -> Task:
    """Start a task."""
    return asyncio.get_running_loop().create_task(coroutine, name=name)


def _attempt(job: Job[Any]) -> object:
    return job.attempt()
