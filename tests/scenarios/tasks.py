"""Tasks, events and queues of the loop that runs the scenario, under the names that asyncio has for them.

On asyncio and uvloop they are asyncio's own. On trio a task is a system task with a cancel scope of its own: a scenario
starts tasks and awaits them later, and knows no nursery.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import trio

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


CANCELLED = (asyncio.CancelledError, trio.Cancelled)
"""What a cancelled call raises."""


class Task(Protocol[T_co]):
    """A call that was started."""

    def __await__(self) -> Generator[Any, Any, T_co]: ...

    def done(self) -> bool: ...

    def cancel(self) -> object: ...


def on_trio() -> bool:
    """Whether trio runs the scenario."""
    return trio.lowlevel.in_trio_task()


def ensure_future(call: Coroutine[Any, Any, T]) -> Task[T]:
    """Start a call."""
    return _TrioTask(call) if on_trio() else asyncio.ensure_future(call)


async def gather(*calls: Awaitable[Any]) -> list[Any]:
    """Make several calls at once."""
    if not on_trio():
        return list(await asyncio.gather(*calls))
    started = [ensure_future(call) if isinstance(call, Coroutine) else call for call in calls]
    return [await each for each in started]


async def sleep(seconds: float) -> None:
    if on_trio():
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def wait_for(awaitable: Awaitable[T], seconds: float) -> T:
    """The result of a call that must not take longer."""
    if not on_trio():
        return await asyncio.wait_for(awaitable, seconds)
    with trio.fail_after(seconds):
        return await awaitable


def current_loop() -> Any:
    """An object with ``create_future`` and ``call_soon_threadsafe``."""
    return _TrioLoop() if on_trio() else asyncio.get_running_loop()


def Event() -> Any:
    """A flag to wait for."""
    return trio.Event() if on_trio() else asyncio.Event()


class Queue:
    """A queue without a limit."""

    def __init__(self) -> None:
        if on_trio():
            into, out = trio.open_memory_channel[Any](math.inf)
            self.put, self.get = into.send, out.receive
        else:
            queue = asyncio.Queue[Any]()
            self.put, self.get = queue.put, queue.get


class TaskGroup:
    """Tasks that end with a block."""

    def __init__(self) -> None:
        self._group: Any = trio.open_nursery() if on_trio() else asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        self._opened = await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._group.__aexit__(kind, error, traceback)

    def create_task(self, call: Coroutine[Any, Any, object]) -> None:
        if on_trio():
            self._opened.start_soon(lambda: call)
        else:
            self._opened.create_task(call)


class _TrioFuture(Generic[T]):
    """A result that is awaited."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._event.is_set()

    def cancelled(self) -> bool:
        return False

    def set_result(self, result: T) -> None:
        self._result = result
        self._event.set()

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._event.set()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        await self._event.wait()
        if self._error is not None:
            raise self._error
        result: T = self._result
        return result


class _TrioTask(_TrioFuture[T]):
    """A call in a system task."""

    def __init__(self, call: Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self._scope = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._run, call, context=contextvars.copy_context())

    async def _run(self, call: Coroutine[Any, Any, T]) -> None:
        try:
            with self._scope:
                self.set_result(await call)
        except trio.Cancelled:  # the end of the run
            self.set_exception(asyncio.CancelledError())
            raise
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller that awaits
            self.set_exception(error)
        if not self.done():
            self.set_exception(asyncio.CancelledError())

    def cancel(self) -> None:
        self._scope.cancel()


class _TrioLoop:
    """What ``in_thread`` needs of a loop."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    def create_future(self) -> _TrioFuture[Any]:
        return _TrioFuture()

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        self._token.run_sync_soon(callback, *args)
