"""Bytes that go from the kernel to the task without a detour through the core: the same answers as by any other way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from tests.asyncnet.loops import ALL_WAYS, Way, turns
from tests.asyncnet.streams import wire
from wireline import BUFFER_SIZE, BusyError, ClosedError, ReadLineResult, SocketFlag, SocketTimeout
from wireline.asyncnet import AsyncSocket

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
polled = pytest.mark.parametrize(
    "way", [way for way in ALL_WAYS if not way.portable], ids=lambda way: way.name
)

Read = Callable[[AsyncSocket], Coroutine[object, object, bytes]]


class Number:
    """Not an int, and no more than an index."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


async def read_as_it_comes(read: Read, before: bytes, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """The result of a read that waits while the pieces arrive one by one, and the bytes left for the next."""
    with wire() as (sock, peer):
        peer.send(
            b"first\n" + before
        )  # so that the socket has its reader, and the core the bytes that were not asked for
        assert await sock.recv_line() == b"first"
        warm = asyncio.create_task(sock.recv_exactly(len(before) + 1))
        await turns(2)
        warm.cancel()
        await asyncio.wait([warm])
        reading = asyncio.create_task(read(sock))
        await turns(2)
        for piece in pieces:
            assert not reading.done()
            peer.send(piece)
            await turns(3)
        answer = await asyncio.wait_for(reading, 5)
        peer.close()
        return answer, await sock.recv(1000)


@every_way
@pytest.mark.parametrize(
    ("pieces", "answer", "rest"),
    [
        ([b"line\n"], b"line", b""),
        ([b"line\r\n"], b"line", b""),
        ([b"\n"], b"\r\n", b""),
        ([b"\r\n"], b"\r\n", b""),
        ([b"a\rb\n"], b"a\rb", b""),
        ([b"a\r\r\n"], b"a\r", b""),
        ([b"12345678\n"], b"12345678", b""),
        ([b"12345678\r\n"], b"12345678", b""),
        ([b"123456789\n"], b"12345678", b"9\n"),
        ([b"123456789\r\n"], b"12345678", b"9\r\n"),
        ([b"one\ntwo\n"], b"one", b"two\n"),
        ([b"one\ntwo"], b"one", b"two"),
        ([b"l", b"ine\n"], b"line", b""),
        ([b"l", b"ine\r", b"\n"], b"line", b""),
    ],
)
async def test_R6_a_line_that_is_waited_for(
    way: Way, pieces: list[bytes], answer: bytes, rest: bytes
) -> None:
    assert await read_as_it_comes(lambda sock: sock.recv_line(max_length=8), b"", pieces) == (answer, rest)


@every_way
async def test_R6_a_line_whose_beginning_was_there(way: Way) -> None:
    answer = await read_as_it_comes(lambda sock: sock.recv_line(), b"beg", [b"in\n"])
    assert answer == (b"begin", b"")


@every_way
@pytest.mark.parametrize(
    ("piece", "answer", "rest"), [(b"123", b"123", b""), (b"1234", b"1234", b""), (b"12345", b"1234", b"5")]
)
async def test_some_bytes_that_are_waited_for(way: Way, piece: bytes, answer: bytes, rest: bytes) -> None:
    assert await read_as_it_comes(lambda sock: sock.recv_some(4), b"", [piece]) == (answer, rest)


@every_way
async def test_a_peek_that_waits_takes_nothing(way: Way) -> None:
    peek = SocketFlag.PEEK | SocketFlag.SAFE_DISCONN
    some = await read_as_it_comes(lambda sock: sock.recv_some(4, flags=peek), b"", [b"123"])
    assert some == (b"123", b"123")
    line = await read_as_it_comes(lambda sock: sock.recv_line(flags=peek), b"", [b"line\n"])
    assert line == (b"line", b"line\n")


@every_way
async def test_a_number_may_be_anything_that_is_an_index(way: Way) -> None:
    four = Number(4)
    some = await read_as_it_comes(lambda sock: sock.recv_some(four), b"", [b"12345"])  # type: ignore[arg-type]
    assert some == (b"1234", b"5")
    line = await read_as_it_comes(lambda sock: sock.recv_line(max_length=four), b"", [b"line\n"])  # type: ignore[arg-type]
    assert line == (b"line", b"")


@asynccontextmanager
async def with_fast_recv(**options: bool) -> AsyncIterator[tuple[AsyncSocket, socket.socket]]:
    """A connection whose last read returned one receive as it was, so that the next one does not ask the core."""
    with wire(**options) as (sock, peer):
        for _ in range(2):
            reading = asyncio.create_task(sock.recv_some())
            await turns(2)
            peer.send(b"first")
            assert await reading == b"first"
        yield sock, peer


READS: list[Read] = [lambda sock: sock.recv_some(), lambda sock: sock.recv_line()]
every_read = pytest.mark.parametrize("read", READS, ids=["recv_some", "recv_line"])


@polled
async def test_R2_recv_some_after_recv_line_keeps_the_terminator(way: Way) -> None:
    async with with_fast_recv() as (sock, peer):
        for read, result in 2 * [(sock.recv_line, b"line"), (sock.recv_some, b"line\n")]:
            reading = asyncio.create_task(read())
            await turns(2)
            peer.send(b"line\n")
            assert await reading == result


@every_way
@every_read
async def test_R4_bytes_left_by_a_read_that_does_not_wait_are_there_for_the_next(
    way: Way, read: Read
) -> None:
    async with with_fast_recv() as (sock, peer):
        peer.send(b"12line\n")
        assert await sock.recv_exactly(2, timeout=0) == b"12"
        assert (await asyncio.wait_for(read(sock), 5)).rstrip() == b"line"


@every_way
@every_read
async def test_bytes_that_try_recv_line_has_seen_are_there_for_the_next(way: Way, read: Read) -> None:
    async with with_fast_recv() as (sock, peer):
        peer.send(b"line")
        assert sock.try_recv_line() == (ReadLineResult.PARTIAL_LINE, b"line")
        reading = asyncio.create_task(read(sock))
        await turns(2)
        peer.send(b"\n")
        assert (await asyncio.wait_for(reading, 5)).rstrip() == b"line"


@every_way
@every_read
async def test_R5_a_read_that_is_given_up_loses_nothing(way: Way, read: Read) -> None:
    async with with_fast_recv() as (sock, peer):
        for _ in range(2):
            with pytest.raises(SocketTimeout, match=r"0\.001"):
                await (sock.recv_some(timeout=0.001) if read is READS[0] else sock.recv_line(0.001))
            leaving = asyncio.create_task(read(sock))
            await turns(2)
            leaving.cancel()
            await asyncio.wait([leaving])
            peer.send(b"line\n")
            assert (await asyncio.wait_for(read(sock), 5)).rstrip() == b"line"


@every_way
@every_read
async def test_a_second_reader_is_refused(way: Way, read: Read) -> None:
    async with with_fast_recv() as (sock, peer):
        reading = asyncio.create_task(read(sock))
        await turns(2)
        with pytest.raises(BusyError):
            await read(sock)
        peer.send(b"line\n")
        assert (await reading).rstrip() == b"line"


@every_way
async def test_bad_arguments_are_refused_before_anything_is_read(way: Way) -> None:
    bad: list[tuple[type[Exception], Callable[[AsyncSocket], Coroutine[object, object, bytes]]]] = [
        (ValueError, lambda sock: sock.recv_some(-1)),
        (TypeError, lambda sock: sock.recv_some(True)),
        (TypeError, lambda sock: sock.recv_some(1.5)),  # type: ignore[arg-type]
        (TypeError, lambda sock: sock.recv_some(flags=2)),  # type: ignore[arg-type]
        (ValueError, lambda sock: sock.recv_some(timeout=-1)),
        (TypeError, lambda sock: sock.recv_some(timeout=True)),
        (ValueError, lambda sock: sock.recv_line(max_length=0)),
        (ValueError, lambda sock: sock.recv_line(on_long="stretch")),
        (TypeError, lambda sock: sock.recv_line("1")),  # type: ignore[arg-type]
    ]
    async with with_fast_recv() as (sock, peer):
        for error, read in bad:
            with pytest.raises(error):
                await read(sock)
        assert await sock.recv_some(0) == b""
        peer.send(b"line\n")
        assert await sock.recv_line(timeout=float("inf")) == b"line"


@every_way
async def test_unbuffered_nothing_is_taken_from_the_kernel_that_was_not_asked_for(way: Way) -> None:
    async with with_fast_recv(buffered=False) as (sock, peer):
        for count in (2, 1, 2):
            reading = asyncio.create_task(sock.recv_some(count))
            await turns(2)
            peer.send(b"12345"[:count] + b"more")
            assert await asyncio.wait_for(reading, 5) == b"12345"[:count]
            assert not sock.has_data_buffered
            assert await sock.recv_exactly(4) == b"more"


@every_way
@every_read
async def test_after_a_read_of_more_than_a_buffer_the_next_asks_for_a_buffer_again(
    way: Way, read: Read
) -> None:
    async with with_fast_recv() as (sock, peer):
        reading = asyncio.create_task(sock.recv_some(2 * BUFFER_SIZE))
        await turns(2)
        assert sock._io.core is not None
        assert sock._io.core.recv_size == 2 * BUFFER_SIZE
        peer.send(b"much")
        assert await asyncio.wait_for(reading, 5) == b"much"
        reading = asyncio.create_task(read(sock))
        await turns(2)
        assert sock._io.core.recv_size == BUFFER_SIZE
        peer.send(b"line\n")
        assert (await asyncio.wait_for(reading, 5)).rstrip() == b"line"


@every_way
@every_read
async def test_a_reset_is_an_end_and_a_close_is_an_error(way: Way, read: Read) -> None:
    async with with_fast_recv() as (sock, peer):
        reading = asyncio.create_task(read(sock))
        await turns(2)
        peer.close()
        assert await asyncio.wait_for(reading, 5) == b""
        assert await read(sock) == b""
    async with with_fast_recv() as (sock, peer):
        reading = asyncio.create_task(read(sock))
        await turns(2)
        sock.close()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(reading, 5)
        with pytest.raises(ClosedError):
            await read(sock)


@pytest.mark.parametrize("way", [way for way in ALL_WAYS if not way.portable], ids=lambda way: way.name)
@every_read
def test_another_loop_is_refused(way: Way, read: Read) -> None:
    ours, peer = socket.socketpair()
    with peer, contextlib.closing(AsyncSocket.from_socket(ours)) as sock:

        async def begin() -> None:
            reading = asyncio.create_task(sock.recv_some())
            await turns(2)
            peer.send(b"first")
            assert await reading == b"first"

        async def go_on() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await read(sock)

        first = way.new_loop()
        first.run_until_complete(begin())
        second = way.new_loop()
        second.run_until_complete(go_on())
        sock.close()
        second.close()
        first.run_until_complete(asyncio.sleep(0))
        first.close()
