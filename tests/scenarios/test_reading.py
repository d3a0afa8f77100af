"""R1 to R4, R11: how much a read returns, and when."""

from __future__ import annotations

import select
import threading
from collections.abc import Awaitable, Callable

import pytest

from tests.scenarios import tasks
from tests.scenarios.calls import MANY, Call, every_read, first_of_lines
from tests.scenarios.flavours import Sock, in_thread
from tests.scenarios.scene import (
    A_WHILE,
    TOO_LONG,
    Pair,
    Scene,
    Stopwatch,
    Wire,
    arrived,
    begin,
    dripping,
    in_clear,
    over,
    over_every_stream,
    over_one_and_tls,
    pattern,
    readable,
    soon,
)
from wireline import BUFFER_SIZE, BusyError, SocketFlag, SocketTimeout

pytestmark = [pytest.mark.anyio, over_every_stream]

# R1.


async def test_R1_recv_waits_until_all_the_bytes_are_there(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"ab")
    reading = await begin(sock.recv(5))
    peer.sendall(b"c")
    assert not reading.done()
    peer.sendall(b"def")
    assert await soon(reading) == b"abcde"
    assert await sock.recv(1) == b"f"


async def test_R1_recv_returns_fewer_bytes_only_at_the_end(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"abc")
    peer.close()
    assert await soon(sock.recv(5)) == b"abc"
    assert await soon(sock.recv(5)) == b""


@in_clear  # a record of TLS is decrypted whole
async def test_R1_unbuffered_recv_returns_the_result_of_one_system_call(scene: Scene) -> None:
    sock, peer = await scene.wire(buffered=False)
    peer.sendall(b"abc")
    await arrived(sock, 3)
    assert await soon(sock.recv(5)) == b"abc"
    peer.sendall(b"defgh")
    await arrived(sock, 5)
    assert await soon(sock.recv(2)) == b"de"
    assert not sock.has_data_buffered, "the rest stays in the kernel"


@pytest.mark.parametrize("buffered", [True, False])
async def test_R1_a_timeout_changes_neither(scene: Scene, buffered: bool) -> None:
    sock, peer = await scene.wire(buffered=buffered)
    peer.sendall(b"abc")
    await arrived(sock, 3)
    if buffered:
        with pytest.raises(TimeoutError):
            await sock.recv(5, timeout=0.02)
        peer.sendall(b"de")
        assert await soon(sock.recv(5, timeout=5)) == b"abcde"
    else:
        assert await soon(sock.recv(5, timeout=5)) == b"abc"


@pytest.mark.parametrize("timeout", [None, 0, 5])
async def test_R1_recv_of_no_bytes_returns_at_once(wire: Wire, timeout: float | None) -> None:
    sock, peer = wire
    assert await soon(sock.recv(0, timeout)) == b""
    peer.sendall(b"x")
    assert await soon(sock.recv(0, timeout)) == b""
    assert await soon(sock.recv(1, timeout=5)) == b"x"
    peer.close()
    assert await soon(sock.recv(0, timeout)) == b""


async def test_R1_recv_into_is_recv_into_the_callers_buffer(wire: Wire) -> None:
    sock, peer = wire
    buffer = bytearray(b"........")
    peer.sendall(b"abcdef")
    assert await soon(sock.recv_into(buffer, 4)) == 4
    assert buffer == b"abcd...."
    peer.close()
    assert await soon(sock.recv_into(memoryview(buffer)[6:])) == 2
    assert buffer == b"abcd..ef"
    assert await soon(sock.recv_into(buffer)) == 0


async def test_R1_much_more_than_a_buffer(wire: Wire) -> None:
    sock, peer = wire
    data = pattern(40 * BUFFER_SIZE + 17)
    sender = threading.Thread(target=peer.sendall, args=(data,))
    sender.start()
    assert await soon(sock.recv(len(data))) == data
    sender.join()


# R2.


async def test_R2_recv_some_returns_as_soon_as_one_byte_is_there(wire: Wire) -> None:
    sock, peer = wire
    reading = await begin(sock.recv_some())
    assert not reading.done()
    peer.sendall(b"x")
    assert await soon(reading) == b"x"


async def test_R2_recv_some_looks_into_the_buffer_first(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"one\ntwo")
    await arrived(sock, 7)
    assert await soon(sock.recv_line()) == b"one"
    assert sock.has_data_buffered
    peer.sendall(b" more")
    await arrived(sock, 5)
    assert await soon(sock.recv_some(2)) == b"tw"
    assert await soon(sock.recv_some()) == b"o"
    assert await soon(sock.recv_some()) == b" more"


# R3.


@over_one_and_tls
@every_read
async def test_R3_a_peer_that_drips_cannot_stretch_a_timeout(wire: Wire, read: Call) -> None:
    sock, peer = wire
    with dripping(peer), Stopwatch() as took:
        with pytest.raises(SocketTimeout) as caught:
            await read(sock, 0.12)
    assert 0.11 < took.seconds < TOO_LONG
    assert caught.value.seconds == 0.12
    assert await sock.recv_some(timeout=1) != b"", "and what was dripped is not lost"


@pytest.mark.parametrize("read", ["recv_exactly", "recv_line"])
async def test_R3_a_peer_that_never_pauses_cannot_either(wire: Wire, read: str) -> None:
    sock, peer = wire
    reads = {
        "recv_exactly": lambda: sock.recv_exactly(10**9, 0.12),
        "recv_line": lambda: sock.recv_line(0.12, max_length=10**9),
    }
    flood = await begin(in_thread(peer.sendall, bytes(500_000_000)))
    with Stopwatch() as took, pytest.raises(SocketTimeout):
        await soon(reads[read]())
    assert 0.11 < took.seconds < TOO_LONG
    sock.close(linger=0)
    with pytest.raises(ConnectionError):
        await soon(flood)


async def test_R3_a_reader_that_drips_cannot_stretch_the_timeout_of_send(wire: Wire) -> None:
    sock, peer = wire
    enough = threading.Event()

    def sip() -> None:
        while not enough.wait(0.02):
            peer.recv(100_000)

    reader = threading.Thread(target=sip)
    reader.start()
    try:
        with Stopwatch() as took, pytest.raises(SocketTimeout):
            await sock.send(bytes(50_000_000), timeout=0.12)
    finally:
        enough.set()
        reader.join()
    assert 0.11 < took.seconds < TOO_LONG


# R4.


@over_one_and_tls
@every_read
async def test_R4_a_timeout_of_zero_never_waits(wire: Wire, read: Call) -> None:
    sock, peer = wire
    for sent in (b"", b"abc"):
        peer.sendall(sent)
        await arrived(sock, len(sent))
        with Stopwatch() as took, pytest.raises(SocketTimeout):
            await read(sock, 0)
        assert took.seconds < TOO_LONG


@pytest.mark.parametrize("size", [1, BUFFER_SIZE, MANY])
async def test_R4_a_timeout_of_zero_returns_the_bytes_of_the_kernel(scene: Scene, size: int) -> None:
    data = pattern(size).replace(b"\n", b"-")
    reads: list[Callable[[Sock], Awaitable[bytes]]] = [
        lambda sock: sock.recv(size, 0),
        lambda sock: sock.recv_exactly(size, 0),
        lambda sock: sock.recv_until(b"\n", timeout=0),
        lambda sock: sock.recv_line(0),
        lambda sock: first_of_lines(sock, 0),
    ]
    for read in reads:
        sock, peer = await scene.wire()
        peer.sendall(data + b"\n")
        await arrived(sock, size + 1)
        assert (await read(sock)).rstrip(b"\n") == data
        sock.close()
        peer.close()


async def test_R4_a_timeout_of_zero_returns_the_bytes_of_both_buffers(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"first\nin our ")
    await arrived(sock, 13)
    assert await sock.recv_line() == b"first"
    peer.sendall(b"buffer, and in the kernel's\n")
    await arrived(sock, 28)
    assert await sock.recv_line(0) == b"in our buffer, and in the kernel's"


async def test_R4_a_timeout_of_zero_sees_the_end(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"last")
    peer.close()
    await arrived(sock, 4)
    assert await sock.recv_line(0) == b""
    assert await sock.recv(9, 0) == b"last"


# R11.


@over_one_and_tls
@every_read
async def test_R11_a_second_reader_is_refused_and_the_first_is_unharmed(wire: Wire, read: Call) -> None:
    sock, peer = wire
    first = await begin(sock.recv_line(), A_WHILE)
    for timeout in (None, 0, 5):
        with pytest.raises(BusyError):
            await soon(read(sock, timeout))
    with pytest.raises(BusyError):
        sock.try_recv_line()
    peer.sendall(b"mine\nother\n")
    assert await soon(first) == b"mine"
    assert await soon(sock.recv_line()) == b"other"


async def test_R11_one_reads_while_another_writes(pair: Pair) -> None:
    client, server = pair
    data = pattern(1_000_000)
    both = tasks.gather(
        client.send(data), server.send(data), client.recv_exactly(len(data)), server.recv_exactly(len(data))
    )
    assert (await soon(both))[2:] == [data, data]


async def test_R11_peeking_is_reading(wire: Wire) -> None:
    sock, peer = wire
    first = await begin(sock.recv(1, flags=SocketFlag.PEEK), A_WHILE)
    with pytest.raises(BusyError):
        await soon(sock.recv_some())
    peer.sendall(b"x")
    assert await soon(first) == b"x"
    assert await soon(sock.recv(1)) == b"x"


# An unbuffered socket.


@over("tls12", "tls13")
async def test_select_sees_what_an_unbuffered_read_has_not_returned(scene: Scene) -> None:
    """For programs that wait with ``select`` on their own: over TLS the next record stays in the kernel."""
    wire = await scene.wire(buffered=False)
    messages = [b"one", b"two" * 1000, b"three"]
    for message in messages:
        wire.peer.sendall(message)
    for message in messages:
        await readable(wire.sock)
        assert select.select([wire.sock], [], [], 0)[0]
        assert await soon(wire.sock.recv_exactly(len(message))) == message
        assert not wire.sock.has_data_buffered
    assert not select.select([wire.sock], [], [], 0)[0]
    # Only what a record has beyond the size that was asked for waits in the socket, as in `ssl`.
    wire.peer.sendall(b"a line\nand more")
    assert await soon(wire.sock.recv_line()) == b"a line"
    assert wire.sock.has_data_buffered
    assert await soon(wire.sock.recv(100)) == b"and more"
