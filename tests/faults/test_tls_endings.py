"""TLS peers that end the connection while we still send: the result of the next read, in both flavours."""

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
from tests.tls.memory import client_context, server_context
from wireline import Address, SocketFlag
from wireline.tls import Handshake, TruncatedError, _openssl

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
        with contextlib.suppress(ssl.SSLError, BlockingIOError):  # our own close_notify is not awaited
            self._sock.unwrap()

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GONE)
        self._sock.close()


@contextlib.asynccontextmanager
async def left_by(flavour: Flavour, version: str) -> AsyncIterator[tuple[Sock, Leaver]]:
    """A wireline client, and the server that it is connected to."""
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
    """Send until the system has reported the reset: it does so once, to a send or to a read."""
    for _ in range(500):
        await sock.send(b"more")
        if (sock._sock if isinstance(sock, Face) else sock)._io.core.pending_reset is not None:
            return
        await asyncio.sleep(0.01)
    pytest.fail("no send found the reset")


@pytest.mark.parametrize("flags", [SocketFlag.SAFE_DISCONN, SocketFlag(0)], ids=["safe", "unsafe"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_FA4_close_notify_then_a_reset_that_a_send_finds_is_a_clean_end(
    flavour: Flavour, version: str, flags: SocketFlag
) -> None:
    """FA4: the read ended in a RecursionError, and in the async flavour it was never woken."""
    async with left_by(flavour, version) as (sock, peer):
        await sock.send(b"hello")
        peer.say_goodbye()
        await asyncio.sleep(0.05)  # so that close_notify is in our kernel before the reset
        peer.reset()
        await sends_find_the_reset(sock)
        try:
            assert await sock.recv_some(timeout=PATIENCE, flags=flags) == b""
        except TruncatedError:
            pass  # the system drops received bytes at a reset, and close_notify with them; then it was a cut


@pytest.mark.parametrize("version", VERSIONS)
async def test_FA4_a_reset_that_a_send_finds_is_a_truncation_without_close_notify(
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
    """FA4: a task that was waiting when close_notify and reset arrived slept forever."""
    async with left_by(flavour, "TLSv1.3") as (sock, peer):
        await sock.send(b"hello")
        reading = asyncio.ensure_future(sock.recv_some())
        await asyncio.sleep(0.02)
        peer.say_goodbye()
        assert await asyncio.wait_for(reading, PATIENCE) == b""
        peer.reset()
        await sends_find_the_reset(sock)
        assert await sock.recv_some(timeout=PATIENCE) == b""


# ------------------------------------------------------------------------------------------------- clients that write


LINES = [b"line %d" % number for number in range(20)]


def write_and_close(port: int, context: ssl.SSLContext, *, polite: bool) -> None:
    """The behaviour of many clients: they write, read nothing, and are gone."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as bare:
        with context.wrap_socket(bare, server_hostname="localhost") as sock:
            for line in LINES:  # the system may hold a small one back, and a reset throws it away
                sock.sendall(line + b"\n")
            if polite:
                sock.settimeout(0)
                with contextlib.suppress(ssl.SSLError, OSError):
                    sock.unwrap()


async def lines_of_clients(flavour: Flavour, count: int, *, polite: bool) -> list[list[bytes]]:
    """The data that a wireline server has read from each."""
    seen: list[list[bytes]] = []
    left = asyncio.Event()

    async def handler(client: Sock, _: Address) -> None:
        lines: list[bytes] = []
        seen.append(lines)
        with contextlib.suppress(OSError):
            async for line in client.lines(timeout=PATIENCE):
                lines.append(line)
        if len(seen) == count:
            left.set()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.ca_file())
    async with both.serving(flavour, handler, server_context()) as server:
        for _ in range(count):
            await asyncio.to_thread(write_and_close, server.local_addr.port, context, polite=polite)
        await asyncio.wait_for(left.wait(), PATIENCE)
        await server.stop(drain=PATIENCE)
    return seen


@pytest.mark.parametrize("polite", [False, True], ids=["cut", "goodbye"])
@pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.stress)])
async def test_FB9_clients_that_write_and_close_lose_nothing(
    flavour: Flavour, count: int, polite: bool
) -> None:
    """FB9: our session tickets, unread, turned the client's close into a reset: 28 of 300 lost their last lines."""
    assert await lines_of_clients(flavour, count, polite=polite) == [LINES] * count


async def test_FB9_the_tickets_go_out_with_the_first_write_and_are_good(flavour: Flavour) -> None:
    """FB9: tickets that are held back are not lost: such clients resume."""

    async def handler(client: Sock, _: Address) -> None:
        async for _line in client.lines(timeout=PATIENCE):
            await client.send(b"yes\n")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.ca_file())
    session: ssl.SSLSession | None = None

    def ask(port: int) -> bool:
        nonlocal session
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as bare:
            with context.wrap_socket(bare, server_hostname="localhost", session=session) as sock:
                sock.sendall(b"hello\n")
                assert sock.recv(100) == b"yes\n"
                session = sock.session
                resumed = bool(sock.session_reused)
                sock.settimeout(0)
                with contextlib.suppress(ssl.SSLError, OSError):
                    sock.unwrap()
                return resumed

    async with both.serving(flavour, handler, server_context()) as server:
        resumed = [await asyncio.to_thread(ask, server.local_addr.port) for _ in range(3)]
    assert resumed == [False, True, True]


# ------------------------------------------------------------------------------------------------- odd certificates


@pytest.mark.parametrize("version", VERSIONS)
async def test_FB15_a_certificate_of_4500_names_is_no_matter_of_the_reader(
    flavour: Flavour, version: str
) -> None:
    """FB15: the first read raised a ValueError, its data was lost, and a waiting task was never woken."""
    leaf = certificates.crowded()

    async def handler(client: Sock, _: Address) -> None:
        async for line in client.lines(timeout=PATIENCE):
            await client.send(line[::-1] + b"\n")

    tls = client_context()
    only(tls.ssl_context(Handshake.AS_CLIENT), VERSIONS[version])
    context = server_context(cert_file=leaf.cert, key_file=leaf.key)
    async with both.serving(flavour, handler, context) as server:
        # Without the bridge `ssl` has to copy the session, and cannot.
        for resumed in (False, _openssl.available()):
            async with await flavour.dial(
                "localhost", server.local_addr.port, tls=tls, timeout=PATIENCE
            ) as sock:
                await sock.send(b"abc\n")
                reading = asyncio.ensure_future(sock.recv_line())
                assert await asyncio.wait_for(reading, PATIENCE) == b"cba"
                assert len(sock.get_peer_certificates()) == 2
                assert sock.tls_info.resumed is resumed
