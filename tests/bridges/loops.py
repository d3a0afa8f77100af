"""The event loops of the tests: asyncio's and uvloop."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run_async(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on the loop that its parameter names; an exception that only the loop has seen fails it."""

    @functools.wraps(test)
    def run(*args: Any, loop: str, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=FACTORIES[loop]) as runner:
            reported: list[dict[str, Any]] = []
            runner.get_loop().set_exception_handler(lambda _loop, context: reported.append(context))

            async def main() -> None:
                async with asyncio.timeout(20):
                    await test(*args, **kwargs)

            runner.run(main())
            assert reported == []

    signature = inspect.signature(test)
    parameter = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    # pytest would look at that of the test itself.
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), parameter]
    )
    return run


def on_every_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on each loop."""
    decorated: Callable[..., None] = pytest.mark.parametrize("loop", FACTORIES)(run_async(test))
    return decorated
