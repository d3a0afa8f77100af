"""R5: after a timeout nothing is lost, with any next request and any cut of the bytes."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scenarios.calls import Call, every_read
from tests.scenarios.flavours import Flavour, Sock
from tests.scenarios.scene import (
    Pair,
    Scene,
    Transport,
    Wire,
    arrived,
    begin,
    over_every_stream,
    over_one_and_tls,
    pattern,
    soon,
)
from wireline import EndOfStreamError, SocketFlag, SocketTimeout

pytestmark = [pytest.mark.anyio, over_every_stream]


class Send(NamedTuple):
    """The peer sends so many bytes more."""

    size: int


class Read(NamedTuple):
    """We make one read that does not wait."""

    method: str
    size: int = 0

    async def make(self, sock: Sock) -> bytes | None:
        match self.method:
            case "recv_into":
                buffer = bytearray(self.size)
                return bytes(buffer[: await sock.recv_into(buffer, timeout=0)])
            case "peek":
                return await sock.recv(self.size, 0, SocketFlag.PEEK)
            case "recv_some_into":
                buffer = bytearray(self.size)
                return bytes(buffer[: await sock.recv_some_into(buffer, 0)])
            case "recv_struct":
                return bytes((await sock.recv_struct(f"{self.size}s", 0))[0])
            case "recv_frame":
                header, payload = await sock.recv_frame(lambda _: (1, self.size - 1), timeout=0)
                return bytes(header + payload)
            case "fill":
                shown = bytes((await sock.fill(self.size, 0))[: self.size])
                sock.consume(self.size)
                return shown
            case "unread":
                data = await sock.recv_exactly(self.size, 0)
                sock.unread(data)
                return bytes(data)
            case "recv_until":
                return await sock.recv_until((b"\r\n", b"\0"), timeout=0)
            case "recv_line":
                return await sock.recv_line(0, max_length=self.size)
            case "recv_line_into":
                line = bytearray(b"what was there before")
                await sock.recv_line_into(line, 0, max_length=self.size)
                return bytes(line)
            case _:  # recv, recv_some, recv_exactly, skip
                return await getattr(sock, self.method)(self.size, 0)

    def consumed(self, answer: bytes | None, text: bytes, ended: bool) -> int:
        """Compare an answer with that of a reader of the plain text; return how much of the text it took."""
        match self.method:
            case "recv_some" | "recv_some_into":
                assert answer == text[: len(answer or b"")]
                assert answer or (ended and not text)
                return len(answer or b"")
            case "recv" | "recv_into" | "peek":
                assert answer == text[: self.size]
                assert len(answer) == self.size or ended
                return 0 if self.method == "peek" else len(answer)
            case "recv_exactly" | "recv_struct" | "recv_frame" | "fill" | "unread":
                assert answer == text[: self.size]
                return 0 if self.method == "unread" else self.size
            case "skip":
                assert len(text) >= self.size
                return self.size
            case "recv_until":
                assert answer == text[: text.index(b"\r\n") + 2]
                return len(answer)
        line, newline, _ = text.partition(b"\n")
        line = line.removesuffix(b"\r") if newline else line
        if len(line) > self.size:
            assert answer == line[: self.size]
            return self.size
        if not newline:
            assert ended
            assert answer == b""
            return 0
        assert answer == (line or b"\r\n")
        return text.index(b"\n") + 1


texts = st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", b"defghij"]), max_size=30).map(b"".join)
methods = ["recv", "recv_into", "recv_some", "recv_exactly", "skip", "peek", "recv_line", "recv_line_into"]
methods += ["recv_some_into", "recv_struct", "recv_frame", "fill", "unread"]
reads = st.builds(Read, st.sampled_from(methods), st.integers(1, 12)) | st.just(Read("recv_until"))
steps = st.lists(st.builds(Send, st.integers(1, 9)) | reads, max_size=50)


@given(texts, steps, st.lists(reads, max_size=5), st.booleans())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_R5_every_read_in_every_cut_with_timeouts_in_between(
    flavour: Flavour,
    transport: Transport,
    text: bytes,
    steps: list[Send | Read],
    last_reads: list[Read],
    in_the_kernel: bool,
) -> None:
    async with Scene(flavour, transport) as scene:
        sock, peer = await scene.wire()
        taken = sent = 0

        async def read(step: Read, ended: bool) -> int:
            try:
                return step.consumed(await step.make(sock), text[taken:sent], ended)
            except SocketTimeout:
                assert not ended
            except EndOfStreamError as error:
                assert ended
                assert error.partial == text[taken:]  # noqa: PT017 - the other outcomes are as good
            return 0

        for step in steps:
            if isinstance(step, Read):
                taken += await read(step, ended=False)
            else:
                piece = text[sent : sent + step.size]
                peer.sendall(piece)
                sent += len(piece)
                if in_the_kernel:
                    await arrived(sock, len(piece))
        peer.sendall(text[sent:])
        peer.close()
        await arrived(sock, len(text) - sent)
        sent = len(text)
        assert await soon(sock.recv(len(text) + 1, flags=SocketFlag.PEEK)) == text[taken:], (
            "now it has seen the end"
        )
        for step in last_reads:
            taken += await read(step, ended=True)
        assert await soon(sock.recv(len(text) + 1)) == text[taken:]
        assert await soon(sock.recv(1)) == b""


@over_one_and_tls
@every_read
@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
async def test_R5_a_read_that_timed_out_leaves_everything_to_the_next(
    scene: Scene, read: Call, buffered: bool
) -> None:
    sock, peer = await scene.wire(buffered=buffered)
    with pytest.raises(SocketTimeout):
        await read(sock, 0.01)
    if buffered:  # else `recv` returns the bytes that are there
        peer.sendall(b"who")
        with pytest.raises(SocketTimeout):
            await read(sock, 0.01)
        peer.sendall(b"le\n")
    else:
        peer.sendall(b"whole\n")
    assert await soon(sock.recv_line()) == b"whole"


async def test_R5_lines_goes_on_after_a_timeout(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"one\ntw")
    got = []
    with pytest.raises(SocketTimeout):
        async for line in sock.lines(timeout=0.02):
            got.append(line)
    peer.sendall(b"o\nthree\n")
    peer.close()
    assert got + [line async for line in sock.lines(timeout=5)] == [b"one", b"two", b"three"]


async def test_R5_the_next_read_may_be_another_one(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"abcdefgh")
    with pytest.raises(SocketTimeout):
        await sock.recv_exactly(100, timeout=0.02)
    with pytest.raises(SocketTimeout):
        await sock.recv_line(timeout=0.02)
    with pytest.raises(SocketTimeout):
        await sock.recv_until(b"gx", timeout=0.02)
    assert await sock.recv_some(3) == b"abc"
    with pytest.raises(SocketTimeout):
        await sock.skip(100, timeout=0.02)
    assert await sock.recv(5) == b"defgh"


async def test_R5_a_large_transfer_with_many_timeouts(pair: Pair) -> None:
    client, server = pair
    data = pattern(3_000_000)
    sending = await begin(client.send(data))
    got = b""
    while not got:
        with contextlib.suppress(SocketTimeout):
            got = await server.recv_exactly(len(data), timeout=0.0005)
    assert got == data
    await soon(sending)
