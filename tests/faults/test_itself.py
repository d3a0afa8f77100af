"""FA11, C8: a TCP connection to itself is a refused attempt."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.scenarios.every_flavour import anyio_backend, flavour
from tests.scenarios.flavours import Flavour
from wireline import AF_INET, IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, DialError, SockOpt
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os import descriptor

__all__ = ["anyio_backend", "flavour"]

pytestmark = pytest.mark.anyio

PATIENCE = 10.0

HOSTS = {AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

numbers = itertools.count()


@pytest.fixture(params=HOSTS, ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def host(family: int) -> str:
    return HOSTS[family]


def free_port(family: int) -> int:
    with socket.socket(family) as probe:
        probe.bind((HOSTS[family], 0))
        return int(probe.getsockname()[1])


def is_free(family: int, port: int) -> bool:
    """Whether a server may bind there at once."""
    with socket.socket(family) as server:
        try:
            server.bind((HOSTS[family], port))
        except OSError:
            return False
        return True


def choose_the_dialled_port(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let the kernel choose these as the local ports of the next attempts."""
    create = descriptor.create
    left = list(ports)

    def unlucky(domain: int, sock_type: int, protocol: int) -> socket.socket:
        sock = create(domain, sock_type, protocol)
        if left:
            sock.bind((HOSTS[domain], left.pop(0)))
        return sock

    monkeypatch.setattr(descriptor, "create", unlucky)


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make a name that stands for these addresses."""

    def to(*found: AddrInfo) -> str:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))
        return f"itself-{next(numbers)}.test"

    return to


def info(family: int, port: int) -> AddrInfo:
    sockaddr = (HOSTS[family], port, 0, 0) if family == socket.AF_INET6 else (HOSTS[family], port)
    return (family, socket.SOCK_STREAM, IPPROTO_TCP, "", sockaddr)


async def test_C8_dial_does_not_connect_to_itself(
    flavour: Flavour, family: int, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA11: dial to a dead local port connected to itself after some thousand tries, and read its own request."""
    port = free_port(family)
    choose_the_dialled_port(monkeypatch, port)
    with pytest.raises(DialError) as caught:
        await flavour.dial(host, port, timeout=PATIENCE)
    ((sockaddr, error, _),) = caught.value.attempts
    assert sockaddr[:2] == (host, port)
    assert isinstance(error, ConnectionRefusedError)
    assert caught.value.errno == errno.ECONNREFUSED
    assert "the socket had connected to itself" in error.__notes__[0]
    assert is_free(family, port)  # the server that was missing may begin now


async def test_C8_dial_goes_on_with_the_next_address(
    flavour: Flavour, family: int, monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., str]
) -> None:
    """FA11: the attempt counts as refused, so the next address is tried at once."""
    port = free_port(family)
    choose_the_dialled_port(monkeypatch, port)
    with socket.create_server((HOSTS[family], 0), family=family) as server:
        name = resolve(info(family, port), info(family, server.getsockname()[1]))
        sock = await flavour.dial(name, 80, timeout=PATIENCE)
        assert sock.peer_addr == server.getsockname()[:2]
        sock.close()


async def test_C8_dial_over_UDP_may_reach_itself(
    flavour: Flavour, family: int, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA11: only TCP has this fault; a datagram socket that is connected to itself was meant to be."""
    port = free_port(family)
    choose_the_dialled_port(monkeypatch, port)
    sock = await flavour.dial(host, port, IPPROTO_UDP, timeout=PATIENCE)
    assert sock.local_addr == sock.peer_addr
    sock.close()


async def test_C8_connect_does_not_connect_to_itself(flavour: Flavour, family: int, host: str) -> None:
    """FA11: connect likewise; the socket may be connected again, from the same local address."""
    sock = flavour.socket(family)
    try:
        port = free_port(family)
        sock.bind_addr(port, host)
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError) as caught:
                await sock.connect(host, port, timeout=PATIENCE)
            assert any("connected to itself" in note for note in caught.value.__notes__)
        with socket.create_server((host, 0), family=family) as server:
            await sock.connect(host, server.getsockname()[1], timeout=PATIENCE)
            assert sock.local_addr.port == port
            with server.accept()[0] as accepted:
                accepted.sendall(b"hello")
                assert await sock.recv_exactly(5, timeout=PATIENCE) == b"hello"
    finally:
        sock.close()


async def test_C8_connect_goes_on_with_the_next_address(
    flavour: Flavour, family: int, host: str, resolve: Callable[..., str]
) -> None:
    """FA11: an address at which the socket has met itself is one that failed (C3)."""
    sock = flavour.socket(family)
    try:
        sock.set_sock_opt(SockOpt.REUSE_ADDR, True)
        sock.bind_addr(0, host)
        with socket.create_server((host, 0), family=family) as server:
            name = resolve(info(family, sock.local_addr.port), info(family, server.getsockname()[1]))
            await sock.connect(name, 80, timeout=PATIENCE)
            assert sock.peer_addr == server.getsockname()[:2]
    finally:
        sock.close()


async def test_C8_connect_of_datagrams_may_reach_itself(flavour: Flavour, family: int, host: str) -> None:
    """FA11: a datagram socket may be its own peer."""
    sock = flavour.socket(family, SOCK_DGRAM)
    try:
        sock.bind_addr(0, host)
        await sock.connect(host, sock.local_addr.port, timeout=PATIENCE)
        await sock.send(b"to myself", timeout=PATIENCE)
        assert await sock.recv(100, timeout=PATIENCE) == b"to myself"
    finally:
        sock.close()


async def test_C8_another_socket_with_the_same_port_is_a_peer(flavour: Flavour) -> None:
    """FA11: the same port at two addresses of the machine is no connection to itself."""
    with port_at_two_addresses() as (server, port):
        sock = flavour.socket()
        try:
            sock.bind_addr(port, "127.0.0.1")
            await sock.connect("127.0.0.2", port, timeout=PATIENCE)
            assert sock.peer_addr == server.getsockname() == ("127.0.0.2", port)
            assert sock.local_addr == ("127.0.0.1", port)
        finally:
            sock.close()


@contextlib.contextmanager
def port_at_two_addresses() -> Iterator[tuple[socket.socket, int]]:
    """A listener at 127.0.0.2, at a port that is free at 127.0.0.1, too."""
    for _ in range(100):
        port = free_port(AF_INET)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.2", port)) as server:
            yield server, port
            return
    pytest.fail("no port is free at both")
