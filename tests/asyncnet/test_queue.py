"""A queue of operations: its order, its one timer, and the result of an operation whose caller was cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.asyncnet.loops import ALL_WAYS, WAYS, Way, spy, turns
from wireline import SAFE_DISCONN, ClosedError, SocketTimeout
from wireline._core.deadline import CallDeadline
from wireline._core.stream import StreamCore
from wireline.asyncnet import _poller
from wireline.asyncnet._asyncio import running_port
from wireline.asyncnet._completion_queue import CompletionQueue, open_queue
from wireline.asyncnet._operations import Read, WeakAnnotator
from wireline.asyncnet._port import Completion, Completions
from wireline.asyncnet._queue import NOT_YET, LoopOperation, OperationQueue, ReadinessQueue

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
polled = pytest.mark.parametrize("way", [way for way in WAYS if not way.portable], ids=lambda way: way.name)
portable = pytest.mark.parametrize("way", [way for way in ALL_WAYS if way.portable], ids=lambda way: way.name)


class OneByte(LoopOperation[bytes]):
    """An operation that is done when it has as many bytes as it wants. It takes them one by one."""

    def __init__(self, sock: socket.socket, want: int = 1) -> None:
        self._sock = sock
        self._want = want
        self.got = b""
        self.disposed: list[object] = []

    def try_once(self) -> Any:
        return self.complete(self._sock.recv(1))

    def start(self, completions: Completions) -> Completion:
        return completions.recv(self._sock, 1)

    def complete(self, result: bytes) -> Any:
        if result == b"!":
            raise ValueError("a byte that is not accepted")
        self.got += result
        return self.got if len(self.got) >= self._want else NOT_YET

    def dispose(self, result: object) -> None:
        self.disposed.append(result)


@contextlib.contextmanager
def opened() -> Iterator[tuple[OperationQueue, socket.socket, socket.socket]]:
    """A queue, the socket it is for, and that socket's peer."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with ours, peer:
        line = open_queue(running_port(), ours)
        yield line, ours, peer
        line.close(ClosedError)


def within(seconds: float) -> CallDeadline:
    return CallDeadline(seconds, asyncio.get_running_loop().time())


def waiting(
    line: OperationQueue, operation: LoopOperation[Any], seconds: float | None = None
) -> asyncio.Task[Any]:
    """A task that waits for an operation."""

    async def wait() -> Any:
        return await line.wait(operation, "take", None if seconds is None else within(seconds))

    return asyncio.create_task(wait())


# --------------------------------------------------------------------------------------------- the queue


@every_way
async def test_the_queue_suits_the_loop(way: Way) -> None:
    with opened() as (line, _, _):
        assert isinstance(line, CompletionQueue if way.portable else ReadinessQueue)


@every_way
async def test_first_come_first_served_and_each_gets_its_result(way: Way) -> None:
    with opened() as (line, ours, peer):
        tasks = [waiting(line, OneByte(ours, want)) for want in (2, 1, 3)]
        await turns(2)
        assert line.busy
        peer.send(b"aabccc")
        assert await asyncio.gather(*tasks) == [b"aa", b"b", b"ccc"]
        assert not line.busy


@every_way
async def test_an_error_belongs_to_the_first_and_the_next_is_served(way: Way) -> None:
    contexts: list[BaseException | None] = []

    async def unlucky(line: OperationQueue, ours: socket.socket) -> None:
        with pytest.raises(ValueError, match="not accepted"):
            await line.wait(OneByte(ours), "take", None)
        try:
            raise KeyError("something else")
        except KeyError as error:
            contexts.append(error.__context__)

    with opened() as (line, ours, peer):
        first = asyncio.create_task(unlucky(line, ours))
        await turns(1)
        second = waiting(line, OneByte(ours))
        await turns(2)
        peer.send(b"!b")
        await first
        assert await second == b"b"
        assert contexts == [None], "an error that was dealt with is not the context of the next"


@every_way
async def test_a_cancelled_task_leaves_its_place_to_the_next(way: Way) -> None:
    with opened() as (line, ours, peer):
        tasks = [waiting(line, OneByte(ours)) for _ in range(3)]
        await turns(2)
        tasks[0].cancel()
        tasks[1].cancel()
        peer.send(b"c")
        assert await tasks[2] == b"c"
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, True, False]


@every_way
async def test_close_wakes_all_tasks_and_a_cancellation_in_the_same_moment_wins(way: Way) -> None:
    with opened() as (line, ours, _):
        tasks = [waiting(line, OneByte(ours), seconds) for seconds in (None, 5.0, None)]
        await turns(2)
        line.close(lambda operation: ClosedError(f"{operation} is over"))
        tasks[2].cancel()
        await asyncio.wait(tasks)
        for task in tasks[:2]:
            with pytest.raises(ClosedError, match="take is over"):
                task.result()
        assert tasks[2].cancelled()
        assert not line.busy


@every_way
async def test_a_sleep_is_used_again_only_when_its_task_has_taken_the_answer(way: Way) -> None:
    with opened() as (line, ours, peer):
        assert line.free_waiter is None
        first = waiting(line, OneByte(ours))
        await turns(2)
        peer.send(b"a")
        assert await first == b"a"
        used = line.free_waiter
        assert used is not None
        second = waiting(line, OneByte(ours))
        await turns(2)
        assert line.free_waiter is None
        second.cancel()
        third = waiting(line, OneByte(ours))
        await turns(1)
        assert line._queue[0] is not used
        peer.send(b"c")
        assert await third == b"c"


# ---------------------------------------------------------------------------------------------- timeouts


@every_way
async def test_a_timeout_names_its_call_and_its_seconds_and_takes_nothing(way: Way) -> None:
    with opened() as (line, ours, peer):
        with pytest.raises(SocketTimeout) as caught:
            await waiting(line, OneByte(ours), 0.002)
        assert (caught.value.operation, caught.value.seconds) == ("take", 0.002)
        peer.send(b"a")
        assert await waiting(line, OneByte(ours)) == b"a"


async def test_timeouts_that_do_not_pass_make_one_timer(way: Way) -> None:
    with opened() as (line, ours, peer):
        peer.send(bytes(100))
        for _ in range(100):
            await waiting(line, OneByte(ours), 50)
        assert spy().calls["call_at"] == 1


async def test_an_earlier_deadline_sets_the_timer_anew_and_a_later_one_does_not(way: Way) -> None:
    with opened() as (line, ours, peer):
        tasks = [waiting(line, OneByte(ours), seconds) for seconds in (50, 60, 70, 40, 45)]
        await turns(2)
        assert spy().calls["call_at"] == 2
        peer.send(bytes(5))
        await asyncio.gather(*tasks)


async def test_each_of_many_deadlines_is_kept(way: Way) -> None:
    with opened() as (line, ours, peer):
        over = []
        tasks = []
        for milliseconds in (9, 3, 6, 12, 1):
            task = waiting(line, OneByte(ours), milliseconds / 1000)
            task.add_done_callback(lambda _, milliseconds=milliseconds: over.append(milliseconds))
            tasks.append(task)
        patient = waiting(line, OneByte(ours))
        await asyncio.wait(tasks)
        await turns(1)
        assert over == [1, 3, 6, 9, 12]
        assert all(isinstance(task.exception(), SocketTimeout) for task in tasks)
        peer.send(b"a")
        assert await patient == b"a"


async def test_two_deadlines_between_two_ticks_of_the_clock(way: Way) -> None:
    # uvloop makes no timer for a deadline within half a millisecond.
    with opened() as (line, ours, _):
        tasks = [waiting(line, OneByte(ours), seconds) for seconds in (0.0003, 0.0004, 0.0001)]
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), SocketTimeout) for task in tasks)


async def test_a_task_that_timed_out_may_cancel_one_that_timed_out_in_the_same_moment(way: Way) -> None:
    with opened() as (line, ours, _):
        victims: list[asyncio.Task[Any]] = []

        async def first() -> None:
            with pytest.raises(SocketTimeout):
                await line.wait(OneByte(ours), "take", deadline)
            victims[0].cancel()

        async def second() -> None:
            await line.wait(OneByte(ours), "take", deadline)

        deadline = within(0.05)  # long enough for all of them to begin to wait
        leader = asyncio.create_task(first())
        victims.append(asyncio.create_task(second()))
        await asyncio.wait([leader, *victims])
        leader.result()
        assert victims[0].cancelled()


async def test_a_task_that_timed_out_may_close_the_queue(way: Way) -> None:
    with opened() as (line, ours, _):

        async def first() -> None:
            with pytest.raises(SocketTimeout):
                await line.wait(OneByte(ours), "take", deadline)
            line.close(ClosedError)

        async def second() -> None:
            with pytest.raises(SocketTimeout):
                await line.wait(OneByte(ours), "take", deadline)

        async def third() -> None:
            with pytest.raises(ClosedError):
                await line.wait(OneByte(ours), "take", None)

        deadline = within(0.05)  # long enough for all of them to begin to wait
        await asyncio.gather(first(), second(), third())


# --------------------------------------------------------------------------------------- registration


class SpyEpoll:
    """An epoll that counts its calls."""

    registered = unregistered = 0

    def __init__(self, epoll: Callable[[], Any]) -> None:
        self._epoll = epoll()

    def register(self, fd: int, events: int) -> None:
        SpyEpoll.registered += 1
        self._epoll.register(fd, events)

    def unregister(self, fd: int) -> None:
        SpyEpoll.unregistered += 1
        self._epoll.unregister(fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


@pytest.fixture
def epoll(monkeypatch: pytest.MonkeyPatch) -> type[SpyEpoll]:
    """Count the registrations with the library's own poller."""
    real = _poller.select.epoll
    monkeypatch.setattr(_poller.select, "epoll", lambda: SpyEpoll(real))
    SpyEpoll.registered = SpyEpoll.unregistered = 0
    return SpyEpoll


@polled
async def test_the_registration_is_kept_from_one_wait_to_the_next(way: Way, epoll: type[SpyEpoll]) -> None:
    with opened() as (line, ours, peer):
        for _ in range(100):
            task = waiting(line, OneByte(ours))
            await turns(1)
            peer.send(b"a")
            await task
        assert (epoll.registered, epoll.unregistered) == (1, 0)
        assert spy().calls["add_reader"] == 1
    assert (epoll.registered, epoll.unregistered) == (1, 1)
    await turns(1)
    assert not spy().watched


@polled
async def test_it_is_dropped_when_something_arrives_that_no_task_waits_for(
    way: Way, epoll: type[SpyEpoll]
) -> None:
    with opened() as (line, ours, peer):
        peer.send(b"ab")
        assert await waiting(line, OneByte(ours)) == b"a"
        await turns(3)
        assert (epoll.registered, epoll.unregistered) == (1, 1)
        await turns(3)
        assert epoll.unregistered == 1
        assert await waiting(line, OneByte(ours)) == b"b"
        assert epoll.registered == 2


@polled
async def test_a_loop_that_refuses_leaves_no_task_in_the_queue(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, write: bool = False) -> None:
        raise OSError("no room for another descriptor")

    with opened() as (line, ours, peer):
        with monkeypatch.context() as patch:
            patch.setattr(_poller.FdPoller, "watch", refuse)
            with pytest.raises(OSError, match="no room"):
                await waiting(line, OneByte(ours), 5)
        assert not line.busy
        peer.send(b"a")
        assert await waiting(line, OneByte(ours)) == b"a"


@polled
async def test_a_read_of_the_core_is_tried_like_any_other_operation(way: Way) -> None:
    class Owner:
        pass

    owner = Owner()
    with opened() as (line, ours, peer):
        core = StreamCore()
        args = (100, "truncate", SAFE_DISCONN)
        assert core.recv_line(*args) is None
        task = waiting(line, Read(ours, core, WeakAnnotator(owner), StreamCore.recv_line, args))
        for piece in (b"half a ", b"line\nmore"):
            await turns(3)
            assert not task.done()
            peer.send(piece)
        assert await task == b"half a line"
        assert core.recv_some(100) == b"more"


# ------------------------------------------------------------------------------------------ the portable way


@portable
async def test_the_result_for_a_task_that_has_left_goes_to_the_next(way: Way) -> None:
    with opened() as (line, ours, peer):
        for position in range(6):
            first = waiting(line, OneByte(ours))
            await turns(2)
            first.cancel()
            await turns(2)
            assert line.in_flight
            peer.send(bytes([position]))
            await turns(position)
            assert await waiting(line, OneByte(ours)) == bytes([position])
            assert not line.in_flight


@portable
async def test_a_result_that_no_task_will_ever_want_is_discarded(way: Way) -> None:
    with opened() as (line, ours, peer):
        operation = OneByte(ours)
        first = waiting(line, operation)
        await turns(2)
        first.cancel()
        peer.send(b"a")
        await turns(6)
        line.close(ClosedError)
        assert operation.disposed == [b"a"]


@portable
async def test_a_failure_for_a_task_that_has_left_is_reported_to_the_next(way: Way) -> None:
    with opened() as (line, ours, _):
        failing: deque[Callable[[], None]] = deque([lambda: None])

        class Failing(OneByte):
            def start(self, completions: Completions) -> Completion:
                return asyncio.ensure_future(self._fail())

            async def _fail(self) -> None:
                await turns(2)
                raise ConnectionResetError("reset")

        first = waiting(line, Failing(ours))
        await turns(2)
        first.cancel()
        await turns(6)
        failing.clear()
        with pytest.raises(ConnectionResetError):
            await waiting(line, OneByte(ours))


@portable
async def test_close_ends_the_operation_and_says_which_still_has_the_descriptor(way: Way) -> None:
    with opened() as (line, ours, _):
        task = waiting(line, OneByte(ours))
        await turns(3)
        line.close(ClosedError)
        assert line.closing is not None
        assert not line.closing.done()
        with pytest.raises(ClosedError):
            await task
        await turns(3)
        assert line.closing.cancelled()


@portable
async def test_an_operation_that_other_code_cancels_is_begun_again(way: Way) -> None:
    with opened() as (line, ours, peer):
        task = waiting(line, OneByte(ours))
        await turns(2)
        for other in asyncio.all_tasks() - {task, asyncio.current_task()}:
            if "sock_recv" in repr(other):
                other.cancel()
        await turns(4)
        peer.send(b"a")
        assert await asyncio.wait_for(task, 2) == b"a"
