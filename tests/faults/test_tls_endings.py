"""TLS peers that say goodbye and are gone, while we still send: what the next read says, in both flavours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator

import pytest

from tests.scenarios.flavours import Face, Flavour, Sock
from tests.scenarios.tls import only
from tests.tls import both, certificates
from tests.tls.both import PATIENCE
from tests.tls.memory import client_context
from wireline import SocketFlag
from wireline.tls import Handshake, TruncatedError

pytestmark = pytest.mark.anyio

flavour, anyio_backend = both.flavour, both.anyio_backend

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
GONE = struct.pack("ii", 1, 0)


class Leaver:
    """A server that takes one client, and leaves it in two steps that the test chooses the moment of."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def say_goodbye(self) -> None:
        self._sock.settimeout(0)
        with contextlib.suppress(ssl.SSLError, BlockingIOError):  # ours is not awaited
            self._sock.unwrap()

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GONE)
        self._sock.close()


@contextlib.asynccontextmanager
async def left_by(flavour: Flavour, version: str) -> AsyncIterator[tuple[Sock, Leaver]]:
    """A client of ours, and the server that it talks to."""
    leaf = certificates.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.cert, leaf.key)
    tls = client_context()
    only(tls.ssl_context(Handshake.AS_CLIENT), VERSIONS[version])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> ssl.SSLSocket:
            client, _ = listener.accept()
            client.settimeout(PATIENCE)
            return context.wrap_socket(client, server_side=True)

        accepting = asyncio.create_task(asyncio.to_thread(accept))
        async with await flavour.dial(
            "127.0.0.1", listener.getsockname()[1], tls=tls, hostname="localhost", timeout=PATIENCE
        ) as sock:
            accepted = await accepting
            with accepted:
                yield sock, Leaver(accepted)


async def sends_find_the_reset(sock: Sock) -> None:
    """Send until the system has told of the reset: it does so once, and to whoever sends."""
    for _ in range(500):
        await sock.send(b"more")
        if (sock._sock if isinstance(sock, Face) else sock)._core.broken is not None:
            return
        await asyncio.sleep(0.01)
    pytest.fail("no send was told of the reset")


@pytest.mark.parametrize("flags", [SocketFlag.SAFE_DISCONN, SocketFlag(0)], ids=["safe", "unsafe"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_FA4_goodbye_then_a_reset_that_a_send_finds_is_a_clean_end(
    flavour: Flavour, version: str, flags: SocketFlag
) -> None:
    """FA4: the read ended in a RecursionError, and in the async flavour it was never woken."""
    async with left_by(flavour, version) as (sock, peer):
        await sock.send(b"hello")
        peer.say_goodbye()
        await asyncio.sleep(0.05)  # so that the goodbye is in our kernel before the reset
        peer.reset()
        await sends_find_the_reset(sock)
        try:
            assert await sock.recv_some(timeout=PATIENCE, flags=flags) == b""
        except TruncatedError:
            pass  # the system throws received bytes away at a reset, the goodbye with them; then it was a cut


@pytest.mark.parametrize("version", VERSIONS)
async def test_FA4_a_reset_that_a_send_finds_is_a_truncation_without_a_goodbye(
    flavour: Flavour, version: str
) -> None:
    """FA4: the same without close_notify, where no read may call it an end."""
    async with left_by(flavour, version) as (sock, peer):
        await sock.send(b"hello")
        peer.reset()
        await sends_find_the_reset(sock)
        for _ in range(2):
            with pytest.raises(TruncatedError):
                await sock.recv_some(timeout=PATIENCE)


async def test_FA4_a_waiting_reader_is_woken(flavour: Flavour) -> None:
    """FA4: a task that was waiting when goodbye and reset came slept for ever."""
    async with left_by(flavour, "TLSv1.3") as (sock, peer):
        await sock.send(b"hello")
        reading = asyncio.ensure_future(sock.recv_some())
        await asyncio.sleep(0.02)
        peer.say_goodbye()
        assert await asyncio.wait_for(reading, PATIENCE) == b""
        peer.reset()
        await sends_find_the_reset(sock)
        assert await sock.recv_some(timeout=PATIENCE) == b""
