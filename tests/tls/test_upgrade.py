"""T6, T7, C4: starting TLS on a connected socket, in both flavours and both roles."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import wireline
from tests.scenarios.flavours import Flavour, Sock, in_thread
from tests.tls.both import PATIENCE, anyio_backend, flavour, upgrade
from tests.tls.memory import client_context, server_context
from wireline import SocketTimeout
from wireline.net import Socket
from wireline.tls import Handshake, SslContext, SslError, TruncatedError

__all__ = ["anyio_backend", "flavour"]

pytestmark = pytest.mark.anyio
both_roles = pytest.mark.parametrize("role", list(Handshake), ids=lambda role: role.name)


class Wire(NamedTuple):
    """A wireline socket, and its peer, a standard socket."""

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
    """Receive a line and more plaintext, and read only the line."""
    wire.peer.sendall(b"220 go ahead\r\n" + rest)
    assert await wire.sock.recv_line(PATIENCE) == b"220 go ahead"
    assert wire.sock.has_data_buffered


@both_roles
async def test_T6_bytes_received_in_clear_are_refused(wire: Wire, role: Handshake) -> None:
    await read_a_line_and_leave(wire, b"250 injected\r\n")
    wire.sock.unread(await wire.sock.recv_exactly(5))
    with pytest.raises(SslError, match="in clear") as caught:
        await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE)
    assert str(caught.value).startswith("14 bytes were received in clear")
    # Nothing was sent to the peer, and the bytes are still there as plaintext.
    assert not wire.sock.is_ssl
    assert await wire.sock.recv_line(PATIENCE) == b"250 injected"
    wire.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.peer.recv(1)


@both_roles
async def test_start_tls_names_itself_in_a_timeout(wire: Wire, role: Handshake) -> None:
    with pytest.raises(SocketTimeout) as caught:
        await wire.sock.start_tls(context_for(role), role, "localhost", 0.01)
    assert caught.value.operation == "start_tls"


async def test_start_tls_is_a_client_by_default(wire: Wire) -> None:
    """A server that trusts no CA, and a client that verifies: the defaults of ``start_tls`` are those of a client."""
    peer = Socket.from_socket(wire.peer.dup())
    with peer:
        serving = asyncio.ensure_future(
            in_thread(peer.start_tls, server_context(), Handshake.AS_SERVER, timeout=PATIENCE)
        )
        await wire.sock.start_tls(client_context(), hostname="localhost", timeout=PATIENCE)
        await serving
        peer.send(b"hello\n")
        assert await wire.sock.recv_line(PATIENCE) == b"hello"
        assert wire.sock.get_peer_certificates()


@both_roles
async def test_T6_with_leftover_tls_unread_bytes_must_be_a_handshake(wire: Wire, role: Handshake) -> None:
    await read_a_line_and_leave(wire, b"250 injected\r\n")
    with pytest.raises(SslError):
        await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE, leftover="tls")
    with pytest.raises(SslError):
        await wire.sock.recv_line(PATIENCE)


async def test_T6_a_client_hello_received_with_the_last_line_is_used(wire: Wire) -> None:
    engine = client_context()._engine(Handshake.AS_CLIENT, "localhost")
    assert not engine.handshake()
    await read_a_line_and_leave(wire, engine.take_output())
    wire.sock.unread(await wire.sock.recv_exactly(7))

    def shake() -> None:
        while not engine.established:
            engine.feed_handshake(wire.peer.recv(65536))
            engine.handshake()
            wire.peer.sendall(engine.take_output())
        # T7: the data may arrive in one packet with the end of the handshake.
        engine.encrypt(b"hello\n")
        wire.peer.sendall(engine.take_output())

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
                wire.peer.sendall(engine.take_output())
            engine.feed_handshake(wire.peer.recv(65536))
            done = engine.handshake()
        engine.encrypt(b"hello\n")
        wire.peer.sendall(engine.take_output())  # in one packet with the end of the handshake

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


# ------------------------------------------------------------------------------------------------- twice, and in words


class Recorder:
    """Relays a connection, and keeps what the socket under test sends."""

    def __init__(self, wire: Wire) -> None:
        self.sent = b""
        near, self._far = socket.socketpair()
        self.peer = Socket.from_socket(near)
        self._wire = wire.peer
        self._threads = [
            threading.Thread(target=self._relay, args=ends)
            for ends in ((self._wire, self._far), (self._far, self._wire))
        ]

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one end has left
            while data := source.recv(65536):
                if source is self._wire:
                    self.sent += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Recorder:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()
        self._wire.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._far.close()

    def types_of_records(self) -> set[int]:
        """The types of the records that were sent since the last time."""
        types, wire, self.sent = set(), self.sent, b""
        while wire:
            types.add(wire[0])
            wire = wire[5 + int.from_bytes(wire[3:5], "big") :]
        return types


@both_roles
async def test_FB1_the_handshake_of_a_tls_socket_is_inside_of_its_tls(wire: Wire, role: Handshake) -> None:
    """FB1: a second wrap_connected_* sent a ClientHello in clear, past the first layer of TLS."""
    with Recorder(wire) as recorder:
        other = Handshake.AS_SERVER if role is Handshake.AS_CLIENT else Handshake.AS_CLIENT
        for layer in range(3):
            serving = asyncio.ensure_future(
                in_thread(recorder.peer.start_tls, context_for(other), other, "localhost", timeout=PATIENCE)
            )
            await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE)
            await serving
            await wire.sock.send(b"a line\n")
            assert await in_thread(recorder.peer.recv_line, PATIENCE) == b"a line"
            types = recorder.types_of_records()
            assert types == {0x17} if layer else 0x16 in types


@pytest.mark.full
@both_roles
async def test_T6_bytes_received_in_the_outer_layer_are_refused_too(wire: Wire, role: Handshake) -> None:
    peer = Socket.from_socket(wire.peer.dup())
    other = Handshake.AS_SERVER if role is Handshake.AS_CLIENT else Handshake.AS_CLIENT
    with peer:
        serving = asyncio.ensure_future(
            in_thread(peer.start_tls, context_for(other), other, "localhost", timeout=PATIENCE)
        )
        await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE)
        await serving
        peer.send(b"go ahead\n250 injected\n")
        assert await wire.sock.recv_line(PATIENCE) == b"go ahead"
        with pytest.raises(SslError, match=r"^13 bytes were received in the outer layer"):
            await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE)
        # The connection continues in both directions, and nothing else was sent.
        assert await wire.sock.recv_line(PATIENCE) == b"250 injected"
        await wire.sock.send(b"still protected\n")
        assert peer.recv_line(PATIENCE) == b"still protected"
        with pytest.raises(SslError):
            peer.send(b"no handshake\n" * 2)
            await wire.sock.recv_line(PATIENCE)
            await upgrade(context_for(role), wire.sock, role, "localhost", timeout=PATIENCE, leftover="tls")


def ssl_errors_made_by_us() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the library that makes an `ssl.SSLError`."""
    for path in Path(wireline.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("SSLError", "SslError"):
                yield f"{path.name}:{node.lineno}", node


def test_FB14_the_text_of_every_SslError_is_a_sentence() -> None:
    """FB14: an SslError made of a message alone prints as the repr of a tuple."""
    found = dict(ssl_errors_made_by_us())
    assert len(found) > 10
    assert [place for place, call in found.items() if len(call.args) < 2] == []
    for error in (ssl.SSLError(ssl.SSL_ERROR_SSL, "a sentence"), TruncatedError()):
        assert "(" not in str(error)


async def test_FB14_the_error_of_a_socket_without_tls_is_a_sentence(wire: Wire) -> None:
    """FB14: the same for the error of a socket."""
    with pytest.raises(SslError) as caught:
        _ = wire.sock.tls_info
    assert str(caught.value) == "tls_info: the socket does not use TLS"
