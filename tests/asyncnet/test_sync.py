"""Notifications, the lock of the writers, and connections that are attempted side by side."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.asyncnet.loops import ALL_WAYS, Way, spy, turns
from tests.asyncnet.streams import LOOPBACK, open_descriptors
from wireline import SocketTimeout
from wireline._core.deadline import CallDeadline
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os.resolver import Lookup
from wireline.asyncnet import AsyncSocket
from wireline.asyncnet._asyncio import running_port
from wireline.asyncnet._connect_attempts import ConnectAttempts
from wireline.asyncnet._sync import Notifier, WriteLock, wait_for_lookup

QUESTION = ("some.test", 80, 0, socket.SOCK_STREAM, 6)
FOUND: list[AddrInfo] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)


# ------------------------------------------------------------------------------------------------ notifications


async def test_a_notification_is_kept_once_for_the_next_that_waits(way: Way) -> None:
    notifier = Notifier(running_port())
    notifier.notify()
    notifier.notify()
    assert await notifier.wait(None)
    assert not await notifier.wait(notifier.port.time() + 0.002)


@every_way
async def test_it_wakes_all_waiters_and_forgets_the_event(way: Way) -> None:
    notifier = Notifier(running_port())
    waiting = [asyncio.create_task(notifier.wait(None)) for _ in range(3)]
    await turns(2)
    notifier.notify()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert not await notifier.wait(notifier.port.time())


async def test_R13_a_notifier_that_is_made_after_close_does_not_sleep(way: Way) -> None:
    sock = AsyncSocket()
    sock._fd.enter(sock)
    sock.close()
    with sock._fd.notifier() as notifier:
        assert await notifier.wait(notifier.port.time())


async def test_a_cancelled_waiter_gets_nothing_and_leaves_nothing(way: Way) -> None:
    notifier = Notifier(running_port())
    waiting = [asyncio.create_task(notifier.wait(notifier.port.time() + 50)) for _ in range(2)]
    await turns(2)
    waiting[0].cancel()
    notifier.notify()
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert waiting[1].result()
    assert not spy().timers()


async def test_any_thread_may_notify(way: Way) -> None:
    notifier = Notifier(running_port())
    other = threading.Thread(target=notifier.notify_threadsafe)
    waiting = asyncio.create_task(notifier.wait(None))
    await turns(2)
    other.start()
    assert await waiting
    other.join()


def test_to_notify_when_the_loop_is_closed_does_nothing(way: Way) -> None:
    loop = way.new_loop()

    async def make() -> Notifier:
        return Notifier(running_port())

    notifier = loop.run_until_complete(make())
    loop.close()
    notifier.notify_threadsafe()


# ------------------------------------------------------------------------------------------------ lookups


async def test_a_lookup_that_is_done_is_not_waited_for(way: Way) -> None:
    lookup = Lookup(QUESTION)
    lookup.set_result(FOUND)
    await wait_for_lookup(lookup, "dial", CallDeadline(0, 0), Notifier(running_port()))


async def test_a_lookup_is_waited_for_until_it_is_done_in_its_thread(way: Way) -> None:
    lookup = Lookup(QUESTION)
    waiting = asyncio.create_task(wait_for_lookup(lookup, "dial", None, Notifier(running_port())))
    await turns(2)
    worker = threading.Thread(target=lookup.set_result, args=(FOUND,))
    worker.start()
    await waiting
    worker.join()
    assert lookup.done()


async def test_a_lookup_that_takes_too_long_is_left(way: Way) -> None:
    lookup = Lookup(QUESTION)
    for seconds in (0.0, 0.0004, 0.003, 0.0106):
        notifier = Notifier(running_port())
        with pytest.raises(SocketTimeout) as caught:
            await wait_for_lookup(lookup, "dial", CallDeadline(seconds, notifier.port.time()), notifier)
        assert (caught.value.operation, caught.value.seconds) == ("dial", seconds)
    lookup.set_result(FOUND)
    await turns(2)


async def test_a_lookup_is_left_when_the_notifier_is_used_for_another_reason(way: Way) -> None:
    lookup = Lookup(QUESTION)
    notifier = Notifier(running_port())
    waiting = asyncio.create_task(
        wait_for_lookup(lookup, "dial", CallDeadline(50, notifier.port.time()), notifier)
    )
    await turns(2)
    notifier.notify()
    await waiting
    assert not lookup.done()


# ---------------------------------------------------------------------------------------- the write lock


def unlocked() -> WriteLock:
    lock = WriteLock()
    lock.locked = False
    return lock


async def test_the_lock_is_handed_on_in_order_of_arrival(way: Way) -> None:
    lock = unlocked()
    lock.locked = True
    order = []

    async def write(number: int) -> None:
        assert await lock.acquire(running_port(), None)
        order.append(number)
        await turns(1)
        lock.release()

    writers = [asyncio.create_task(write(number)) for number in range(10)]
    await turns(2)
    lock.release()
    await asyncio.gather(*writers)
    assert order == list(range(10))
    assert not lock.locked


async def test_a_lock_that_is_released_is_not_free_before_the_next_has_had_it(way: Way) -> None:
    lock = unlocked()
    lock.locked = True
    second = asyncio.create_task(lock.acquire(running_port(), None))
    await turns(2)
    lock.release()
    assert lock.locked, "a writer in between would jump the queue"
    assert await second
    lock.release()
    assert not lock.locked


async def test_a_waiter_that_timed_out_is_skipped(way: Way) -> None:
    lock = unlocked()
    lock.locked = True
    impatient = asyncio.create_task(lock.acquire(running_port(), spy().time() + 0.002))
    patient = asyncio.create_task(lock.acquire(running_port(), None))
    assert not await impatient
    lock.release()
    assert await patient


async def test_a_waiter_that_has_left_takes_no_place_in_the_queue(way: Way) -> None:
    lock = unlocked()
    lock.locked = True
    for _ in range(10):
        assert not await lock.acquire(running_port(), spy().time())
        leaving = asyncio.create_task(lock.acquire(running_port(), None))
        await turns(2)
        leaving.cancel()
        await asyncio.wait([leaving])
    assert not lock.queue, "a sender that is stuck would make it grow without end"


async def test_a_lock_in_the_same_moment_as_a_cancellation_goes_to_the_next(way: Way) -> None:
    lock = unlocked()
    lock.locked = True
    unlucky = asyncio.create_task(lock.acquire(running_port(), None))
    lucky = asyncio.create_task(lock.acquire(running_port(), None))
    await turns(2)
    lock.release()
    unlucky.cancel()
    await asyncio.wait([unlucky])
    assert unlucky.cancelled()
    assert await asyncio.wait_for(lucky, 2)
    lock.release()
    assert not lock.locked


async def test_a_lock_in_the_same_moment_as_a_cancellation_is_free_if_no_other_task_wants_it(
    way: Way,
) -> None:
    lock = unlocked()
    lock.locked = True
    unlucky = asyncio.create_task(lock.acquire(running_port(), None))
    await turns(2)
    lock.release()
    unlucky.cancel()
    await asyncio.wait([unlucky])
    assert not lock.locked


async def test_all_that_queue_can_be_refused(way: Way) -> None:
    lock = unlocked()
    lock.locked = True
    queueing = [asyncio.create_task(lock.acquire(running_port(), spy().time() + 50)) for _ in range(3)]
    await turns(2)
    lock.refuse_queued()
    assert await asyncio.gather(*queueing) == [False] * 3
    assert not spy().timers()


# ----------------------------------------------------------------------------------------------- attempts


@contextlib.contextmanager
def peers() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A listener, and a socket whose address refuses every connection."""
    with socket.socket() as listener, socket.socket() as refusing:
        for sock in (listener, refusing):
            sock.bind((LOOPBACK, 0))
        listener.listen()
        yield listener, refusing


def fresh() -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    return sock


@every_way
async def test_each_attempt_that_ends_is_reported_and_closed_if_it_failed(way: Way) -> None:
    before = open_descriptors()
    with peers() as (listener, refusing):
        notifier = Notifier(running_port())
        with contextlib.closing(ConnectAttempts(notifier)) as attempts:
            attempts.start(fresh(), refusing.getsockname(), 0)
            attempts.start(fresh(), listener.getsockname(), 1)
            results: dict[int, OSError | None] = {}
            while len(results) < 2:
                assert await notifier.wait(notifier.port.time() + 5)
                results |= dict(attempts.results())
            error = results[0]
            assert error is not None
            assert (error.errno, error.strerror) == (errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            assert results[1] is None
            winner = attempts.take(1)
        assert winner.getpeername() == listener.getsockname()
        winner.close()
        await turns(3)
    assert open_descriptors() == before


@every_way
async def test_an_attempt_that_fails_at_once_is_closed(way: Way) -> None:
    before = open_descriptors()
    notifier = Notifier(running_port())
    with contextlib.closing(ConnectAttempts(notifier)) as attempts:
        sock = fresh()
        try:
            attempts.start(sock, ("255.255.255.255", 1), 0)
        except OSError:
            assert not way.portable
        else:
            assert await notifier.wait(notifier.port.time() + 5)
            [(index, error)] = attempts.results()
            assert index == 0
            assert isinstance(error, OSError)
        assert sock.fileno() == -1
    await turns(3)
    assert open_descriptors() == before


@every_way
async def test_those_that_still_run_are_closed_at_the_end(way: Way) -> None:
    before = open_descriptors()
    with peers() as (listener, _):
        for count in range(5):
            with contextlib.closing(ConnectAttempts(Notifier(running_port()))) as attempts:
                for index in range(3):
                    attempts.start(fresh(), listener.getsockname(), index)
                await turns(count)
            assert not spy().watched or way.portable
            await turns(5)
            assert not spy().watched
    assert open_descriptors() == before
