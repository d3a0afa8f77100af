"""R10: PEEK looks, and takes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.scenarios.flavours import Sock
from tests.scenarios.scene import Scene, arrived, begin, over_every_stream, over_one_and_tls, soon
from wireline import SAFE_DISCONN, SocketFlag, SocketTimeout

pytestmark = [
    pytest.mark.anyio,
    over_one_and_tls,
    pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"]),
    pytest.mark.parametrize("timeout", [None, 5]),
]

PEEK = SocketFlag.PEEK


async def recv_into(sock: Sock, timeout: float | None, flags: SocketFlag) -> bytes:
    buffer = bytearray(5)
    size = await sock.recv_into(buffer, None, timeout, flags)
    return bytes(buffer[:size])


async def recv_line_into(sock: Sock, timeout: float | None, flags: SocketFlag) -> bytes:
    buffer = bytearray()
    await sock.recv_line_into(buffer, timeout, flags)
    return bytes(buffer) + b"\n"


async def recv_line(sock: Sock, timeout: float | None, flags: SocketFlag) -> bytes:
    return bytes(await sock.recv_line(timeout, flags)) + b"\n"


Peek = Callable[[Sock, float | None, SocketFlag], Awaitable[bytes]]

# Each reads the five bytes of b"line\n".
PEEKS: dict[str, Peek] = {
    "recv": lambda sock, timeout, flags: sock.recv(5, timeout, flags),
    "recv_some": lambda sock, timeout, flags: sock.recv_some(5, timeout, flags),
    "recv_into": recv_into,
    "recv_line": recv_line,
    "recv_line_into": recv_line_into,
}
every_peek = pytest.mark.parametrize("peek", PEEKS.values(), ids=PEEKS)


@every_peek
async def test_R10_nothing_is_consumed(
    scene: Scene, buffered: bool, timeout: float | None, peek: Peek
) -> None:
    sock, peer = await scene.wire(buffered=buffered)
    peer.sendall(b"line\n")
    await arrived(sock, 5)
    for flags in (PEEK, PEEK | SAFE_DISCONN, PEEK):
        assert await soon(peek(sock, timeout, flags)) == b"line\n"
    assert await soon(peek(sock, timeout, SAFE_DISCONN)) == b"line\n"
    with pytest.raises(SocketTimeout):
        await sock.recv_some(timeout=0)


@every_peek
async def test_R10_a_drained_buffer_is_filled_and_not_mistaken_for_the_end(
    scene: Scene, buffered: bool, timeout: float | None, peek: Peek
) -> None:
    sock, peer = await scene.wire(buffered=buffered)
    peer.sendall(b"first\n")
    assert await soon(sock.recv_line()) == b"first"
    assert not sock.has_data_buffered
    peeking = await begin(peek(sock, timeout, PEEK))
    assert not peeking.done()
    peer.sendall(b"line\n")
    assert await soon(peeking) == b"line\n"
    peer.sendall(b"rest\n")
    assert await soon(sock.recv_line()) == b"line"
    assert await soon(peek(sock, timeout, PEEK)) == b"rest\n"
    assert await soon(peek(sock, timeout, SAFE_DISCONN)) == b"rest\n"


@every_peek
async def test_R10_the_end_is_the_end_each_time(
    scene: Scene, buffered: bool, timeout: float | None, peek: Peek
) -> None:
    sock, peer = await scene.wire(buffered=buffered)
    peer.sendall(b"line\n")
    peer.close()
    await arrived(sock, 5)
    assert await soon(peek(sock, timeout, PEEK)) == b"line\n"
    assert await soon(peek(sock, timeout, SAFE_DISCONN)) == b"line\n"
    for flags in (PEEK, PEEK, SAFE_DISCONN):
        assert (await soon(peek(sock, timeout, flags))).rstrip(b"\n") == b""


@over_every_stream
async def test_R10_lines_that_were_peeked_at_come_in_order(
    scene: Scene, buffered: bool, timeout: float | None
) -> None:
    sock, peer = await scene.wire(buffered=buffered)
    texts = [b"line number %d" % number for number in range(100)]
    peer.sendall(b"".join(text + b"\r\n" for text in texts))
    for text in texts:
        assert await soon(sock.recv_line(timeout, PEEK)) == text
        assert await soon(sock.recv_line(timeout)) == text


@pytest.mark.parametrize("read", ["recv", "recv_some"])
async def test_R10_a_large_piece_that_is_waited_for_stays(
    scene: Scene, buffered: bool, timeout: float | None, read: str
) -> None:
    """So large that one receive could be the answer as it is."""
    sock, peer = await scene.wire(buffered=buffered)
    data = bytes(range(256)) * 80
    got = b""
    peeking = await begin(getattr(sock, read)(len(data), timeout, PEEK))
    peer.sendall(data)
    assert data.startswith(await soon(peeking))
    while len(got) < len(data):
        got += await soon(getattr(sock, read)(len(data) - len(got), timeout))
    assert got == data
