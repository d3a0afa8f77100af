"""``from_stream``: the reading and sending methods of a socket over streams of trio and anyio, on both loops."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.abc
import pytest
import trio
import trio.testing
from anyio.streams.stapled import StapledObjectStream

from wireline import (
    BusyError,
    ClosedError,
    Deadline,
    EndOfStreamError,
    LineTooLongError,
    SocketFlag,
    SocketTimeout,
)
from wireline.adapters import anyio as adapter_of_anyio
from wireline.adapters import trio as adapter_of_trio

pytestmark = [pytest.mark.anyio, pytest.mark.sampled]

Peer = Any
"""The other end: its library's own stream, with a ``send_all`` that waits, and a ``receive``."""


class _AnyioPeer:
    def __init__(self, stream: Any) -> None:
        self.send_all = stream.send
        self.receive = stream.receive
        self.aclose = stream.aclose
        self.send_eof = stream.send_eof


class _TrioPeer:
    def __init__(self, stream: Any) -> None:
        self.send_all = stream.send_all
        self.receive = stream.receive_some
        self.aclose = stream.aclose
        self.send_eof = stream.send_eof


def objects(limit: float) -> tuple[Any, Any]:
    """Two ends of a pair of object streams of anyio, as those of a WebSocket are."""
    there, here = (anyio.create_memory_object_stream[bytes](limit) for _ in range(2))
    return StapledObjectStream(there[0], here[1]), StapledObjectStream(here[0], there[1])


LOOPS: dict[str, tuple[object, bool]] = {
    "trio": (("trio", {}), True),
    "anyio-asyncio": (("asyncio", {"use_uvloop": False}), False),
    "anyio-trio": (("trio", {}), False),
}


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def anyio_backend(loop: str) -> object:
    return LOOPS[loop][0]


@pytest.fixture
async def make(loop: str) -> AsyncIterator[Callable[..., tuple[Any, Peer]]]:
    """Make a stream of ours and its peer; with ``limit=0`` a send waits until it was received."""
    made: list[Any] = []

    def pair(limit: float = math.inf) -> tuple[Any, Peer]:
        if LOOPS[loop][1]:
            maker = trio.testing.memory_stream_pair if limit else trio.testing.lockstep_stream_pair
            ours, peer = maker()
            made.extend((ours, peer))
            return adapter_of_trio.from_stream(ours), _TrioPeer(peer)
        ours, peer = objects(limit)
        made.extend((ours, peer))
        return adapter_of_anyio.from_stream(ours), _AnyioPeer(peer)

    yield pair
    for stream in made:
        await stream.aclose()


async def test_every_read_has_the_result_of_a_sockets(make: Callable[..., tuple[Any, Peer]]) -> None:
    ours, peer = make()
    await peer.send_all(b"one\r\n\r\nthree\nabcdefghij\x00\x03xyz\x00\x01q1234;rest" + b"12345678" * 2)
    await peer.send_eof()
    assert await ours.recv_line() == b"one"
    assert await ours.recv_line(1) == b"\r\n"
    line = bytearray(b"old")
    assert await ours.recv_line_into(line) == 5
    assert line == b"three"
    assert await ours.recv(2, flags=SocketFlag.PEEK) == b"ab"
    assert await ours.recv_some(2) == b"ab"
    assert await ours.recv_exactly(2) == b"cd"
    target = bytearray(2)
    assert await ours.recv_into(target) == 2
    assert await ours.recv_some_into(target) == 2
    assert target == b"gh"
    await ours.skip(2)
    assert await ours.recv_frame("!H") == ((3,), b"xyz")
    assert [(await anext(ours.frames("!H"))).payload] == [b"q"]
    assert bytes(await ours.fill(5))[:5] == b"1234;"
    ours.consume(1)
    ours.unread(b"0")
    assert await ours.recv_until(b";") == b"0234;"
    assert await ours.recv_struct("!4s") == (b"rest",)
    assert ours.has_data_buffered
    assert await ours.recv(100) == b"12345678" * 2
    assert await ours.recv(100) == await ours.recv_line() == b""


async def test_iterators_end_with_the_stream(make: Callable[..., tuple[Any, Peer]]) -> None:
    ours, peer = make()
    await peer.send_all(b"one\n\nthree\nhalf")
    await peer.send_eof()
    lines = ours.lines()
    assert [line async for line in lines] == [b"one", b"", b"three"]
    assert [line async for line in lines] == []
    with pytest.raises(EndOfStreamError) as caught:
        await ours.recv_exactly(5)
    assert caught.value.partial == b"half"
    ours.unread(b"long line\n")
    with pytest.raises(LineTooLongError):
        await anext(ours.lines(3))
    ours.consume(len(await ours.fill()))
    assert [frame async for frame in ours.frames("!I")] == []


async def test_R5_a_read_that_is_given_up_at_any_moment_loses_nothing(
    make: Callable[..., tuple[Any, Peer]],
) -> None:
    ours, peer = make()
    got: list[bytes] = []

    async def read() -> None:
        while True:
            got.append(await ours.recv_line())

    for number in range(60):
        await peer.send_all(b"line %d\n" % number)
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            for _ in range(number % 6):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    while len(got) < 60:
        got.append(await ours.recv_line(1))
    assert got == [b"line %d" % number for number in range(60)]


async def test_timeouts(make: Callable[..., tuple[Any, Peer]]) -> None:
    ours, peer = make()
    await peer.send_all(b"half")
    for timeout in (0.01, Deadline(0.01), 0):
        with pytest.raises(SocketTimeout) as caught:
            await ours.recv_line(timeout)
        assert caught.value.operation == "recv_line"
    await peer.send_all(b" a line\nmore")
    assert await ours.recv_line(Deadline(5)) == b"half a line"
    assert await ours.recv_some(timeout=0) == b"more"


async def test_R11_a_second_reader_is_refused_and_W5_writers_take_turns(
    make: Callable[..., tuple[Any, Peer]],
) -> None:
    ours, peer = make(0)
    async with anyio.create_task_group() as group:
        group.start_soon(ours.recv_line)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(BusyError):
            await ours.recv_line()
        with pytest.raises(BusyError):
            ours.consume(1)
        await peer.send_all(b"x\n")
    async with anyio.create_task_group() as group:
        group.start_soon(ours.send, b"first")
        await anyio.wait_all_tasks_blocked()
        group.start_soon(ours.send_many, [b"sec", b"ond"])
        await anyio.wait_all_tasks_blocked()
        received = b""
        while len(received) < 11:
            received += await peer.receive()
    assert received == b"firstsecond"


async def test_W3_after_a_send_that_was_given_up_none_is_taken(make: Callable[..., tuple[Any, Peer]]) -> None:
    ours, peer = make(0)
    with pytest.raises(SocketTimeout):
        await ours.send(b"one message", timeout=0.01)
    with pytest.raises(BrokenPipeError, match="earlier send"):
        await ours.send(b"another", SocketFlag(0))
    with anyio.move_on_after(0.01):
        assert await peer.receive() in (b"", b"one message"), "what was sent is not known"


async def test_the_end_of_sending_and_of_the_stream(make: Callable[..., tuple[Any, Peer]]) -> None:
    ours, peer = make()
    async with ours:
        await ours.send(b"last words")
        for _ in range(2):
            await ours.shutdown_write()
        with pytest.raises(BrokenPipeError):
            await ours.send(b"x", SocketFlag(0))
        assert await peer.receive() == b"last words"
        async with anyio.create_task_group() as group:

            async def read() -> None:
                with pytest.raises(ClosedError):
                    await ours.recv_line()

            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await ours.aclose()
    assert ours.is_closed
    for call in (ours.recv(1), ours.send(b"x"), ours.shutdown_write()):
        with pytest.raises(ClosedError):
            await call
    with pytest.raises(ClosedError):
        ours.lines()
    await peer.aclose()


async def test_a_peer_that_is_gone(make: Callable[..., tuple[Any, Peer]]) -> None:
    ours, peer = make()
    await peer.send_all(b"rest")
    await peer.aclose()
    await ours.send(b"it is no error by default")
    with pytest.raises(ConnectionResetError):
        await ours.send(b"and an error without the flag", SocketFlag(0))
    assert await ours.recv(100) == b"rest"
    assert await ours.recv(100) == b""


async def test_a_broken_stream_is_a_reset(loop: str) -> None:
    class Broken(trio.abc.Stream, anyio.abc.ByteStream):
        receives = 0

        async def receive(self, max_bytes: int = 65536) -> bytes:
            self.receives += 1
            if self.receives == 1:
                return b"before"
            raise (trio.BrokenResourceError if LOOPS[loop][1] else anyio.BrokenResourceError)

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return await self.receive()

        async def send(self, item: bytes) -> None:
            await self.receive()

        send_all = send  # type: ignore[assignment]

        async def wait_send_all_might_not_block(self) -> None: ...

        async def send_eof(self) -> None: ...

        async def aclose(self) -> None: ...

    adapter: Any = adapter_of_trio if LOOPS[loop][1] else adapter_of_anyio
    ours = adapter.from_stream(Broken())
    with pytest.raises(ConnectionResetError) as caught:
        await ours.recv(100, flags=SocketFlag(0))
        await ours.recv(100, flags=SocketFlag(0))
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError | anyio.BrokenResourceError)
    assert await ours.recv(100) == b""


def test_arguments_are_checked() -> None:
    for adapter in (adapter_of_trio, adapter_of_anyio):
        with pytest.raises(TypeError, match="not str"):
            adapter.from_stream("a stream")  # type: ignore[attr-defined]
