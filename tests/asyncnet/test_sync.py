"""Signals, the turn to write, and connections that are attempted side by side."""

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
from wireline._core.deadline import Deadline
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os.resolver import Lookup
from wireline.asyncnet._sync import Attempts, Signal, WriteTurn, lookup_result

QUESTION = ("some.test", 80, 0, socket.SOCK_STREAM, 6)
FOUND: list[AddrInfo] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)


# ------------------------------------------------------------------------------------------------ signals


async def test_a_signal_that_was_rung_before_is_heard_once(way: Way) -> None:
    signal = Signal(spy())
    signal.ring()
    signal.ring()
    assert await signal.wait(None)
    assert not await signal.wait(signal.now() + 0.002)


@every_way
async def test_it_wakes_all_who_wait_and_is_forgotten_then(way: Way) -> None:
    signal = Signal(spy())
    waiting = [asyncio.create_task(signal.wait(None)) for _ in range(3)]
    await turns(2)
    signal.ring()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert not await signal.wait(signal.now())


async def test_who_is_cancelled_hears_nothing_and_leaves_nothing(way: Way) -> None:
    signal = Signal(spy())
    waiting = [asyncio.create_task(signal.wait(signal.now() + 50)) for _ in range(2)]
    await turns(2)
    waiting[0].cancel()
    signal.ring()
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert waiting[1].result()
    assert not spy().timers()


async def test_any_thread_may_ring_it(way: Way) -> None:
    signal = Signal(spy())
    ringer = threading.Thread(target=signal.ring_from_thread)
    waiting = asyncio.create_task(signal.wait(None))
    await turns(2)
    ringer.start()
    assert await waiting
    ringer.join()


def test_ringing_it_when_the_loop_is_no_more_does_nothing(way: Way) -> None:
    loop = way.new_loop()
    signal = Signal(loop)
    loop.close()
    signal.ring_from_thread()


# ------------------------------------------------------------------------------------------------ lookups


async def test_a_lookup_that_is_done_is_not_waited_for(way: Way) -> None:
    lookup = Lookup(QUESTION)
    lookup.set_result(FOUND)
    await lookup_result(lookup, Signal(spy()), "dial", Deadline(0, 0))


async def test_a_lookup_is_waited_for_until_it_is_done_in_its_thread(way: Way) -> None:
    lookup = Lookup(QUESTION)
    waiting = asyncio.create_task(lookup_result(lookup, Signal(spy()), "dial", None))
    await turns(2)
    worker = threading.Thread(target=lookup.set_result, args=(FOUND,))
    worker.start()
    await waiting
    worker.join()
    assert lookup.done()


async def test_a_lookup_that_takes_too_long_is_left(way: Way) -> None:
    lookup = Lookup(QUESTION)
    for seconds in (0.0, 0.0004, 0.003, 0.0106):
        signal = Signal(spy())
        with pytest.raises(SocketTimeout) as caught:
            await lookup_result(lookup, signal, "dial", Deadline(seconds, signal.now()))
        assert (caught.value.operation, caught.value.seconds) == ("dial", seconds)
    lookup.set_result(FOUND)
    await turns(2)


async def test_a_lookup_is_left_when_somebody_else_rings(way: Way) -> None:
    lookup = Lookup(QUESTION)
    signal = Signal(spy())
    waiting = asyncio.create_task(lookup_result(lookup, signal, "dial", Deadline(50, signal.now())))
    await turns(2)
    signal.ring()
    await waiting
    assert not lookup.done()


# ---------------------------------------------------------------------------------------- the turn to write


def free_turn() -> WriteTurn:
    turn = WriteTurn()
    turn.held = False
    return turn


async def test_the_turn_goes_round_in_order_of_arrival(way: Way) -> None:
    turn = free_turn()
    turn.held = True
    order = []

    async def write(number: int) -> None:
        assert await turn.acquire(None)
        order.append(number)
        await turns(1)
        turn.release()

    writers = [asyncio.create_task(write(number)) for number in range(10)]
    await turns(2)
    turn.release()
    await asyncio.gather(*writers)
    assert order == list(range(10))
    assert not turn.held


async def test_a_turn_that_is_released_is_not_free_before_the_next_has_had_it(way: Way) -> None:
    turn = free_turn()
    turn.held = True
    second = asyncio.create_task(turn.acquire(None))
    await turns(2)
    turn.release()
    assert turn.held, "somebody in between would jump the queue"
    assert await second
    turn.release()
    assert not turn.held


async def test_who_runs_out_of_time_is_passed_over(way: Way) -> None:
    turn = free_turn()
    turn.held = True
    impatient = asyncio.create_task(turn.acquire(0.002))
    patient = asyncio.create_task(turn.acquire(None))
    assert not await impatient
    turn.release()
    assert await patient


async def test_who_has_left_takes_no_room_in_the_queue(way: Way) -> None:
    turn = free_turn()
    turn.held = True
    for _ in range(10):
        assert not await turn.acquire(0.0)
        leaving = asyncio.create_task(turn.acquire(None))
        await turns(2)
        leaving.cancel()
        await asyncio.wait([leaving])
    assert not turn.queue, "a sender that is stuck for ever would make it grow for ever"


async def test_a_turn_that_comes_with_a_cancellation_goes_to_the_next(way: Way) -> None:
    turn = free_turn()
    turn.held = True
    unlucky = asyncio.create_task(turn.acquire(None))
    lucky = asyncio.create_task(turn.acquire(None))
    await turns(2)
    turn.release()
    unlucky.cancel()
    await asyncio.wait([unlucky])
    assert unlucky.cancelled()
    assert await asyncio.wait_for(lucky, 2)
    turn.release()
    assert not turn.held


async def test_a_turn_that_comes_with_a_cancellation_is_free_if_nobody_else_wants_it(way: Way) -> None:
    turn = free_turn()
    turn.held = True
    unlucky = asyncio.create_task(turn.acquire(None))
    await turns(2)
    turn.release()
    unlucky.cancel()
    await asyncio.wait([unlucky])
    assert not turn.held


async def test_all_who_queue_can_be_sent_away(way: Way) -> None:
    turn = free_turn()
    turn.held = True
    queueing = [asyncio.create_task(turn.acquire(50)) for _ in range(3)]
    await turns(2)
    turn.send_away()
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
async def test_each_attempt_that_is_over_is_told_and_what_failed_is_closed(way: Way) -> None:
    before = open_descriptors()
    with peers() as (listener, refusing):
        signal = Signal(spy())
        with contextlib.closing(Attempts(signal)) as attempts:
            attempts.begin(fresh(), refusing.getsockname(), 0)
            attempts.begin(fresh(), listener.getsockname(), 1)
            results: dict[int, OSError | None] = {}
            while len(results) < 2:
                assert await signal.wait(signal.now() + 5)
                results |= dict(attempts.over())
            error = results[0]
            assert error is not None
            assert (error.errno, error.strerror) == (errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            assert results[1] is None
            winner = attempts.winner(1)
        assert winner.getpeername() == listener.getsockname()
        winner.close()
        await turns(3)
    assert open_descriptors() == before


@every_way
async def test_an_attempt_that_fails_at_once_is_closed(way: Way) -> None:
    before = open_descriptors()
    signal = Signal(spy())
    with contextlib.closing(Attempts(signal)) as attempts:
        sock = fresh()
        try:
            attempts.begin(sock, ("255.255.255.255", 1), 0)
        except OSError:
            assert not way.portable
        else:
            assert await signal.wait(signal.now() + 5)
            [(index, error)] = attempts.over()
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
            with contextlib.closing(Attempts(Signal(spy()))) as attempts:
                for index in range(3):
                    attempts.begin(fresh(), listener.getsockname(), index)
                await turns(count)
            assert not spy().watched or way.portable
            await turns(5)
            assert not spy().watched
    assert open_descriptors() == before
