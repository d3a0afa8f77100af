"""C2 to C7 for ``connect``: every address of a name, one deadline, no descriptor lost."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests.scenarios.flavours import Sock, in_thread
from tests.scenarios.names import Names
from tests.scenarios.scene import (
    A_WHILE,
    TOO_LONG,
    Scene,
    Stopwatch,
    address_of,
    begin,
    no_descriptor_is_lost,
    over,
    raw_option,
    read_exactly,
    soon,
    turns,
)
from wireline import Address, BusyError, ClosedError, SocketFlag, SocketTimeout, SockOpt, parse_ip_address

pytestmark = pytest.mark.anyio

tcp = over("tcp4", "tcp6")


async def assert_talks_to(sock: Sock, listener: socket.socket, scene: Scene) -> None:
    peer = scene.raw_accept(listener)
    peer.sendall(b"welcome\n")
    assert await soon(sock.recv_line()) == b"welcome"
    await soon(sock.send(b"thanks"))
    assert read_exactly(peer, 6) == b"thanks"


# C2.


@tcp
@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_C2_the_deadline_holds_while_the_name_is_looked_up(
    scene: Scene, names: Names, timeout: float
) -> None:
    sock = scene.socket()
    with Stopwatch() as took, pytest.raises(SocketTimeout):
        await sock.connect(names.add_silent("silent.test"), 80, timeout)
    assert took.seconds < TOO_LONG


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_C2_the_deadline_holds_without_an_answer(scene: Scene, timeout: float) -> None:
    where = scene.black_hole()
    sock = scene.socket()
    with Stopwatch() as took, pytest.raises(SocketTimeout) as caught:
        await scene.connect(sock, where, timeout)
    assert took.seconds < TOO_LONG
    assert caught.value.seconds == timeout
    assert any(where.host in note for note in caught.value.__notes__), "the address is in a note"


@tcp
async def test_C2_one_deadline_for_all_the_addresses(scene: Scene, names: Names) -> None:
    dead = [scene.raw_listener(0) for _ in range(4)]
    for listener in dead:
        scene.raw_connect(address_of(listener))
    name = names.add("dead.test", *(listener.getsockname() for listener in dead))
    with Stopwatch() as took, pytest.raises(SocketTimeout):
        await scene.socket().connect(name, 80, 0.1)
    assert 0.09 < took.seconds < TOO_LONG


# C3.


@tcp
async def test_C3_connect_tries_every_address_of_the_name(scene: Scene, names: Names) -> None:
    live = scene.raw_listener()
    addresses = [scene.refusing(), scene.refusing(), live, scene.refusing()]
    sock = scene.socket()
    await soon(sock.connect(names.add("some.test", *(each.getsockname() for each in addresses)), 80))
    assert sock.peer_addr == address_of(live)
    await assert_talks_to(sock, live, scene)


@tcp
async def test_C3_the_error_is_that_of_the_last_address(scene: Scene, names: Names) -> None:
    addresses = [scene.refusing().getsockname() for _ in range(3)]
    with pytest.raises(ConnectionRefusedError) as caught:
        await soon(scene.socket().connect(names.add("none.test", *addresses), 80))
    assert any(str(addresses[-1]) in note for note in caught.value.__notes__)


@tcp
async def test_C3_the_options_are_kept_when_the_descriptor_is_not(scene: Scene, names: Names) -> None:
    live = scene.raw_listener()
    addresses = [scene.refusing().getsockname(), live.getsockname()]
    sock = scene.socket(inheritable=True)
    sock.set_sock_opt(SockOpt.KEEP_ALIVE, True)
    sock.set_sock_opt(SockOpt.NO_DELAY, False)
    sock.set_sock_opt(SockOpt.REUSE_ADDR, True)
    sock.bind_addr(0, scene.transport.host)
    here = sock.local_addr
    await soon(sock.connect(names.add("some.test", *addresses), 80))
    assert raw_option(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert not raw_option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert os.get_inheritable(sock.fileno())
    assert sock.local_addr.host == here.host, "and so is the local address"


async def test_C3_a_failed_socket_may_connect_again(scene: Scene) -> None:
    listener = scene.raw_listener()
    where = address_of(listener)
    sock = scene.socket()
    with pytest.raises(SocketTimeout):
        await scene.connect(sock, scene.black_hole(), 0.02)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await scene.connect(sock, address_of(scene.refusing()))
    await scene.connect(sock, where)
    await assert_talks_to(sock, listener, scene)


@over("unix")
async def test_C3_a_path_that_is_not_there_yet(scene: Scene) -> None:
    sock = scene.socket()
    path = scene.path()
    with pytest.raises(FileNotFoundError) as caught:
        await soon(sock.connect_unix(path))
    assert any(path in note for note in caught.value.__notes__)
    listener = scene.raw()
    listener.bind(path)
    listener.listen()
    await soon(sock.connect_unix(path))
    await assert_talks_to(sock, listener, scene)


@over("unix")
async def test_C3_a_unix_connect_waits_for_a_place_in_the_queue(scene: Scene) -> None:
    listener = scene.raw_listener(backlog=0)
    scene.raw_connect(address_of(listener))
    sock = scene.socket()
    connecting = await begin(sock.connect_unix(listener.getsockname(), timeout=5))
    assert not connecting.done()
    scene.raw_accept(listener)
    await soon(connecting)
    await assert_talks_to(sock, listener, scene)


async def test_C3_a_connected_socket_is_not_connected_again(scene: Scene) -> None:
    sock, peer = await scene.wire()
    with pytest.raises(OSError, match="already") as caught:
        await scene.connect(sock, address_of(scene.raw_listener()))
    assert caught.value.errno == errno.EISCONN
    await soon(sock.send(b"unharmed"))
    assert read_exactly(peer, 8) == b"unharmed"


async def test_C3_a_listening_socket_is_not_connected(scene: Scene) -> None:
    with pytest.raises(OSError, match="listening"):
        await scene.connect(scene.listener(), address_of(scene.raw_listener()))


@tcp
async def test_C3_an_address_object_is_an_address(scene: Scene) -> None:
    listener = scene.raw_listener()
    sock = scene.socket()
    await soon(sock.connect(parse_ip_address(scene.transport.host), address_of(listener).port))
    await assert_talks_to(sock, listener, scene)


async def test_C3_only_one_connects_at_a_time(scene: Scene) -> None:
    where = scene.black_hole()
    sock = scene.socket()
    first = await begin(scene.connect(sock, where), A_WHILE)
    with pytest.raises(BusyError):
        await scene.connect(sock, where, 1)
    assert not first.done()
    sock.close()
    with pytest.raises(ClosedError):
        await soon(first)


# C5.


async def test_C5_no_failing_path_of_connect_loses_a_descriptor(scene: Scene, names: Names) -> None:
    hole, refused = scene.black_hole(), address_of(scene.refusing())
    silent, unknown = names.add_silent("silent.test"), names.add("unknown.test")
    some = names.add("some.test", *(scene.refusing().getsockname() for _ in range(3)))
    with no_descriptor_is_lost():
        for where in (hole, refused):
            sock = scene.socket()
            with pytest.raises(OSError):
                await scene.connect(sock, where, 0.02)
            sock.close()
        for name in () if scene.transport.is_unix else (silent, unknown, some):
            sock = scene.socket()
            with pytest.raises(OSError):
                await sock.connect(name, 80, 0.02)
            sock.close()
        await turns()  # the loop lets go of its poller


async def test_C5_no_failing_path_of_accept_loses_a_descriptor(scene: Scene) -> None:
    with no_descriptor_is_lost():
        listener = scene.listener()
        with pytest.raises(SocketTimeout):
            await listener.accept(timeout=0.01)
        waiting = await begin(listener.accept())
        listener.close()
        with pytest.raises(OSError):
            await soon(waiting)
        await turns()


async def test_C5_a_socket_that_cannot_be_made_or_taken_over_loses_none(scene: Scene) -> None:
    closed = socket.socket()
    closed.close()
    with no_descriptor_is_lost():
        for arguments in [(99,), (socket.AF_INET, 99), (socket.AF_INET, socket.SOCK_STREAM, 99)]:
            with pytest.raises(OSError):
                scene.flavour.socket(*arguments)
        with pytest.raises(OSError):
            scene.flavour.from_socket(closed)
        with pytest.raises(TypeError):
            scene.flavour.from_socket(object())  # type: ignore[arg-type]


# C6.


@tcp
@pytest.mark.parametrize(
    "name", ["unknown.test", "a..b", "x" * 80 + ".test"], ids=["unknown", "empty", "long"]
)
async def test_C6_a_name_that_does_not_resolve_is_in_the_error(scene: Scene, names: Names, name: str) -> None:
    names.add("unknown.test")
    with pytest.raises(socket.gaierror) as caught:
        await soon(scene.socket().connect(name, 80))
    assert name in str(caught.value)


@tcp
async def test_C6_and_the_socket_may_connect_again(scene: Scene, names: Names) -> None:
    listener = scene.raw_listener()
    sock = scene.socket()
    with pytest.raises(socket.gaierror):
        await soon(sock.connect(names.add("unknown.test"), 80))
    await soon(sock.connect(names.add("known.test", listener.getsockname()), 80))
    await assert_talks_to(sock, listener, scene)


@tcp
async def test_C6_names_that_are_bound_to(scene: Scene, names: Names) -> None:
    with pytest.raises(socket.gaierror, match=r"unknown\.test"):
        scene.socket().bind_addr(0, names.add("unknown.test"))
    with pytest.raises(socket.gaierror, match=r"unknown\.test"):
        await scene.flavour.serve(None.__eq__, 0, "unknown.test")


# C7, S9.


def no_delay(sock: Sock) -> bool:
    return bool(raw_option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY))


@tcp
async def test_C7_every_stream_sends_without_delay(scene: Scene) -> None:
    served: list[bool] = []

    async def handler(client: Sock, _: Address) -> None:
        served.append(no_delay(client))

    pair = await scene.pair()
    assert no_delay(pair.client), "connect"
    assert no_delay(pair.server), "accept"
    server = await scene.serve(handler)
    dialed = await scene.dial(*server.local_addr)
    assert no_delay(dialed), "dial"
    assert await soon(dialed.recv(1)) == b""
    assert served == [True], "serve"


@tcp
async def test_S9_no_delay_needs_no_level(scene: Scene) -> None:
    """In the original it sets SO_DEBUG, which has the same number."""
    for sock in (scene.socket(), *await scene.pair()):
        for value in (False, True):
            sock.set_sock_opt(SockOpt.NO_DELAY, value)
            assert no_delay(sock) is value
            assert sock.get_sock_opt(SockOpt.NO_DELAY) is value
            assert not raw_option(sock, socket.SOL_SOCKET, socket.SO_DEBUG)


@tcp
async def test_S9_other_options_belong_to_the_socket(scene: Scene) -> None:
    sock = scene.socket()
    for opt, number in {
        SockOpt.KEEP_ALIVE: socket.SO_KEEPALIVE,
        SockOpt.REUSE_ADDR: socket.SO_REUSEADDR,
        SockOpt.OOB_INLINE: socket.SO_OOBINLINE,
        SockOpt.DONT_ROUTE: socket.SO_DONTROUTE,
        SockOpt.BROADCAST: socket.SO_BROADCAST,
        SockOpt.REUSE_PORT: socket.SO_REUSEPORT,
    }.items():
        assert not sock.get_sock_opt(opt)
        sock.set_sock_opt(opt, True)
        assert sock.get_sock_opt(opt)
        assert raw_option(sock, socket.SOL_SOCKET, number)
    assert not sock.get_sock_opt(SockOpt.ACCEPT_CONN)
    assert scene.listener().get_sock_opt(SockOpt.ACCEPT_CONN)
    sock.set_sock_opt(SockOpt.KEEP_ALIVE, False, level=socket.SOL_SOCKET)
    assert not sock.get_sock_opt(SockOpt.KEEP_ALIVE, level=socket.SOL_SOCKET)


async def test_S2_a_peer_is_known_when_it_has_gone(scene: Scene) -> None:
    sock, peer = await scene.wire()
    where = address_of(peer)
    await soon(in_thread(peer.close))
    assert await soon(sock.recv(1, flags=SocketFlag(0))) == b""
    assert sock.peer_addr == where
