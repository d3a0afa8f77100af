"""``Waiter`` under ``asyncio.Task``: woken at once, cancelled, timed out, and the same as a future in all else."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from tests.asyncnet.loops import ALL_WAYS, Way, spy, turns
from tests.asyncnet.streams import HOWS, LEFT, GivenUp
from wireline.asyncnet import _asyncio
from wireline.asyncnet._asyncio import has_readiness, running_port
from wireline.asyncnet._completion_queue import when_done
from wireline.asyncnet._waiters import Waiter

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)

# Python's own tasks come in two implementations; a profiler or a debugger may bring the slower one in.
TASKS = [asyncio.Task, asyncio.tasks._PyTask]  # type: ignore[attr-defined]
every_task = pytest.mark.parametrize("task_type", TASKS, ids=["c", "python"])

Start = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class Nap(Waiter):
    """The plainest waiter: it is woken by hand."""

    def __init__(self) -> None:
        super().__init__(running_port())
        self.cancellations = 0

    def __await__(self) -> Generator[Nap, None, str]:
        self.pending = True
        self._asyncio_future_blocking = True
        yield self
        return "rested"

    def abandoned(self) -> None:
        self.cancellations += 1


@pytest.fixture(params=TASKS, ids=["c", "python"])
def start(request: pytest.FixtureRequest) -> Start:
    """Make a task of one or the other implementation."""
    return lambda coroutine: request.param(coroutine, loop=asyncio.get_running_loop())


async def sleep(nap: Nap) -> str:
    return await nap


async def soon(call: Callable[..., object], *arguments: Any) -> None:
    """Make a call from a callback of the loop, where no task is running."""
    asyncio.get_running_loop().call_soon(call, *arguments)
    await turns(2)


# ------------------------------------------------------------------------------------------------ waking


async def test_asyncio_takes_it_for_a_future(way: Way) -> None:
    assert asyncio.isfuture(Nap())


async def test_a_task_that_is_woken_goes_on_before_wake_returns(way: Way, start: Start) -> None:
    log = []
    nap = Nap()

    async def sleeper() -> None:
        log.append(await nap)

    def wake() -> None:
        log.append("before")
        nap.wake()
        log.append("after")

    task = start(sleeper())
    await turns(2)
    await soon(wake)
    assert log == ["before", "rested", "after"]
    assert task.done()


async def test_current_task_is_right_in_callbacks_and_none_is_current_around_them(
    way: Way, start: Start
) -> None:
    current: list[asyncio.Task[Any] | None] = []
    nap = Nap()

    async def sleeper() -> None:
        current.append(asyncio.current_task())
        await nap
        current.append(asyncio.current_task())

    def wake() -> None:
        current.append(asyncio.current_task())
        nap.wake()
        current.append(asyncio.current_task())

    task = start(sleeper())
    await turns(2)
    await soon(wake)
    assert current == [task, None, task, None]


async def test_context_variables_are_the_tasks_own(way: Way, start: Start) -> None:
    variable = contextvars.ContextVar("variable", default="the loop's")
    nap = Nap()
    seen = []

    async def sleeper() -> None:
        variable.set("the task's")
        await nap
        seen.append(variable.get())
        variable.set("changed by the task")

    def wake() -> None:
        nap.wake()
        seen.append(variable.get())

    task = start(sleeper())
    await turns(2)
    await soon(wake)
    await task
    assert seen == ["the task's", "the loop's"]


async def test_it_can_be_slept_again_and_again(way: Way, start: Start) -> None:
    nap = Nap()
    rested = 0

    async def sleeper() -> None:
        nonlocal rested
        while rested < 100:
            await nap
            rested += 1

    task = start(sleeper())
    await turns(2)
    for _ in range(100):
        await soon(nap.wake)
    await task
    assert rested == 100


async def test_waking_without_a_waiter_does_nothing(way: Way) -> None:
    nap = Nap()
    nap.wake()
    nap.wake_soon(ValueError())
    assert nap.done()
    assert not nap.cancel()
    assert nap.cancellations == 0


async def test_a_task_that_is_woken_with_an_exception_raises_it_and_nothing_keeps_it(way: Way) -> None:
    class Broken(Exception):
        pass

    nap = Nap()
    seen: list[weakref.ref[Broken]] = []
    contexts: list[BaseException | None] = []

    async def sleeper() -> None:
        try:
            await nap
        except Broken as error:
            seen.append(weakref.ref(error))
            contexts.append(error.__context__)
        contexts.append(sys.exception())

    task = asyncio.create_task(sleeper())  # Python's slower tasks keep it themselves
    await turns(2)
    gc.disable()
    try:
        await soon(lambda: nap.wake_with(Broken()))
        assert task.done()
        assert seen[0]() is None, "only a search for garbage will find it"
    finally:
        gc.enable()
    assert contexts == [None, None]
    await task


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@every_task
def test_an_exception_that_ends_the_program_passes_through_the_loop(
    way: Way, error: type[BaseException], task_type: type[asyncio.Task[Any]]
) -> None:
    loop = way.new_loop()

    async def interrupted(nap: Nap) -> None:
        await nap
        raise error

    async def begin() -> tuple[asyncio.Task[None], Nap]:
        nap = Nap()
        task = task_type(interrupted(nap), loop=asyncio.get_running_loop())
        await turns(2)
        return task, nap

    try:
        task, nap = loop.run_until_complete(begin())
        loop.call_soon(nap.wake)
        with pytest.raises(error):
            loop.run_forever()
        assert task.done()
        assert isinstance(task.exception(), error)
        loop.run_until_complete(turns(1))  # the loop can be run again
    finally:
        loop.close()


# ---------------------------------------------------------------------------------------- cancellation


async def test_a_task_that_is_cancelled_leaves_and_the_message_is_kept(way: Way, start: Start) -> None:
    nap = Nap()
    seen = []

    async def sleeper() -> None:
        try:
            await nap
        except asyncio.CancelledError as error:
            seen.append(error.args)
            raise

    for message in (None, "why"):
        task = start(sleeper())
        await turns(2)
        assert task.cancel(message)
        assert not nap.pending
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen == [(), ("why",)]
    assert nap.cancellations == 2


async def test_a_woken_task_can_be_cancelled_and_keeps_its_result(way: Way, start: Start) -> None:
    nap = Nap()
    task = start(sleep(nap))
    await turns(2)
    nap.wake_soon(ValueError("lost"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nap.cancellations == 0
    assert nap.error is None, "the next sleep would raise it"


async def test_a_second_cancellation_changes_nothing(way: Way, start: Start) -> None:
    nap = Nap()
    task = start(sleep(nap))
    await turns(2)
    task.cancel("first")
    task.cancel("second")
    with pytest.raises(asyncio.CancelledError, match=r"first|second"):
        await task
    assert task.cancelling() == 2
    assert nap.cancellations == 1


async def test_a_task_that_is_cancelled_before_it_sleeps_does_not_sleep(way: Way, start: Start) -> None:
    nap = Nap()

    async def sleeper() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await nap

    task = start(sleeper())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nap.cancellations == 1


async def test_a_task_that_is_woken_after_its_cancellation_stays_cancelled(way: Way, start: Start) -> None:
    nap = Nap()
    task = start(sleep(nap))
    await turns(2)
    task.cancel()
    nap.wake()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_uncancels_can_sleep_again(way: Way, start: Start) -> None:
    nap = Nap()

    async def sleeper() -> str:
        try:
            await nap
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            assert task.uncancel() == 0
        return await nap

    task = start(sleeper())
    await turns(2)
    task.cancel()
    await turns(2)
    await soon(nap.wake)
    assert await task == "rested"
    assert task.cancelling() == 0


async def test_nested_timeouts_tell_which_of_them_passed(way: Way) -> None:
    nap = Nap()
    log = []
    try:
        async with asyncio.timeout(None) as outer:
            try:
                async with asyncio.timeout(0.001):
                    await nap
            except TimeoutError:
                log.append("inner")
            outer.reschedule(asyncio.get_running_loop().time())
            await nap
    except TimeoutError:
        log.append("outer")
    assert log == ["inner", "outer"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@every_way
@pytest.mark.parametrize("how", [how for how in HOWS if how != "own"])
async def test_asyncios_ways_to_stop_waiting_end_it(way: Way, how: str) -> None:
    nap = Nap()
    call = GivenUp(how, lambda _: sleep(nap))
    await turns(3)
    await call.give_up()
    assert await call.outcome() is LEFT
    assert nap.cancellations == 1


@every_way
async def test_it_may_be_gathered_shielded_and_waited_for(way: Way) -> None:
    naps = [Nap() for _ in range(3)]
    together = asyncio.gather(*map(sleep, naps))
    shielded = asyncio.shield(asyncio.ensure_future(sleep(nap := Nap())))
    await turns(3)
    for each in (*naps, nap):
        await soon(each.wake)
    assert await together == ["rested"] * 3
    assert await asyncio.wait_for(shielded, 1) == "rested"


# ------------------------------------------------------------------------------------------------ the loop


async def test_a_task_shows_its_waiter(way: Way) -> None:
    nap = Nap()
    nap.operation = "recv_line"
    assert repr(nap) == "<Nap recv_line>"
    task = asyncio.create_task(sleep(nap))
    await turns(2)
    assert "wait_for=<Nap recv_line, pending>" in repr(task)
    await soon(nap.wake)
    await task


def test_a_loop_that_only_has_the_name_of_add_reader_cannot_poll() -> None:
    class Bare(asyncio.AbstractEventLoop):
        pass

    assert not has_readiness(Bare())


def test_the_portable_way_can_be_forced(way: Way) -> None:
    loop = way.new_loop()
    with way.chosen():
        assert has_readiness(loop) is not way.portable
    loop.close()


@pytest.mark.parametrize(("value", "forced"), [("1", "True"), ("", "False"), (None, "False")])
def test_the_environment_forces_it(value: str | None, forced: str) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "WIRELINE_PORTABLE"}
    source = os.path.dirname(os.path.dirname(os.path.dirname(_asyncio.__file__)))
    environment |= {"PYTHONPATH": source} | ({} if value is None else {"WIRELINE_PORTABLE": value})
    code = "from wireline.asyncnet import _asyncio; print(_asyncio.FORCE_PORTABLE)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == forced


# ----------------------------------------------------------------------------------------------- when_done


async def test_when_done_waits_for_the_last(way: Way) -> None:
    loop = spy()
    log: list[int] = []
    when_done([], lambda: log.append(0))
    when_done([None], lambda: log.append(1))
    over: asyncio.Future[object] = loop.create_future()
    over.set_result(None)
    when_done([over, None], lambda: log.append(2))
    assert log == [0, 1, 2]
    operations: list[asyncio.Future[object]] = [loop.create_future() for _ in range(2)]
    when_done(operations, lambda: log.append(3))
    operations[0].cancel()
    await turns(2)
    assert log == [0, 1, 2]
    operations[1].set_result(None)
    await turns(2)
    assert log == [0, 1, 2, 3]
