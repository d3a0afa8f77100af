"""The reader of a stream: its registration, its one timer, and the references that it does not keep."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
import weakref

import pytest

from tests.asyncnet.loops import ALL_WAYS, WAYS, Way, spy, turns
from tests.asyncnet.streams import drain, pattern, stepped, wire
from tests.asyncnet.test_queue import SpyEpoll, epoll
from wireline import SocketTimeout
from wireline.asyncnet import AsyncSocket, _poller

__all__ = ["epoll"]  # a fixture

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
polled = pytest.mark.parametrize("way", [way for way in WAYS if not way.portable], ids=lambda way: way.name)


# ------------------------------------------------------------------------------------------ registration


@polled
async def test_a_thousand_reads_register_once(way: Way, epoll: type[SpyEpoll]) -> None:
    with wire() as (sock, peer):
        for number in range(1000):
            reading = asyncio.create_task(sock.recv_line())
            await turns(1)
            peer.send(b"%d\n" % number)
            assert await reading == b"%d" % number
        assert (epoll.registered, epoll.unregistered) == (1, 0)
        assert spy().calls["add_reader"] == 1
        assert spy().calls["remove_reader"] == 0


@polled
async def test_a_read_that_is_buffered_or_does_not_wait_registers_nothing(
    way: Way, epoll: type[SpyEpoll]
) -> None:
    with wire() as (sock, peer):
        peer.send(b"one\ntwo\n")
        assert await sock.recv_line(0) == b"one"
        assert await sock.recv_line() == b"two"
        with pytest.raises(SocketTimeout):
            await sock.recv_line(0)
        assert epoll.registered == 0


@polled
async def test_W7_bytes_that_no_task_waits_for_stay_in_the_kernel(way: Way, epoll: type[SpyEpoll]) -> None:
    with wire() as (sock, peer):
        peer.send(b"one\n")
        assert await sock.recv_line() == b"one"
        for number in range(5):
            peer.send(b"more\n")
            await turns(3)
            assert not sock.has_data_buffered
            assert (epoll.registered, epoll.unregistered) == (1, 1), number
        assert [await sock.recv_line() for _ in range(5)] == [b"more"] * 5


@polled
async def test_a_loop_that_refuses_does_not_spoil_the_socket(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no room for another descriptor")

    with wire() as (sock, peer):
        with monkeypatch.context() as patch:
            patch.setattr(_poller.FdPoller, "watch", refuse)
            for _ in range(2):
                with pytest.raises(OSError, match="no room"):
                    await sock.recv_line(5)
        peer.send(b"line\n")
        assert await sock.recv_line(5) == b"line"


@every_way
async def test_a_large_read_is_filled_while_its_task_sleeps(way: Way) -> None:
    data = pattern(500_000)
    suspensions = []
    with wire() as (sock, peer):

        async def read() -> bytes:
            return await stepped(sock.recv_exactly(len(data)), suspensions.append)

        reading = asyncio.create_task(read())
        await turns(2)
        sent = 0
        while sent < len(data):
            try:
                sent += peer.send(data[sent : sent + 50_000])
            except BlockingIOError:
                await turns(1)
        assert await reading == data
        assert suspensions == [1]


# ------------------------------------------------------------------------------------------------- timers


@every_way
async def test_reads_whose_timeouts_do_not_pass_make_one_timer(way: Way) -> None:
    with wire() as (sock, peer):
        for _ in range(200):
            reading = asyncio.create_task(sock.recv_line(50))
            await turns(1)
            peer.send(b"line\n")
            assert await reading == b"line"
        assert spy().calls["call_at"] == 1


@every_way
async def test_an_earlier_deadline_sets_the_timer_anew(way: Way) -> None:
    with wire() as (sock, peer):
        for seconds, timers in ((50, 1), (60, 1), (20, 2), (30, 2), (10, 3)):
            reading = asyncio.create_task(sock.recv_line(seconds))
            await turns(3)
            assert spy().calls["call_at"] == timers
            peer.send(b"line\n")
            assert await reading == b"line"


@pytest.mark.parametrize(
    "way", [way for way in ALL_WAYS if way.has_a_clock_to_put_forward], ids=lambda way: way.name
)
async def test_a_timer_that_goes_off_for_a_read_that_is_over_is_set_for_the_one_that_waits(way: Way) -> None:
    loop = spy()
    with wire() as (sock, peer):
        peer.send(b"line\n")
        assert await sock.recv_line(10) == b"line"
        later = asyncio.create_task(sock.recv_line(100))
        await turns(3)
        loop.ahead += 50
        await turns(3)
        assert not later.done()
        loop.ahead += 49
        await turns(3)
        assert not later.done()
        loop.ahead += 1.1
        with pytest.raises(SocketTimeout) as caught:
            await later
        assert (caught.value.operation, caught.value.seconds) == ("recv_line", 100)


@pytest.mark.parametrize(
    "way", [way for way in ALL_WAYS if way.has_a_clock_to_put_forward], ids=lambda way: way.name
)
async def test_a_timer_that_goes_off_finds_no_read_or_one_with_a_later_deadline(way: Way) -> None:
    loop = spy()
    with wire() as (sock, peer):
        peer.send(b"one\n")
        assert await sock.recv_line(10) == b"one"
        loop.ahead += 50
        await turns(3)
        assert not loop.timers()
        patient = asyncio.create_task(sock.recv_line())
        await turns(2)
        loop.ahead += 50
        await turns(3)
        peer.send(b"two\n")
        assert await patient == b"two"


@every_way
async def test_R3_bytes_that_drip_do_not_stretch_a_timeout(way: Way) -> None:
    with wire() as (sock, peer):
        reading = asyncio.create_task(sock.recv_line(0.02))
        started = asyncio.get_running_loop().time()
        while not reading.done():
            peer.send(b"x")
            await asyncio.sleep(0.002)
            assert asyncio.get_running_loop().time() - started < 2
        with pytest.raises(SocketTimeout, match=r"recv_line did not finish within 0\.02 s"):
            await reading
        dripped = drain(peer)
        assert dripped == b""
        peer.send(b"\n")
        assert (await sock.recv_line()).strip(b"x") == b""


@every_way
async def test_timeouts_of_every_length_pass_between_two_ticks_of_the_clock(way: Way) -> None:
    with wire() as (sock, peer):
        for microseconds in (1, 100, 400, 499, 500, 501, 999, 1400, 1600):
            with pytest.raises(SocketTimeout):
                await sock.recv_line(microseconds / 1e6)
            reading = asyncio.create_task(sock.recv_line(microseconds / 1e6))
            await turns(1)
            peer.send(b"x\n")
            try:
                assert await reading == b"x"
            except SocketTimeout:
                assert await sock.recv_line(5) == b"x"


# ------------------------------------------------------------------------------------- what is not kept


@every_way
async def test_a_timeout_leaves_no_garbage(way: Way) -> None:
    class Marker:
        pass

    async def impatient(sock: AsyncSocket) -> weakref.ref[Marker]:
        marker = Marker()
        try:
            await sock.recv_line(0.001)
        except SocketTimeout:
            pass
        return weakref.ref(marker)

    with wire() as (sock, _):
        await impatient(sock)
        gc.collect()
        gc.disable()
        try:
            seen = [await impatient(sock) for _ in range(5)]
            await turns(1)  # asyncio keeps the last one until we sleep again
            assert [each() for each in seen] == [None] * 5, "every timeout leaves a circle behind"
        finally:
            gc.enable()


@every_way
async def test_a_closed_socket_is_freed_without_a_search_for_garbage(way: Way) -> None:
    ours, peer = socket.socketpair()
    with peer:
        sock = AsyncSocket.from_socket(ours)
        peer.send(b"line\n")
        assert await sock.recv_line(5) == b"line"
        reading = asyncio.create_task(sock.recv_line())
        await turns(3)
        reading.cancel()
        await asyncio.wait([reading])
        sock.close()
        await turns(6)
        freed = weakref.ref(sock)
        gc.disable()
        try:
            del sock, reading
            assert freed() is None
        finally:
            gc.enable()


@every_way
@pytest.mark.parametrize("has_read", [False, True], ids=["fresh", "registered"])
async def test_a_socket_that_is_forgotten_open_warns_and_says_which(way: Way, has_read: bool) -> None:
    ours, peer = socket.socketpair()
    with peer:
        sock = AsyncSocket.from_socket(ours)
        if has_read:
            reading = asyncio.create_task(sock.recv_line(50))
            await turns(3)
            peer.send(b"line\n")
            assert await reading == b"line"
            del reading
        name = repr(sock)
        number = sock.fileno()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del sock
            gc.collect()
        assert [str(each.message) for each in caught] == [f"unclosed {name}"]
        assert caught[0].category is ResourceWarning
        assert f"fd={number}" in name
        await turns(6)
        assert peer.recv(1) == b""
