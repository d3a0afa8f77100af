"""Bytes that go from the kernel to the task without a detour through the core: the same answers as by any other way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.asyncnet.loops import ALL_WAYS, Way, turns
from tests.asyncnet.streams import wire
from wireline import SocketFlag
from wireline.asyncnet import AsyncSocket

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)

Read = Callable[[AsyncSocket], Coroutine[object, object, bytes]]


class Number:
    """Not an int, and no more than an index."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


async def read_as_it_comes(read: Read, before: bytes, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What a read answers that waits while the pieces come one by one, and what is left for the next."""
    with wire() as (sock, peer):
        peer.send(
            b"first\n" + before
        )  # so that the socket has its reader, and the core what was not asked for
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
