"""What an operator sets: pins, versions, groups, shared tickets, decoys; and certificates that are replaced in use."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.tls import certificates
from tests.tls.both import needs_the_bridge
from tests.tls.memory import chain, client_context, connect, engines, info, say, server_context, shake
from tests.tools import require_tool
from wireline.tls import Certificate, SslContext, SslError, VerifyMode


def key_pin(path: str) -> str:
    """The pin of the key of the first certificate of a file, by openssl."""
    openssl = require_tool("openssl", "openssl")
    public = subprocess.run(
        [openssl, "x509", "-in", path, "-noout", "-pubkey"], capture_output=True, check=True
    )
    der = subprocess.run(
        [openssl, "pkey", "-pubin", "-outform", "der"], input=public.stdout, capture_output=True, check=True
    )
    return "sha256/" + base64.b64encode(hashlib.sha256(der.stdout).digest()).decode()


def fingerprint(path: str) -> str:
    return Certificate(ssl.PEM_cert_to_DER_cert(Path(path).read_text())).fingerprint()


# Pins.


def test_a_key_or_a_certificate_of_the_verified_chain_is_pinned() -> None:
    leaf, root = certificates.server().cert, certificates.ca_file()
    for pin in (key_pin(leaf), fingerprint(leaf), key_pin(root), ":".join(_pairs(fingerprint(root))).upper()):
        connect(client_context(pinned=["0" * 64, pin]), server_context())
    with pytest.raises(SslError, match="no certificate of the peer is pinned") as caught:
        connect(client_context(pinned=[key_pin(certificates.client().cert)]), server_context())
    assert f"{key_pin(leaf)}, {key_pin(root)}" in str(caught.value)


def _pairs(text: str) -> list[str]:
    return [text[start : start + 2] for start in range(0, len(text), 2)]


def test_a_certificate_that_is_only_sent_along_never_satisfies_a_pin(tmp_path: Path) -> None:
    """An attacker can send the pinned certificate behind a chain of another CA."""
    leaf = certificates.server()
    sent = tmp_path / "sent.pem"
    sent.write_text(Path(leaf.cert).read_text() + Path(certificates.stranger().cert).read_text())
    server = server_context(cert_file=str(sent))
    pin = fingerprint(certificates.stranger().cert)
    for verify_mode in (VerifyMode.PEER, VerifyMode.NONE):
        with pytest.raises(SslError, match="no certificate of the peer is pinned"):
            connect(client_context(pinned=[pin], verify_mode=verify_mode), server)
    # Without verification it is the leaf that counts, and not its CA.
    for pin, good in (
        (fingerprint(leaf.cert), True),
        (key_pin(leaf.cert), True),
        (key_pin(certificates.ca_file()), False),
    ):
        errors = shake(engines(SslContext(verify_mode=VerifyMode.NONE, pinned=[pin]), server))
        assert (errors[0] is None) is good


def test_a_resumed_session_is_pinned_too_and_a_server_pins_its_clients() -> None:
    client = client_context(pinned=[key_pin(certificates.ca_file())])
    server = server_context()
    assert [resumes(client, server), resumes(client, server)] == [False, True]
    leaf = certificates.client()
    client = client_context(cert_file=leaf.cert, key_file=leaf.key)
    for pin, good in ((key_pin(leaf.cert), True), (key_pin(certificates.stranger().cert), False)):
        server = server_context(client_certs="required", ca_file=certificates.ca_file(), pinned=[pin])
        assert (shake(engines(client, server))[1] is None) is good


# Versions and groups.


def test_versions_are_narrowed() -> None:
    only = {
        "TLSv1.2": {"max_version": ssl.TLSVersion.TLSv1_2},
        "TLSv1.3": {"min_version": ssl.TLSVersion.TLSv1_3},
    }
    for version, arguments in only.items():
        assert info(connect(client_context(**arguments), server_context()).client).version == version
        assert info(connect(client_context(), server_context(**arguments)).client).version == version
    with pytest.raises(SslError):
        connect(client_context(**only["TLSv1.2"]), server_context(**only["TLSv1.3"]))


def test_groups_are_set_and_reported() -> None:
    needs_the_bridge()
    for version in ("TLSv1_2", "TLSv1_3"):
        for groups, name in (
            (("X25519", "P-256"), "x25519"),
            (("P-384", "P-256"), "secp384r1"),
            (("P-256",), "secp256r1"),
        ):
            client = client_context(groups=groups, max_version=ssl.TLSVersion[version])
            pair = connect(client, server_context(groups=groups))
            assert (info(pair.client).group, info(pair.server).group) == (name, name)
    client = client_context(groups=("P-384", "P-256"))
    assert info(connect(client, server_context(groups=["P-256"])).client).group == "secp256r1"
    with pytest.raises(SslError):
        connect(client_context(groups=["P-384"]), server_context(groups=["P-256"]))
    with pytest.raises(SslError, match="does not know a group of 'X25519:nothing'"):
        client_context(groups=["X25519", "nothing"])


# Files that are replaced.


def copy_of(leaf: certificates.Leaf, directory: Path) -> None:
    (directory / "cert").write_bytes(Path(leaf.cert).read_bytes())
    (directory / "key").write_bytes(Path(leaf.key).read_bytes())


def leaf_of(client: SslContext, server: SslContext) -> bytes:
    return bytes(chain(connect(client, server).client)[0])


def test_T13_reload_takes_the_new_files_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    first, second = certificates.server(), certificates.chained()
    copy_of(first, tmp_path)
    server = SslContext(cert_file=tmp_path / "cert", key_file=tmp_path / "key")
    client = client_context(ca_file=certificates.ca_file())
    assert leaf_of(client, server) == ssl.PEM_cert_to_DER_cert(Path(first.cert).read_text())
    running = connect(client, server)
    (tmp_path / "cert").write_text("nothing")
    with pytest.raises(SslError, match="there is no certificate in"):
        server.reload()
    (tmp_path / "cert").unlink()
    with pytest.raises(FileNotFoundError):
        server.reload()
    assert leaf_of(client, server) == ssl.PEM_cert_to_DER_cert(Path(first.cert).read_text())
    copy_of(second, tmp_path)
    assert leaf_of(client, server) == ssl.PEM_cert_to_DER_cert(Path(first.cert).read_text())
    server.reload()
    text = Path(second.cert).read_text()
    assert leaf_of(client, server) == ssl.PEM_cert_to_DER_cert(
        text[: text.index("END CERTIFICATE-----") + 20]
    )
    assert info(running.server).version  # goes on


def test_T13_tickets_are_valid_after_a_reload_unless_the_demand_is_another(tmp_path: Path) -> None:
    needs_the_bridge()
    copy_of(certificates.server(), tmp_path)
    cas = tmp_path / "cas"
    cas.write_bytes(Path(certificates.ca_file()).read_bytes())
    leaf = certificates.client()
    client = client_context(cert_file=leaf.cert, key_file=leaf.key)
    server = SslContext(
        cert_file=tmp_path / "cert", key_file=tmp_path / "key", client_certs="required", ca_file=cas
    )
    assert [resumes(client, server), resumes(client, server)] == [False, True]
    server.reload()
    assert resumes(client, server)
    cas.write_bytes(cas.read_bytes() + Path(certificates.other_ca_file()).read_bytes())
    server.reload()
    assert not resumes(client, server)
    assert resumes(client, server)


def test_T13_the_sessions_of_a_client_are_forgotten() -> None:
    client, server = client_context(), server_context()
    assert [resumes(client, server), resumes(client, server)] == [False, True]
    client.reload()
    assert not resumes(client, server)


def test_an_adopted_or_destroyed_context_is_not_reloaded() -> None:
    with pytest.raises(RuntimeError):
        SslContext.from_ssl(ssl.create_default_context()).reload()
    context = server_context()
    context.destroy()
    with pytest.raises(OSError, match="destroyed"):
        context.reload()


def test_T13_a_password_is_asked_for_again() -> None:
    asked: list[int] = []

    def password() -> str:
        asked.append(1)
        return certificates.PASSWORD

    leaf = certificates.encrypted()
    context = SslContext(cert_file=leaf.cert, key_file=leaf.key, password=password)
    connect(client_context(), context)
    assert len(asked) == 1
    context.reload()
    connect(client_context(), context)
    assert len(asked) == 2


@pytest.mark.stress
def test_T13_no_handshake_fails_while_certificates_are_rotated(tmp_path: Path) -> None:
    leaves = [certificates.server(), certificates.chained()]
    copy_of(leaves[0], tmp_path)
    server = SslContext(cert_file=tmp_path / "cert", key_file=tmp_path / "key")
    client = client_context()
    errors: list[BaseException] = []
    stop = threading.Event()

    def shake_hands() -> None:
        try:
            while not stop.is_set():
                connect(client, server)
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=shake_hands) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(100):
            copy_of(leaves[number % 2], tmp_path)
            server.reload()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors


# Tickets that servers share.


def resumes(client: SslContext, server: SslContext) -> bool:
    """Whether a connection is a resumed one. Its ticket is received, for the next."""
    pair = connect(client, server)
    say(pair.server, pair.client)
    return info(pair.server).resumed


def test_a_session_is_resumed_by_another_server_with_the_same_keys() -> None:
    needs_the_bridge()
    for version in ("TLSv1_2", "TLSv1_3"):
        keys = os.urandom(80)
        client = client_context(max_version=ssl.TLSVersion[version])
        first, second, other = (server_context(ticket_keys=each) for each in (keys, keys, os.urandom(80)))
        assert [resumes(client, first), resumes(client, second), resumes(client, other)] == [
            False,
            True,
            False,
        ]
        # A server that demands certificates accepts no ticket of one that does not.
        strict = server_context(ticket_keys=keys, client_certs="required", ca_file=certificates.ca_file())
        client = client_context()
        resumes(client, first)
        assert shake(engines(client, strict))[1] is not None


# Pre-shared keys.


def test_a_decoy_makes_an_unknown_identity_look_like_a_wrong_key() -> None:
    needs_the_bridge()
    for version in ("TLSv1_2", "TLSv1_3"):
        seen = []
        for name, key in (("alice", b"wrong"), ("unknown", b"guess"), ("unknown", b"guess")):
            client = SslContext(max_version=ssl.TLSVersion[version], verify_mode=VerifyMode.NONE)
            client.client_get_psk = lambda hint, answer=(name, key): answer  # type: ignore[misc]
            server = SslContext(psk_decoy=True)
            server.server_get_psk = lambda identity: b"secret" if identity == "alice" else b""
            pair = engines(client, server)
            errors = shake(pair)
            seen.append([str(error and error.reason) for error in errors])  # type: ignore[attr-defined]
            assert info(pair.server) is not None
        assert seen[0] == seen[1] == seen[2]
        assert seen[0][1] != "None"


# Arguments.


def test_bad_arguments_are_refused() -> None:
    cases: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"min_version": "TLSv1.2"}, TypeError),
        ({"min_version": ssl.TLSVersion.TLSv1_1}, ValueError),
        ({"max_version": ssl.TLSVersion.MAXIMUM_SUPPORTED}, ValueError),
        ({"min_version": ssl.TLSVersion.TLSv1_3, "max_version": ssl.TLSVersion.TLSv1_2}, ValueError),
        ({"cipher_list": "TLS_AES_128_GCM_SHA256", "max_version": ssl.TLSVersion.TLSv1_2}, ValueError),
        ({"groups": "X25519"}, TypeError),
        ({"groups": []}, ValueError),
        ({"groups": ["a:b"]}, ValueError),
        ({"groups": [1]}, TypeError),
        ({"pinned": "sha256/"}, TypeError),
        ({"pinned": [b""]}, TypeError),
        ({"pinned": ["sha256/AAAA"]}, ValueError),
        ({"pinned": ["sha256/*"]}, ValueError),
        ({"pinned": ["12"]}, ValueError),
        ({"partial_chain": 1}, TypeError),
        ({"psk_decoy": None}, TypeError),
        ({"ticket_keys": b"short"}, ValueError),
        ({"ticket_keys": "text"}, TypeError),
        ({"keylog_file": False}, TypeError),
    ]
    for arguments, error in cases:
        with pytest.raises(error):
            server_context(**arguments)


def test_without_the_bridge_it_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    for arguments in ({"groups": ["X25519"]}, {"ticket_keys": bytes(80)}):
        with pytest.raises(NotImplementedError, match="WIRELINE_NO_BRIDGE"):
            server_context(**arguments)
    pair = connect(client_context(), server_context())
    assert (info(pair.client).group, info(pair.client).ocsp_response) == (None, None)


def test_keylog_file_true_is_the_one_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)
    connect(client_context(keylog_file=True), server_context())
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    connect(client_context(), server_context())
    assert not (tmp_path / "keys").exists()
    connect(client_context(keylog_file=True), server_context())
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET" in (tmp_path / "keys").read_text()
