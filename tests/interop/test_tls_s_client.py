"""``openssl s_client`` as the client of our servers, in both flavours."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from tests.interop import openssl
from tests.interop.async_conversations import says
from tests.interop.mail import mail_server
from tests.interop.openssl import KEY_UPDATE, VERSIONS, read
from tests.interop.programs import PATIENCE, Program
from tests.scenarios.flavours import Flavour, Sock
from tests.tls import both, certificates
from tests.tls.both import needs_the_bridge, recorded_server
from tests.tls.memory import server_context
from tests.tools import require_tool
from wireline import Address
from wireline.tls import SslContext, TruncatedError

pytestmark = [pytest.mark.interop, pytest.mark.anyio]

flavour, anyio_backend, version = both.flavour, both.anyio_backend, openssl.version


def s_client(port: int, *words: str, name: str = "localhost") -> Program:
    """Connect, verify as a careful client does, and relay standard input and output."""
    trust = ["-CAfile", certificates.ca_file(), "-verify_return_error", "-verify_hostname", name]
    where = ["-connect", f"127.0.0.1:{port}", "-servername", name]
    return Program(require_tool("openssl", "openssl"), "s_client", *where, *trust, *words)


async def ask(program: Program, question: bytes) -> None:
    """Send a line to a wireline server through the program, and check the reversed reply."""
    program.type(question + b"\n")
    await says(program, question[::-1], on_stdout=True)


async def leave(program: Program) -> bytes:
    """Let it end the connection cleanly; return its last output."""
    return await asyncio.to_thread(program.finish, b"Q\n")


async def test_s_client_verifies_our_server_and_talks_to_it(flavour: Flavour, version: str) -> None:
    async with recorded_server(flavour, server_context()) as served:
        with s_client(served.port, "-brief", VERSIONS[version]) as program:
            said = await says(program, rb"Protocol version: (\S+)\n(?s:.*)Verification: (\w+)")
            assert said.groups() == (version.encode(), b"OK")
            for number in range(5):
                await ask(program, b"question %d" % number)
            await leave(program)
        connection = await served.connections.next()
    assert connection.error is None
    assert len(connection.lines) == 5
    assert (connection.info.version, connection.info.server_name, connection.info.resumed) == (
        version,
        "localhost",
        False,
    )
    assert connection.certificates == []


async def test_T8_s_client_shows_its_certificate(flavour: Flavour, version: str) -> None:
    tls = server_context(client_certs="required", ca_file=certificates.ca_file())
    ours = certificates.client()
    async with recorded_server(flavour, tls) as served:
        with s_client(
            served.port, "-brief", VERSIONS[version], "-cert", ours.cert, "-key", ours.key
        ) as program:
            await ask(program, b"it is me")
            await leave(program)
        connection = await served.connections.next()
    chain = [each.to_pem() for each in connection.certificates]
    assert chain == read(ours.cert, certificates.ca_file())


@pytest.mark.parametrize("certificate", ["none", "of a stranger"])
async def test_T8_s_client_is_refused_before_the_handler_sees_a_byte(
    flavour: Flavour, version: str, certificate: str
) -> None:
    tls = server_context(client_certs="required", ca_file=certificates.ca_file())
    stranger = certificates.stranger()
    shown = [] if certificate == "none" else ["-cert", stranger.cert, "-key", stranger.key]
    alerts = {
        "none": rb"alert (certificate required|handshake failure)",
        "of a stranger": rb"alert unknown ca",
    }
    async with recorded_server(flavour, tls) as served:
        with s_client(served.port, "-brief", VERSIONS[version], *shown) as program:
            program.type(b"let me in\n")
            assert await says(program, alerts[certificate])
        assert served.connections.seen.empty()


async def test_s_client_agrees_on_a_protocol(flavour: Flavour, version: str) -> None:
    async with recorded_server(flavour, server_context(alpn=["http/1.1", "h2"])) as served:
        with s_client(served.port, VERSIONS[version], "-alpn", "h2,http/1.1") as program:
            await says(program, rb"ALPN protocol: http/1.1\n", on_stdout=True)
            await leave(program)
        assert (await served.connections.next()).info.alpn == "http/1.1"


async def test_s_client_without_a_protocol_in_common(flavour: Flavour) -> None:
    picky = server_context(alpn=["h2"])
    picky.require_alpn = True
    async with (
        recorded_server(flavour, server_context(alpn=["h2"])) as served,
        recorded_server(flavour, picky) as strict,
    ):
        with s_client(served.port, "-alpn", "spdy/1") as program:
            await says(program, rb"No ALPN negotiated\n", on_stdout=True)
            await leave(program)
        assert (await served.connections.next()).info.alpn is None
        with s_client(strict.port, "-alpn", "spdy/1") as program:
            program.type(b"let me in\n")
            await says(program, rb"alert|unexpected eof|DONE|errno")
        assert strict.connections.seen.empty()


async def test_s_client_gets_the_certificate_of_the_name_it_asks_for(flavour: Flavour, version: str) -> None:
    leaf = certificates.elsewhere()
    elsewhere = SslContext(cert_file=leaf.cert, key_file=leaf.key)
    tls = server_context(server_name_callback={"elsewhere.test": elsewhere}.get)
    async with recorded_server(flavour, tls) as served:
        for name in ("elsewhere.test", "localhost"):
            with s_client(served.port, "-brief", VERSIONS[version], name=name) as program:
                await says(program, rb"Verification: OK\nVerified peername: %s\n" % name.encode())
                await leave(program)
            assert (await served.connections.next()).info.server_name == name


@pytest.mark.parametrize("client_certs", ["ignore", "required"])
@pytest.mark.parametrize("session_id_context", ["", "an application"])
async def test_T10_s_client_resumes_its_session(
    flavour: Flavour, version: str, client_certs: str, session_id_context: str, tmp_path: pathlib.Path
) -> None:
    tls = server_context(client_certs=client_certs, ca_file=certificates.ca_file())
    if session_id_context:
        needs_the_bridge()
        tls.session_id_context = session_id_context
    ours = certificates.client()
    words = [VERSIONS[version], "-cert", ours.cert, "-key", ours.key]
    async with recorded_server(flavour, tls) as served:
        for option, verdict in (("-sess_out", rb"New"), ("-sess_in", rb"Reused")):
            with s_client(served.port, *words, option, str(tmp_path / "session")) as program:
                await says(program, rb"\n%s, %s, " % (verdict, version.encode()), on_stdout=True)
                await ask(program, b"question")
                await leave(program)
            connection = await served.connections.next()
            assert connection.info.resumed is (option == "-sess_in")
            assert bool(connection.certificates) is (client_certs == "required")


async def test_s_client_updates_its_keys(flavour: Flavour) -> None:
    async with recorded_server(flavour) as served:
        with s_client(served.port, "-brief", "-msg", VERSIONS["TLSv1.3"]) as program:
            for command, answer in (
                (b"k", b""),
                (b"K", b"<<< " + KEY_UPDATE),
                (b"K", b"<<< " + KEY_UPDATE),
                (b"k", b""),
            ):
                program.type(
                    command + b"\n"
                )  # "K" asks for our keys to be updated as well: with the next we send
                await says(program, b">>> " + KEY_UPDATE, on_stdout=True)
                program.type(b"question\n")
                await says(program, answer + b"(?s:.*)noitseuq", on_stdout=True)
            await leave(program)
        connection = await served.connections.next()
    assert connection.error is None
    assert connection.lines == [b"question"] * 4


async def test_T3_s_client_that_is_killed_leaves_a_truncated_stream(flavour: Flavour, version: str) -> None:
    async with recorded_server(flavour) as served:
        with s_client(served.port, "-brief", VERSIONS[version]) as program:
            await ask(program, b"question")
            program.process.kill()
            connection = await served.connections.next()
    assert isinstance(connection.error, TruncatedError)
    assert connection.lines == [b"question"]


async def test_s_client_that_leaves_early_does_not_hold_up_a_sender(flavour: Flavour, version: str) -> None:
    """More is sent than the kernel takes for a peer that reads no more."""
    ended = asyncio.Event()

    async def pour(client: Sock, _: Address) -> None:
        try:
            await client.send(bytes(8 << 20), timeout=PATIENCE)
        finally:
            ended.set()

    async with both.serving(flavour, pour, server_context()) as server:
        with s_client(server.local_addr.port, "-brief", VERSIONS[version]) as program:
            await says(program, rb"CONNECTION ESTABLISHED")
            program.process.kill()
            program.process.wait()
            await asyncio.wait_for(ended.wait(), PATIENCE)


# ------------------------------------------------------------------------------------------------------- STARTTLS


async def test_T6_s_client_says_starttls(flavour: Flavour, version: str) -> None:
    inside: list[bytes] = []
    async with mail_server(flavour, server_context(), inside) as port:
        with s_client(port, "-starttls", "smtp", "-brief", VERSIONS[version]) as program:
            await says(program, rb"Protocol version: %s\n(?s:.*)Verification: OK" % version.encode())
            program.type(b"NOOP\r\n")
            await says(program, rb"250 STARTTLS", on_stdout=True)
            program.type(b"quit\r\n")
            await says(program, rb"221 goodbye", on_stdout=True)
    assert inside == [b"NOOP", b"quit"]
