"""R13, R14: closing wakes every call that waits, and later calls are refused."""

from __future__ import annotations

import contextlib
import inspect
import io
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.scenarios import tasks
from tests.scenarios.calls import READS, Call
from tests.scenarios.flavours import Flavour, Sock, in_thread
from tests.scenarios.names import Names
from tests.scenarios.scene import (
    A_MOMENT,
    A_WHILE,
    PATIENCE,
    TOO_LONG,
    Pair,
    Scene,
    Stopwatch,
    Wire,
    arrived,
    begin,
    fill,
    in_clear,
    over,
    over_every_stream,
    over_one_and_tls,
    read_all,
    soon,
)
from wireline import ClosedError, SocketFlag, SockOpt
from wireline.tls import SslContext, VerifyMode

pytestmark = [pytest.mark.anyio, over_every_stream]

for_ever_or_long = pytest.mark.parametrize("timeout", [None, 20], ids=["no-timeout", "timeout"])
"""The two ways to wait: forever, and with a deadline."""


async def assert_close_wakes(sock: Sock, *calls: Any) -> None:
    """Close the socket under calls that wait; each must end with ``ClosedError``, at once."""
    waiting = [await begin(call, A_WHILE if len(calls) > 1 else A_MOMENT) for call in calls]
    assert not any(task.done() for task in waiting), "they do not wait"
    with Stopwatch() as took:
        sock.close()
        for task in waiting:
            with pytest.raises(ClosedError):
                await soon(task)
    assert took.seconds < TOO_LONG
    assert sock.is_closed
    assert sock.fileno() == -1


# R13.


@over_one_and_tls
@pytest.mark.parametrize("read", READS.values(), ids=READS)
@for_ever_or_long
async def test_R13_close_wakes_a_read_that_has_a_part_already(
    wire: Wire, read: Call, timeout: float | None
) -> None:
    wire.peer.sendall(b"whole\na part")
    assert await soon(wire.sock.recv_line()) == b"whole"
    await assert_close_wakes(wire.sock, read(wire.sock, timeout))


@for_ever_or_long
async def test_R13_close_wakes_a_read_that_has_nothing(wire: Wire, timeout: float | None) -> None:
    await assert_close_wakes(wire.sock, wire.sock.recv_some(1, timeout))


@for_ever_or_long
@pytest.mark.parametrize("read", ["recv_exactly", "recv_line"])
async def test_R13_close_ends_a_read_that_always_finds_something(
    wire: Wire, read: str, timeout: float | None
) -> None:
    sock, peer = wire
    flood = await begin(in_thread(peer.sendall, bytes(200_000_000)))
    reads = {
        "recv_exactly": lambda: sock.recv_exactly(10**9, timeout),
        "recv_line": lambda: sock.recv_line(timeout, max_length=10**9),
    }
    await assert_close_wakes(sock, reads[read]())
    if isinstance(peer, socket.socket):
        with pytest.raises(ConnectionError):
            await soon(flood)
    else:
        with contextlib.suppress(ConnectionError):  # the lingering close reads the input for a while
            await soon(flood)


@for_ever_or_long
async def test_R13_close_wakes_an_unbuffered_read(scene: Scene, timeout: float | None) -> None:
    sock, _ = await scene.wire(buffered=False)
    await assert_close_wakes(sock, sock.recv(5, timeout))


@for_ever_or_long
@pytest.mark.parametrize("method", ["accept", "accept_addr"])
async def test_R13_close_wakes_accept(scene: Scene, method: str, timeout: float | None) -> None:
    listener = scene.listener()
    await assert_close_wakes(listener, getattr(listener, method)(timeout=timeout))


@for_ever_or_long
async def test_R13_close_wakes_every_accept(scene: Scene, timeout: float | None) -> None:
    listener = scene.listener()
    await assert_close_wakes(listener, *(listener.accept(timeout=timeout) for _ in range(3)))


@for_ever_or_long
async def test_R13_close_wakes_a_connect_without_an_answer(scene: Scene, timeout: float | None) -> None:
    where = scene.black_hole()
    sock = scene.socket()
    await assert_close_wakes(sock, scene.connect(sock, where, timeout))


@over("tcp4", "tcp6")
@for_ever_or_long
async def test_R13_close_wakes_a_connect_that_waits_for_a_name(
    scene: Scene, names: Names, timeout: float | None
) -> None:
    sock = scene.socket()
    await assert_close_wakes(sock, sock.connect(names.add_silent("silent.test"), 80, timeout))


@for_ever_or_long
@pytest.mark.parametrize("method", ["send", "send_some"])
async def test_R13_close_wakes_a_send_to_a_peer_that_does_not_read(
    wire: Wire, method: str, timeout: float | None
) -> None:
    fill(wire.sock)
    data = bytes(10_000_000)

    async def send() -> None:
        # Should `send_some` find a little space once more, see `fill`, the next one does not.
        while not wire.sock.is_closed:
            await getattr(wire.sock, method)(data, timeout=timeout)

    await assert_close_wakes(wire.sock, send())


@for_ever_or_long
async def test_R13_close_wakes_a_send_that_waits_for_the_permit(wire: Wire, timeout: float | None) -> None:
    sock = wire.sock
    fill(sock)
    await assert_close_wakes(
        sock,
        sock.send(bytes(10_000_000)),
        sock.send(b"second", timeout=timeout),
        sock.send_some(b"third", timeout),
        sock.shutdown_write(timeout),
    )


@for_ever_or_long
async def test_R13_close_wakes_reader_and_writer_together(wire: Wire, timeout: float | None) -> None:
    sock = wire.sock
    fill(sock)
    await assert_close_wakes(sock, sock.recv_line(timeout), sock.send(bytes(10_000_000), timeout=timeout))


@over("udp4", "udp6", "unixgram")
@for_ever_or_long
@pytest.mark.parametrize(
    "receive",
    [
        lambda sock, timeout: sock.recv_from(10, timeout=timeout),
        lambda sock, timeout: sock.recv_from_into(bytearray(10), timeout=timeout),
        lambda sock, timeout: sock.recv(10, timeout),
        lambda sock, timeout: sock.recv_some(10, timeout),
        lambda sock, timeout: sock.recv_many_from(timeout=timeout),
    ],
    ids=["recv_from", "recv_from_into", "recv", "recv_some", "recv_many_from"],
)
async def test_R13_close_wakes_a_read_that_waits_for_a_datagram(
    scene: Scene, receive: Call, timeout: float | None
) -> None:
    sock = scene.bound()
    await assert_close_wakes(sock, receive(sock, timeout))


@over("unixgram")
@for_ever_or_long
async def test_R13_close_wakes_a_send_of_a_datagram_to_a_full_queue(
    scene: Scene, timeout: float | None
) -> None:
    receiver = scene.raw_bound()
    sock = scene.socket()

    async def send_on() -> None:
        while True:
            await sock.send_to(receiver.getsockname(), 0, b"datagram", timeout=timeout)

    await assert_close_wakes(sock, send_on())


@over("udp4", "udp6")
@for_ever_or_long
async def test_R13_close_wakes_a_datagram_that_waits_for_a_name(
    scene: Scene, names: Names, timeout: float | None
) -> None:
    sock = scene.socket()
    await assert_close_wakes(sock, sock.send_to(names.add_silent("silent.test"), 9, b"x", timeout=timeout))


async def test_R13_bytes_that_were_sent_before_arrive(wire: Wire) -> None:
    await soon(wire.sock.send(b"last words"))
    wire.sock.close()
    assert read_all(wire.peer) == b"last words"


async def test_R13_the_other_side_of_a_pair_sees_the_end(pair: Pair) -> None:
    reading = await begin(pair.client.recv_line())
    pair.server.close()
    assert await soon(reading) == b""


# R14.

PORT = 9
CALLS: dict[str, Callable[[Sock], Any]] = {
    "accept": lambda sock: sock.accept(),
    "accept_addr": lambda sock: sock.accept_addr(),
    "bind_addr": lambda sock: sock.bind_addr(0, "127.0.0.1"),
    "bind_unix": lambda sock: sock.bind_unix("/nowhere/at/all"),
    "connect": lambda sock: sock.connect("127.0.0.1", PORT),
    "connect_unix": lambda sock: sock.connect_unix("/nowhere/at/all"),
    "detach": lambda sock: sock.detach(),
    "adopt": lambda sock: sock.adopt(),
    "consume": lambda sock: sock.consume(0),
    "fill": lambda sock: sock.fill(),
    "frames": lambda sock: anext(aiter(sock.frames("!I"))),
    "getsockopt": lambda sock: sock.getsockopt(1, 2),
    "peer_credentials": lambda sock: sock.peer_credentials(),
    "recv_frame": lambda sock: sock.recv_frame("!I"),
    "recv_some_into": lambda sock: sock.recv_some_into(bytearray(1)),
    "recv_struct": lambda sock: sock.recv_struct("!I"),
    "set_keep_alive": lambda sock: sock.set_keep_alive(None),
    "setsockopt": lambda sock: sock.setsockopt(1, 2, 1),
    "tcp_info": lambda sock: sock.tcp_info(),
    "try_recv": lambda sock: sock.try_recv(),
    "unread": lambda sock: sock.unread(b"x"),
    "get_sock_opt": lambda sock: sock.get_sock_opt(SockOpt.KEEP_ALIVE),
    "get_socket_error": lambda sock: sock.get_socket_error(),
    "lines": lambda sock: anext(aiter(sock.lines())),
    "listen": lambda sock: sock.listen(),
    "local_addr": lambda sock: sock.local_addr,
    "peer_addr": lambda sock: sock.peer_addr,
    "recv": lambda sock: sock.recv(1),
    "recv_exactly": lambda sock: sock.recv_exactly(1),
    "recv_from": lambda sock: sock.recv_from(1),
    "recv_from_into": lambda sock: sock.recv_from_into(bytearray(1)),
    "recv_into": lambda sock: sock.recv_into(bytearray(1)),
    "recv_line": lambda sock: sock.recv_line(),
    "recv_line_into": lambda sock: sock.recv_line_into(bytearray()),
    "recv_some": lambda sock: sock.recv_some(),
    "recv_until": lambda sock: sock.recv_until(b"\n"),
    "send_fds": lambda sock: sock.send_fds(b"x", []),
    "recv_fds": lambda sock: sock.recv_fds(1, 1),
    "start_tls": lambda sock: sock.start_tls(SslContext(verify_mode=VerifyMode.NONE)),
    "wait_readable": lambda sock: sock.wait_readable(),
    "wait_writable": lambda sock: sock.wait_writable(),
    "join_group": lambda sock: sock.join_group("239.1.2.3"),
    "leave_group": lambda sock: sock.leave_group("239.1.2.3"),
    "multicast_interface": lambda sock: sock.multicast_interface,
    "multicast_loop": lambda sock: sock.multicast_loop,
    "multicast_ttl": lambda sock: sock.multicast_ttl,
    "recv_many_from": lambda sock: sock.recv_many_from(),
    "send_many_to": lambda sock: sock.send_many_to([(b"x", "127.0.0.1", PORT)]),
    "send": lambda sock: sock.send(b"x"),
    "send_many": lambda sock: sock.send_many([b"x"]),
    "sendfile": lambda sock: sock.sendfile(io.BytesIO(b"x")),
    "send_some": lambda sock: sock.send_some(b"x"),
    "try_send_some": lambda sock: sock.try_send_some(b"x"),
    "send_to": lambda sock: sock.send_to("127.0.0.1", PORT, b"x"),
    "set_sock_opt": lambda sock: sock.set_sock_opt(SockOpt.KEEP_ALIVE, True),
    "shutdown_write": lambda sock: sock.shutdown_write(),
    "skip": lambda sock: sock.skip(1),
    "socket_error": lambda sock: sock.socket_error(),
    "try_accept_addr": lambda sock: sock.try_accept_addr(),
    "try_recv_line": lambda sock: sock.try_recv_line(),
    "get_peer_certificates": lambda sock: sock.get_peer_certificates(),
    "get_psk_identity": lambda sock: sock.get_psk_identity(),
    "ssl_handle": lambda sock: sock.ssl_handle,
    "ssl_pointer": lambda sock: sock.ssl_pointer,
    "tls_info": lambda sock: sock.tls_info,
}
"""Every public method, and the properties that ask the operating system."""

DATAGRAMS_ONLY = {
    "join_group",
    "leave_group",
    "multicast_interface",
    "multicast_loop",
    "multicast_ttl",
    "recv_from",
    "recv_from_into",
    "recv_many_from",
    "send_many_to",
    "send_to",
}
STILL_ANSWERED = set("close fileno got_handshake has_data_buffered is_closed is_ssl stats try_send".split())
CONSTRUCTORS = {"from_fd", "from_socket"}


def test_R14_every_public_name_is_looked_at(flavour: Flavour) -> None:
    public = {name for name in dir(flavour.socket_type) if not name.startswith("_")}
    assert public == {*CALLS, *STILL_ANSWERED, *CONSTRUCTORS}


async def refused(call: Callable[[Sock], Any], sock: Sock) -> bool:
    """Whether a call, be it awaited or not, ends with ``ClosedError``."""
    try:
        result = call(sock)
        if inspect.isawaitable(result):
            await soon(result)
    except ClosedError:
        return True
    return False


@pytest.mark.parametrize("state", ["unconnected", "listening", "connected", "unread"])
async def test_R14_use_after_close_is_a_closed_error(scene: Scene, state: str) -> None:
    match state:
        case "unconnected":
            sock = scene.socket()
        case "listening":
            sock = scene.listener()
        case _:
            sock, peer = await scene.wire()
            peer.sendall(b"".join(b"line %d\n" % number for number in range(500)))
            if state == "unread":  # some lines in the buffer, some split off ahead
                for _ in range(200):
                    await soon(sock.recv_line())
    sock.close()
    assert [
        name for name, call in CALLS.items() if name not in DATAGRAMS_ONLY and not await refused(call, sock)
    ] == []
    await assert_still_answered(sock, scene)


@over("udp4", "udp6", "unixgram")
async def test_R14_use_of_a_datagram_socket_after_close_is_a_closed_error(scene: Scene) -> None:
    sock = scene.bound()
    sock.close()
    assert [name for name, call in CALLS.items() if not await refused(call, sock)] == []
    await assert_still_answered(sock, scene)


async def assert_still_answered(sock: Sock, scene: Scene) -> None:
    assert sock.is_closed
    assert sock.fileno() == -1
    assert not sock.has_data_buffered
    assert sock.is_ssl is (scene.transport.tls is not None)
    assert sock.try_send(b"x") is False
    assert "closed" in repr(sock)
    sock.close()
    sock.close(SocketFlag(0), linger=1)
    async with sock:
        pass


async def test_R14_a_socket_is_closed_at_the_end_of_its_block(scene: Scene) -> None:
    async with scene.socket() as sock:
        assert not sock.is_closed
    assert sock.is_closed
    with pytest.raises(ZeroDivisionError):
        async with scene.socket() as sock:
            raise ZeroDivisionError
    assert sock.is_closed


async def test_R14_a_closed_socket_does_not_read_from_a_reused_number(scene: Scene) -> None:
    sock, _ = await scene.wire()
    reading = await begin(sock.recv_line())
    sock.close()
    # The next descriptors get the lowest free numbers: one of them gets the number that `sock` had, if it is free.
    wires = [await scene.wire() for _ in range(3)]
    for wire in wires:
        wire.peer.sendall(b"for the other\n")
    with pytest.raises(ClosedError):
        await soon(reading)
    for wire in wires:
        assert await soon(wire.sock.recv_line()) == b"for the other"


async def test_R14_closing_again_and_again_from_everywhere(scene: Scene) -> None:
    sock, _ = await scene.wire()
    reading = await begin(sock.recv_line())
    await tasks.gather(*(in_thread(sock.close) for _ in range(8)))
    with pytest.raises(ClosedError):
        await soon(reading)


@in_clear  # TLS cannot be handed over
async def test_R14_a_detached_socket_is_closed_and_its_connection_is_not(wire: Wire) -> None:
    wire.peer.sendall(b"hello")
    with socket.socket(fileno=wire.sock.detach()) as raw:
        assert wire.sock.is_closed
        with pytest.raises(ClosedError):
            await wire.sock.recv(1)
        raw.settimeout(PATIENCE)
        assert raw.recv(5) == b"hello"
        raw.sendall(b"goodbye")
    assert read_all(wire.peer) == b"goodbye"


@in_clear
async def test_R14_a_socket_with_unread_bytes_is_not_detached(wire: Wire) -> None:
    wire.peer.sendall(b"one\ntwo\n")
    await arrived(wire.sock, 8)
    assert await soon(wire.sock.recv_line()) == b"one"
    with pytest.raises(OSError, match="unread"):
        wire.sock.detach()
    assert await soon(wire.sock.recv_line()) == b"two"
