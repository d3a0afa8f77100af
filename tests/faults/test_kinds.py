"""FA17: the kinds of sockets that are refused, and the names of Unix sockets that are not."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.flavours import Flavour, Sock
from tests.tls import both
from tests.tls.both import PATIENCE
from wireline import AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, Address
from wireline._targets import parse_target
from wireline.asyncnet import AsyncSocket
from wireline.net import Socket

pytestmark = pytest.mark.anyio

flavour, anyio_backend = both.flavour, both.anyio_backend

SEQPACKET = getattr(socket, "SOCK_SEQPACKET", None)

needs_seqpacket = pytest.mark.skipif(
    SEQPACKET is None or sys.platform == "darwin", reason="the system has no SOCK_SEQPACKET"
)
needs_abstract_names = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")

kinds = pytest.mark.parametrize("kind", [Socket, AsyncSocket])


@pytest.fixture
def seqpacket() -> Iterator[tuple[socket.socket, socket.socket]]:
    assert SEQPACKET is not None
    one, other = socket.socketpair(AF_UNIX, SEQPACKET)
    with one, other:
        yield one, other


@kinds
@pytest.mark.parametrize("name", ["SOCK_SEQPACKET", "SOCK_RAW", "SOCK_RDM"])
def test_FA17_another_kind_is_refused_when_it_is_made(kind: Any, name: str) -> None:
    """FA17: a SOCK_SEQPACKET socket could be made, and every read of it said "ENOTCONN: the socket is connected"."""
    if not hasattr(socket, name):
        pytest.skip(f"the system has no {name}")
    for family in (AF_UNIX, AF_INET):
        with pytest.raises(ValueError, match=f"SOCK_STREAM or SOCK_DGRAM; {name} is not supported"):
            kind(family, getattr(socket, name), 0)


@kinds
def test_FA17_a_kind_that_has_no_name_is_refused(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """FA17: a number without a name in Python is refused by the system, and else by us."""
    with pytest.raises(OSError, match=r"not supported|Invalid argument"):
        kind(AF_UNIX, 77, 0)

    def make(family: int, sock_type: int, protocol: int) -> socket.socket:
        return Made(family, SOCK_STREAM, protocol)

    Made = socket.socket
    monkeypatch.setattr(socket, "socket", make)
    with pytest.raises(ValueError, match="SOCK_DGRAM; 77 is not supported"):
        kind(AF_UNIX, 77, 0)


@kinds
@needs_seqpacket
def test_FA17_another_kind_is_refused_when_it_is_taken_over(
    kind: Any, seqpacket: tuple[socket.socket, socket.socket]
) -> None:
    """FA17: from_socket and from_fd took a SOCK_SEQPACKET socket, and no read of it worked; now it is left alone."""
    one, other = seqpacket
    for take in (lambda: kind.from_socket(one), lambda: kind.from_fd(one.fileno())):
        with pytest.raises(ValueError, match="SOCK_SEQPACKET is not supported"):
            take()
        other.send(b"still open")
        assert one.recv(100) == b"still open"
    with pytest.raises(ValueError, match="SOCK_SEQPACKET is not supported"):
        kind.from_fd(one.fileno(), AF_UNIX, SEQPACKET, 0)
    assert os.fstat(one.fileno())


@kinds
def test_FA17_the_flags_that_a_type_may_carry_are_no_other_kind(kind: Any) -> None:
    """FA17: SOCK_CLOEXEC and SOCK_NONBLOCK in a type are not a kind of socket."""
    flags = getattr(socket, "SOCK_CLOEXEC", 0) | getattr(socket, "SOCK_NONBLOCK", 0)
    sock = kind(AF_UNIX, SOCK_STREAM | flags)
    sock.close()


NAMES = ["\0wireline-{pid}\0inner", "\0wireline-{pid}-\0", "\0\0wireline-{pid}", b"\0wireline-{pid}\0\xff\0"]
ids = ["inside", "at the end", "twice", "no text"]


def of_this_process(name: str | bytes) -> Any:
    if isinstance(name, bytes):
        return name.replace(b"{pid}", b"%d" % os.getpid())
    return name.replace("{pid}", str(os.getpid()))


@needs_abstract_names
@pytest.mark.parametrize("pattern", NAMES, ids=ids)
async def test_FA17_abstract_names_with_an_inner_nul(flavour: Flavour, pattern: str | bytes) -> None:
    """FA17: connect_unix and bind_unix refused an abstract name with a NUL inside, which accept_addr reports."""
    name = of_this_process(pattern)
    listener = flavour.socket(AF_UNIX)
    client = flavour.socket(AF_UNIX)
    try:
        listener.bind_unix(name)
        listener.listen()
        shown = Address(os.fsdecode(name), 0)
        assert listener.local_addr == shown
        local = of_this_process("\0wireline-client-{pid}\0\0")
        client.bind_unix(local)
        await client.connect_unix(name, timeout=PATIENCE)
        assert client.peer_addr == shown
        accepted, address = await listener.accept_addr(timeout=PATIENCE)
        assert address == Address(local, 0)
        accepted.close()
    finally:
        client.close()
        listener.close()


@needs_abstract_names
async def test_FA17_a_datagram_goes_to_an_abstract_name_with_an_inner_nul(flavour: Flavour) -> None:
    """FA17: send_to refused the name of a sender that recv_from reports."""
    one, other = (of_this_process(f"\0wireline-{{pid}}\0{each}") for each in "ab")
    first, second = flavour.socket(AF_UNIX, SOCK_DGRAM), flavour.socket(AF_UNIX, SOCK_DGRAM)
    try:
        first.bind_unix(one)
        second.bind_unix(other)
        await first.send_to(other, 0, b"hello", timeout=PATIENCE)
        datagram = await second.recv_from(100, timeout=PATIENCE)
        assert datagram.address == Address(one, 0)
        await second.send_to(datagram.address.host, 0, b"back", timeout=PATIENCE)
        assert (await first.recv_from(100, timeout=PATIENCE)).data == b"back"
    finally:
        first.close()
        second.close()


@needs_abstract_names
async def test_FA17_serve_at_an_abstract_name_with_an_inner_nul(flavour: Flavour) -> None:
    """FA17: serve("unix:@...") refused it, too."""
    name = of_this_process("wireline-{pid}\0served")

    async def handler(client: Sock, _: Address) -> None:
        await client.send(await client.recv_some(timeout=PATIENCE))

    async with await flavour.serve(handler, 0, f"unix:@{name}") as server:
        assert server.local_addr == Address("\0" + name, 0)
        client = flavour.socket(AF_UNIX)
        try:
            await client.connect_unix("\0" + name, timeout=PATIENCE)
            await client.send(b"hello")
            assert await client.recv_some(timeout=PATIENCE) == b"hello"
        finally:
            client.close()


@needs_abstract_names
def test_FA17_a_target_is_an_abstract_name_with_an_inner_nul() -> None:
    """FA17: the command's spelling of a target refused it, too; str gives back what was parsed."""
    target = parse_target("unix:@a\0b\0")
    assert target.path == "\0a\0b\0"
    assert parse_target(str(target)) == target


@needs_abstract_names
@kinds
def test_FA17_an_abstract_name_that_is_in_use_is_an_address_in_use(kind: Any) -> None:
    """FA17: binding to an abstract name that is in use said "ValueError: embedded null character in path"."""
    first, second = kind(AF_UNIX), kind(AF_UNIX)
    name = of_this_process("\0wireline-{pid}-in-use")
    try:
        first.bind_unix(name)
        with pytest.raises(OSError, match="Address already in use"):
            second.bind_unix(name)
    finally:
        first.close()
        second.close()
