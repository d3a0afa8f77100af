"""W1 to W7: everything is sent, whole and in order, or an error says how much was."""

from __future__ import annotations

import array
import socket
import struct
import threading

import pytest

from tests.scenarios import tasks
from tests.scenarios.flavours import Sock, in_thread
from tests.scenarios.scene import (
    A_WHILE,
    TOO_LONG,
    Scene,
    Stopwatch,
    Wire,
    all_of,
    begin,
    eventually,
    fill,
    in_clear,
    over_every_stream,
    over_one_and_tls,
    pattern,
    raw_option,
    read_exactly,
    soon,
)
from wireline import Address, ClosedError, SocketFlag, SocketTimeout

pytestmark = [pytest.mark.anyio, over_every_stream]

NO_FLAGS = SocketFlag(0)
for_ever_or_long = pytest.mark.parametrize("timeout", [None, 20], ids=["no-timeout", "timeout"])


# W1.


@for_ever_or_long
@pytest.mark.parametrize("piece", [1_000, 300_000])
async def test_W1_send_survives_short_writes_and_a_slow_reader(
    wire: Wire, timeout: float | None, piece: int
) -> None:
    """The original starts again from byte 0 after a short write."""
    raw_option(wire.sock, socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    data = pattern(1_000_000)
    sending = await begin(wire.sock.send(data, timeout=timeout))
    assert not sending.done(), "it waits for the reader"
    assert read_exactly(wire.peer, 10) == data[:10]
    got = await begin(all_of(wire.peer, piece))
    await soon(sending)
    assert wire.sock.last_bytes_sent == len(data)
    wire.sock.close()
    assert await soon(got) == data[10:]


@over_one_and_tls
@pytest.mark.parametrize(
    "data",
    [b"bytes", bytearray(b"bytes"), memoryview(b"-bytes-")[1:6], memoryview(b"b-y-t-e-s-")[::2]],
    ids=["bytes", "bytearray", "slice", "strided"],
)
async def test_W1_everything_with_the_buffer_protocol_is_data(wire: Wire, data: bytes) -> None:
    await soon(wire.sock.send(data))
    assert await soon(wire.sock.send_some(data)) == 5
    assert wire.sock.try_send(data) is True
    assert read_exactly(wire.peer, 15) == b"bytes" * 3


async def test_W1_send_counts_bytes_and_not_items(wire: Wire) -> None:
    numbers = memoryview(struct.pack("4i", 1, 2, 3, 4)).cast("i")
    await soon(wire.sock.send(numbers, timeout=5))
    assert wire.sock.last_bytes_sent == 16
    assert struct.unpack("4i", read_exactly(wire.peer, 16)) == (1, 2, 3, 4)


async def test_W1_send_some_without_a_timeout_does_not_wait_for_the_rest(wire: Wire) -> None:
    data = bytes(10_000_000)
    assert 0 < await soon(wire.sock.send_some(data)) < len(data)


async def test_W1_send_some_sends_the_bytes_that_fit(wire: Wire) -> None:
    data = pattern(20_000_000)
    sent = await soon(wire.sock.send_some(data, timeout=5))
    assert 0 < sent < len(data)
    fill(wire.sock)
    for timeout in (0, 0.02):
        with pytest.raises(SocketTimeout):
            while True:  # there may be a little space once more, see `fill`
                await wire.sock.send_some(data, timeout=timeout)
    assert await soon(in_thread(read_exactly, wire.peer, min(sent, 100_000))) == data[: min(sent, 100_000)]


async def test_W1_send_many_sends_all_pieces_in_order_as_one(wire: Wire) -> None:
    pieces = [pattern(size) for size in (0, 1, 64, 100_000)]
    await soon(wire.sock.send_many(iter(pieces)))
    assert wire.sock.last_bytes_sent == 100_065
    assert await soon(in_thread(read_exactly, wire.peer, 100_065)) == b"".join(pieces)
    await soon(wire.sock.send_many([]))
    assert wire.sock.last_bytes_sent == 0


async def test_W1_send_many_takes_any_buffers(wire: Wire) -> None:
    apart = memoryview(b"a-b-c-")[::2]
    numbers = array.array("I", [1, 2])
    for pieces in ([b"x", bytearray(b"y"), numbers, memoryview(numbers)], [b"x", apart, bytearray(b"y")]):
        expected = b"".join(memoryview(piece).tobytes() for piece in pieces)
        await soon(wire.sock.send_many(pieces))
        assert await soon(in_thread(read_exactly, wire.peer, len(expected))) == expected


async def test_W5_the_bytes_of_send_many_are_not_interleaved(wire: Wire) -> None:
    senders = [tasks.ensure_future(wire.sock.send_many([bytes([letter])] * 30_000)) for letter in b"abcdefgh"]
    received = await soon(in_thread(read_exactly, wire.peer, 240_000))
    assert sorted(received[start : start + 30_000][:1] * 30_000 for start in range(0, 240_000, 30_000)) == [
        bytes([letter]) * 30_000 for letter in b"abcdefgh"
    ]
    assert all(len(set(received[start : start + 30_000])) == 1 for start in range(0, 240_000, 30_000))
    await tasks.gather(*senders)


async def test_W3_send_many_says_how_many_bytes_of_all_went_out(wire: Wire) -> None:
    with pytest.raises(SocketTimeout) as caught:
        await wire.sock.send_many([bytes(1_000_000)] * 20, timeout=0.05)
    assert 0 < caught.value.bytes_sent < 20_000_000


# W2.


async def peer_is_gone(wire: Wire) -> None:
    """Let the peer close, and send once: that is answered with a reset, so the next send knows."""
    wire.peer.close()
    wire.sock.try_send(b"first")


@for_ever_or_long
async def test_W2_the_second_send_after_the_peer_closed_returns(wire: Wire, timeout: float | None) -> None:
    """The original spins forever."""
    await peer_is_gone(wire)
    with Stopwatch() as took:
        for _ in range(5):
            await soon(wire.sock.send(bytes(1_000_000), timeout=timeout))
    assert took.seconds < TOO_LONG
    assert wire.sock.last_bytes_sent == 0


@for_ever_or_long
async def test_W2_without_safe_disconn_it_raises_every_time(wire: Wire, timeout: float | None) -> None:
    await peer_is_gone(wire)
    with pytest.raises((BrokenPipeError, ConnectionResetError)) as caught:
        for _ in range(3):
            await soon(wire.sock.send(bytes(1_000_000), NO_FLAGS, timeout))
    assert any("send" in note for note in caught.value.__notes__), "the operation is in a note"
    for _ in range(3):
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await soon(wire.sock.send(b"again", NO_FLAGS, timeout))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await soon(wire.sock.send_some(b"again", timeout))
        assert wire.sock.try_send(b"again") is False


@pytest.mark.parametrize("flags", [SocketFlag.SAFE_DISCONN, NO_FLAGS])
async def test_W2_a_peer_that_goes_away_while_send_waits(scene: Scene, flags: SocketFlag) -> None:
    wire = await scene.wire()
    sending = await begin(wire.sock.send(bytes(20_000_000), flags))
    assert not sending.done()
    wire.peer.close()  # with unread bytes, which resets the connection
    if flags:
        await soon(sending)
    else:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await soon(sending)


# W3.


@in_clear  # over TLS a peer can tell a part of a message from all of it, see T3
async def test_W3_bytes_that_count_as_sent_arrive_after_close_too(wire: Wire) -> None:
    sock, peer = wire
    data = pattern(20_000_000)
    with pytest.raises(SocketTimeout) as caught:
        await sock.send(data, timeout=0.05)
    sock.close()
    assert await soon(all_of(peer)) == data[: caught.value.bytes_sent]


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_W3_a_send_that_ran_out_of_time_says_how_much_went_out(wire: Wire, timeout: float) -> None:
    data = pattern(20_000_000)
    with pytest.raises(SocketTimeout) as caught:
        await wire.sock.send(data, timeout=timeout)
    sent = caught.value.bytes_sent
    assert 0 < sent < len(data)
    assert wire.sock.last_bytes_sent == sent
    rest = await begin(wire.sock.send(data[sent:]))
    got = await soon(in_thread(read_exactly, wire.peer, len(data)))
    await soon(rest)
    assert got == data


async def test_W3_a_send_that_never_got_the_permit_has_sent_nothing(wire: Wire) -> None:
    first = await begin(wire.sock.send(bytes(20_000_000)), A_WHILE)
    with pytest.raises(SocketTimeout) as caught:
        await wire.sock.send(b"second", timeout=0.02)
    assert caught.value.bytes_sent == 0
    with pytest.raises(SocketTimeout) as caught:
        await wire.sock.send_some(b"second", timeout=0)
    assert caught.value.bytes_sent == 0
    got = await soon(in_thread(read_exactly, wire.peer, 20_000_000))
    await soon(first)
    assert not any(got)


# W4.


async def test_W4_the_buffer_may_be_changed_as_soon_as_send_returns(wire: Wire) -> None:
    buffer = bytearray(50_000)
    reading = tasks.ensure_future(all_of(wire.peer))
    for number in range(100):
        buffer[:] = bytes([number]) * len(buffer)
        await soon(wire.sock.send(buffer))
        buffer[:] = b"\xff" * len(buffer)
        buffer.extend(b"!")  # and it is not held on to
        del buffer[-1]
    wire.sock.close()
    assert await soon(reading) == b"".join(bytes([number]) * len(buffer) for number in range(100))


# W5.


@for_ever_or_long
async def test_W5_messages_of_several_senders_arrive_whole_and_in_order(
    wire: Wire, timeout: float | None
) -> None:
    writers, messages, size = 6, 12, 60_000
    raw_option(wire.sock, socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)

    async def write(writer: int) -> None:
        for number in range(messages):
            await wire.sock.send(bytes([writer, number]) * (size // 2), timeout=timeout)

    writing = [tasks.ensure_future(write(writer)) for writer in range(writers)]
    counts = [0] * writers
    for _ in range(writers * messages):
        message = await soon(in_thread(read_exactly, wire.peer, size))
        writer, number = message[:2]
        assert message == bytes([writer, number]) * (size // 2), "whole"
        assert number == counts[writer], "and in order"
        counts[writer] += 1
    await soon(tasks.gather(*writing))


async def test_W5_a_half_close_waits_for_running_sends(wire: Wire) -> None:
    data = pattern(20_000_000)
    sending = await begin(wire.sock.send(data), A_WHILE)
    closing = await begin(wire.sock.shutdown_write())
    assert not sending.done()
    assert not closing.done()
    assert await soon(all_of(wire.peer)) == data
    await soon(tasks.gather(sending, closing))
    with pytest.raises(SocketTimeout):
        await wire.sock.recv(1, timeout=0)


async def test_W5_writers_that_time_out_are_skipped_and_harm_no_other(wire: Wire) -> None:
    first = await begin(wire.sock.send(bytes(20_000_000)), A_WHILE)
    second = await begin(wire.sock.send(b"left out", timeout=0.2), A_WHILE)
    third = await begin(wire.sock.send(b"third"))
    with pytest.raises(SocketTimeout):
        await second
    got = await soon(in_thread(read_exactly, wire.peer, 20_000_005))
    await soon(tasks.gather(first, third))
    assert got[20_000_000:] == b"third"


# W6.


@over_one_and_tls
@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")])
async def test_W6_sending_nothing_is_nothing(wire: Wire, empty: bytes) -> None:
    sock = wire.sock
    await soon(sock.send(empty))
    await soon(sock.send(empty, timeout=0))
    assert await soon(sock.send_some(empty)) == 0
    assert sock.try_send(empty) is True
    fill(sock)
    await soon(sock.send(empty, timeout=0))
    assert sock.try_send(empty) is True
    wire.peer.close()
    await soon(sock.send(empty, NO_FLAGS))


async def test_W6_try_send_does_not_queue_behind_a_writer(wire: Wire) -> None:
    sending = await begin(wire.sock.send(bytes(20_000_000)), A_WHILE)
    assert wire.sock.try_send(b"x") is False
    assert wire.sock.try_send_some(b"x") == 0
    wire.sock.close()
    with pytest.raises(ClosedError):
        await soon(sending)


async def test_W2_a_send_after_a_half_close_is_an_error(wire: Wire) -> None:
    await soon(wire.sock.shutdown_write())
    with pytest.raises(BrokenPipeError):
        await soon(wire.sock.send(b"x"))


async def test_W6_try_send_never_raises_for_a_socket_error(scene: Scene) -> None:
    unconnected = scene.socket()
    listener = scene.listener()
    wire = await scene.wire()
    await peer_is_gone(wire)
    shut = (await scene.wire()).sock
    await soon(shut.shutdown_write())
    for sock in (unconnected, listener, wire.sock, shut):
        assert sock.try_send(b"x") is False
        with pytest.raises(OSError, match=r"try_send_some|pipe|reset") as caught:
            sock.try_send_some(b"x")
        assert not isinstance(caught.value, ClosedError)
        assert sock.last_bytes_sent == 0
        sock.close()
        assert sock.try_send(b"x") is False
        with pytest.raises(ClosedError):
            sock.try_send_some(b"x")


# W9.


async def test_W6_W9_sends_that_never_wait_say_how_much_the_kernel_took(wire: Wire) -> None:
    sock = wire.sock
    assert sock.try_send(b"the ") is True
    assert sock.try_send_some(b"whole") == sock.last_bytes_sent == 5
    data = pattern(50_000_000)
    sent = 0
    with Stopwatch() as took:
        while count := sock.try_send_some(memoryview(data)[sent:]):
            assert sock.last_bytes_sent == count
            sent += count
    assert took.seconds < TOO_LONG
    assert sock.last_bytes_sent == 0
    assert 0 < sent < len(data)
    assert sock.stats.bytes_sent == 9 + sent
    reading = tasks.ensure_future(in_thread(read_exactly, wire.peer, 9 + sent))
    await soon(sock.send(b""))  # over TLS: the rest of a record
    assert await soon(reading) == b"the whole" + data[:sent]
    assert sock.try_send_some(b"more") == 4
    assert await soon(in_thread(read_exactly, wire.peer, 4)) == b"more"
    with Stopwatch() as took:
        assert sock.try_send(bytes(50_000_000)) is False, "a part"
        while sock.try_send(b"nothing"):  # there may be a little space once more, see `fill`
            fill(sock)
    assert took.seconds < TOO_LONG


# W7.


async def test_W7_a_server_is_held_back_by_a_client_that_does_not_read(scene: Scene) -> None:
    accepted = 0
    enough = threading.Event()

    async def pour(client: Sock, _: Address) -> None:
        nonlocal accepted
        while not enough.is_set():
            await client.send(bytes(100_000))
            accepted += 100_000

    server = await scene.serve(pour)
    client = await scene.connected(server.local_addr)
    last = -1
    while accepted != last or not accepted:  # until it stands still
        last = accepted
        await tasks.sleep(0.1)
    assert 0 < accepted < 50_000_000, "no more than the kernel holds"
    enough.set()
    received = 0
    while data := await soon(client.recv_some()):
        received += len(data)
    assert received == accepted >= last + 100_000
    await eventually(lambda: not server.connections)
