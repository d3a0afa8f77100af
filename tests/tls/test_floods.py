"""Peers that send floods of key updates, empty records, tickets or records of one byte."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import ssl
import threading
import time
from collections.abc import Callable

import pytest

from tests.scenarios.flavours import Flavour
from tests.tls.both import PATIENCE, anyio_backend, flavour, needs_the_bridge, upgrade
from tests.tls.memory import Pair, client_context, connect, only, server_context
from wireline._core.locked_tls import LockedTlsCore
from wireline._core.tls import TlsCore
from wireline._core.tls_engine import MOST_UNSENT
from wireline.tls import Handshake, SslError, _openssl

__all__ = ["anyio_backend", "flavour"]

pytestmark = pytest.mark.anyio


def updates(obj: ssl.SSLObject, outgoing: ssl.MemoryBIO, count: int) -> bytes:
    """Make key updates with ``update_requested`` (RFC 8446, 4.6.3)."""
    import _ssl

    library = ctypes.PyDLL(_ssl.__file__)
    pointer = ctypes.c_void_p(_openssl.ssl_pointer(obj))
    for _ in range(count):
        assert library.SSL_key_update(pointer, 1) == 1
        obj.do_handshake()
    return outgoing.read()


def cores(*, shared: bool) -> tuple[TlsCore, Pair]:
    """Return the core of a client, and both engines."""
    pair = connect(client_context(), server_context(), port=0)
    core = LockedTlsCore(pair.client, threading.RLock()) if shared else TlsCore(pair.client)
    pair.server.encrypt(b"first")
    core.feed(pair.server.take_output())
    assert core.recv_some(10) == b"first"
    return core, pair


@pytest.mark.parametrize("batch", [1, 100, 600, 2000])
@pytest.mark.parametrize("shared", [False, True], ids=["one loop", "shared"])
def test_FB16_answers_that_the_peer_does_not_take_are_bounded(shared: bool, batch: int) -> None:
    """FB16: 22 MB of key updates left 16 MB of answers in memory, while a writer was blocked."""
    needs_the_bridge()
    core, (client, server) = cores(shared=shared)
    core.encrypt(b"data that the peer does not read")
    assert core.pending_output()
    for _ in range(0, 8000, batch):
        core.feed(updates(server.obj, server.outgoing, batch))
        assert client.outgoing.pending <= MOST_UNSENT + 32 * 1024
        if client.error is not None:
            break
    for _ in range(2):
        with pytest.raises(SslError, match="asks for answers and takes none"):
            core.recv_some(10)
    with pytest.raises(SslError, match="asks for answers"):
        core.seal(b"more")


@pytest.mark.parametrize("shared", [False, True], ids=["one loop", "shared"])
def test_FB16_answers_that_the_peer_takes_are_no_trouble(shared: bool) -> None:
    """FB16: as many key updates, one after the other and answered."""
    needs_the_bridge()
    core, (_, server) = cores(shared=shared)
    taken: list[bytes] = []
    for _ in range(40):
        core.feed(updates(server.obj, server.outgoing, 200))
        while data := core.pending_output():
            server.feed(bytes(data), taken.append)
            core.sent(len(data))
    server.encrypt(b"still here")
    core.feed(server.take_output())
    assert core.recv_some(100) == b"still here"


class Flooder:
    """A server that reads nothing after the handshake and sends key updates until the buffers are full."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context().ssl_context(Handshake.AS_SERVER)
        self._obj = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.sent = 0

    def run(self) -> None:
        """Send until the peer is gone, or has got ten times as much as it may keep."""
        while True:
            try:
                self._obj.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._incoming.write(self.sock.recv(65536))
        self.sock.sendall(self._outgoing.read())
        try:
            while self.sent < 10 * MOST_UNSENT:
                wire = updates(self._obj, self._outgoing, 100)
                self.sock.sendall(wire)
                self.sent += len(wire)
        except OSError:
            pass  # the peer has closed the connection


async def test_FB16_a_reader_whose_writer_is_blocked_ends_with_an_error(flavour: Flavour) -> None:
    """FB16: over sockets, in both flavours: nothing hangs, and the read fails with the reason."""
    needs_the_bridge()
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    flooder = Flooder(theirs)
    flooding = threading.Thread(target=flooder.run)
    flooding.start()
    sock = flavour.from_socket(ours)
    try:
        await upgrade(client_context(), sock, Handshake.AS_CLIENT, "localhost", timeout=PATIENCE)
        writing = asyncio.ensure_future(sock.send(bytes(2**20), timeout=PATIENCE))
        with pytest.raises(SslError, match="asks for answers"):
            await sock.recv_some(timeout=PATIENCE)
        assert flooder.sent < 8 * MOST_UNSENT
        sock.close(linger=0)
        with pytest.raises(OSError):
            await writing
    finally:
        sock.close(linger=0)
        theirs.close()
        await asyncio.to_thread(flooding.join)


# ------------------------------------------------------------------------------------------------- other floods


def one_byte_records(server: ssl.SSLObject) -> None:
    for _ in range(20_000):
        server.write(b"x")


def tickets(server: ssl.SSLObject) -> None:
    import _ssl

    library = ctypes.PyDLL(_ssl.__file__)
    pointer = ctypes.c_void_p(_openssl.ssl_pointer(server))
    for _ in range(2000):
        assert library.SSL_new_session_ticket(pointer) == 1
        server.do_handshake()


FLOODS: dict[str, tuple[Callable[[ssl.SSLObject], None], int]] = {
    "records of one byte": (one_byte_records, 20_000),
    "tickets": (tickets, 0),
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("port", [0, 4433], ids=["no sessions", "sessions"])
def test_FB16_a_flood_costs_time_in_proportion(flood: str, port: int) -> None:
    """FB16: four times as many bytes take about four times as long, however they are cut."""
    needs_the_bridge()
    make, expected = FLOODS[flood]
    pair = connect(client_context(), server_context(), port=port)
    core = TlsCore(pair.client)
    make(pair.server.obj)
    wire = pair.server.take_output()
    began = time.process_time()
    for start in range(0, len(wire), 8192):
        core.feed(wire[start : start + 8192])
    taken = time.process_time() - began
    assert len(core) == expected
    # Twenty times the usual time per byte; a cost that grows with the earlier input would exceed it.
    assert taken < len(wire) * 1e-6
    assert pair.client.outgoing.pending == 0


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_FB16_records_without_data_are_refused_or_cost_nothing(version: str) -> None:
    """FB16: empty records in clear and as ciphertext do not pile up."""
    client, server = client_context(), server_context()
    only(version, client, server)
    pair = connect(client, server, port=0)
    core = TlsCore(pair.client)
    core.feed(b"\x17\x03\x03\x00\x00" * 10_000)
    with pytest.raises(SslError):
        core.recv_some(1)
    assert pair.client.incoming.pending < 64 * 1024
