"""T6, T7, C4: going over to TLS on a connected socket, in both flavours and both roles."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.scenarios.flavours import Flavour, Sock, in_thread
from tests.tls.both import PATIENCE, anyio_backend, flavour, upgrade
from tests.tls.memory import client_context, server_context
from wireline.tls import Handshake, SslContext, SslError, TruncatedError

__all__ = ["anyio_backend", "flavour"]

pytestmark = pytest.mark.anyio
both_roles = pytest.mark.parametrize("role", list(Handshake), ids=lambda role: role.name)


class Wire(NamedTuple):
    """One of ours, and a bare peer."""

    sock: Sock
    peer: socket.socket


@pytest.fixture
def wire(flavour: Flavour) -> Iterator[Wire]:
    ours, peer = socket.socketpair()
    peer.settimeout(PATIENCE)
    sock = flavour.from_socket(ours)
    with peer:
        yield Wire(sock, peer)
        sock.close(linger=0)


def context_for(role: Handshake) -> SslContext:
    return client_context() if role is Handshake.AS_CLIENT else server_context()


async def read_a_line_and_leave(wire: Wire, rest: bytes) -> None:
    """Receive more in clear than is read."""
    wire.peer.sendall(b"220 go ahead\r\n" + rest)
    assert await wire.sock.recv_line(PATIENCE) == b"220 go ahead"
    assert wire.sock.has_data_buffered


@both_roles
async def test_T6_bytes_received_in_clear_are_refused(wire: Wire, role: Handshake) -> None:
    await read_a_line_and_leave(wire, b"250 injected\r\n")
    with pytest.raises(SslError, match="in clear"):
        await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE)
    # Nothing was said to the peer, and the bytes are what they were: in clear.
    assert not wire.sock.is_ssl
    assert await wire.sock.recv_line(PATIENCE) == b"250 injected"
    wire.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.peer.recv(1)


@both_roles
async def test_T6_what_is_left_over_may_be_the_beginning_of_the_handshake_and_nothing_else(
    wire: Wire, role: Handshake
) -> None:
    await read_a_line_and_leave(wire, b"250 injected\r\n")
    with pytest.raises(SslError):
        await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE, leftover="tls")
    with pytest.raises(SslError):
        await wire.sock.recv_line(PATIENCE)


async def test_T6_a_hello_that_came_along_with_the_last_line_is_taken(wire: Wire) -> None:
    engine = client_context()._engine(Handshake.AS_CLIENT, "localhost")
    assert not engine.handshake()
    await read_a_line_and_leave(wire, engine.output())

    def shake() -> None:
        while not engine.established:
            engine.feed_handshake(wire.peer.recv(65536))
            engine.handshake()
            wire.peer.sendall(engine.output())
        # T7: in one packet with the end of the handshake or not, it is the first thing that is read.
        engine.encrypt(b"hello\n")
        wire.peer.sendall(engine.output())

    shaking = asyncio.ensure_future(in_thread(shake))
    await upgrade(server_context(), wire.sock, Handshake.AS_SERVER, timeout=PATIENCE, leftover="tls")
    assert await wire.sock.recv_line(PATIENCE) == b"hello"
    await shaking


@both_roles
async def test_T7_application_data_in_the_last_packet_of_the_handshake_is_not_lost(
    wire: Wire, role: Handshake
) -> None:
    other = Handshake.AS_SERVER if role is Handshake.AS_CLIENT else Handshake.AS_CLIENT
    engine = context_for(other)._engine(other, "localhost" if other is Handshake.AS_CLIENT else "")

    def shake() -> None:
        done = engine.handshake()
        while not done:
            if engine.has_output:
                wire.peer.sendall(engine.output())
            engine.feed_handshake(wire.peer.recv(65536))
            done = engine.handshake()
        engine.encrypt(b"hello\n")
        wire.peer.sendall(engine.output())  # with what ends the handshake, as far as there is something

    shaking = asyncio.ensure_future(in_thread(shake))
    await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE)
    assert wire.sock.got_handshake
    assert await wire.sock.recv_line(PATIENCE) == b"hello"
    await shaking


@both_roles
@pytest.mark.parametrize("after", ["nothing", "a part"])
async def test_C4_a_peer_that_goes_away_in_the_middle_of_the_handshake_is_an_error(
    wire: Wire, role: Handshake, after: str
) -> None:
    if after == "a part":
        wire.peer.sendall(b"\x16\x03\x03\x01\x00\x01")
    wire.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(TruncatedError) as caught:
        await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE)
    assert isinstance(caught.value, ssl.SSLError)
    assert not wire.sock.got_handshake
    with pytest.raises(SslError):
        await wire.sock.send(b"in clear?")
