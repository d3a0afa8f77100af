"""The loops that the tests of the async flavour run on, and the check that a test leaves nothing behind on them.

Every loop here is a spy: it counts the library's calls, and knows which descriptors are registered.
So a test can tell how often ``add_reader`` was called, and a descriptor that is still registered at the end is found
on uvloop too, which does not show its own list.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop

from wireline.asyncnet import _asyncio

T = TypeVar("T")

TICK = 0.001
"""Seconds by which uvloop's timers may go off early."""

SETTLING = 10
"""Turns of the loop within which a cancelled or closed object must be gone. The portable way takes four."""


class Spy:
    """The common part of the loops below. The methods are those that the library calls.

    Attributes:
        calls: how often each of them was called.
        watched: ``("reader" or "writer", descriptor)`` of everything that is registered.
        unhandled: what was given to the loop's exception handler.
        ahead: seconds that the clock shows too much (asyncio's loops only, see ``pass_time``).
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.watched: set[tuple[str, int]] = set()
        self.unhandled: list[dict[str, Any]] = []
        self.ahead = 0.0
        self._timers: list[tuple[float, asyncio.Handle]] = []
        super().__init__()
        self.set_exception_handler(self._note)  # type: ignore[attr-defined]

    def _note(self, _: object, context: dict[str, Any]) -> None:
        self.unhandled.append(context)
        if not isinstance(context.get("exception"), Exception | None):
            self.stop()  # type: ignore[attr-defined]  # it is not for the loop: pytest's timeout, for example

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        # The handler is a circle that the search for garbage does not open: uvloop's loop would stay for good, and
        # a quarter of a megabyte with it.
        self.set_exception_handler(None)  # type: ignore[attr-defined]

    def add_reader(self, fd: Any, *callback: Any) -> Any:
        self.calls["add_reader"] += 1
        added = super().add_reader(fd, *callback)  # type: ignore[misc]
        self.watched.add(("reader", fd))
        return added

    def add_writer(self, fd: Any, *callback: Any) -> Any:
        self.calls["add_writer"] += 1
        added = super().add_writer(fd, *callback)  # type: ignore[misc]
        self.watched.add(("writer", fd))
        return added

    def remove_reader(self, fd: Any) -> bool:
        self.calls["remove_reader"] += 1
        self.watched.discard(("reader", fd))
        return bool(super().remove_reader(fd))  # type: ignore[misc]

    def remove_writer(self, fd: Any) -> bool:
        self.calls["remove_writer"] += 1
        self.watched.discard(("writer", fd))
        return bool(super().remove_writer(fd))  # type: ignore[misc]

    def call_at(self, when: float, *callback: Any, **options: Any) -> asyncio.Handle:
        self.calls["call_at"] += 1
        # Of uvloop it may be a handle that does not know when, if that is at once.
        timer: asyncio.Handle = super().call_at(when, *callback, **options)  # type: ignore[misc]
        self._timers.append((when, timer))
        return timer

    def timers(self) -> list[tuple[float, asyncio.Handle]]:
        """The timers that will still go off."""
        now = self.time() + TICK  # type: ignore[attr-defined]
        self._timers = [(when, timer) for when, timer in self._timers if not timer.cancelled() and when > now]
        return self._timers


class AsyncioLoop(Spy, asyncio.SelectorEventLoop):
    """asyncio's own, with a clock that can be put forward."""

    def time(self) -> float:
        return super().time() + self.ahead


class Uvloop(Spy, uvloop.Loop):
    """uvloop's."""


AnyLoop = AsyncioLoop | Uvloop


def eager(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """Make a task that starts at once. (``asyncio.eager_task_factory`` refuses an option that uvloop gives.)"""
    options["eager_start"] = True
    return asyncio.Task(coroutine, loop=loop, **options)


@dataclass(frozen=True)
class Way:
    """One way to run a program: a loop, and how it is set up."""

    name: str
    loop_type: type[AnyLoop]
    portable: bool = False
    eager: bool = False
    debug: bool = False

    @property
    def has_a_clock_to_put_forward(self) -> bool:
        return self.loop_type is AsyncioLoop

    def new_loop(self) -> AnyLoop:
        loop = self.loop_type()
        if self.eager:
            loop.set_task_factory(eager)
        return loop

    def run(self, main: Callable[[], Coroutine[Any, Any, T]], *, thorough: bool = True) -> T:
        """Run a program; fail if it leaves a task, a registration, a timer, or an exception that was never retrieved.

        Args:
            main: the program.
            thorough: collect garbage, which may tell of more of them. It takes a few milliseconds.
        """
        with self.chosen(), asyncio.Runner(debug=self.debug, loop_factory=self.new_loop) as runner:
            loop = spy(runner.get_loop())
            try:
                return runner.run(_nothing_left(main, thorough))
            finally:
                assert not loop.unhandled, loop.unhandled

    def chosen(self) -> Portable:
        """A block in which sockets are opened this way."""
        return Portable(self.portable)


class Portable:
    """A block in which the library uses only the methods that every loop has, or all of them."""

    def __init__(self, portable: bool) -> None:
        self._portable = portable

    def __enter__(self) -> None:
        self._before = _asyncio.FORCE_PORTABLE
        _asyncio.FORCE_PORTABLE = self._portable

    def __exit__(self, *exception: object) -> None:
        _asyncio.FORCE_PORTABLE = self._before


WAYS = [
    Way("asyncio", AsyncioLoop),
    Way("uvloop", Uvloop),
    Way("portable", AsyncioLoop, portable=True),
]

ALL_WAYS = [
    *WAYS,
    Way("portable-uvloop", Uvloop, portable=True),
    Way("debug", AsyncioLoop, debug=True),
    Way("debug-uvloop", Uvloop, debug=True),
]
if sys.version_info >= (3, 12):
    ALL_WAYS += [
        Way("eager", AsyncioLoop, eager=True),
        Way("eager-uvloop", Uvloop, eager=True),
        Way("eager-portable", AsyncioLoop, portable=True, eager=True),
    ]


def spy(loop: asyncio.AbstractEventLoop | None = None) -> AnyLoop:
    """The loop that runs, as a spy."""
    found = loop or asyncio.get_running_loop()
    assert isinstance(found, AnyLoop)
    return found


async def turns(count: int) -> None:
    """Let so many turns of the loop go by."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _nothing_left(main: Callable[[], Coroutine[Any, Any, T]], thorough: bool) -> T:
    loop = spy()
    before = asyncio.all_tasks()
    result = await main()
    for _ in range(SETTLING):
        left = asyncio.all_tasks() - before
        if not (left or loop.watched or loop.timers()):
            break
        await asyncio.sleep(0)
    assert not left, f"tasks left pending: {left}"
    assert not loop.watched, f"descriptors left registered: {loop.watched}"
    assert not loop.timers(), f"timers left set: {loop.timers()}"
    if thorough:
        gc.collect()
        await asyncio.sleep(0)
    return result
