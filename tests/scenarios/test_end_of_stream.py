"""R8, R12: the end of a stream, and a connection that is reset."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest

from tests.scenarios.flavours import Sock
from tests.scenarios.scene import (
    Scene,
    Wire,
    arrived,
    begin,
    in_clear,
    over,
    over_every_stream,
    over_one_and_tls,
    readable,
    reset,
    soon,
)
from wireline import SAFE_DISCONN, EndOfStreamError, ReadLineResult, SocketFlag, SocketTimeout
from wireline.tls import TruncatedError

pytestmark = [pytest.mark.anyio, over_every_stream]

NO_FLAGS = SocketFlag(0)


# R8.


@pytest.mark.parametrize("timeout", [None, 5])
async def test_R8_recv_line_in_the_middle_of_a_line_is_the_end_and_the_bytes_stay(
    wire: Wire, timeout: float | None
) -> None:
    sock, peer = wire
    peer.sendall(b"whole\nunfinished")
    peer.close()
    assert await soon(sock.recv_line(timeout)) == b"whole"
    for _ in range(3):
        assert await soon(sock.recv_line(timeout)) == b""
    assert await soon(sock.recv_some(2)) == b"un"
    assert await soon(sock.recv_line(timeout)) == b""
    assert await soon(sock.recv(100)) == b"finished"
    assert await soon(sock.recv(100)) == b""


async def test_R8_lines_ends_and_the_bytes_stay(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"one\ntwo\nunfinished")
    peer.close()
    assert [line async for line in sock.lines()] == [b"one", b"two"]
    assert [line async for line in sock.lines()] == []
    assert sock.has_data_buffered
    assert await soon(sock.recv(100)) == b"unfinished"


# `skip` is the one that spins forever in the original.
WHOLE: dict[str, Callable[[Sock, float | None], Awaitable[object]]] = {
    "recv_exactly": lambda sock, timeout: sock.recv_exactly(7, timeout),
    "recv_until": lambda sock, timeout: sock.recv_until(b"\0", timeout=timeout),
    "skip": lambda sock, timeout: sock.skip(7, timeout),
}


@over_one_and_tls
@pytest.mark.parametrize("read", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("timeout", [None, 0, 5])
@pytest.mark.parametrize("sent", [b"", b"abcdef"])
async def test_R8_a_read_of_a_whole_raises_at_the_end_and_the_bytes_stay(
    wire: Wire, read: Callable[[Sock, float | None], Awaitable[object]], timeout: float | None, sent: bytes
) -> None:
    sock, peer = wire
    peer.sendall(sent)
    peer.close()
    await arrived(sock, len(sent))
    await readable(sock)
    for _ in range(3):
        with pytest.raises(EndOfStreamError) as caught:
            await soon(read(sock, timeout))
        assert caught.value.partial == sent
    assert await soon(sock.recv(100)) == sent
    with pytest.raises(EndOfStreamError) as caught:
        await soon(read(sock, timeout))
    assert caught.value.partial == b""


async def test_R8_the_end_arrives_while_they_wait(scene: Scene) -> None:
    for read in WHOLE.values():
        sock, peer = await scene.wire()
        peer.sendall(b"abc")
        waiting = await begin(read(sock, None))
        assert not waiting.done()
        peer.close()
        with pytest.raises(EndOfStreamError) as caught:
            await soon(waiting)
        assert caught.value.partial == b"abc"
        assert await soon(sock.recv(3)) == b"abc"


async def test_R8_skip_drops_its_size(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"0123456789")
    await soon(sock.skip(0))
    await soon(sock.skip(3))
    assert await soon(sock.recv(1)) == b"3"
    with pytest.raises(SocketTimeout):
        await sock.skip(7, timeout=0.02)
    await soon(sock.skip(6, timeout=0))
    peer.close()
    await soon(sock.skip(0))
    assert await soon(sock.recv(1)) == b""


async def test_R8_a_half_closed_peer_can_still_be_written_to(wire: Wire) -> None:
    sock, peer = wire
    await soon(sock.shutdown_write())
    assert peer.recv(1) == b""
    peer.sendall(b"answer\n")
    assert await soon(sock.recv_line()) == b"answer"
    with pytest.raises(BrokenPipeError):
        await soon(sock.send(b"no more"))


# R12.


@in_clear  # over TLS a reset is a cut, see T3
@pytest.mark.parametrize("timeout", [None, 5])
async def test_R12_data_before_a_reset_is_read_first_and_the_reset_is_an_end(
    scene: Scene, timeout: float | None
) -> None:
    wire = await scene.wire()
    wire.peer.sendall(b"last line\nlast words")
    await arrived(wire.sock, 20)
    await scene.reset(wire)
    assert await soon(wire.sock.recv_line(timeout)) == b"last line"
    assert await soon(wire.sock.recv_line(timeout)) == b""
    assert await soon(wire.sock.recv(100, timeout)) == b"last words"
    for _ in range(3):
        assert await soon(wire.sock.recv(100, timeout)) == b""
        assert await soon(wire.sock.recv_some(100, timeout)) == b""
        assert await soon(wire.sock.recv_line(timeout)) == b""
        assert wire.sock.try_recv_line() == (ReadLineResult.DISCONNECTED, b"")


@in_clear
@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
async def test_R12_without_safe_disconn_the_reset_is_an_error_every_time(
    scene: Scene, buffered: bool, timeout: float | None
) -> None:
    wire = await scene.wire(buffered=buffered)
    wire.peer.sendall(b"last words")
    await arrived(wire.sock, 10)
    await scene.reset(wire)
    assert await soon(wire.sock.recv(10, timeout, NO_FLAGS)) == b"last words"
    for _ in range(3):
        with pytest.raises(ConnectionResetError) as caught:
            await soon(wire.sock.recv(100, timeout, NO_FLAGS))
        assert any("recv" in note for note in caught.value.__notes__), "the operation is in a note"
        with pytest.raises(ConnectionResetError):
            await soon(wire.sock.recv_some(100, timeout, NO_FLAGS))
        with pytest.raises(ConnectionResetError):
            await soon(wire.sock.recv_line(timeout, NO_FLAGS))
        with pytest.raises(ConnectionResetError):
            await soon(wire.sock.recv_into(bytearray(1), None, timeout, NO_FLAGS))
        assert await soon(wire.sock.recv(1, timeout)) == b"", "and with it an end, at the same time"


@over("tcp4", "tcp6")
@pytest.mark.parametrize("method", ["send", "send_some", "try_send"])
@pytest.mark.parametrize("timeout", [None, 5])
async def test_R12_a_reset_that_a_send_got_is_reported_to_the_reader_too(
    wire: Wire, timeout: float | None, method: str
) -> None:
    sock, peer = wire
    peer.sendall(b"last words")
    await arrived(sock, 10)
    reset(peer)
    with contextlib.suppress(ConnectionResetError):
        sent = getattr(sock, method)(b"x")
        if method != "try_send":  # it never waits
            await soon(sent)
    assert await soon(sock.recv_exactly(10, timeout)) == b"last words"
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await soon(sock.recv(1, timeout, NO_FLAGS))
    assert await soon(sock.recv(1, timeout)) == b""


@in_clear
async def test_R12_a_reset_while_it_waits(scene: Scene) -> None:
    for flags in (SocketFlag.SAFE_DISCONN, NO_FLAGS):
        wire = await scene.wire()
        waiting = await begin(wire.sock.recv(10, None, flags))
        await scene.reset(wire)
        if flags:
            assert await soon(waiting) == b""
        else:
            with pytest.raises(ConnectionResetError):
                await soon(waiting)


@in_clear
@pytest.mark.parametrize("read", WHOLE.values(), ids=WHOLE)
async def test_R12_a_read_of_a_whole_says_that_the_stream_ended_by_a_reset(
    scene: Scene, read: Callable[[Sock, float | None], Awaitable[object]]
) -> None:
    wire = await scene.wire()
    wire.peer.sendall(b"abc")
    await arrived(wire.sock, 3)
    await scene.reset(wire)
    for _ in range(2):
        with pytest.raises(EndOfStreamError) as caught:
            await soon(read(wire.sock, None))
        assert caught.value.partial == b"abc"
        assert isinstance(caught.value.__cause__, ConnectionResetError)


# T3: TLS that ends without a word.


@pytest.mark.parametrize("ending", ["FIN", "reset"])
@pytest.mark.parametrize("flags", [SAFE_DISCONN, NO_FLAGS], ids=["safe", "strict"])
@pytest.mark.parametrize("timeout", [None, 5])
@over("tls12", "tls13")
async def test_T3_a_cut_is_an_error_in_every_read_after_what_came_before(
    scene: Scene, timeout: float | None, flags: SocketFlag, ending: str
) -> None:
    sock, peer = await scene.wire()
    peer.sendall(b"line\nhalf a li")
    await arrived(sock, 14)
    if ending == "reset":
        reset(peer.sock)
    else:
        peer.cut()
    assert await soon(sock.recv_line(timeout, flags)) == b"line"
    for _ in range(2):
        with pytest.raises(TruncatedError):
            await soon(sock.recv_line(timeout, flags))
    assert await soon(sock.recv_some(4, timeout, flags)) == b"half"
    assert await soon(sock.recv(100, timeout, flags)) == b" a li"
    reads: list[Callable[[], Awaitable[object]]] = [
        lambda: sock.recv(1, timeout, flags),
        lambda: sock.recv_some(1, timeout, flags),
        lambda: sock.recv_into(bytearray(1), None, timeout, flags),
        lambda: sock.recv_line(timeout, flags),
        lambda: sock.recv_line_into(bytearray(), timeout, flags),
        lambda: sock.recv_exactly(1, timeout),
        lambda: sock.recv_until(b"x", timeout=timeout),
        lambda: sock.skip(1, timeout),
        lambda: anext(aiter(sock.lines(timeout=timeout))),
    ]
    for read in reads:
        with pytest.raises(TruncatedError) as caught:
            await soon(read())
        assert isinstance(caught.value, ssl.SSLError)


@over("tls12", "tls13")
async def test_T3_a_cut_while_it_waits(scene: Scene) -> None:
    sock, peer = await scene.wire()
    reading = await begin(sock.recv_line())
    peer.cut()
    with pytest.raises(TruncatedError):
        await soon(reading)


@over("tls12", "tls13")
async def test_T3_after_close_notify_a_reset_takes_nothing_away(scene: Scene) -> None:
    sock, peer = await scene.wire()
    peer.sendall(b"all of it")
    peer.shutdown(socket.SHUT_WR)
    await arrived(sock, 9)
    reset(peer.sock)
    assert await soon(sock.recv(100)) == b"all of it"
    assert await soon(sock.recv(100)) == b""
