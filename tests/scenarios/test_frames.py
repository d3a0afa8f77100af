"""R15 to R17: bytes are looked at in place and put back, whole messages are read, lines and exact reads alternate."""

from __future__ import annotations

import socket

import pytest

from tests.scenarios.flavours import Sock
from tests.scenarios.scene import RawPeer, Scene, Wire, arrived, over, over_every_stream, reset, soon
from wireline import (
    SAFE_DISCONN,
    EndOfStreamError,
    FrameError,
    FrameTooLongError,
    SocketFlag,
    SocketTimeout,
)
from wireline.tls import TruncatedError

LOUD = SocketFlag(0)

pytestmark = [pytest.mark.anyio, over_every_stream]


def three_bytes(view: memoryview) -> tuple[int, int] | None:
    return (3, int.from_bytes(view[:3], "big")) if len(view) >= 3 else None


async def reset_by_peer(wire: Wire) -> None:
    """Let the peer vanish with a reset, without a word of TLS."""
    if wire.peer.fileno() >= 0 and getattr(wire.peer, "family", None) == socket.AF_UNIX:
        await wire.sock.send(b"unread")  # there a reset is a peer that closes and has not read everything
    reset(getattr(wire.peer, "sock", wire.peer))


async def test_R15_fill_shows_what_consume_takes_and_unread_puts_back(scene: Scene) -> None:
    for buffered in (True, False):
        sock, peer = await scene.wire(buffered=buffered)
        await look_and_put_back(sock, peer, buffered=buffered)
        await end_of_fill(sock, peer)


async def look_and_put_back(sock: Sock, peer: RawPeer, *, buffered: bool) -> None:
    peer.sendall(b"abcd")
    await arrived(sock, 4)
    for timeout in (0, 0.01):
        with pytest.raises(SocketTimeout):
            await sock.fill(5, timeout)
    peer.sendall(b"efgh")
    view = await soon(sock.fill(5))
    assert view[:5] == b"abcde"
    assert view.readonly
    if not buffered and not sock.is_ssl:  # of TLS the record is there whole
        assert len(view) == 5, "no more is taken from the kernel than was asked for"
    assert await sock.recv(3, flags=SocketFlag.PEEK) == b"abc"
    sock.consume(1)
    sock.consume(1)
    with pytest.raises(ValueError, match="consume"):
        sock.consume(7)
    assert await soon(sock.recv_exactly(2)) == b"cd"
    with pytest.raises(ValueError, match="consume"):
        sock.consume(1)
    sock.unread(bytearray(b"back\n"))
    assert sock.has_data_buffered
    assert await sock.recv_line() == b"back"
    sock.unread(b"\x01\x02")
    assert await soon(sock.recv_struct("!BBc")) == (1, 2, b"e")
    room = bytearray(10)
    assert await soon(sock.recv_some_into(memoryview(room)[:1])) == 1
    assert await soon(sock.recv_exactly(2)) == b"gh"
    assert room == b"f" + bytes(9)
    assert sock.try_recv() is None
    assert not sock.has_data_buffered
    peer.sendall(b"more")
    await arrived(sock, 4)
    assert sock.try_recv(3) == b"mor"
    assert view[:5] == b"abcde", "a kept view never changes"


async def end_of_fill(sock: Sock, peer: RawPeer) -> None:
    assert await soon(sock.fill(1)) == b"e"
    peer.close()
    for _ in range(2):
        with pytest.raises(EndOfStreamError) as caught:
            await soon(sock.fill(3))
        assert caught.value.partial == b"e"
    sock.consume(1)
    assert sock.try_recv() == b""
    assert await sock.recv_some_into(bytearray(5)) == 0
    sock.unread(b"after the end")
    assert await sock.recv(100) == b"after the end"
    assert await sock.recv(100) == b""


async def test_R16_frames_are_whole_or_an_error_and_nothing_is_lost(scene: Scene) -> None:
    await read_frames(*await scene.wire())
    await refuse_frames(*await scene.wire(buffered=False))
    for tail in (b"", b"\0", b"\0\4", b"\0\4abc"):
        wire = await scene.wire()
        wire.peer.sendall(b"\0\1x" + tail)
        wire.peer.close()
        await end_frames(wire.sock, tail, None)
        for flags in (SAFE_DISCONN, LOUD):
            wire = await scene.wire()
            wire.peer.sendall(b"\0\1x" + tail)
            await arrived(wire.sock, 3 + len(tail))
            assert await soon(wire.sock.fill(3 + len(tail)))  # TCP drops what the kernel has with a reset
            await reset_by_peer(wire)
            await end_frames(wire.sock, tail, flags, is_cut=wire.sock.is_ssl)


async def read_frames(sock: Sock, peer: RawPeer) -> None:
    peer.sendall(b"".join(b"\0\7%07d" % number for number in range(1000)))
    count = 0
    async for fields, payload in sock.frames("!H"):
        assert (fields, payload) == ((7,), b"%07d" % count)
        count += 1
        if count == 500:
            break  # with frames split ahead, which every other read finds
    assert await sock.recv_exactly(9) == b"\0\7" + b"%07d" % 500
    for number in range(501, 1000):
        assert (await soon(sock.recv_frame(b"!H", timeout=5))).payload == b"%07d" % number
    assert not sock.has_data_buffered
    peer.sendall(b"\0\0\5hel")
    await arrived(sock, 6)
    for timeout in (0, 0.01):
        with pytest.raises(SocketTimeout):
            await sock.recv_frame(three_bytes, timeout=timeout)
        with pytest.raises(SocketTimeout):
            await anext(aiter(sock.frames(three_bytes, timeout=timeout)))
    assert await sock.recv_some(2, flags=SocketFlag.PEEK) == b"\0\0"
    peer.sendall(b"lo")
    assert await soon(sock.recv_frame(three_bytes)) == (b"\0\0\5", b"hello")


async def refuse_frames(sock: Sock, peer: RawPeer) -> None:
    peer.sendall(b"Q\0\0\0\3\xff\xff\xff\xff\xff\0\0\0\6ok")
    with pytest.raises(FrameError, match="negative") as caught:
        await soon(sock.recv_frame("!cI", length_adjust=-4))
    assert caught.value.size == -1
    assert await sock.recv_struct("!cI") == (b"Q", 3)
    for _ in range(2):
        with pytest.raises(FrameTooLongError) as too_long:
            await soon(anext(aiter(sock.frames("!I"))))
        assert (too_long.value.size, too_long.value.limit) == (2**32 - 1, 16 * 2**20)
    await sock.skip(5)
    assert await sock.recv_frame("!I", length_adjust=-4) == ((6,), b"ok")
    assert not sock.has_data_buffered


async def end_frames(sock: Sock, tail: bytes, flags: SocketFlag | None, *, is_cut: bool = False) -> None:
    """Read to the end. Without a word of TLS it is an error, whatever the flags say (T3)."""
    frames = sock.frames("!H", flags=SAFE_DISCONN if flags is None else flags)
    assert (await soon(anext(aiter(frames)))).payload == b"x"
    if flags is LOUD or is_cut:
        with pytest.raises(TruncatedError if is_cut else ConnectionResetError):
            await soon(anext(aiter(frames)))
    elif tail:
        with pytest.raises(EndOfStreamError) as caught:
            await soon(anext(aiter(frames)))
        assert caught.value.partial == tail
    else:
        assert await soon(anext(aiter(frames), None)) is None
    assert await soon(anext(aiter(frames), None)) is None, "it is finished"
    with pytest.raises(TruncatedError if is_cut else EndOfStreamError) as incomplete:
        await soon(sock.recv_frame("!H"))
    assert is_cut or incomplete.value.partial == tail
    if tail:
        assert await sock.recv_some(100) == tail


async def test_R17_lines_and_exact_reads_alternate_without_a_mode(scene: Scene) -> None:
    sock, peer = await scene.wire()
    units = [b"$%d\r\n" % size + b"x" * size + b"\r\n" for size in range(1, 300)]
    peer.sendall(b"".join(units))
    for size in range(1, 300):
        line = await soon(sock.recv_line())
        assert line == b"$%d" % size
        assert not sock._io.buffer.lines, "nothing is split ahead that the next read would have to put back"
        assert await soon(sock.recv_exactly(size + 2)) == b"x" * size + b"\r\n"
    assert not sock.has_data_buffered


@pytest.mark.long
@over("udp4", "unixgram")
async def test_framed_reads_refuse_a_datagram_socket_and_others_take_a_datagram(scene: Scene) -> None:
    sock = scene.bound()
    for call in (
        lambda: sock.recv_struct("!H"),
        lambda: sock.recv_frame("!H"),
        lambda: sock.fill(1),
    ):
        with pytest.raises(TypeError):
            await call()
    for plain in (lambda: sock.frames("!H"), lambda: sock.consume(1), lambda: sock.unread(b"x")):
        with pytest.raises(TypeError):
            plain()
    assert sock.try_recv() is None
    sender = scene.raw()
    target = sock.local_addr.host if scene.transport.is_unix else tuple(sock.local_addr)[:2]
    for size in (5, 0, 7):
        sender.sendto(b"datagram"[:size], target)
    assert await soon(sock.recv_some_into(bytearray(3))) == 3
    assert await soon(sock.recv_some(5)) == b""
    assert await soon(sock.recv_some(5)) == b"datag"
