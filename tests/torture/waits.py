"""Waits of the loop that runs a scene, one of ``victims.LOOPS``: what tests/scenarios/tasks.py does not have."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import trio

from tests.scenarios import tasks

P = ParamSpec("P")
T = TypeVar("T")


async def to_thread(function: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
    """Call a function in another thread; a cancelled caller leaves it alone."""
    if tasks.on_trio():
        call = functools.partial(function, *values, **named)
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
    return await asyncio.to_thread(function, *values, **named)


async def wait_for(awaitable: Awaitable[T], seconds: float) -> T:
    """The result of a call; ``TimeoutError`` if it takes longer."""
    try:
        return await tasks.wait_for(awaitable, seconds)
    except trio.TooSlowError:
        raise TimeoutError from None


async def running_after(started: Sequence[tasks.Task[Any]], seconds: float) -> int:
    """Wait until all tasks have ended, for so long; how many have not."""
    limit = time.monotonic() + seconds
    while (late := sum(not task.done() for task in started)) and time.monotonic() < limit:
        await tasks.sleep(0.005)
    return late


async def error_of(task: tasks.Task[Any]) -> BaseException | None:
    """The exception that a task ended with."""
    try:
        await task
    except Exception as error:  # noqa: BLE001 -- the caller judges it
        return error
    return None


@contextlib.contextmanager
def signal_handled(number: int, handle: Callable[[], object]) -> Iterator[None]:
    """Let the loop call a function at every signal of a number."""
    if not tasks.on_trio():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(number, handle)
        yield
        loop.remove_signal_handler(number)
        return

    async def receive() -> None:
        with trio.open_signal_receiver(number) as received:
            async for _ in received:
                handle()

    receiving = tasks.ensure_future(receive())
    yield
    receiving.cancel()
