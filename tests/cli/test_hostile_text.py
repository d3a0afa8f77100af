"""Text of peers, certificates and files that would control a terminal, or make a second line of a message."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cli.command import PATIENCE, accept, tcp_server
from tests.cli.conftest import Start
from tests.cli.scripted import answering, scripted
from tests.cli.test_tls import secured, server_words
from tests.tls import certificates
from wireline.cli import main
from wireline.cli._printable import sanitize_for_terminal, sanitize_lines
from wireline.cli.starttls._names import PROTOCOLS

CLEAR = "\x1b[2J\x1b]0;owned\x07"
LINES = "a\r\nwireline: all is well\u2028\x85"
BIDI = "\u202etxt.exe\u2066"
HOSTILE = CLEAR + LINES + BIDI

_DANGEROUS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def assert_harmless(*texts: str) -> None:
    for text in texts:
        assert _DANGEROUS.findall(text) == [], ascii(text)
        assert "\nwireline: all is well" not in text


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> certificates.Leaf:
    """A certificate that signs itself, whose names and subject are hostile; for 127.0.0.1, too."""
    directory = tmp_path_factory.mktemp("hostile")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, HOSTILE[:60]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, HOSTILE[:60]),
        ]
    )
    names = x509.SubjectAlternativeName(
        [x509.DNSName(f"{CLEAR}\r\n.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=9))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificates.Leaf(str(cert_file), str(key_file))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["connect"], 5),
        (["connect", "--debug"], 5),
        (["connect", "--sni", "other.test", "--ca-file", "{cert}"], 5),
        (["connect", "-v", "--ca-file", "{cert}"], 0),
        (["check"], 5),
        (["check", "--json"], 5),
        (["check", "--nagios"], 2),
        (["check", "--prometheus"], 5),
        (["check", "--sni", "other.test", "--ca-file", "{cert}"], 5),
        (["check", "--ca-file", "{cert}", "--days", "90"], 5),
    ],
)
def test_certificate_of_a_server(
    words: list[str], code: int, leaf: certificates.Leaf, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    server = start(*server_words(leaf), "--discard", "--keep", "tls://127.0.0.1:0")
    target = f"tls://127.0.0.1:{server.port()}"
    words = [word.format(cert=leaf.cert) for word in words]
    result = start(*words, target).finish(b"") if "--debug" not in words else None
    if result is None:  # in this process: the other way to run a command refuses tracebacks
        assert main([*words, target]) == code
        assert_harmless(*capfd.readouterr())
    else:
        assert result.code == code, result.err
        assert_harmless(result.out.decode(), result.err)
    server.send_signal(signal.SIGTERM)
    assert_harmless(server.end().err)


def test_certificate_in_a_file(leaf: certificates.Leaf, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--cert", leaf.cert, "--key", leaf.key]) == 5
    out, err = capfd.readouterr()
    assert_harmless(out, err)
    assert r"\x1b[2J" in out


def test_certificate_of_a_client(leaf: certificates.Leaf, start: Start) -> None:
    server = start(
        *server_words(), "--client-ca", certificates.ca_file(), "--keep", "--echo", "tls://127.0.0.1:0"
    )
    port = server.port()
    context = ssl.create_default_context(cafile=certificates.ca_file())
    context.load_cert_chain(*leaf)
    with pytest.raises(ssl.SSLError), secured(port, context) as peer:
        peer.sendall(b"x")
        peer.recv(1)
        raise AssertionError("the certificate was accepted")
    server.send_signal(signal.SIGTERM)
    err = server.end().err
    assert_harmless(err)
    assert "is self-signed" in err
    assert r"\x1b[2J" in err


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_banner_of_a_server(protocol: str, capfd: pytest.CaptureFixture[str]) -> None:
    banner = HOSTILE.replace("\r\n", "\r").replace("\n", "") + "\r\n"
    for command in ("check", "connect"):
        with scripted(answering(banner, {})) as port:
            words = [command, "--starttls", protocol, "--timeout", "1", "--no-verify", f"127.0.0.1:{port}"]
            assert main([word for word in words if command == "connect" or word != "--no-verify"]) in (4, 5)
        out, err = capfd.readouterr()
        assert_harmless(out, err)


def test_reply_of_a_server(capfd: pytest.CaptureFixture[str]) -> None:
    with scripted(answering("220 x\r\n", {"EHLO": f"250 {CLEAR}\x85\r\n"})) as port:
        assert main(["check", "--starttls", "smtp", f"127.0.0.1:{port}"]) == 5
    out, err = capfd.readouterr()
    assert_harmless(out, err)
    assert r"does not offer STARTTLS: it sent '250 \x1b[2J" in err


def test_line_of_a_chat_client(start: Start) -> None:
    """What a client sends is data: it is sent on unchanged. What is said about the client is a message."""
    server = start("listen", "--chat", "127.0.0.1:0")
    port = server.port()
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(HOSTILE.encode() + b"x" * 3_000_000)
    server.send_signal(signal.SIGTERM)
    assert_harmless(server.end().err)


def test_words_of_the_user(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "\x1b[2J\nwireline: all is well")
    for words in (
        ["connect", "--ca-file", path, "tls://127.0.0.1:1"],
        ["connect", "--psk-file", path, "tls://127.0.0.1:1"],
        ["connect", f"unix:{path}"],
        ["connect", f"{HOSTILE}:1"],
        ["connect", HOSTILE],
        ["connect", f"--{HOSTILE}", "h:1"],
        ["connect", "--alpn", f"{HOSTILE},", "tls://h:1"],
        ["check", "--targets", path],
        ["check", f"unix:{path}"],
        ["check", "--json", f"unix:{path}"],
        ["check", "--prometheus", f"unix:{path}"],
        ["check", "--nagios", "--cert", path],
        ["listen", f"unix:{path}/none"],
        ["twin", path, path],
        ["twin", "a", "b", HOSTILE],
        [HOSTILE],
        ["-l", "-e", HOSTILE],
        ["-p", HOSTILE, "h", "1"],
    ):
        assert main(words) != 0
        out, err = capfd.readouterr()
        assert_harmless(out, err)
        if "--nagios" in words:
            continue
        assert err.count("\n") == 1, err
        assert "all is well" not in out or r"\nwireline" in out


def test_a_traceback_has_its_lines_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "--debug", f"unix:/{CLEAR}"]) == 3
    err = capfd.readouterr().err
    assert_harmless(err)
    assert err.startswith("Traceback (most recent call last):\n")


def test_what_the_relay_says_about_its_peers(leaf: certificates.Leaf, start: Start) -> None:
    server = start(*server_words(leaf), "--discard", "--keep", "tls://127.0.0.1:0")
    relay = start("relay", "127.0.0.1:0", f"tls://127.0.0.1:{server.port()}")
    # The relay resets it, perhaps before it is connected here.
    with contextlib.suppress(ConnectionResetError):
        with socket.create_connection(("127.0.0.1", relay.port()), PATIENCE) as client:
            assert client.recv(1) == b""
    for command in (relay, server):
        command.send_signal(signal.SIGTERM)
    err = relay.end().err
    assert_harmless(err, server.end().err)
    assert r"\x1b[2J" in err


def test_received_data_is_not_changed(start: Start) -> None:
    """Standard output is for programs: what a peer sends arrives as it is."""
    with tcp_server() as (server, target):
        command = start("connect", target)
        with accept(server) as peer:
            peer.sendall(HOSTILE.encode())
        assert command.finish(b"").out == HOSTILE.encode()


def test_escapes_show_what_was_there() -> None:
    assert sanitize_for_terminal("é€ \x1b\n\udcff\u202e") == r"é€ \x1b\n\udcff\u202e"
    assert sanitize_lines("a\tb\n\x1b") == "a\tb\n\\x1b"
