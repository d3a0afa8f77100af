"""T12: what a socket with TLS inside TLS says about its peer, and how an inner handshake may be left at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading

import pytest

from tests.scenarios.flavours import Flavour, in_thread
from tests.tls import certificates
from tests.tls.both import PATIENCE, anyio_backend, flavour, needs_the_bridge
from tests.tls.memory import client_context, server_context
from tests.tls.nested import NestedPeer
from tests.tls.test_closing import begun
from wireline import BusyError, ClosedError
from wireline.net import Socket
from wireline.tls import Handshake, SslContext, SslError, VerifyMode

__all__ = ["anyio_backend", "flavour"]

pytestmark = pytest.mark.anyio

TLS1_3 = ssl.TLSVersion.TLSv1_3


def psk_context(identity: str) -> SslContext:
    context = SslContext(verify_mode=VerifyMode.NONE)
    context.client_get_psk = lambda _: (identity, b"a key of both")
    context.server_get_psk = lambda name: b"a key of both" if name == identity else b""
    return context


async def test_T12_the_facts_are_those_of_the_innermost_layer(flavour: Flavour) -> None:
    needs_the_bridge()
    ours = certificates.client()
    near, far = socket.socketpair()
    identified = client_context(cert_file=ours.cert, key_file=ours.key)
    requiring = server_context(client_certs="required", ca_file=certificates.ca_file())
    with_psk = psk_context("alice")
    async with flavour.from_socket(near) as sock:
        with Socket.from_socket(far) as peer:
            for server, client in ((requiring, identified), (with_psk, with_psk), (requiring, identified)):
                serving = asyncio.ensure_future(
                    in_thread(peer.start_tls, client, hostname="localhost", timeout=PATIENCE)
                )
                await sock.start_tls(server, Handshake.AS_SERVER, timeout=PATIENCE)
                await serving
                psk = server is with_psk
                assert sock.get_psk_identity() == ("alice" if psk else "")
                assert [cert.to_pem() for cert in sock.get_peer_certificates()][:1] == (
                    [] if psk else [certificate_of(ours.cert)]
                )
                assert sock.ssl_pointer != peer.ssl_pointer


def certificate_of(file: str) -> str:
    with open(file) as text:
        return text.read().partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"


class Slow:
    """A peer of the standard library that sends its part of the inner handshake byte by byte."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._peer = NestedPeer(TLS1_3, TLS1_3)

    def step(self, layer: int) -> bytes:
        self._peer.feed(self._sock.recv(65536))
        self._peer.shake(layer)
        return self._peer.output()

    def shake_the_outer_layer(self) -> None:
        while not self._peer.established(0):
            self._sock.sendall(self.step(0))

    def ends(self) -> list[bool]:
        with contextlib.suppress(ConnectionResetError):
            while data := self._sock.recv(65536):
                self._peer.feed(data)
        return self._peer.ends()


@pytest.mark.full
@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_T12_an_inner_handshake_may_be_left_after_any_byte(flavour: Flavour, how: str) -> None:
    """After a cancellation nothing can be sent in the outer layer alone; ``close`` ends that layer."""
    if how == "cancel" and flavour.name == "blocking":
        return  # threads are not cancelled
    for count in (0, 1, 5, 6, 100, 500, -1):
        near, far = socket.socketpair()
        far.settimeout(PATIENCE)
        sock, peer = flavour.from_socket(near), Slow(far)
        outer = asyncio.ensure_future(in_thread(peer.shake_the_outer_layer))
        await sock.start_tls(client_context(), hostname="localhost", timeout=PATIENCE)
        await outer
        shaking = await begun(sock.start_tls(client_context(), hostname="localhost", timeout=PATIENCE))
        flight = await in_thread(peer.step, 1)
        assert len(flight) > 500
        far.sendall(flight[:count])
        with pytest.raises(BusyError):
            await sock.recv_some(timeout=PATIENCE)
        if how == "cancel":
            shaking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await shaking
            for call in (sock.send(b"secret"), sock.recv_some(), sock.send_some(b"secret")):
                with pytest.raises(SslError):
                    await call
        sock.close()
        if how == "close":
            with pytest.raises(ClosedError):
                await shaking
        outer, inner = await in_thread(peer.ends)
        assert not inner
        # A thread that waits is woken by the end of the wire, after which nothing can be sent any more.
        assert outer or flavour.name == "blocking"
        far.close()


def test_P3_a_forked_child_goes_on_with_both_layers() -> None:
    near, far = (Socket.from_socket(each) for each in socket.socketpair())
    with near, far:
        for _ in range(2):
            serving = threading.Thread(
                target=far.start_tls,
                args=(server_context(), Handshake.AS_SERVER),
                kwargs={"timeout": PATIENCE},
            )
            serving.start()
            near.start_tls(client_context(), hostname="localhost", timeout=PATIENCE)
            serving.join()
        child = os.fork()
        if not child:
            try:
                far.send(far.recv_line(PATIENCE)[::-1], timeout=PATIENCE)
                far.close()
            finally:
                os._exit(0)
        near.send(b"drawer\n", timeout=PATIENCE)
        assert near.recv(100, PATIENCE) == b"reward"
        assert near.recv(100, PATIENCE) == b""
        os.waitpid(child, 0)
