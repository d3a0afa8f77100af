"""W8: datagrams."""

from __future__ import annotations

import socket

import pytest

from tests.scenarios import tasks
from tests.scenarios.flavours import Sock, in_thread
from tests.scenarios.names import Names
from tests.scenarios.scene import (
    A_WHILE,
    DATAGRAMS,
    Scene,
    address_of,
    begin,
    over,
    raw_option,
    readable,
    soon,
)
from wireline import (
    AF_INET,
    IPPROTO_UDP,
    SOCK_DGRAM,
    Address,
    BusyError,
    SocketFlag,
    SocketTimeout,
    parse_ip_address,
)
from wireline.net import Datagram

pytestmark = [pytest.mark.anyio, over(*DATAGRAMS)]

udp = over("udp4", "udp6")


async def send(sender: Sock, data: bytes, where: Address) -> int:
    return await soon(sender.send_to(where.host, where.port, data))


# Sending and receiving.


@pytest.mark.parametrize("timeout", [None, 5])
async def test_W8_a_datagram_has_its_sender(scene: Scene, timeout: float | None) -> None:
    here, there = scene.bound(), scene.bound()
    assert await send(here, b"ping", there.local_addr) == 4
    datagram = await soon(there.recv_from(100, timeout=timeout))
    assert datagram == (b"ping", here.local_addr)
    assert datagram.data == b"ping"
    assert datagram.address == here.local_addr
    assert not datagram.truncated
    buffer = bytearray(b"........")
    assert await send(there, b"pong", datagram.address) == 4
    received = await soon(here.recv_from_into(buffer, timeout=timeout))
    assert received == (4, there.local_addr)
    assert not received.truncated
    assert buffer == b"pong...."


async def test_W8_datagrams_are_kept_apart(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    for data in (b"one", b"two", b"three"):
        await send(here, data, there.local_addr)
    got = [(await soon(there.recv_from(100))).data for _ in range(3)]
    assert got == [b"one", b"two", b"three"]


async def test_W8_a_datagram_larger_than_the_buffer_is_cut_and_that_is_said(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    for _ in range(3):
        await send(here, b"0123456789", there.local_addr)
    cut = await soon(there.recv_from(4))
    assert cut == (b"0123", here.local_addr)
    assert cut.truncated
    buffer = bytearray(b"........")
    received = await soon(there.recv_from_into(buffer, 6))
    assert received == (6, here.local_addr)
    assert received.truncated
    assert buffer == b"012345.."
    whole = await soon(there.recv_from(10))
    assert whole.data == b"0123456789"
    assert not whole.truncated


async def test_W8_an_empty_datagram_is_a_datagram_and_not_an_end(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    assert await send(here, b"", there.local_addr) == 0
    await send(here, b"next", there.local_addr)
    assert await soon(there.recv_from(10)) == (b"", here.local_addr)
    assert await soon(there.recv_from(10)) == (b"next", here.local_addr)


async def test_W8_a_sender_without_a_name_has_an_empty_address(scene: Scene) -> None:
    here, there = scene.socket(), scene.bound()
    await send(here, b"anonymous", there.local_addr)
    sender = (await soon(there.recv_from(100))).address
    if scene.transport.is_unix:
        assert sender == ("", 0)
    else:
        assert sender == (scene.transport.host, here.local_addr.port)


async def test_W8_peek_looks_at_a_datagram(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    await send(here, b"datagram", there.local_addr)
    peeked = await soon(there.recv_from(4, SocketFlag.PEEK))
    assert peeked == (b"data", here.local_addr)
    assert peeked.truncated
    assert await soon(there.recv(8, flags=SocketFlag.PEEK)) == b"datagram"
    assert (await soon(there.recv_from(8))).data == b"datagram"


# Many in one call.


async def receive_all(sock: Sock, count: int) -> list[Datagram]:
    """Receive so many datagrams, in as few calls as it takes."""
    received: list[Datagram] = []
    while len(received) < count:
        received += await soon(sock.recv_many_from())
    return received


async def test_W8_many_datagrams_are_sent_and_received_in_one_call(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    waiting = await begin(there.recv_many_from())
    where = there.local_addr
    count = 8 if scene.transport.is_unix else 200  # a Unix socket has a short queue
    numbers = [b"%d" % number for number in range(count)]
    assert await soon(here.send_many_to((data, *where) for data in numbers)) == count
    assert here.last_bytes_sent == len(b"".join(numbers))
    received = await soon(waiting)
    received += await receive_all(there, count - len(received))
    assert received == [(data, here.local_addr) for data in numbers]
    assert not any(datagram.truncated for datagram in received)
    # What was received can be sent as it is: it is an answer.
    assert await soon(there.send_many_to(received)) == count
    assert [datagram.data for datagram in await receive_all(here, count)] == numbers
    assert await soon(here.send_many_to([])) == here.last_bytes_sent == 0


async def test_W8_R5_a_call_for_many_takes_no_more_than_it_returns(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    for seconds in (0, 0.02):
        with pytest.raises(SocketTimeout, match="recv_many_from"):
            await there.recv_many_from(timeout=seconds)
    await soon(here.send_many_to([(b"0123456789", *there.local_addr)] * 4 + [(b"", *there.local_addr)]))
    await readable(there)
    assert [len(await there.recv_many_from(max_count, 10, 0)) for max_count in (1, 2)] == [1, 2]
    cut, empty = await soon(there.recv_many_from(64, size=4))
    assert (cut.data, cut.truncated, empty.data, empty.truncated) == (b"0123", True, b"", False)
    # R11: it is a receiver like others.
    first = await begin(there.recv_many_from(), A_WHILE)
    for call in (there.recv_many_from(), there.recv_from(10)):
        with pytest.raises(BusyError):
            await soon(call)
    await send(here, b"mine", there.local_addr)
    assert await soon(first) == [(b"mine", here.local_addr)]


async def test_W8_a_datagram_in_the_middle_that_cannot_be_sent_ends_the_call_before_it(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    where = there.local_addr
    rest = [(b"one", *where), (b"two", *where), (bytes(1_000_000), *where), (b"three", *where)]
    assert await soon(here.send_many_to(rest)) == 2
    assert here.last_bytes_sent == 6
    with pytest.raises(OSError, match="too long") as caught:
        await soon(here.send_many_to(rest[2:]))
    assert any("during send_many_to" in note for note in caught.value.__notes__)
    assert here.last_bytes_sent == 0
    assert await soon(here.send_many_to(rest[3:])) == 1
    assert [datagram.data for datagram in await receive_all(there, 3)] == [b"one", b"two", b"three"]


@over("unixgram")
async def test_W8_a_timeout_in_the_middle_of_many_says_how_many_were_sent(scene: Scene) -> None:
    receiver = scene.raw_bound()
    sock = scene.socket()
    data = [b"%d" % number for number in range(5_000)]
    outgoing = [(each, receiver.getsockname(), 0) for each in data]
    sent = await sock.send_many_to(outgoing, timeout=0.05)
    assert 0 < sent < len(data)
    assert sock.last_bytes_sent == len(b"".join(data[:sent]))
    for seconds in (0, 0.02):
        with pytest.raises(SocketTimeout) as caught:
            await sock.send_many_to(outgoing[sent:], timeout=seconds)
        assert (caught.value.operation, caught.value.bytes_sent) == ("send_many_to", 0)
    waiting = await begin(sock.send_many_to(outgoing[sent : sent + 2 * sent]))
    assert [await in_thread(receiver.recv, 10) for _ in range(3 * sent)] == data[: 3 * sent]
    assert await soon(waiting) == 2 * sent


@udp
async def test_W8_a_refusal_in_the_middle_of_many_is_raised_by_the_next_receiver(scene: Scene) -> None:
    bound = scene.raw_bound()
    nowhere = address_of(bound)
    bound.close()
    sock, there = scene.bound(), scene.bound()
    await scene.connect(sock, nowhere)
    # The first one is sent, and refused: the system says so instead of sending the second.
    assert await soon(sock.send_many_to([(b"anybody?", *nowhere)] * 3)) == 1
    with pytest.raises(ConnectionRefusedError) as caught:
        await soon(sock.recv_many_from())
    assert any("during recv_many_from" in note for note in caught.value.__notes__)
    await scene.connect(sock, there.local_addr)
    assert await soon(sock.send_many_to([(b"datagram", *there.local_addr)])) == 1
    assert (await soon(there.recv_from(10))).data == b"datagram"


@udp
async def test_W8_many_go_to_names_which_are_resolved_before_the_first_is_sent(
    scene: Scene, names: Names
) -> None:
    here, there = scene.bound(), scene.bound()
    where = there.local_addr
    names.add("there.test", (*where, 0, 0) if ":" in where.host else tuple(where))
    outgoing = [(b"by address", *where), (b"by name", "there.test", where.port)]
    with pytest.raises(socket.gaierror, match=r"unknown\.test"):
        await soon(here.send_many_to([*outgoing, (b"x", names.add("unknown.test"), 9)]))
    with pytest.raises(SocketTimeout):
        await here.send_many_to([*outgoing, (b"x", names.add_silent("silent.test"), 9)], timeout=0.05)
    assert await soon(here.send_many_to(outgoing)) == 2
    assert [datagram.data for datagram in await receive_all(there, 2)] == [b"by address", b"by name"]


@udp
@pytest.mark.full
async def test_W8_a_flood_arrives_in_order(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    where = there.local_addr
    received = 0
    for start in range(0, 100_000, 100):
        numbers = [b"%d" % number for number in range(start, start + 100)]
        assert await here.send_many_to([(data, *where) for data in numbers]) == 100
        several = await receive_all(there, 100)
        assert [datagram.data for datagram in several] == numbers
        received += len(several)
    assert received == 100_000


# Timeouts, and two at a time.


async def test_W8_R4_a_timeout_of_zero_takes_a_datagram_that_is_there(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    with pytest.raises(SocketTimeout):
        await there.recv_from(10, timeout=0)
    with pytest.raises(SocketTimeout):
        await there.recv_from_into(bytearray(10), timeout=0.02)
    await send(here, b"there", there.local_addr)
    await readable(there)
    assert (await there.recv_from(10, timeout=0)).data == b"there"


async def test_W8_R11_a_second_receiver_is_refused(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    first = await begin(there.recv_from(10), A_WHILE)
    with pytest.raises(BusyError):
        await soon(there.recv_from(10))
    with pytest.raises(BusyError):
        await soon(there.recv_from_into(bytearray(10)))
    await send(here, b"mine", there.local_addr)
    assert (await soon(first)).data == b"mine"


async def test_W8_one_receives_while_others_send(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    receiving = await begin(here.recv_from(10))
    await tasks.gather(*(send(here, b"out", there.local_addr) for _ in range(5)))
    assert [(await soon(there.recv_from(10))).data for _ in range(5)] == [b"out"] * 5
    await send(there, b"in", here.local_addr)
    assert (await soon(receiving)).data == b"in"


@over("unixgram")
async def test_W8_a_full_queue_holds_the_sender_back(scene: Scene) -> None:
    receiver = scene.raw_bound()
    sock = scene.socket()
    sent = 0
    with pytest.raises(SocketTimeout):
        while True:
            await sock.send_to(receiver.getsockname(), 0, b"%d" % sent, timeout=0.05)
            sent += 1
    waiting = await begin(sock.send_to(receiver.getsockname(), 0, b"%d" % sent))
    assert not waiting.done()
    assert [receiver.recv(10) for _ in range(sent)] == [b"%d" % number for number in range(sent)]
    await soon(waiting)
    assert receiver.recv(10) == b"%d" % sent


# Connected datagram sockets.


async def test_W8_a_connected_datagram_socket_sends_and_receives(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    await scene.connect(here, there.local_addr)
    assert here.peer_addr == there.local_addr
    await soon(here.send(b"by send"))
    assert here.last_bytes_sent == 7
    assert await soon(here.send_some(b"by send_some", timeout=5)) == 12
    assert here.try_send(b"by try_send") is True
    assert here.try_send_some(b"by try_send_some") == here.last_bytes_sent == 16
    assert [(await soon(there.recv_from(99))).data for _ in range(4)] == [
        b"by send",
        b"by send_some",
        b"by try_send",
        b"by try_send_some",
    ]
    await send(there, b"answer", here.local_addr)
    assert await soon(here.recv(99)) == b"answer"
    await send(there, b"another", here.local_addr)
    assert await soon(here.recv_some()) == b"another"


async def test_W8_it_may_be_connected_to_another_peer(scene: Scene) -> None:
    here, first, second = scene.bound(), scene.bound(), scene.bound()
    for there in (first, second):
        await scene.connect(here, there.local_addr)
        await soon(here.send(b"to you"))
        assert (await soon(there.recv_from(99))).data == b"to you"


async def test_W8_a_send_without_a_peer_is_refused(scene: Scene) -> None:
    sock = scene.bound()
    for call in (sock.send(b"x"), sock.send_some(b"x")):
        with pytest.raises(OSError, match="send_to"):
            await soon(call)
    assert sock.try_send(b"x") is False
    with pytest.raises(OSError, match="send_to"):
        sock.try_send_some(b"x")


# Calls that are not for datagrams, and calls for datagrams only.


async def test_W8_a_stream_method_is_a_type_error(scene: Scene) -> None:
    sock = scene.bound()
    await scene.connect(sock, scene.bound().local_addr)
    for call in (
        lambda: sock.recv_line(),
        lambda: sock.recv_exactly(1),
        lambda: sock.recv_until(b"x"),
        lambda: sock.skip(1),
        lambda: sock.accept(),
        lambda: sock.shutdown_write(),
    ):
        with pytest.raises(TypeError, match="stream"):
            await soon(call())
    for call in (sock.listen, sock.lines, sock.try_recv_line, sock.try_accept_addr):
        with pytest.raises(TypeError, match="stream"):
            call()


@over("tcp4", "tcp6", "unix")
async def test_W8_send_to_and_recv_from_of_a_stream_are_type_errors(scene: Scene) -> None:
    for sock in (scene.socket(), scene.listener(), (await scene.wire()).sock):
        for call in (
            sock.send_to("127.0.0.1", 9, b"x"),
            sock.recv_from(1),
            sock.recv_from_into(bytearray(1)),
        ):
            with pytest.raises(TypeError, match="datagram"):
                await soon(call)


# Addresses and errors of UDP.


@udp
async def test_W8_a_name_is_a_destination(scene: Scene, names: Names) -> None:
    here, there = scene.bound(), scene.bound()
    where = there.local_addr
    names.add("there.test", (*where, 0, 0) if ":" in where.host else tuple(where))
    assert await soon(here.send_to("there.test", where.port, b"by name")) == 7
    assert (await soon(there.recv_from(9))).data == b"by name"
    assert await soon(here.send_to(parse_ip_address(where.host), where.port, b"by address")) == 10
    with pytest.raises(socket.gaierror, match=r"unknown\.test"):
        await soon(here.send_to(names.add("unknown.test"), 9, b"x"))


@udp
async def test_W8_C2_the_deadline_holds_while_a_name_is_looked_up(scene: Scene, names: Names) -> None:
    sock = scene.socket()
    with pytest.raises(SocketTimeout):
        await sock.send_to(names.add_silent("silent.test"), 9, b"x", timeout=0.05)


@over("udp6")
async def test_W8_a_mapped_sender_is_shown_as_plain_ipv4_and_can_be_answered(scene: Scene) -> None:
    both = scene.socket()
    raw_option(both, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    both.bind_addr(0, "::")
    sender = scene.closed_at_the_end(scene.flavour.socket(AF_INET, SOCK_DGRAM))
    sender.bind_addr(0, "127.0.0.1")
    await soon(sender.send_to("127.0.0.1", both.local_addr.port, b"ping"))
    data, address = await soon(both.recv_from(10))
    assert data == b"ping"
    assert address == sender.local_addr == ("127.0.0.1", sender.local_addr.port)
    await soon(both.send_to(address.host, address.port, b"pong"))
    assert await soon(sender.recv_from(10)) == (b"pong", ("127.0.0.1", both.local_addr.port))


@udp
async def test_W8_a_closed_port_is_an_error_and_the_socket_keeps_working(
    scene: Scene,
) -> None:
    bound = scene.raw_bound()
    nowhere = address_of(bound)
    bound.close()
    sock, there = scene.bound(), scene.bound()
    for receive in (
        lambda: sock.recv_from(10),
        lambda: sock.recv_from_into(bytearray(10)),
        lambda: sock.recv(10),
    ):
        await scene.connect(sock, nowhere)
        await soon(sock.send(b"anybody?"))
        with pytest.raises(ConnectionRefusedError) as caught:
            await soon(receive())
        assert any("recv" in note for note in caught.value.__notes__)
        await scene.connect(sock, there.local_addr)
        await soon(sock.send(b"datagram"))
        assert await soon(there.recv_from(10)) == (b"datagram", sock.local_addr)
        await send(there, b"yes", sock.local_addr)
        assert await soon(sock.recv(10)) == b"yes"


@udp
async def test_W8_an_error_while_it_waits(scene: Scene) -> None:
    bound = scene.raw_bound()
    nowhere = address_of(bound)
    bound.close()
    sock = scene.bound()
    await scene.connect(sock, nowhere)
    waiting = await begin(sock.recv_from(10))
    await soon(sock.send(b"anybody?"))
    with pytest.raises(ConnectionRefusedError):
        await soon(waiting)
    assert sock.try_send(b"still working") is True


@udp
async def test_W8_a_datagram_that_is_too_large_is_the_operating_systems_error(scene: Scene) -> None:
    here, there = scene.bound(), scene.bound()
    with pytest.raises(OSError, match="too long"):
        await send(here, bytes(70_000), there.local_addr)
    await send(here, b"small", there.local_addr)
    assert (await soon(there.recv_from(10))).data == b"small"


@udp
async def test_W8_a_dialed_datagram_socket_is_connected(scene: Scene) -> None:
    there = scene.bound()
    where = there.local_addr
    sock = await scene.dial(where.host, where.port, IPPROTO_UDP)
    assert sock.peer_addr == where
    await soon(sock.send(b"hello"))
    data, address = await soon(there.recv_from(10))
    assert (data, address) == (b"hello", sock.local_addr)


@over("udp4")
async def test_W8_peers_of_the_standard_library(scene: Scene) -> None:
    sock = scene.bound()
    peer = scene.raw_bound()
    peer.sendto(b"ping", sock.local_addr)
    data, address = await soon(sock.recv_from(10))
    await soon(sock.send_to(address.host, address.port, data))
    assert await in_thread(peer.recvfrom, 10) == (b"ping", tuple(sock.local_addr))
