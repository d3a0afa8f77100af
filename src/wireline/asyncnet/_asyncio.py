"""The one file that knows asyncio: the loop, and how a task sleeps.

``Sleep`` is an awaitable of our own. A task that awaits it is woken from inside a callback of the loop, at once, where
a ``Future`` would wake it one turn later; and one object serves for sleep after sleep. The rooms beside this one build
on it: ``_reader`` for the bytes of a stream, ``_channel`` for everything else, ``_sync`` for several things at
once.
"""

from __future__ import annotations

import asyncio
import os
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextvars import Context
from typing import Any, TypeVar

__all__ = [
    "Loop",
    "Operation",
    "Sleep",
    "Task",
    "Ticket",
    "Timer",
    "can_poll",
    "checkpoint",
    "current_task",
    "operate",
    "pause",
    "running_loop",
    "runs_here",
    "spawn",
    "when_done",
]

T = TypeVar("T")

Loop = asyncio.AbstractEventLoop
Task = asyncio.Task[None]
Timer = asyncio.TimerHandle
Operation = asyncio.Future[object]
Ticket = asyncio.Future[bool]
Cancelled = asyncio.CancelledError

FORCE_PORTABLE = bool(os.environ.get("WIRELINE_PORTABLE"))
"""Use only what every loop has. For tests, on systems whose loops have more."""

# The cheapest call there is: what a task that was woken asks for, when there is nothing to tell.
_nothing_to_tell = bool

_no_context = Context()

running_loop = asyncio.get_running_loop
"""The loop that runs the calling task."""


class Sleep:
    """What ``asyncio.Task`` takes for a future: a task's sleep, which can be slept again.

    ``Task`` looks for ``_asyncio_future_blocking``, registers its wake-up by ``add_done_callback``, may ``cancel``, and
    asks for the ``result`` when it is woken. This is the protocol by which asyncio recognizes futures of others
    (``asyncio.isfuture``); uvloop runs the same tasks.

    Attributes:
        pending: a task sleeps and nothing has happened yet.
        get_loop, result: what ``Task`` calls for every sleep. Both are something written in C and no call of
            Python: up to 0.2 us. For ``get_loop`` it is the running loop, as nobody sleeps in another one than that
            of the socket (``AsyncStream._enter`` sees to it); a loop kept here would be 100 bytes a connection.
        loop: the one that the sleeper's socket belongs to.
        operation: what it waits for, in words.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_context",
        "_error",
        "loop",
        "operation",
        "pending",
        "result",
    )

    get_loop = staticmethod(running_loop)

    def __init__(self, loop: Loop) -> None:
        self._asyncio_future_blocking = False
        self.loop = loop
        self._callback: Callable[[Any], object] | None = None
        self._context = _no_context  # until there is a callback
        self._error: BaseException | None = None
        self.result: Callable[[], object] = _nothing_to_tell
        self.operation = ""
        self.pending = False

    def wake(self) -> None:
        """Let the task go on, now. Only from a callback of the loop, where no task is running."""
        self.pending = False
        callback, self._callback = self._callback, None
        if callback is not None:
            self._context.run(callback, self)

    def wake_with(self, error: BaseException) -> None:
        """The same with an exception."""
        self._tell(error)
        del error  # its traceback will have this frame, which must not refer back to it
        self.wake()

    def wake_soon(self, error: BaseException) -> None:
        """Let the task go on with an exception in the next turn of the loop. From anywhere."""
        self.pending = False
        self._tell(error)
        callback, self._callback = self._callback, None
        if callback is not None:
            self.loop.call_soon(callback, self, context=self._context)

    def left(self) -> None:
        """The task was cancelled, and what it waited for must go to nobody."""
        raise NotImplementedError

    def _tell(self, error: BaseException) -> None:
        self._error = error
        self.result = self._raise

    def _raise(self) -> None:
        self.result = _nothing_to_tell
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback has this frame

    # What else `asyncio.Task` calls.

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        self._callback = callback
        self._context = context

    def cancel(self, msg: object = None) -> bool:
        if not self.pending:
            return False  # it was woken already; the task will notice the cancellation by itself
        self.left()
        self.wake_soon(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    def done(self) -> bool:
        return not self.pending

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation or 'unused'}{', pending' if self.pending else ''}>"


def can_poll(loop: Loop) -> bool:
    """Whether the loop has ``add_reader``: all have the name, Windows' default one only that."""
    return not FORCE_PORTABLE and type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


def runs_here(loop: Loop) -> bool:
    """Whether ``loop`` runs in the calling thread, be it that a signal handler has interrupted it."""
    try:
        return running_loop() is loop
    except RuntimeError:
        return False


@types.coroutine
def checkpoint() -> Generator[None, None, None]:
    """Let the other tasks go on for one turn of the loop; a place where a task can be cancelled."""
    yield


async def pause(seconds: float) -> None:
    """Let the others go on, for at least that long."""
    await asyncio.sleep(seconds)


def current_task() -> Task:
    """The task that is running. For coroutines, which always run in one."""
    task = asyncio.current_task()
    assert task is not None
    return task


def spawn(coroutine: Coroutine[Any, Any, None], name: str) -> Task:
    """Start a task."""
    return asyncio.get_running_loop().create_task(coroutine, name=name)


def operate(awaitable: Awaitable[object], loop: Loop) -> Operation:
    """Let an operation of the loop run by itself."""
    return asyncio.ensure_future(awaitable, loop=loop)


def when_done(operations: Iterable[Operation | None], then: Callable[[], object]) -> None:
    """Call ``then`` when the last of some operations is done; at once if there is none."""
    running = {operation for operation in operations if operation is not None and not operation.done()}
    if not running:
        then()
        return

    def one_is_done(operation: Operation) -> None:
        running.discard(operation)
        if not running:
            then()

    for operation in list(running):
        operation.add_done_callback(one_is_done)
