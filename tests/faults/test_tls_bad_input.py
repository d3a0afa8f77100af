"""Certificates and files that are no good: both flavours refuse them, leave nothing open, and the server stays well."""

from __future__ import annotations

import shutil
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.flavours import Flavour, Sock
from tests.scenarios.tls import only
from tests.tls import both, certificates
from tests.tls.both import PATIENCE, ConnectionRecorder, recorded_server, serving
from tests.tls.certificates import Leaf
from tests.tls.memory import client_context, server_context
from wireline.tls import Handshake, SslContext, SslError, VerifyMode

pytestmark = pytest.mark.anyio

flavour, anyio_backend = both.flavour, both.anyio_backend

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

LIMIT = 2.0
"""Seconds in which a refusal has to arrive, of the ten that were allowed."""


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return VERSIONS[request.param]


async def dial(flavour: Flavour, port: int, tls: SslContext, hostname: str = "localhost") -> Sock:
    return await flavour.dial("127.0.0.1", port, tls=tls, hostname=hostname, timeout=PATIENCE)


async def is_well(flavour: Flavour, served: both.RecordedServer, tls: SslContext | None = None) -> None:
    """A client that there is nothing wrong with is served, and the handler saw no other."""
    async with await dial(flavour, served.port, tls or client_context()) as sock:
        await sock.send(b"question\n", timeout=PATIENCE)
        assert await sock.recv_line(PATIENCE) == b"noitseuq"
    assert (await served.connections.next()).lines == [b"question"]
    assert served.connections.seen.empty()


def shows(leaf: Leaf, version: ssl.TLSVersion) -> SslContext:
    """A server that would show anything, however weak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(leaf.cert, leaf.key)
    only(context, version)
    return SslContext.from_ssl(context)


# ------------------------------------------------------------------------------------------ servers that lie to us

BAD_LEAVES: dict[str, tuple[Callable[[], Leaf], str, str]] = {
    "expired": (certificates.expired, "localhost", "certificate has expired"),
    "not yet valid": (certificates.not_yet_valid, "localhost", "certificate is not yet valid"),
    "self-signed": (certificates.self_signed, "localhost", "self.signed certificate"),
    "by a stranger": (certificates.stranger, "localhost", "unable to get local issuer certificate"),
    "incomplete chain": (certificates.incomplete, "localhost", "unable to get local issuer certificate"),
    "for another host": (certificates.elsewhere, "localhost", "Hostname mismatch.*'localhost'"),
    "another address": (certificates.server, "127.0.0.2", "IP address mismatch.*'127.0.0.2'"),
    "no address": (certificates.name_only, "127.0.0.1", "IP address mismatch.*'127.0.0.1'"),
    "name not where it counts": (certificates.common_name_only, "localhost", "Hostname mismatch"),
    "a short key": (certificates.short_key, "localhost", "EE certificate key too weak"),
    "signed with SHA-1": (certificates.sha1, "localhost", "CA signature digest algorithm too weak"),
    "signed with a short key": (lambda: certificates.weak().leaf, "localhost", "CA certificate key too weak"),
}


@pytest.mark.parametrize("case", BAD_LEAVES)
async def test_T1_a_bad_certificate_is_refused(flavour: Flavour, version: ssl.TLSVersion, case: str) -> None:
    make, hostname, reason = BAD_LEAVES[case]
    trusted = certificates.weak().ca_file if "signed with a short" in case else certificates.ca_file()
    async with recorded_server(flavour, shows(make(), version)) as served:
        began = time.monotonic()
        with pytest.raises(ssl.SSLCertVerificationError, match=reason) as caught:
            await dial(flavour, served.port, client_context(ca_file=trusted), hostname)
        assert time.monotonic() - began < LIMIT
        assert any(hostname in note for note in caught.value.__notes__)
        careless = ssl.create_default_context()
        careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
        careless.set_ciphers("ALL:@SECLEVEL=0")
        await is_well(flavour, served, SslContext.from_ssl(careless))


async def test_T1_without_verification_a_bad_certificate_is_taken_and_not_believed(flavour: Flavour) -> None:
    leaf = certificates.stranger()
    async with recorded_server(flavour, SslContext(cert_file=leaf.cert, key_file=leaf.key)) as served:
        async with await dial(flavour, served.port, SslContext(verify_mode=VerifyMode.NONE)) as sock:
            assert sock.get_peer_certificates() == []


# ------------------------------------------------------------------------------------- nothing that both sides speak


async def test_T2_no_version_in_common(flavour: Flavour) -> None:
    async with recorded_server(flavour, shows(certificates.server(), ssl.TLSVersion.TLSv1_3)) as served:
        old = client_context()
        only(old.ssl_context(Handshake.AS_CLIENT), ssl.TLSVersion.TLSv1_2)
        with pytest.raises(SslError, match=r"(?i)alert protocol version"):
            await dial(flavour, served.port, old)
        await is_well(flavour, served)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_T2_a_client_of_the_last_decade_is_refused(flavour: Flavour) -> None:
    context = ssl.create_default_context(cafile=certificates.ca_file())
    context.set_ciphers("ALL:@SECLEVEL=0")
    only(context, ssl.TLSVersion.TLSv1_1)
    async with recorded_server(flavour) as served:
        with pytest.raises(SslError, match=r"(?i)alert protocol version"):
            await dial(flavour, served.port, SslContext.from_ssl(context))
        await is_well(flavour, served)


async def test_no_cipher_in_common(flavour: Flavour) -> None:
    tls = server_context(cipher_list="ECDHE-ECDSA-AES128-GCM-SHA256")
    only(tls.ssl_context(Handshake.AS_SERVER), ssl.TLSVersion.TLSv1_2)
    async with recorded_server(flavour, tls) as served:
        with pytest.raises(SslError, match=r"(?i)alert handshake failure"):
            await dial(flavour, served.port, client_context(cipher_list="ECDHE-ECDSA-CHACHA20-POLY1305"))
        await is_well(flavour, served)


async def test_no_protocol_in_common_where_one_is_required(flavour: Flavour) -> None:
    tls = client_context(alpn=["h2"])
    tls.require_alpn = True
    async with recorded_server(flavour, server_context(alpn=["http/1.1"])) as served:
        with pytest.raises(SslError, match="no application protocol in common"):
            await dial(flavour, served.port, tls)
        assert (await served.connections.next()).lines == []  # its own handshake was fine
        await is_well(flavour, served)


# --------------------------------------------------------------------------------------------- clients that are refused

BAD_CLIENTS: dict[str, tuple[Callable[[], Leaf] | None, str]] = {
    "none": (None, "certificate.required|handshake.failure"),
    "of a stranger": (certificates.stranger, "unknown.ca"),
    "expired": (certificates.expired, "certificate.expired"),
    "self-signed": (certificates.self_signed, "unknown.ca|bad.certificate"),
}


@pytest.mark.parametrize("case", BAD_CLIENTS)
async def test_T8_a_client_that_is_not_certified_is_refused_before_the_handler_sees_a_byte(
    flavour: Flavour, version: ssl.TLSVersion, case: str
) -> None:
    make, alert = BAD_CLIENTS[case]
    shown = {} if make is None else {"cert_file": make().cert, "key_file": make().key}
    tls = client_context(**shown)
    only(tls.ssl_context(Handshake.AS_CLIENT), version)
    strict = server_context(client_certs="required", ca_file=certificates.ca_file())
    began = time.monotonic()
    async with recorded_server(flavour, strict) as served:
        with pytest.raises(SslError, match=f"(?i)alert.({alert})"):
            async with await dial(flavour, served.port, tls) as sock:  # TLS 1.3 tells a client afterwards
                assert version is ssl.TLSVersion.TLSv1_3
                await sock.send(b"let me in\n", timeout=PATIENCE)
                await sock.recv_line(PATIENCE)
        assert time.monotonic() - began < LIMIT
        ours = certificates.client()
        await is_well(flavour, served, client_context(cert_file=ours.cert, key_file=ours.key))


@pytest.mark.parametrize("case", ["of a stranger", "expired"])
async def test_a_certificate_that_is_optional_is_verified_if_it_is_there(flavour: Flavour, case: str) -> None:
    make, alert = BAD_CLIENTS[case]
    assert make is not None
    tls = client_context(cert_file=make().cert, key_file=make().key)
    async with recorded_server(
        flavour, server_context(client_certs="optional", ca_file=certificates.ca_file())
    ) as served:
        with pytest.raises(SslError, match=f"(?i)alert.({alert})"):
            async with await dial(flavour, served.port, tls) as sock:
                await sock.recv_line(PATIENCE)
        await is_well(flavour, served)


# ----------------------------------------------------------------------------------------------------------- files


async def test_T13_files_that_go_or_change_before_the_first_use_are_not_missed(
    flavour: Flavour, tmp_path: Path
) -> None:
    """They were read when the context was made: a certificate that is being renewed is no half of a pair."""
    leaf = certificates.server()
    cert, key, ca = (Path(shutil.copy(name, tmp_path)) for name in (*leaf, certificates.ca_file()))
    tls = SslContext(cert_file=cert, key_file=key, ca_file=ca, client_certs="optional")
    shutil.copy(certificates.elsewhere().cert, cert)
    key.unlink()
    ca.unlink()
    async with recorded_server(flavour, tls) as server:
        async with await dial(flavour, server.port, client_context()) as sock:
            assert sock.got_handshake


async def test_a_server_with_nothing_to_show_does_not_start(flavour: Flavour) -> None:
    with pytest.raises(SslError, match="a server needs a certificate"):
        async with serving(flavour, ConnectionRecorder(), client_context()):
            pass
