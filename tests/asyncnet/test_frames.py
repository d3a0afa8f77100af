"""Framed reads of tasks: given up at any moment, two at once, with other tasks beside them, and on a foreign loop."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.asyncnet.loops import AsyncioLoop, Way, turns
from tests.asyncnet.streams import HOWS, LEFT, GivenUp, cancelled_at, wire
from tests.asyncnet.test_fairness import LIMIT, steps_until_others_go_on
from tests.asyncnet.test_giving_up_reads import HEAD, PIECES, TAIL, TURNS, every_way, read_on
from wireline import BusyError, ClosedError, Frame, FrameTooLongError
from wireline.asyncnet import AsyncSocket
from wireline.asyncnet._poller import BUDGET

Read = Callable[[AsyncSocket, float | None], Coroutine[Any, Any, bytes]]
"""A read that is answered by ``HEAD``. It returns the bytes that it took from the stream."""

ADJUST = len(HEAD) - 1 - HEAD[0]


def header(view: memoryview) -> tuple[int, int] | None:
    """Of two bytes, as a function."""
    return (2, view[0] + ADJUST - 1) if len(view) > 1 else None


def bytes_of(frame: Frame) -> bytes:
    fields = frame.fields if isinstance(frame.fields, bytes) else bytes(frame.fields)
    return fields + frame.payload


async def recv_struct(sock: AsyncSocket, timeout: float | None) -> bytes:
    first, rest = await sock.recv_struct(f"B{len(HEAD) - 1}s", timeout)
    return bytes([first]) + rest


async def recv_frame(sock: AsyncSocket, timeout: float | None) -> bytes:
    return bytes_of(await sock.recv_frame("B", length_adjust=ADJUST, timeout=timeout))


async def recv_frame_by_a_function(sock: AsyncSocket, timeout: float | None) -> bytes:
    return bytes_of(await sock.recv_frame(header, timeout=timeout))


async def first_of_frames(sock: AsyncSocket, timeout: float | None) -> bytes:
    async for frame in sock.frames("B", length_adjust=ADJUST, timeout=timeout):
        return bytes_of(frame)
    raise AssertionError


async def fill(sock: AsyncSocket, timeout: float | None) -> bytes:
    view = await sock.fill(len(HEAD), timeout)
    sock.consume(len(HEAD))
    return bytes(view[: len(HEAD)])


async def recv_some_into(sock: AsyncSocket, timeout: float | None) -> bytes:
    buffer = bytearray(len(HEAD))
    size = await sock.recv_some_into(buffer, timeout)
    assert buffer[size:] == bytes(len(HEAD) - size)
    return bytes(buffer[:size])


async def until_one_of(sock: AsyncSocket, timeout: float | None) -> bytes:
    return await sock.recv_until((b"what", b"\r\n"), timeout=timeout)


READS: dict[str, Read] = {
    "recv_struct": recv_struct,
    "recv_frame": recv_frame,
    "recv_frame by a function": recv_frame_by_a_function,
    "frames": first_of_frames,
    "fill": fill,
    "recv_some_into": recv_some_into,
    "recv_until": until_one_of,
}


@every_way
async def test_R5_a_framed_read_that_is_given_up_at_any_moment_loses_nothing(way: Way) -> None:
    moments = TURNS[::2] if way.has_a_clock_to_put_forward else TURNS[::6]
    for name, how, pieces, count in itertools.product(READS, HOWS, PIECES[1:], moments):
        for stage in range(len(pieces) + 1):
            with wire() as (sock, peer):
                call = GivenUp(how, lambda timeout, sock=sock, name=name: READS[name](sock, timeout))
                await turns(3)
                for piece in pieces[:stage]:
                    peer.send(piece)
                    await turns(count)
                await call.give_up()
                taken = await call.outcome()
                rest = await read_on(sock, peer, b"".join(pieces[stage:]) + TAIL)
                sent = b"".join(pieces) + TAIL
                assert (b"" if taken is LEFT else taken) + rest == sent, (name, how, stage, count)


@every_way
async def test_R5_a_framed_read_that_is_cancelled_at_any_await_loses_nothing(way: Way) -> None:
    """At its first suspension, or at that by which it lets other tasks run, and at each after it."""
    suspended = 0
    for name, arrived, soon, spent in itertools.product(
        READS, range(len(HEAD) + 1), (False, True), (False, True)
    ):
        for number in (1, 2, 3):
            with wire() as (sock, peer):
                peer.send(HEAD[:3])
                assert await sock.fill(3) == HEAD[:3]
                peer.send(HEAD[3:arrived])
                sock._io.fd.port.budget = 0 if spent else BUDGET
                if arrived < len(HEAD):
                    asyncio.get_running_loop().call_later(0.001, peer.send, HEAD[max(arrived, 3) :])
                taken, count = await cancelled_at(number, soon, READS[name](sock, None))
                suspended = max(suspended, count)
                if arrived < len(HEAD):
                    await asyncio.sleep(0.002)
                rest = await read_on(sock, peer, TAIL)
                assert (b"" if taken is LEFT else taken) + rest == HEAD + TAIL, (name, arrived, number)
            if count < number:
                break
    assert suspended >= 2
    await check_that_an_exception_finishes_frames()


async def check_that_an_exception_finishes_frames() -> None:
    with wire() as (sock, peer):
        frames = sock.frames("!H", max_size=100)
        peer.send(b"\0\3one\0\3tw")
        assert await anext(frames) == ((3,), b"one")
        assert (await cancelled_at(1, False, anext(frames)))[0] is LEFT
        peer.send(b"o\xff\xff")
        for _ in range(2):
            assert await anext(frames, None) is None
        frames = sock.frames("!H", max_size=100)
        assert await anext(frames) == ((3,), b"two")
        with pytest.raises(FrameTooLongError, match="65535 bytes, the limit is 100"):
            await anext(frames)
        assert await anext(frames, None) is None
        assert await sock.recv_some() == b"\xff\xff"


@every_way
async def test_R11_R13_a_framed_read_beside_another_task_or_close(way: Way) -> None:
    await check_that_a_second_read_is_refused_and_the_first_unharmed()
    await check_that_close_wakes_a_read()
    await check_that_nothing_is_read_after_close()


async def check_that_a_second_read_is_refused_and_the_first_unharmed() -> None:
    for read in READS.values():
        with wire() as (sock, peer):
            iterator = sock.frames("B", length_adjust=ADJUST)
            first = asyncio.create_task(read(sock, None))
            await turns(3)
            for name, second in READS.items():
                for timeout in (5, 0):
                    try:
                        await second(sock, timeout)
                    except BusyError:
                        continue
                    raise AssertionError(name)
            for plain in (lambda: sock.consume(0), lambda: sock.unread(b"x"), sock.try_recv):
                try:
                    plain()
                except BusyError:
                    continue
                raise AssertionError(plain)
            try:
                await anext(iterator)
            except BusyError:
                pass
            else:
                raise AssertionError("frames")
            peer.send(HEAD)
            taken = await first
            peer.send(HEAD)
            # The refusal has not finished the iterator.
            assert (
                taken + bytes_of(await anext(iterator)) + await read_on(sock, peer, TAIL) == 2 * HEAD + TAIL
            )


async def check_that_close_wakes_a_read() -> None:
    for name, read in READS.items():
        with wire() as (sock, peer):
            peer.send(HEAD[:3])
            assert await sock.fill(3) == HEAD[:3]
            waiting = asyncio.create_task(read(sock, None))
            await turns(3)
            if name != "recv_some_into":
                assert not waiting.done(), name
                sock.close()
                await asyncio.wait([waiting])
                assert isinstance(waiting.exception(), ClosedError), name


async def check_that_nothing_is_read_after_close() -> None:
    for name, read in READS.items():
        with wire() as (sock, peer):
            peer.send(b"\1a" * 1000)
            frames = sock.frames("B")
            for _ in range(400):
                await anext(frames)
            assert sock._io.buffer.frames
            view = await sock.fill(10)
            sock.close()
            assert view[:4] == b"\1a\1a"
            for call in (lambda: sock.consume(1), lambda: sock.unread(b"x"), sock.try_recv):
                try:
                    call()
                except ClosedError:
                    continue
                raise AssertionError(call)
            for refused in (read(sock, None), anext(frames)):
                try:
                    await refused
                except ClosedError:
                    continue
                raise AssertionError(name)


Once = Callable[[AsyncSocket], Awaitable[object]]

ONCE: dict[str, Once] = {
    "recv_struct": lambda sock: sock.recv_struct("2s"),
    "recv_frame": lambda sock: sock.recv_frame("B"),
    "recv_frame with a timeout": lambda sock: sock.recv_frame("B", timeout=5),
    "recv_frame at once": lambda sock: sock.recv_frame("B", timeout=0),
    "recv_frame by a function": lambda sock: sock.recv_frame(lambda view: (1, 1)),
    "fill": lambda sock: sock.fill(2),
    "fill 0": lambda sock: sock.fill(0),
    "recv_some_into": lambda sock: sock.recv_some_into(bytearray(2)),
    "recv_until": lambda sock: sock.recv_until((b"x", b"\1")),
}


async def test_FA22_a_task_that_always_finds_a_frame_lets_the_others_go_on(way: Way) -> None:
    for name, once in ONCE.items():
        with wire() as (sock, peer):
            peer.send(b"\1x" * (LIMIT + 20))
            await sock.fill(2)
            count = await steps_until_others_go_on(lambda once=once, sock=sock: once(sock), LIMIT)
            assert count < LIMIT, name
    with wire() as (sock, peer):
        peer.send(b"\1x" * (LIMIT + 400))
        frames = sock.frames("B")
        for _ in range(300):
            await anext(frames)
        assert sock._io.buffer.frames
        assert await steps_until_others_go_on(lambda: anext(frames), LIMIT) < LIMIT
    await check_that_alternating_reads_take_each_byte_once()


async def check_that_alternating_reads_take_each_byte_once() -> None:
    with wire() as (sock, peer):
        unit = b"\0\5frame" + b"a line\n" + b"12345678"
        peer.send(unit * 200)
        frames = sock.frames("!H")
        for round_ in range(200):
            assert await anext(frames) == ((5,), b"frame")
            assert await sock.recv_line() == b"a line"
            view = await sock.fill(8)
            assert view[:2] == b"12"
            sock.consume(1)
            if round_ % 2:
                sock.unread(b"1")
                assert await sock.recv_struct("!II") == (0x31323334, 0x35363738)
            else:
                assert await sock.recv_exactly(7) == b"2345678"
        assert sock.try_recv() is None
        peer.shutdown(socket.SHUT_WR)
        await turns(6)
        assert await anext(frames, None) is None
        assert sock.try_recv() == b""


def test_another_event_loop_is_refused_and_takes_nothing() -> None:
    way = Way("asyncio", AsyncioLoop)
    with way.chosen():
        one, other = way.new_loop(), way.new_loop()
        ours, peer = socket.socketpair()
        with peer:
            sock = AsyncSocket.from_socket(ours)
            peer.sendall(HEAD)
            assert one.run_until_complete(sock.fill(8)) == HEAD
            for name in ("recv_struct", "recv_frame", "frames", "fill"):
                try:
                    other.run_until_complete(READS[name](sock, None))
                except RuntimeError as error:
                    assert "another event loop" in str(error)  # noqa: PT017
                else:
                    raise AssertionError(name)
            assert one.run_until_complete(recv_frame(sock, None)) == HEAD
            sock.close()
            one.run_until_complete(turns(5))
        one.close()
        other.close()
