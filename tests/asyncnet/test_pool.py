"""``wireline.asyncnet.Pool``: connections shared by tasks. ``tests/net/test_pool.py`` has what needs threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
from collections.abc import Callable

import pytest

from tests.asyncnet.loops import Way, turns
from tests.pooled import Item, conserved
from wireline import ClosedError, Deadline, SocketTimeout
from wireline.asyncnet import Pool

PATIENCE = 10.0


async def make(deadline: Deadline) -> Item:
    assert isinstance(deadline, Deadline)
    return Item()


async def hold(pool: Pool[Item], until: asyncio.Event, order: list[int], number: int) -> None:
    async with pool.acquire(PATIENCE):
        order.append(number)
        await until.wait()


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await turns(1)


async def test_a_connection_is_made_used_again_and_closed(way: Way) -> None:
    async with Pool(make, max_size=2, max_idle=1) as pool:
        async with pool.acquire() as one, pool.acquire(1) as two:
            assert one is not two
        assert one.closes + two.closes == 1
        async with pool.acquire(Deadline(1)) as again:
            assert again in (one, two)
        with pytest.raises(RuntimeError, match="failed"):
            async with pool.acquire():
                raise RuntimeError("failed")
        assert again.closes == 1
        acquired = pool.acquire()
        async with acquired:
            with pytest.raises(RuntimeError, match="entered already"):
                await acquired.__aenter__()
        await acquired.__aexit__(None, None, None)
        assert (pool.stats.created, pool.stats.reused, pool.stats.idle) == (3, 2, 1)
    assert pool.is_closed
    with pytest.raises(ClosedError):
        async with pool.acquire():
            pass


async def test_the_first_who_waits_is_served_first_and_a_newcomer_last(way: Way) -> None:
    order: list[int] = []
    go_on = asyncio.Event()
    async with Pool(make, max_size=1) as pool:
        async with pool.acquire():
            tasks = [asyncio.create_task(hold(pool, go_on, order, number)) for number in range(4)]
            await eventually(lambda: pool.stats.waiting == 4)
            tasks[1].cancel()
            await asyncio.sleep(0)
        go_on.set()
        tasks.append(asyncio.create_task(hold(pool, go_on, order, 4)))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 2, 3, 4]
        conserved(pool._core())


async def test_a_timeout_and_close_end_the_wait(way: Way) -> None:
    async with Pool(make, max_size=1) as pool:
        async with pool.acquire() as used:
            for timeout in (0, 0.01, Deadline(0.01)):
                with pytest.raises(SocketTimeout, match="acquire did not finish"):
                    await pool.acquire(timeout).__aenter__()
            assert pool.stats.timeouts == 3
            # The loop has nothing else to wake up for.
            thread = threading.Timer(0.02, pool.close)
            thread.start()
            with pytest.raises(ClosedError, match="while the call waited"):
                await pool.acquire().__aenter__()
            thread.join()
        assert used.closes == 1


async def test_healthy_may_be_awaited_and_close_must_not(way: Way) -> None:
    class Awaited(Item):
        async def close(self) -> None:  # type: ignore[override]
            pass

    async def connect(_: Deadline) -> Awaited:
        return Awaited()

    async with Pool(connect) as pool:
        with pytest.raises(TypeError, match="must be a plain function"):
            await pool.acquire().__aenter__()
        conserved(pool._core())
    answers: list[object] = [True, False, OSError("gone"), ZeroDivisionError("a mistake")]

    async def healthy(_: Item) -> bool:
        await asyncio.sleep(0)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    async with Pool(make, healthy=healthy) as pool:
        seen = []
        for _ in range(4):
            async with pool.acquire() as item:
                seen.append(item)
        with pytest.raises(ZeroDivisionError):
            await pool.acquire().__aenter__()
        assert [seen.index(item) for item in seen] == [0, 0, 2, 3]
        assert all(item.closes == 1 for item in seen)
        conserved(pool._core())


async def test_a_cancellation_at_any_step_loses_no_connection(way: Way) -> None:
    """Cancel each of three tasks, which connect, check, wait, are served and use, after every number of turns."""

    async def connect(_: Deadline) -> Item:
        await turns(2)
        return Item()

    async def healthy(_: Item) -> bool:
        await turns(1)
        return True

    async def use(pool: Pool[Item]) -> None:
        async with pool.acquire(PATIENCE):
            await turns(2)

    for victim in range(3):
        for step in range(25):
            async with Pool(connect, max_size=1, healthy=healthy) as pool:
                tasks = [asyncio.create_task(use(pool)) for _ in range(3)]
                await turns(step)
                cancelled = tasks[victim].cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert [result for result in results if isinstance(result, Exception)] == []
                stats = pool.stats
                assert (stats.in_use, stats.waiting, stats.size) == (0, 0, stats.idle)
                assert stats.created - stats.discarded == stats.size
        assert not cancelled, "there are more steps"


async def test_many_tasks_that_fail_give_up_and_take_turns_lose_nothing(way: Way) -> None:
    chance = random.Random(3)
    in_use: set[Item] = set()

    async def connect(_: Deadline) -> Item:
        await asyncio.sleep(0)
        if chance.random() < 0.2:
            raise ConnectionRefusedError
        return Item()

    async def use(pool: Pool[Item]) -> None:
        with contextlib.suppress(SocketTimeout, ConnectionRefusedError, ValueError):
            async with pool.acquire(chance.choice([0, 0.0005, PATIENCE])) as item:
                assert item not in in_use
                in_use.add(item)
                try:
                    await turns(chance.randrange(3))
                    if chance.random() < 0.1:
                        raise ValueError
                finally:
                    in_use.discard(item)

    async with Pool(connect, max_size=3, max_idle=2) as pool:
        tasks = [asyncio.create_task(use(pool)) for _ in range(500)]
        for task in chance.sample(tasks, 100):
            await turns(chance.randrange(3))
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [result for result in results if isinstance(result, Exception)] == []
        conserved(pool._core())


def test_a_pool_belongs_to_one_loop_and_its_tasks_may_be_dropped(recwarn: pytest.WarningsRecorder) -> None:
    pool = Pool(make, max_size=1)

    async def use() -> Item:
        async with pool.acquire() as item:
            return item

    item = asyncio.run(use())
    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        asyncio.run(use())
    pool.close()
    assert item.closes == 1
    # A task that never ends: its loop is closed, and then there is no reference to it.
    held = Pool(make, max_size=1)

    async def keep() -> None:
        async with held.acquire():
            await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    task = loop.create_task(keep())
    loop.run_until_complete(asyncio.sleep(0.01))
    assert held.stats.in_use == 1
    loop.set_exception_handler(lambda *_: None)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    del task, loop
    gc.collect()
    conserved(held._core())
    held.close()
