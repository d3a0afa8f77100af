"""R5 by brute force: every read, given up in every way at every moment, loses nothing."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asyncnet.loops import ALL_WAYS, Way, spy, turns
from tests.asyncnet.streams import HOWS, LEFT, GivenUp, cancelled_at, wire
from tests.core.model import Failure, Framing, NaiveStream, Outcome, Request, cut
from wireline import BusyError, EndOfStreamError, FrameError, LineTooLongError, ReadLineResult
from wireline.asyncnet import AsyncSocket

HEAD = b"a line\r\n"
TAIL = b"and\nwhat follows it\r\n"

Read = Callable[[AsyncSocket, float | None], Coroutine[Any, Any, bytes]]
"""A read that is answered by ``HEAD``. It returns the bytes that it took from the stream."""


async def recv_into(sock: AsyncSocket, timeout: float | None) -> bytes:
    buffer = bytearray(len(HEAD))
    size = await sock.recv_into(buffer, timeout=timeout)
    return bytes(buffer[:size])


async def recv_line(sock: AsyncSocket, timeout: float | None) -> bytes:
    return await sock.recv_line(timeout) + b"\r\n"


async def recv_line_into(sock: AsyncSocket, timeout: float | None) -> bytes:
    line = bytearray(b"what was there before")
    await sock.recv_line_into(line, timeout)
    return bytes(line) + b"\r\n"


async def first_of_lines(sock: AsyncSocket, timeout: float | None) -> bytes:
    async for line in sock.lines(timeout=timeout):
        return line + b"\r\n"
    raise AssertionError


async def skip(sock: AsyncSocket, timeout: float | None) -> bytes:
    await sock.skip(len(HEAD), timeout)
    return HEAD


READS: dict[str, Read] = {
    "recv": lambda sock, timeout: sock.recv(len(HEAD), timeout),
    "recv_into": recv_into,
    "recv_some": lambda sock, timeout: sock.recv_some(len(HEAD), timeout),
    "recv_exactly": lambda sock, timeout: sock.recv_exactly(len(HEAD), timeout),
    "recv_until": lambda sock, timeout: sock.recv_until(b"\r\n", timeout=timeout),
    "recv_line": recv_line,
    "recv_line_into": recv_line_into,
    "lines": first_of_lines,
    "skip": skip,
}

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)

PIECES = [(HEAD,), (HEAD[:3], HEAD[3:]), (HEAD[:-1], HEAD[-1:] + TAIL[:4])]
"""The bytes that arrive before the call is given up, if it is given up late enough."""

TURNS = range(7)
"""Turns of the loop between the arrival of a piece and the giving up. The portable way takes four to hand it over."""


async def read_on(sock: AsyncSocket, peer: socket.socket, rest: bytes) -> bytes:
    """Let the peer finish, and read all there is."""
    peer.send(rest)
    peer.shutdown(socket.SHUT_WR)
    return await sock.recv(1000)


@every_way
@every_read
async def test_R5_a_read_that_is_given_up_at_any_moment_loses_nothing(way: Way, read: Read) -> None:
    # A timeout that passes by itself costs real time: there the moments are fewer.
    moments = TURNS if way.has_a_clock_to_put_forward else TURNS[::3]
    for how, pieces, count in itertools.product(HOWS, PIECES, moments):
        for stage in range(len(pieces) + 1):
            with wire() as (sock, peer):
                call = GivenUp(how, lambda timeout, sock=sock: read(sock, timeout))
                await turns(3)
                for piece in pieces[:stage]:
                    peer.send(piece)
                    await turns(count)
                await call.give_up()
                taken = await call.outcome()
                rest = await read_on(sock, peer, b"".join(pieces[stage:]) + TAIL)
                sent = b"".join(pieces) + TAIL
                assert (b"" if taken is LEFT else taken) + rest == sent, (how, stage, count)


@every_way
@every_read
async def test_R5_a_read_that_is_cancelled_at_its_first_suspension_loses_nothing(
    way: Way, read: Read
) -> None:
    for arrived, soon in itertools.product(range(len(HEAD) + 1), (False, True)):
        with wire() as (sock, peer):
            peer.send(HEAD[:arrived])
            taken, _ = await cancelled_at(1, soon, read(sock, None))
            rest = await read_on(sock, peer, HEAD[arrived:] + TAIL)
            assert (b"" if taken is LEFT else taken) + rest == HEAD + TAIL


@pytest.mark.parametrize("read", [READS[name] for name in READS if name != "recv_some"])
async def test_a_reader_is_woken_once_for_an_answer_in_many_pieces(way: Way, read: Read) -> None:
    with wire() as (sock, peer):
        reading = asyncio.create_task(cancelled_at(0, False, read(sock, None)))
        for byte in HEAD:
            await turns(6)
            peer.send(bytes([byte]))
        assert await reading == (HEAD, 1)


@every_way
@every_read
async def test_R4_bytes_of_a_read_that_was_given_up_are_there_for_one_that_does_not_wait(
    way: Way, read: Read
) -> None:
    for count in TURNS:
        with wire() as (sock, peer):
            call = GivenUp("cancel", sock.recv_line)
            await turns(3)
            await call.give_up()
            assert await call.outcome() is LEFT
            peer.send(HEAD)
            await turns(count)
            taken = await read(sock, 0)
            assert taken + await read_on(sock, peer, TAIL) == HEAD + TAIL


@every_way
async def test_R4_bytes_of_a_read_that_was_given_up_are_there_for_try_recv_line(way: Way) -> None:
    for count in TURNS:
        with wire() as (sock, peer):
            call = GivenUp("cancel", sock.recv_line)
            await turns(3)
            await call.give_up()
            assert await call.outcome() is LEFT
            peer.send(HEAD + b"part")
            await turns(count)
            if way.portable:  # it never waits, not even for bytes that are on their way
                await turns(5)
            assert sock.try_recv_line() == (ReadLineResult.FULL_LINE, b"a line")
            assert sock.try_recv_line() == (ReadLineResult.PARTIAL_LINE, b"part")


@every_way
async def test_R5_detach_never_takes_the_descriptor_away_from_bytes_that_arrived(way: Way) -> None:
    for count in TURNS:
        with wire() as (sock, peer):
            call = GivenUp("cancel", sock.recv_line)
            await turns(3)
            await call.give_up()
            assert await call.outcome() is LEFT
            peer.send(HEAD)
            await turns(count)
            refused = None
            try:
                raw = socket.socket(fileno=sock.detach())
            except OSError as error:
                refused = error.errno
            else:
                with raw:
                    assert raw.recv(100) == HEAD
            assert refused in (None, errno.EBUSY)
            assert not refused or await sock.recv_exactly(len(HEAD)) == HEAD


# ---------------------------------------------------------------------------------- any cut, any moment

REQUESTS = st.one_of(
    st.tuples(st.sampled_from(["recv", "recv_exactly", "skip"]), st.integers(0, 12)),
    st.tuples(st.just("recv_line"), st.sampled_from([1, 3, 1000])),
    st.tuples(st.just("recv_until"), st.integers(1, 20)),
    st.tuples(st.sampled_from(["recv_frame", "frames", "recv_struct", "fill", "unread"]), st.integers(1, 12)),
).map(lambda words: Request(*words, framing=Framing("B", length_adjust=-90, max_size=20), data=b"back"))
"""Of the bytes of the text some are lengths, and some are refused."""

TEXTS = st.lists(st.sampled_from([b"\r\n", b"\n", b"a\r", b"some words"]), max_size=8).map(b"".join)


# One call: the request, the way in which it is given up, pieces that arrive before, and turns after each.
STEPS = st.lists(
    st.tuples(REQUESTS, st.sampled_from(HOWS), st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=6
)


async def make(sock: AsyncSocket, request: Request, timeout: float | None) -> Outcome:
    """Make a request of a socket, as the model is asked."""
    try:
        match request.kind:
            case "recv_line":
                return await sock.recv_line(timeout, max_length=request.size)
            case "recv_until":
                return await sock.recv_until(b"\n", request.size, timeout)
            case "skip":
                await sock.skip(request.size, timeout)
                return b""
            case "unread":
                sock.unread(request.data)
                return b""
            case "recv_struct":
                return await sock.recv_struct(request.framing.header, timeout)
            case "recv_frame":
                return await sock.recv_frame(**request.framing._asdict(), timeout=timeout)
            case "frames":
                return await anext(sock.frames(**request.framing._asdict(), timeout=timeout), b"")
            case "fill":
                view = await sock.fill(request.size, timeout)
                sock.consume(request.used)
                return bytes(view[: request.size])
            case kind:
                answer: bytes = await getattr(sock, kind)(request.size, timeout)
                return answer
    except EndOfStreamError as error:
        return Failure(EndOfStreamError, error.partial)
    except LineTooLongError as error:
        return Failure(LineTooLongError, error.limit)
    except FrameError as error:
        return Failure(type(error), error.size)


def agree(model: NaiveStream, request: Request, outcome: Outcome) -> None:
    """Compare with the result of a reader of the whole text."""
    expected = model.answer(request)
    assert outcome == (b"" if request.kind == "skip" and isinstance(expected, bytes) else expected)


@pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
@given(text=TEXTS, places=st.lists(st.integers(0, 80)), steps=STEPS, after=st.lists(REQUESTS, max_size=6))
def test_R5_reads_given_up_at_random_while_bytes_drip_in_any_cut(
    way: Way, text: bytes, places: list[int], steps: list[tuple[Request, str, int, int]], after: list[Request]
) -> None:
    async def main() -> None:
        model = NaiveStream()
        model.data, model.ended = text, True
        pieces = list(cut(text, places))
        with wire() as (sock, peer):
            for request, how, count, pauses in steps:
                call = GivenUp(how, lambda timeout, request=request: make(sock, request, timeout))
                for _ in range(min(count, len(pieces))):
                    peer.send(pieces.pop(0))
                    await turns(pauses)
                await call.give_up()
                outcome = await call.outcome()
                if outcome is not LEFT:
                    agree(model, request, outcome)
            if pieces:
                peer.send(b"".join(pieces))
            peer.shutdown(socket.SHUT_WR)
            for request in after:
                agree(model, request, await make(sock, request, None))
            assert await sock.recv(1000) == model.data

    way.run(main, thorough=False)


# -------------------------------------------------------------------------------------------- two readers


@every_way
@every_read
async def test_R11_the_second_reader_is_refused_and_the_first_is_unharmed(way: Way, read: Read) -> None:
    with wire() as (sock, peer):
        first = asyncio.create_task(read(sock, None))
        await turns(3)
        peer.send(HEAD[:1])
        await turns(6)
        for second in READS.values():
            if not first.done():
                with pytest.raises(BusyError):
                    await second(sock, 5)
                with pytest.raises(BusyError):
                    await second(sock, 0)
        if not first.done():
            with pytest.raises(BusyError):
                sock.try_recv_line()
        peer.send(HEAD[1:])
        taken = await first
        assert taken + await read_on(sock, peer, TAIL) == HEAD + TAIL


@every_way
async def test_R11_a_read_after_one_that_was_given_up_is_not_refused(way: Way) -> None:
    with wire() as (sock, peer):
        for how in HOWS:
            call = GivenUp(how, lambda timeout: sock.recv_exactly(4, timeout))
            await turns(2)
            await call.give_up()
            assert await call.outcome() is LEFT
        peer.send(b"here")
        assert await sock.recv_exactly(4) == b"here"
        assert spy().calls["add_reader"] <= 2 + 2 * len(HOWS)
