"""``openssl s_server`` for our clients, in both flavours."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from tests.interop import openssl
from tests.interop.async_conversations import says
from tests.interop.openssl import KEY_UPDATE, VERSIONS, read
from tests.interop.programs import PATIENCE, Program
from tests.scenarios.flavours import Flavour, Sock
from tests.tls import both, certificates
from tests.tls.both import upgrade
from tests.tls.memory import client_context
from tests.tools import require_tool
from wireline.tls import Handshake, SslContext, SslError, TruncatedError

pytestmark = [pytest.mark.interop, pytest.mark.anyio]

flavour, anyio_backend, version = both.flavour, both.anyio_backend, openssl.version


@asynccontextmanager
async def s_server(*words: str, leaf: certificates.Leaf | None = None) -> AsyncIterator[tuple[Program, int]]:
    """Serve on a port that the system chooses."""
    leaf = leaf or certificates.server()
    listen = ["-accept", "127.0.0.1:0", "-cert", leaf.cert, "-key", leaf.key]
    with Program(require_tool("openssl", "openssl"), "s_server", *listen, *words) as program:
        said = await says(program, rb"ACCEPT 127\.0\.0\.1:(\d+)\n", on_stdout=True)
        yield program, int(said[1])


async def dial(flavour: Flavour, port: int, tls: SslContext, hostname: str = "localhost") -> Sock:
    return await flavour.dial("127.0.0.1", port, tls=tls, hostname=hostname, timeout=PATIENCE)


async def converse(sock: Sock, question: bytes = b"a question") -> None:
    """Say a line to a server with ``-rev``."""
    await sock.send(question + b"\n", timeout=PATIENCE)
    assert await sock.recv_line(PATIENCE) == question[::-1]


async def test_we_verify_s_server_and_talk_to_it(flavour: Flavour, version: str) -> None:
    async with s_server("-rev", VERSIONS[version]) as (_, port):
        async with await dial(flavour, port, client_context()) as sock:
            for number in range(5):
                await converse(sock, b"question %d" % number)
            assert sock.tls_info.version == version
            chain = [each.to_pem() for each in sock.get_peer_certificates()]
    assert chain == read(certificates.server().cert, certificates.ca_file())


async def test_s_server_verifies_us(flavour: Flavour, version: str) -> None:
    leaf = certificates.client()
    words = ["-Verify", "1", "-CAfile", certificates.ca_file(), "-verify_return_error"]
    async with s_server("-rev", VERSIONS[version], *words) as (program, port):
        tls = client_context(cert_file=leaf.cert, key_file=leaf.key)
        async with await dial(flavour, port, tls) as sock:
            await converse(sock)
        await says(program, rb"Verification: OK")
        with pytest.raises(SslError, match=r"(?i)alert (certificate.required|handshake.failure)"):
            async with await dial(
                flavour, port, client_context()
            ) as sock:  # TLS 1.3 tells a client afterwards
                await sock.recv_some(timeout=PATIENCE)


async def test_s_server_agrees_on_a_protocol(flavour: Flavour, version: str) -> None:
    async with s_server("-rev", VERSIONS[version], "-alpn", "http/1.1,h2") as (_, port):
        for wanted, agreed in ((["h2"], "h2"), (["h2", "http/1.1"], "http/1.1"), ([], None)):
            async with await dial(flavour, port, client_context(alpn=wanted)) as sock:
                assert sock.tls_info.alpn == agreed


async def test_s_server_chooses_by_our_server_name(flavour: Flavour, version: str) -> None:
    second = certificates.elsewhere()
    words = ["-servername", "elsewhere.test", "-cert2", second.cert, "-key2", second.key]
    async with s_server("-rev", VERSIONS[version], *words) as (_, port):
        for name in ("elsewhere.test", "localhost"):
            async with await dial(flavour, port, client_context(), name) as sock:
                await converse(sock)


async def test_we_resume_our_session_with_s_server(flavour: Flavour, version: str) -> None:
    tls = client_context()
    async with s_server("-rev", VERSIONS[version]) as (_, port):
        for resumed in (False, True, True):
            async with await dial(flavour, port, tls) as sock:
                await converse(sock)
                assert sock.tls_info.resumed is resumed
                assert len(sock.get_peer_certificates()) == 2


async def test_T10_we_resume_our_session_with_s_server_that_verifies_us(
    flavour: Flavour, version: str
) -> None:
    leaf = certificates.client()
    tls = client_context(cert_file=leaf.cert, key_file=leaf.key)
    words = ["-Verify", "1", "-CAfile", certificates.ca_file(), "-verify_return_error"]
    async with s_server("-rev", VERSIONS[version], *words) as (_, port):
        for resumed in (False, True):
            async with await dial(flavour, port, tls) as sock:
                await converse(sock)
                assert sock.tls_info.resumed is resumed


async def test_s_server_updates_its_keys(flavour: Flavour) -> None:
    async with s_server(VERSIONS["TLSv1.3"], "-msg") as (program, port):
        async with await dial(flavour, port, client_context()) as sock:
            for command, answer in ((b"k", b""), (b"K", b"<<< " + KEY_UPDATE), (b"K", b"<<< " + KEY_UPDATE)):
                program.type(command + b"\n")
                await says(program, b">>> " + KEY_UPDATE, on_stdout=True)
                program.type(b"answer\n")
                assert await sock.recv_line(PATIENCE) == b"answer"
                await sock.send(b"question\n", timeout=PATIENCE)
                await says(program, answer + b"(?s:.*)question", on_stdout=True)


async def test_T3_s_server_that_is_killed_leaves_a_truncated_stream(flavour: Flavour, version: str) -> None:
    async with s_server("-rev", VERSIONS[version]) as (program, port):
        async with await dial(flavour, port, client_context()) as sock:
            await converse(sock)
            program.process.kill()
            with pytest.raises(TruncatedError):
                await sock.recv_line(PATIENCE)


async def test_s_server_ends_the_connection_as_one_should(flavour: Flavour, version: str) -> None:
    async with s_server("-rev", VERSIONS[version]) as (_, port):
        async with await dial(flavour, port, client_context()) as sock:
            await converse(sock)
            await sock.send(b"CLOSE\n", timeout=PATIENCE)
            assert await sock.recv_line(PATIENCE) == b""


async def test_we_upgrade_a_connection_to_s_server(flavour: Flavour, version: str) -> None:
    async with s_server("-rev", VERSIONS[version]) as (_, port):
        async with await flavour.dial("127.0.0.1", port, timeout=PATIENCE) as sock:
            await upgrade(client_context(), sock, Handshake.AS_CLIENT, "localhost", timeout=PATIENCE)
            await converse(sock)
            assert sock.tls_info.version == version


def ocsp_response(leaf: certificates.Leaf, file: pathlib.Path, *, revoked: bool = False) -> bytes:
    """Sign with the CA of the tests that the certificate is good, or was revoked."""
    cert, issuer = x509.load_pem_x509_certificates(pathlib.Path(leaf.cert).read_bytes())[0], certificates.ca()
    ca = x509.load_pem_x509_certificate(issuer.cert_pem.bytes())
    key = serialization.load_pem_private_key(issuer.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    status = ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD
    answer = ocsp.OCSPResponseBuilder().add_response(
        cert, ca, hashes.SHA1(), status, now, now + timedelta(days=1), now if revoked else None, None
    )
    der = answer.responder_id(ocsp.OCSPResponderEncoding.HASH, ca).sign(key, hashes.SHA256())
    file.write_bytes(der.public_bytes(serialization.Encoding.DER))
    return file.read_bytes()


async def test_the_response_that_s_server_staples_is_reported(
    flavour: Flavour, version: str, tmp_path: pathlib.Path
) -> None:
    both.needs_the_bridge()
    response = ocsp_response(certificates.server(), tmp_path / "response")
    async with s_server("-rev", VERSIONS[version], "-status_file", str(tmp_path / "response")) as (_, port):
        async with await dial(flavour, port, client_context()) as sock:
            assert sock.tls_info.ocsp_response == response
    async with s_server("-rev", VERSIONS[version]) as (_, port):
        async with await dial(flavour, port, client_context()) as sock:
            assert sock.tls_info.ocsp_response is None
