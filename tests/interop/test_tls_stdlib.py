"""Python's own ``ssl``, asyncio, ``http.client`` and ``smtplib`` at the other end of TLS, in both flavours."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import smtplib
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.interop import openssl
from tests.interop.async_conversations import read_to_the_end
from tests.interop.conversations import OURS, THEIRS
from tests.interop.mail import mail_server
from tests.interop.programs import PATIENCE
from tests.interop.responder import PAGES
from tests.interop.test_async_curl import respond
from tests.scenarios.flavours import Flavour, Sock
from tests.scenarios.tls import only
from tests.tls import both, certificates
from tests.tls.both import recorded_server, serving, upgrade
from tests.tls.memory import client_context, server_context
from wireline import Address
from wireline.tls import Handshake, TruncatedError

pytestmark = [pytest.mark.interop, pytest.mark.anyio]

flavour, anyio_backend, version = both.flavour, both.anyio_backend, openssl.version


def their_client(version: str = "TLSv1.3") -> ssl.SSLContext:
    """A context of the standard library for a client that verifies, and speaks one version only."""
    context = ssl.create_default_context(cafile=certificates.ca_file())
    only(context, _number(version))
    return context


def their_server(version: str = "TLSv1.3") -> ssl.SSLContext:
    """The same for a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server())
    only(context, _number(version))
    return context


def _number(version: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[version.replace(".", "_")]


# ------------------------------------------------------------------------------------------------------- SSLSocket


def exchange_as_they_do(theirs: ssl.SSLSocket) -> None:
    """Send everything, then receive everything: two threads at once break an ``SSLSocket``."""
    theirs.sendall(THEIRS)
    received = b""
    while len(received) < len(OURS) and (piece := theirs.recv(65536)):
        received += piece
    assert received == OURS
    assert theirs.recv(1) == b""
    theirs.unwrap().close()


async def exchange_as_we_do(ours: Sock) -> None:
    assert await ours.recv_exactly(len(THEIRS), PATIENCE) == THEIRS
    await ours.send(OURS, timeout=PATIENCE)
    await ours.shutdown_write(timeout=PATIENCE)
    assert await ours.recv_some(timeout=PATIENCE) == b""


@contextlib.contextmanager
def connected(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    """An ``SSLSocket`` that is connected to one of our servers."""
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    with plain, context.wrap_socket(plain, server_hostname="localhost", session=session) as theirs:
        theirs.settimeout(PATIENCE)
        yield theirs


async def test_an_sslsocket_connects(flavour: Flavour, version: str) -> None:
    async def handler(client: Sock, _: Address) -> None:
        await exchange_as_we_do(client)

    def run(port: int) -> None:
        with connected(port, their_client(version)) as theirs:
            exchange_as_they_do(theirs)

    async with serving(flavour, handler, server_context()) as server:
        await asyncio.to_thread(run, server.local_addr.port)


async def test_an_sslsocket_listens(flavour: Flavour, version: str) -> None:
    def run(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        plain.settimeout(PATIENCE)
        with their_server(version).wrap_socket(plain, server_side=True) as theirs:
            exchange_as_they_do(theirs)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(asyncio.to_thread(run, listener))
        port = listener.getsockname()[1]
        async with await flavour.dial("localhost", port, tls=client_context(), timeout=PATIENCE) as ours:
            await exchange_as_we_do(ours)
            await running


async def test_T10_an_sslsocket_resumes_its_session(flavour: Flavour, version: str) -> None:
    context = their_client(version)
    context.load_cert_chain(*certificates.client())

    def ask(port: int, session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        with connected(port, context, session) as theirs:
            theirs.sendall(b"question\n")
            assert theirs.recv(100) == b"noitseuq\n"
            return theirs.session_reused, theirs.session

    tls = server_context(client_certs="required", ca_file=certificates.ca_file())
    async with recorded_server(flavour, tls) as served:
        reused, session = await asyncio.to_thread(ask, served.port, None)
        assert not reused
        reused, _ = await asyncio.to_thread(ask, served.port, session)
        assert reused
        # Each is recorded in its own thread or task, when it ends: the first may be recorded second.
        assert sorted([(await served.connections.next()).info.resumed for _ in range(2)]) == [False, True]


async def test_T3_an_sslsocket_that_just_closes_leaves_a_truncated_stream(
    flavour: Flavour, version: str
) -> None:
    """The close of an ``SSLSocket``, without ``unwrap``."""

    def run(port: int) -> None:
        with connected(port, their_client(version)) as theirs:
            theirs.sendall(b"question\n")
            theirs.recv(100)

    async with (
        recorded_server(flavour) as served,
        recorded_server(flavour, server_context(ragged_eof=True)) as lax,
    ):
        await asyncio.to_thread(run, served.port)
        assert isinstance((await served.connections.next()).error, TruncatedError)
        await asyncio.to_thread(run, lax.port)
        assert (await lax.connections.next()).error is None


# --------------------------------------------------------------------------------------------------------- asyncio


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Both directions at once, as asyncio does: it has no half-close over TLS."""
    async with asyncio.TaskGroup() as tasks:
        received = tasks.create_task(reader.readexactly(len(OURS)))
        writer.write(THEIRS)
        await writer.drain()
    assert received.result() == OURS


async def talk_back(ours: Sock) -> None:
    async with asyncio.TaskGroup() as tasks:
        received = tasks.create_task(ours.recv_exactly(len(THEIRS), PATIENCE))
        tasks.create_task(ours.send(OURS, timeout=PATIENCE))
    assert received.result() == THEIRS


async def test_asyncio_connects(flavour: Flavour, version: str) -> None:
    async with serving(flavour, lambda client, _: talk_back(client), server_context()) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.local_addr.port, ssl=their_client(version), server_hostname="localhost"
        )
        await talk(reader, writer)
        assert await reader.read() == b""  # the handler has returned: we end it
        writer.close()
        await writer.wait_closed()


async def test_asyncio_listens(flavour: Flavour, version: str) -> None:
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(reader, writer)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        over.set_result(None)

    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=their_server(version))
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with await flavour.dial("localhost", port, tls=client_context(), timeout=PATIENCE) as ours:
            await talk_back(ours)
            await ours.shutdown_write(timeout=PATIENCE)
            assert await read_to_the_end(ours) == b""
        await asyncio.wait_for(over, PATIENCE)


async def test_asyncio_upgrades_a_connection(flavour: Flavour, version: str) -> None:
    """STARTTLS with our client, and ``start_tls`` at the server."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\r\n"
        writer.write(b"220 go ahead\r\n")
        await writer.drain()
        await writer.start_tls(their_server(version))
        await talk(reader, writer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with await flavour.dial("localhost", port, timeout=PATIENCE) as ours:
            await ours.send(b"STARTTLS\r\n")
            assert await ours.recv_line(PATIENCE) == b"220 go ahead"
            await upgrade(client_context(), ours, Handshake.AS_CLIENT, "localhost", timeout=PATIENCE)
            await talk_back(ours)
            assert await ours.recv_some(timeout=PATIENCE) == b""


async def test_ten_asyncio_clients_send_fifty_lines_each(flavour: Flavour) -> None:
    """T4: five hundred lines arrive."""

    async def send(port: int) -> None:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=their_client(), server_hostname="localhost"
        )
        writer.writelines(b"line %d\n" % number for number in range(50))
        writer.close()
        await writer.wait_closed()

    received: list[bytes] = []

    async def count(client: Sock, _: Address) -> None:
        async for line in client.lines(timeout=PATIENCE):
            received.append(line)

    async with serving(flavour, count, server_context()) as server:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(send(server.local_addr.port))
        await server.stop(drain=PATIENCE)
    assert sorted(received) == sorted([b"line %d" % number for number in range(50)] * 10)


# ------------------------------------------------------------------------------------------------- HTTP and mail


async def test_http_client_reads_from_our_responder(flavour: Flavour, version: str) -> None:
    def fetch(port: int, page: str) -> bytes:
        connection = http.client.HTTPSConnection(
            "localhost", port, timeout=PATIENCE, context=their_client(version)
        )
        with contextlib.closing(connection):
            connection.request("GET", page)
            return connection.getresponse().read()

    async with serving(flavour, respond, server_context()) as server:
        for page, body in PAGES.items():
            assert await asyncio.to_thread(fetch, server.local_addr.port, page) == body


async def test_T6_smtplib_says_starttls(flavour: Flavour, version: str) -> None:
    tls = server_context()
    inside: list[bytes] = []

    def send_mail(port: int) -> None:
        with smtplib.SMTP("localhost", port, timeout=PATIENCE) as mail:
            mail.starttls(context=their_client(version))
            assert mail.noop()[0] == 250

    async with mail_server(flavour, tls, inside) as port:
        await asyncio.to_thread(send_mail, port)
    assert inside == [b"noop", b"QUIT"]
