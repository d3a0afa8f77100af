"""Faults of files, certificates and peers: each has an exit code and one sentence that a user can act on."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.command import accept, connect, read_all, reset, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_tls import client_words, psk_file, secured, server_words
from tests.tls import certificates
from wireline import cli
from wireline.tls import _trust

# Files. The command fails before it listens or connects.


@in_turn(
    "words, sentence",
    [
        (["connect", "--ca-file", "{none}"], "{none}: No such file or directory"),
        (["connect", "--ca-file", "{directory}"], "{directory}: Is a directory"),
        (
            ["connect", "--ca-file", "{text}"],
            "there is no certificate in '{text}': it is no PEM text and no DER",
        ),
        (["connect", "--cert", "{none}", "--key", "{key}"], "{none}: No such file or directory"),
        (["connect", "--psk-file", "{none}"], "{none}: No such file or directory"),
        (["connect", "--psk-file", "{keys}"], "there are 2 keys in {keys}, and a client needs exactly one"),
        (["listen", "--cert", "{none}"], "{none}: No such file or directory"),
        (["listen", "--cert", "{cert}"], "there is no private key in '{cert}': it has a certificate"),
        (["listen", "--cert", "{cert}", "--key", "{none}"], "{none}: No such file or directory"),
        (
            ["listen", "--cert", "{cert}", "--key", "{text}"],
            "there is no private key in '{text}': it is no PEM text and no DER",
        ),
        (["listen", "--cert", "{text}", "--key", "{key}"], "there is no certificate in '{text}'"),
        (
            ["listen", "--cert", "{cert}", "--key", "{other_key}"],
            "the certificate in '{cert}' does not belong to the key in '{other_key}'",
        ),
        (
            ["listen", "--cert", "{cert}", "--key", "{locked_key}"],
            "is encrypted; give its password with --key-password, or decrypt it first: openssl pkey",
        ),
        (
            ["listen", "--cert", "{cert}", "--key", "{key}", "--client-ca", "{text}"],
            "there is no certificate in '{text}'",
        ),
        (["listen", "--psk-file", "{text}"], "{text}, line 1: write IDENTITY:KEYHEX"),
        (["listen", "--psk-file", "{empty}"], "there is no key in {empty}"),
    ],
)
def test_files(words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    psk_file(tmp_path, "no certificate and no key\n", "text")
    psk_file(tmp_path, "# no key\n", "empty")
    names = {
        "none": str(tmp_path / "none"),
        "directory": str(tmp_path),
        "text": str(tmp_path / "text"),
        "empty": str(tmp_path / "empty"),
        "keys": psk_file(tmp_path, "a:00\nb:01\n"),
        "cert": certificates.server().cert,
        "key": certificates.server().key,
        "other_key": certificates.client().key,
        "locked_key": certificates.encrypted().key,
    }
    assert cli.main([*(word.format(**names) for word in words), "tls://127.0.0.1:1"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wireline: cannot use TLS: ")
    assert sentence.format(**names) in err
    assert err.count("\n") == 1


def test_a_system_without_cas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def find_none() -> None:
        raise FileNotFoundError(errno.ENOENT, "for programs", "/etc/ssl/cert.pem")

    monkeypatch.setattr(_trust, "_system_trust", find_none)
    assert cli.main(["connect", "tls://127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("wireline: cannot use TLS: this system has no trusted CAs")
    assert err.endswith(", or name a CA with --ca-file FILE\n")


# Certificates of servers.


@pytest.mark.parametrize(
    ("leaf", "host", "rule", "advice"),
    [
        (certificates.expired, "localhost", r"has expired on \d{4}-\d\d-\d\d", "must be renewed"),
        (certificates.not_yet_valid, "localhost", "is not valid yet", "compare the clocks"),
        (
            certificates.self_signed,
            "localhost",
            "is self-signed",
            "--ca-file FILE with that certificate",
        ),
        (certificates.stranger, "localhost", "a CA that is not trusted here", "--ca-file FILE names"),
        (
            certificates.incomplete,
            "localhost",
            "without its intermediate certificates",
            "--ca-file FILE names",
        ),
        (certificates.elsewhere, "localhost", "is not for this name", "--sni NAME"),
        (certificates.name_only, "127.0.0.1", "is not for this address", "--sni NAME"),
        (certificates.common_name_only, "localhost", "is not for this name", "--sni NAME"),
    ],
)
def test_a_certificate_that_is_refused_which_one_which_rule_which_name(
    leaf: Callable[[], certificates.Leaf],
    host: str,
    rule: str,
    advice: str,
    start: Start,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ca_file = certificates.ca_file()
    server = start(*server_words(leaf()), "--echo", "tls://127.0.0.1:0")
    target = f"tls://{host}:{server.port()}"
    assert cli.main(["connect", "--ca-file", ca_file, target]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    certificate = rf"the certificate of {target} \[.*; issued by .*; SHA-256 [0-9a-f]{{16}}\.\.\.\]"
    assert re.match(rf"wireline: {certificate} .*{rule}.* \(it was checked for '{host}'\); ", err), err
    assert advice in err
    assert err.count("\n") == 1
    refused = server.end()
    assert refused.code == 5
    assert re.match(r"wireline: 127\.0\.0\.1:\d+ refused the handshake: .*our certificate", refused.err)


def test_a_certificate_cannot_talk_to_the_terminal() -> None:
    from wireline.cli._printable import sanitize_for_terminal

    assert sanitize_for_terminal("CN=\x1b[2J\nnice\u202etxt") == r"CN=\x1b[2J\nnice\u202etxt"
    assert sanitize_for_terminal("x" * 10_000, 300) == "x" * 300 + "..."


def test_without_cryptography_a_certificate_is_its_fingerprint(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    server = start(*server_words(certificates.stranger()), "--echo", "tls://127.0.0.1:0")
    target = server.listening_on()
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.x509", None)
    assert cli.main(["connect", "--ca-file", certificates.ca_file(), target]) == 5
    assert re.search(rf"of {target} \[SHA-256 [0-9a-f]{{16}}\.\.\.\] was", capsys.readouterr().err)
    monkeypatch.setitem(sys.modules, "wireline.cli._self_signed", None)
    monkeypatch.delattr(cli, "_self_signed", raising=False)
    assert cli.main(["listen", "--self-signed", "tls://127.0.0.1:0"]) == 1
    assert "pip install 'wireline[cli]'" in capsys.readouterr().err
    server.end()


def test_the_first_certificate_is_found_in_both_versions_of_the_message(start: Start) -> None:
    server = start(*server_words(), "--echo", "--keep", "tls://127.0.0.1:0")
    port = server.port()
    from wireline.cli._certificate_capture import PeerCertificateCapture

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=certificates.ca_file())
        context.minimum_version = context.maximum_version = version
        capture = PeerCertificateCapture()
        capture.watch(context)
        with secured(port, context) as peer:
            assert capture.sent[0] == peer.getpeercert(True)
            peer.sendall(b"x")
            assert peer.recv(1) == b"x"
        capture.unwatch(context)
    server.send_signal(signal.SIGTERM)
    server.end()


def test_a_client_without_a_certificate_has_none_to_capture() -> None:
    from wireline.cli._certificate_capture import certificates_in

    assert certificates_in(bytes.fromhex("0b000004 00 000000"), has_context=True) == ()
    assert certificates_in(bytes.fromhex("0b000003 000000"), has_context=False) == ()
    assert certificates_in(b"\x0b\0\0\0", has_context=True) == ()


# Peers that do not use TLS.


@in_turn(
    "answer, words",
    [
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\n",
            "does not use TLS on this port: check the port, or",
        ),
        (b"220 smtp.example ESMTP\r\n", "does not use TLS on this port: check the port"),
        (b"\0" * 500, "does not use TLS on this port: check the port"),
        (b"", "closed the connection during the handshake"),
        (b"\x16\x03\x03\x01\x00\x02", "closed the connection during the handshake"),
        (None, "closed the connection during the handshake"),
    ],
)
def test_a_server_that_speaks_no_tls(
    answer: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve_one(server: socket.socket) -> None:
        peer = accept(server)
        peer.recv(1 << 16)
        if answer is None:
            reset(peer)
            return
        with peer:
            peer.sendall(answer)

    with tcp_server() as (server, target):
        thread = threading.Thread(target=serve_one, args=(server,))
        thread.start()
        assert cli.main([*client_words(), f"tls://{target}"]) == 5
        thread.join()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"wireline: tls://{target} {words}")
    assert err.count("\n") == 1


def test_a_server_survives_bad_handshakes_and_reports_each(start: Start) -> None:
    server = start(*server_words(), "--echo", "--keep", "--timeout", "2", "tls://127.0.0.1:0")
    port = server.port()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    for sent, end in ((b"GET / HTTP/1.0\r\n\r\n", False), (b"\xff" * 100, False), (hello, True), (b"", True)):
        with connect(port) as peer:
            peer.sendall(sent)
            if end:
                peer.shutdown(socket.SHUT_WR)
            read_all(peer)
    with connect(port) as idle:
        assert idle.recv(1) == b""
    reset(connect(port))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        secured(port, old)
    with secured(port) as good:
        good.sendall(b"still here")
        assert good.recv(100) == b"still here"
        good.unwrap().close()
    server.send_signal(signal.SIGTERM)
    result = server.end()
    assert result.code == 0
    told = [re.sub(r"wireline: 127\.0\.0\.1:\d+ ", "", line) for line in result.err.splitlines()]
    assert sorted(told) == sorted(
        [
            "sent plain HTTP, and this is TLS: use https:// in the client",
            "does not use TLS",
            "closed the connection during the handshake",
            "closed the connection during the handshake",
            "timed out: no TLS handshake within 2 s",
            "closed the connection during the handshake",
            "supports only old versions of TLS, which are not safe: it must be updated to TLS 1.2 or 1.3",
        ]
    )


def test_debug_shows_where_it_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["connect", "--debug", "--ca-file", "/none", "tls://127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("wireline: cannot use TLS: /none: ")


def test_a_refused_connection_is_3_as_without_tls(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert cli.main([*client_words(), f"tls://127.0.0.1:{port}"]) == 3
    assert "refused the connection: nothing listens there" in capsys.readouterr().err


ALERTS = {
    10: "it expected something else: it may use TLS only after STARTTLS",
    40: "there is no common cipher",
    47: "it does not accept what this side offers",
    48: "it does not trust the CA of our certificate",
    50: "it does not understand our handshake: it may not use TLS on this port",
    51: "compare certificate and key",
    80: "it has an error of its own",
    90: "it was ended before TLS began",
    100: "it gave as the reason 'no renegotiation' (an alert of TLS)",
    109: "it requires a name",
    110: "it does not accept what this side offers",
    112: "it has no certificate for this name: give another name with --sni",
    115: "it has no pre-shared key for this identity",
    116: "it requires a client certificate: give one with --cert and --key",
    120: "it supports none of the protocols of --alpn",
}


def test_each_alert_is_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """Which of them have a name in ``ssl`` depends on the OpenSSL that Python was made for."""

    def refuse(alert: int) -> None:
        client, _ = server.accept()
        with client:
            client.recv(5000)
            client.sendall(bytes([21, 3, 3, 0, 2, 2, alert]))
            client.recv(5000)

    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"tls://127.0.0.1:{server.getsockname()[1]}"
        for alert, meaning in ALERTS.items():
            thread = threading.Thread(target=refuse, args=(alert,))
            thread.start()
            assert cli.main(["connect", "--ca-file", certificates.ca_file(), target]) == 5
            thread.join()
            assert f"{target} refused the handshake: " in (err := capfd.readouterr().err)
            assert meaning in err


# Options that do not go together.


@in_turn(
    "words, complaint",
    [
        (["connect", "--ca-file", "x", "localhost:1"], "--ca-file is for TLS: write tls://localhost:1"),
        (["connect", "--no-verify", "unix:/x"], "--no-verify is for TLS: add --tls"),
        (["connect", "--alpn", "h2", "localhost:1"], "--alpn is for TLS"),
        (["listen", "--self-signed", ":1"], "--self-signed is for TLS"),
        (["connect", "--tls", "udp://localhost:1"], "TLS needs a stream"),
        (["connect", "--key", "x", "tls://localhost:1"], "--key needs its certificate"),
        (["connect", "--no-verify", "--ca-file", "x", "tls://localhost:1"], "not allowed with argument"),
        (
            ["connect", "--psk", "me:5ecre7", "tls://localhost:1"],
            "there is no option --psk; write --psk-file",
        ),
        (["connect", "--tls", "unix:/x"], "a Unix socket has none: give it with --sni NAME"),
        (["connect", "--alpn", "h2,,x", "tls://localhost:1"], "is not a list of protocols"),
        (
            ["listen", "tls://:1"],
            "a TLS server needs --cert FILE (and --key FILE), --self-signed, or --psk-file",
        ),
        (["listen", "--cert", "x", "--self-signed", "tls://:1"], "use one of them"),
        (
            ["listen", "--psk-file", "x", "--client-ca", "y", "tls://:1"],
            "--client-ca needs a certificate of this server",
        ),
    ],
)
def test_wrong_usage(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert complaint in last
    assert "5ecre7" not in last


def test_an_error_in_a_key_file_names_the_line_and_never_the_key(tmp_path: Path) -> None:
    from wireline.cli._psk_files import read_keys

    assert read_keys(psk_file(tmp_path, "# a\n\n  al:ice:00FF \n")) == {"al:ice": b"\0\xff"}
    for text, complaint in (
        ("a:00\nb:zz5ecret\n", "line 2: the key, after the last colon, is not hexadecimal"),
        ("a:00\na:01\n", "line 2: the identity is the same as in line 1"),
        ("a:" + "00" * 513, "line 1: the key, after the last colon, has 513 bytes: 1 to 512 are possible"),
        ("a" * 256 + ":00", "line 1: write IDENTITY:KEYHEX, the identity with 1 to 255 bytes"),
    ):
        with pytest.raises(ValueError) as caught:
            read_keys(psk_file(tmp_path, text))
        assert complaint in str(caught.value)
        assert "5ecret" not in str(caught.value)


def test_FB17_a_line_with_its_parts_swapped_does_not_show_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FB17: for KEY:identity, the error quoted the part before the colon, which was the key."""
    from wireline.cli._psk_files import read_keys

    secret = "5e" * 40
    texts = (f"{secret}:me", f"{secret}:", f"{secret}:00\n{secret}:01", f"{secret}:{'00' * 513}")
    for text in texts:
        with pytest.raises(ValueError) as caught:
            read_keys(psk_file(tmp_path, text))
        assert secret not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="there are no modes here")
@in_turn("mode", [0o666, 0o644, 0o640, 0o602, 0o610])
def test_FB17_keys_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    """FB17: --psk-file accepted a file of mode 0666 without a warning."""
    from wireline.cli._psk_files import read_key, read_keys

    path = Path(psk_file(tmp_path, "me:00ff"))
    path.chmod(mode)
    for read in (read_keys, read_key):
        with pytest.raises(
            ValueError, match=rf"other users can open {path} \(mode {mode:04o}\).*chmod 600 {path}"
        ):
            read(str(path))
    for good in (0o600, 0o400, 0o700):
        path.chmod(good)
        assert read_key(str(path)) == ("me", b"\0\xff")


@pytest.mark.skipif(os.name != "posix", reason="there are no modes here")
@in_turn("command", ["connect", "listen"])
def test_FB17_the_error_has_the_chmod_that_protects_the_keys(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """FB17: the error on standard error."""
    path = Path(psk_file(tmp_path, "me:00ff"))
    path.chmod(0o644)
    assert cli.main([command, "--psk-file", str(path), "tls://127.0.0.1:1"]) == 1
    assert f"chmod 600 {path}" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="there are no such pipes here")
def test_FB17_keys_may_come_from_a_pipe() -> None:
    """FB17: only processes that inherit a pipe can read it: `--psk-file <(pass show device)`."""
    from wireline.cli._psk_files import read_key

    reading, writing = os.pipe()
    os.write(writing, b"me:00ff\n")
    os.close(writing)
    try:
        assert read_key(f"/dev/fd/{reading}") == ("me", b"\0\xff")
    finally:
        os.close(reading)
