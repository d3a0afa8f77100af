"""Unix sockets, local addresses, options and resolvers of ``dial``."""

from __future__ import annotations

import errno
import socket
from ssl import TLSVersion
from typing import Any

import pytest

from tests.scenarios import tasks, tls
from tests.scenarios.flavours import Sock
from tests.scenarios.names import Names
from tests.scenarios.scene import (
    PATIENCE,
    TOO_LONG,
    Scene,
    Stopwatch,
    address_of,
    begin,
    eventually,
    fill,
    in_thread,
    no_descriptor_is_lost,
    over,
    over_one,
    raw_option,
    read_exactly,
    soon,
    turns,
)
from wireline import AF_INET, AF_INET6, IPPROTO_UDP, Address, DialError, KeepAlive, SocketTimeout

pytestmark = pytest.mark.anyio

unix = over("unix")
tcp = over("tcp4", "tcp6")


def resolver_of(scene: Scene, answer: object) -> Any:
    """A resolver with this answer, and the list of its calls."""
    calls: list[tuple[object, ...]] = []

    def resolve(*arguments: object) -> object:
        calls.append(arguments)
        return answer

    async def resolve_async(*arguments: object) -> object:
        await tasks.sleep(0)
        return resolve(*arguments)

    return (resolve if scene.flavour.name == "blocking" else resolve_async), calls


async def greet(client: Sock, _: Address) -> None:
    await client.send(b"hello")


# Unix sockets.


@unix
async def test_a_unix_socket_is_dialed_by_its_path(scene: Scene) -> None:
    for where in (f"unix:{scene.path()}", f"unix:@{scene.path()}"):
        async with await scene.flavour.serve(greet, 0, where) as server:
            sock = await scene.dial(where, timeout=PATIENCE)
            assert await soon(sock.recv(5)) == b"hello"
            assert sock.peer_addr == server.local_addr


@unix
async def test_a_host_with_a_port_never_reaches_a_unix_socket(scene: Scene) -> None:
    listener = scene.raw_listener()
    where = f"unix:{listener.getsockname()}"
    resolver, _ = resolver_of(scene, [])
    for wrong in (
        {"port": 80},
        {"port": 0},
        {"family": AF_INET},
        {"local_addr": ("127.0.0.1", 0)},
        {"resolver": resolver},
        {"protocol": IPPROTO_UDP},
    ):
        with pytest.raises(ValueError, match="a Unix socket has no"):
            await scene.dial(where, **wrong)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


@unix
async def test_a_unix_socket_that_fails_is_one_attempt(scene: Scene) -> None:
    refusing = scene.refusing()
    for where, code in ((scene.path(), errno.ENOENT), (refusing.getsockname(), errno.ECONNREFUSED)):
        with no_descriptor_is_lost(), pytest.raises(DialError) as caught:
            await scene.dial(f"unix:{where}", timeout=PATIENCE)
        ((tried, error, seconds),) = caught.value.attempts
        assert (tried, error.errno, caught.value.errno) == (where, code, code)
        assert 0 <= seconds < TOO_LONG
        assert f"unix:{where}" in str(caught.value)


@unix
@pytest.mark.full
async def test_C2_a_unix_socket_that_does_not_answer_is_a_timeout_of_dial(scene: Scene) -> None:
    where = scene.black_hole()
    with no_descriptor_is_lost(), pytest.raises(SocketTimeout) as caught:
        await scene.dial(f"unix:{where.host}", timeout=0.05)
    assert (caught.value.operation, caught.value.seconds) == ("dial", 0.05)


@over("unix")
@pytest.mark.full
async def test_T1_tls_over_a_unix_socket_needs_the_name_of_the_certificate(scene: Scene) -> None:
    context = tls.context(TLSVersion.TLSv1_3)
    where = f"unix:{scene.path()}"
    async with await scene.flavour.serve(greet, 0, where, tls=context):
        with pytest.raises(ValueError, match="name"):
            await scene.dial(where, tls=context)
        sock = await scene.dial(where, tls=context, hostname="localhost", timeout=PATIENCE)
        assert await soon(sock.recv(5)) == b"hello"
        assert sock.tls_info.server_name == "localhost"


# The local address, and options.


@tcp
async def test_a_connection_has_the_given_local_address(scene: Scene) -> None:
    listener = scene.raw_listener()
    host, port = address_of(listener)
    with scene.raw() as free:
        free.bind((host, 0))
        chosen = free.getsockname()[1]
    for local in ((host, 0), (host, chosen), (parse(host), 0), ("", 0)):
        sock = await scene.dial(host, port, local_addr=local, timeout=PATIENCE)
        peer = scene.raw_accept(listener)
        assert sock.local_addr == tuple(peer.getpeername()[:2])
        assert sock.local_addr.host == host
        if local[1]:
            assert sock.local_addr.port == local[1]
        sock.close()
        peer.close()


def parse(host: str) -> object:
    import ipaddress

    return ipaddress.ip_address(host)


@tcp
@pytest.mark.full
async def test_C1_a_local_address_of_another_family_is_a_failed_attempt(scene: Scene) -> None:
    host, port = address_of(scene.raw_listener())
    other = "::1" if scene.transport.family == AF_INET else "127.0.0.1"
    with no_descriptor_is_lost(), pytest.raises(DialError) as caught:
        await scene.dial(host, port, local_addr=(other, 0), timeout=PATIENCE)
    assert caught.value.errno == errno.EADDRNOTAVAIL


@tcp
async def test_options_are_set_before_the_connection_is_made(scene: Scene) -> None:
    """The receive buffer decides the window scale, which the SYN carries: set later it would be too late."""
    listener = scene.raw_listener()
    host, port = address_of(listener)
    size = raw_size(scene, 8192)
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192), (socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))]
    sock = await scene.dial(host, port, options=options, timeout=PATIENCE)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == size
    peer = scene.raw_accept(listener)
    fill(peer)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == size, (
        "the kernel does not tune it any more"
    )


def raw_size(scene: Scene, size: int) -> int:
    with scene.raw() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


@over_one
@pytest.mark.full
async def test_C1_every_attempt_has_the_options(scene: Scene, names: Names) -> None:
    live = scene.raw_listener()
    name = names.add("some.test", scene.refusing().getsockname(), live.getsockname())
    wrong = [(socket.SOL_SOCKET, 0x7FFF, 1)]
    with no_descriptor_is_lost(), pytest.raises(DialError) as caught:
        await scene.dial(name, 80, options=wrong, timeout=PATIENCE)
    assert [error.errno for _, error, _ in caught.value.attempts] == [errno.ENOPROTOOPT] * 2
    right = [(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)]
    sock = await scene.dial(name, 80, options=right, timeout=PATIENCE)
    assert raw_option(sock, *right[0][:2]) == 5


@tcp
async def test_a_silent_peer_is_asked_whether_it_is_there(scene: Scene) -> None:
    host, port = address_of(scene.raw_listener())

    async def settings(**options: Any) -> tuple[int, ...]:
        sock = await scene.dial(host, port, timeout=PATIENCE, **options)
        on = raw_option(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        return (on, *(raw_option(sock, socket.IPPROTO_TCP, name) for name in names))

    assert await settings() == (1, 15, 15, 9)
    assert await settings(keep_alive=KeepAlive(60, 5, 3)) == (1, 60, 5, 3)
    assert (await settings(keep_alive=None))[0] == 0
    off = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)]
    assert (await settings(options=off))[0] == 0, "an option takes precedence"


@over_one
@pytest.mark.full
async def test_one_family_only(scene: Scene, names: Names) -> None:
    live = scene.raw_listener()
    name = names.add("some.test", ("::1", 9, 0, 0), live.getsockname())
    sock = await scene.dial(name, 80, family=AF_INET, timeout=PATIENCE)
    assert sock.peer_addr == address_of(live)
    with pytest.raises(DialError) as caught:
        await scene.dial(name, 80, family=AF_INET6, timeout=PATIENCE)
    assert [sockaddr for sockaddr, _, _ in caught.value.attempts] == [("::1", 9, 0, 0)]


# A resolver.


@over_one
async def test_a_resolver_is_called_once_by_position(scene: Scene) -> None:
    live = scene.raw_listener()
    dead = scene.refusing().getsockname()
    answer = [(AF_INET, 0, 0, "", sockaddr) for sockaddr in (dead, live.getsockname())]
    resolver, calls = resolver_of(scene, answer)
    sock = await scene.dial("no.such.name.test", 7, family=AF_INET, resolver=resolver, timeout=PATIENCE)
    assert calls == [("no.such.name.test", 7, AF_INET, socket.SOCK_STREAM)]
    assert sock.peer_addr == address_of(live)
    peer = scene.raw_accept(live)
    await soon(sock.send(b"hello"))
    assert await in_thread(read_exactly, peer, 5) == b"hello"


@over_one
async def test_C6_a_resolver_that_finds_nothing_names_the_host(scene: Scene) -> None:
    for answer in ([], [(AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 7, 0, 0))]):
        resolver, _ = resolver_of(scene, answer)
        with no_descriptor_is_lost(), pytest.raises(socket.gaierror, match=r"no\.such\.name"):
            await scene.dial("no.such.name.test", 7, family=AF_INET, resolver=resolver)


@over_one
@pytest.mark.full
async def test_what_is_no_list_of_addresses_is_a_type_error(scene: Scene) -> None:
    for answer in (None, 5, "text", [1], [("127.0.0.1", 7)], [(2, 1, 6, "", "/path")]):
        resolver, _ = resolver_of(scene, answer)
        with no_descriptor_is_lost(), pytest.raises(TypeError, match="resolver must return"):
            await scene.dial("some.test", 7, resolver=resolver)


@over_one
async def test_C2_the_deadline_holds_while_a_resolver_works(scene: Scene) -> None:
    slow = tasks.Event()

    async def resolve(*_: object) -> list[object]:
        await slow.wait()
        return []

    def resolve_late(*_: object) -> list[object]:
        import time

        time.sleep(0.1)
        return [(AF_INET, 0, 0, "", ("127.0.0.1", 9))]

    blocking = scene.flavour.name == "blocking"
    with no_descriptor_is_lost(), Stopwatch() as took, pytest.raises(SocketTimeout) as caught:
        await scene.dial("some.test", 7, resolver=resolve_late if blocking else resolve, timeout=0.05)
    assert took.seconds < TOO_LONG
    assert (caught.value.operation, caught.value.seconds) == ("dial", 0.05)


@over_one
@pytest.mark.full
async def test_C5_a_dial_that_is_cancelled_leaves_nothing_of_a_resolver(scene: Scene) -> None:
    if scene.flavour.name == "blocking":
        return  # a thread cannot be cancelled
    ended = []

    async def resolve(*_: object) -> list[object]:
        try:
            await tasks.Event().wait()
        finally:
            ended.append(True)
        return []

    with no_descriptor_is_lost():
        dialing = await begin(scene.dial("some.test", 7, resolver=resolve))
        dialing.cancel()
        with pytest.raises(tasks.CANCELLED):
            await dialing
        await turns()
    await eventually(lambda: ended)
