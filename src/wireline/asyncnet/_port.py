"""The operations that ``asyncnet`` needs of an event loop, and which loop is running.

A ``Port`` is one run of one event loop. ``_asyncio`` implements it for asyncio and uvloop, ``_trio`` for trio; no other
file of the package knows which one it talks to, and neither is imported before a call needs it. A socket belongs to a
port from its first await on, and compares ``port.loop is port.running_loop()`` before each call: two C calls at most on
asyncio, because every message pays for it.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from wireline.errors import SockAddr
from wireline.timing import trio_if_it_runs

if TYPE_CHECKING:
    from wireline.asyncnet._waiters import Waiter

__all__ = [
    "UNBOUND",
    "Completion",
    "Completions",
    "Port",
    "Task",
    "Tasks",
    "Timer",
    "running_port",
    "running_tasks",
]


T = TypeVar("T")


class Timer(Protocol):
    """A callback that is due at a time."""

    def cancel(self) -> object:
        """Do not call it. It may be called twice, and too late."""
        ...


class Completion(Protocol):
    """An operation that the loop performs by itself (a completion, in the words of IOCP and io_uring)."""

    def done(self) -> bool: ...

    def cancelled(self) -> bool: ...

    def exception(self) -> BaseException | None: ...

    def result(self) -> Any: ...

    def cancel(self) -> object: ...

    def add_done_callback(self, callback: Callable[[Any], object], /) -> object: ...


class Completions(Protocol):
    """The operations of a loop without readiness. Each starts at once, and loses its result if it is cancelled."""

    def recv(self, sock: socket.socket, size: int) -> Completion: ...

    def recv_from(self, sock: socket.socket, size: int) -> Completion: ...

    def send_all(self, sock: socket.socket, data: bytes) -> Completion: ...

    def send_to(self, sock: socket.socket, data: bytes, target: SockAddr) -> Completion: ...

    def accept(self, sock: socket.socket) -> Completion: ...

    def connect(self, sock: socket.socket, target: SockAddr) -> Completion: ...


class Task(Protocol):
    """A task that was started with ``spawn``."""

    def __await__(self) -> Generator[Any, Any, object]: ...

    def done(self) -> bool: ...

    def cancel(self) -> object: ...

    def get_name(self) -> str: ...

    def add_done_callback(self, callback: Callable[[Any], object], /, *, context: Context) -> object: ...


class Tasks(Protocol):
    """The tasks of a loop, where one may outlive the call that starts it."""

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Task:
        """Start a task."""
        ...

    def current(self) -> Task:
        """The calling task."""
        ...


class Port(Protocol):
    """One run of one event loop.

    Attributes:
        loop: the identity of the run; None in a forked child, for the parent's ports.
        running_loop: the ``loop`` of the run that executes the caller. RuntimeError where none does.
        time: the loop's clock, in seconds.
        budget: operations that need not wait and may still be done before a task yields, see ``_poller.BUDGET``.
        turn_budget: the budget of a turn.
        takes_waiters: a task may yield a ``Waiter`` itself in order to sleep. It saves a call for every message.
        raise_if_cancelled: awaited before a call that may end without a sleep; raises if the caller is cancelled. None
            where only a sleep is cancelled (asyncio).
        callbacks_may_raise: a ``KeyboardInterrupt`` or ``SystemExit`` in a callback ends the run in good order, as on
            asyncio. Elsewhere the task that waits gets it.
        cancelled_error: the exception of a cancelled task.
        completions: the loop's own operations, where ``watch`` does not work (Windows' default loop); else None.
        tasks: None where a task may not outlive the call that starts it (trio).
    """

    budget: int
    turn_budget: int

    @property
    def loop(self) -> object | None: ...

    @property
    def running_loop(self) -> Callable[[], object]: ...

    @property
    def time(self) -> Callable[[], float]: ...

    @property
    def takes_waiters(self) -> bool: ...

    @property
    def raise_if_cancelled(self) -> Callable[[], Awaitable[None]] | None: ...

    @property
    def callbacks_may_raise(self) -> bool: ...

    @property
    def cancelled_error(self) -> type[BaseException]: ...

    @property
    def completions(self) -> Completions | None: ...

    @property
    def tasks(self) -> Tasks | None: ...

    def open_tasks(self) -> AbstractAsyncContextManager[Tasks]:
        """Let a block have tasks. On trio it ends when they have, and an exception at its end cancels them."""
        ...

    # Where and when.

    def is_here(self) -> bool:
        """Whether the loop runs in the calling thread; a signal handler may have interrupted it."""
        ...

    def is_running(self) -> bool:
        """Whether the loop runs, in whichever thread."""
        ...

    def is_over(self) -> bool:
        """Whether no task is left to wake."""
        ...

    # Sleeping.

    def park(self, waiter: Waiter) -> Awaitable[None]:
        """Let the calling task sleep until the waiter is woken; raise the error that it was woken with."""
        ...

    async def checkpoint(self) -> None:
        """Let the other tasks run for one turn, and restore the budget. The caller may be cancelled here."""

    async def sleep(self, seconds: float) -> None:
        """Let the other tasks run, for at least that long."""

    async def move_on_at(self, until: float | None, awaitable: Awaitable[T]) -> T | None:
        """Await another library's code; cancel it and return None if the clock shows ``until`` first."""

    # Callbacks. None of them is called before the method returns.

    def call_soon(self, callback: Callable[..., object], *args: object, context: Context) -> object:
        """Call back in the next turn. From the thread of the loop only."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call back when the clock shows ``when``."""
        ...

    def call_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        """Call back in the next turn, from any thread, signal handler or finalizer.

        Raises:
            RuntimeError: the loop is closed.
        """
        ...

    # Readiness: level-triggered, one callback for each direction of a descriptor.

    def watch(self, sock: socket.socket, callback: Callable[[], object], *, write: bool = False) -> bool:
        """Call back in every turn in which ``sock`` is ready or broken; False if it is closed."""
        ...

    def unwatch(self, fd: int, callback: Callable[[], object], *, write: bool = False) -> None:
        """End a ``watch``, if it is still ``callback`` that is called. The loop may be closed already."""

    def forget(self, fd: int) -> None:
        """End every ``watch`` of a descriptor that is about to be closed. At any bytecode."""

    def watch_fd(self, fd: int, callback: Callable[[], object], *, write: bool = False) -> None:
        """The same as ``watch`` without the poller's descriptor: ``dial`` works when no descriptor is left."""

    def unwatch_fd(self, fd: int, *, write: bool = False) -> None:
        """End a ``watch_fd``."""


class _NoLoop:
    """In place of a port before the first await of a socket."""

    __slots__ = ()

    loop = None
    budget = 0
    # No loop is `bool()`: so the comparison above fails, and the socket looks for the loop that runs.
    running_loop = bool

    def is_here(self) -> bool:
        return False

    def is_running(self) -> bool:
        return False

    def is_over(self) -> bool:
        return True

    def forget(self, fd: int) -> None:
        """Nothing is watched."""


UNBOUND = cast(Port, _NoLoop())
"""The port of sockets that belong to no loop yet. With a budget of 0 no call gets further than to ``running_port``."""


def running_port() -> Port:
    """The port of the loop that runs the calling task; not for every message.

    Raises:
        RuntimeError: no loop runs.
    """
    # trio first: in its guest mode an asyncio loop runs in the same thread.
    if trio_if_it_runs() is not None:
        from wireline.asyncnet import _trio

        return _trio.running_port()
    from wireline.asyncnet import _asyncio

    # pyright cannot bind `park` to an object: `types.coroutine` gives it a signature without names.
    return _asyncio.running_port()  # pyright: ignore[reportReturnType]


def running_tasks() -> Tasks:
    """The tasks of the loop that runs the calling task."""
    tasks = running_port().tasks
    if tasks is None:
        raise RuntimeError(
            "on trio no task may outlive the block that starts it: use `async with`, as in "
            "`async with serve(...) as server`"
        )
    return tasks
