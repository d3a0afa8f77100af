"""The TLS settings of each side of ``wireline relay``, and the options that its errors name."""

from __future__ import annotations

import contextlib
import signal
import ssl
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.command import accept, connect, receive, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_relay_tls import ANY, serving, trusting
from tests.cli.test_tls import KEYS, needs_psk, psk_file
from tests.cli.test_tls_settings import key_pin
from tests.tls import certificates
from tests.tls.certificates import PASSWORD
from wireline.cli import main
from wireline.net import dial
from wireline.tls import SslContext, VerifyMode, _openssl

CA = ("--ca-file", certificates.ca_file())
OWN = ("--cert", certificates.server().cert, "--key", certificates.server().key)
ENCRYPTED = certificates.encrypted()
OTHER_PIN = key_pin(certificates.other_ca_file())


def passes(
    port: int, client: ssl.SSLContext, server: ssl.SSLContext, listener: object
) -> list[ssl.SSLSocket]:
    """Relay a byte over TLS on both sides, and return the two connections."""
    outside = client.wrap_socket(connect(port), server_hostname="localhost")
    inside = server.wrap_socket(accept(listener), server_side=True)  # type: ignore[arg-type]
    outside.sendall(b"x")
    assert receive(inside, 1) == b"x"
    inside.sendall(b"y")
    assert receive(outside, 1) == b"y"
    return [outside, inside]


def close(*sockets: ssl.SSLSocket) -> None:
    for sock in sockets:
        sock.close()


def test_each_side_has_its_versions_ciphers_and_protocols(start: Start) -> None:
    client, server = trusting(), serving()
    client.set_alpn_protocols(["other", "mine"])
    server.set_alpn_protocols(["theirs"])
    words = (
        "--listen-tls-max",
        "1.2",
        "--listen-ciphers",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "--tls-min",
        "1.3",
    )
    with tcp_server() as (listener, target):
        protocols = ("--listen-alpn", "mine,other", "--alpn", "theirs,none")
        relay = start("relay", *OWN, *CA, *words, *protocols, "tls://127.0.0.1:0", f"tls://{target}")
        outside, inside = passes(relay.port(), client, server, listener)
        assert outside.cipher() == ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", 128)
        assert inside.version() == "TLSv1.3"
        assert outside.selected_alpn_protocol() == "mine"
        assert inside.selected_alpn_protocol() == "theirs"
        close(outside, inside)


def test_each_side_has_its_password(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    server = serving()
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificates.ca_file())
    of_listen = ("--cert", ENCRYPTED.cert, "--key", ENCRYPTED.key, "--key-password", f"file:{file}")
    of_target = (
        "--client-cert",
        ENCRYPTED.cert,
        "--client-key",
        ENCRYPTED.key,
        "--client-key-password",
        "env:PW",
    )
    with tcp_server() as (listener, target):
        words = (*of_listen, *of_target, *CA, "tls://127.0.0.1:0", f"tls://{target}")
        relay = start("relay", *words, env={"PW": PASSWORD})
        close(*passes(relay.port(), trusting(), server, listener))


def test_each_side_has_its_pins(start: Start) -> None:
    mine = certificates.client()
    of_listen = ("--client-ca", certificates.ca_file(), "--listen-pin", key_pin(mine.cert))
    client = trusting(mine.cert, mine.key)
    with tcp_server() as (listener, target):
        where = ("tls://127.0.0.1:0", f"tls://{target}")
        relay = start("relay", *OWN, *CA, *of_listen, "--pin", key_pin(certificates.server().cert), *where)
        port = relay.port()
        close(*passes(port, client, serving(), listener))
        other = trusting(*certificates.server())
        with connect(port) as raw, contextlib.suppress(ssl.SSLError, ConnectionError):
            with other.wrap_socket(raw, server_hostname="localhost") as refused:
                assert refused.recv(1) == b""
        relay.send_signal(signal.SIGTERM)
        assert "has no certificate of --listen-pin: the keys of its chain" in relay.end().err


@pytest.mark.parametrize("by_option", [True, False])
def test_the_key_log_has_the_keys_of_both_sides(start: Start, by_option: bool, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    words, env = (["--keylog", str(log)], {}) if by_option else ([], {"SSLKEYLOGFILE": str(log)})
    with tcp_server() as (listener, target):
        relay = start("relay", *OWN, *CA, *words, "tls://127.0.0.1:0", f"tls://{target}", env=env)
        close(*passes(relay.port(), trusting(), serving(), listener))
    lines = [line.split() for line in log.read_text().splitlines() if "CLIENT_TRAFFIC_SECRET_0" in line]
    assert len({random for _, random, _ in lines}) == 2


def test_check_writes_the_key_log_too(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    server = start("listen", "--echo", "--keep", *OWN, "tls://127.0.0.1:0")
    target = server.listening_on()
    result = start("check", *CA, target, env={"SSLKEYLOGFILE": str(log)}).finish()
    assert result.code == 0
    assert "CLIENT_TRAFFIC_SECRET_0" in log.read_text()


# The options that errors name.

LISTEN, TARGET = ("tls://127.0.0.1:0", "127.0.0.1:1"), (ANY, "tls://127.0.0.1:1")
OF_LISTEN = ("--cert", ENCRYPTED.cert, "--key", ENCRYPTED.key)
OF_TARGET = ("--client-cert", ENCRYPTED.cert, "--client-key", ENCRYPTED.key)

WRONG_FILES = [
    ((*OF_LISTEN, *LISTEN), "give its password with --key-password,"),
    ((*OF_TARGET, *TARGET), "give its password with --client-key-password,"),
    ((*OF_LISTEN, "--key-password", "env:NONE", *LISTEN), "variable NONE, which --key-password names"),
    ((*OF_TARGET, "--client-key-password", "env:NONE", *TARGET), "NONE, which --client-key-password names"),
    ((*OWN, "--listen-ciphers", "TLS_NOPE", *LISTEN), "that --listen-ciphers names"),
    (("--ciphers", "TLS_NOPE", *TARGET), "that --ciphers names"),
    (("--keylog", "/none/log", *TARGET), "/none/log: No such file or directory (it is the file of --keylog"),
    (("--client-cert", "/none/cert", *TARGET), "/none/cert: No such file"),
    (("--cert", "/none/cert", *LISTEN), "/none/cert: No such file"),
]


@in_turn("words, complaint", WRONG_FILES)
def test_errors_of_files_name_the_option_of_their_side(
    words: tuple[str, ...], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if "TLS_NOPE" in words and not _openssl.available():
        pytest.skip("ciphersuites cannot be set in this interpreter")
    assert main(["relay", *words]) == 1
    err = capfd.readouterr().err
    assert err.startswith("wireline: cannot use TLS: ")
    assert complaint in err
    assert err.count("\n") == 1


WRONG_USAGE = [
    (("--client-key", "k", *TARGET), "--client-key needs its certificate: --client-cert FILE"),
    (("--key", "k", *LISTEN), "--key needs its certificate: --cert FILE"),
    (("--client-key-password", "prompt", *TARGET), "--client-key-password is for the key of a certificate: --client"),
    (("--key-password", "prompt", "--self-signed", *LISTEN), "--key-password is for the key of a certificate: --cert"),
    (("--tls-min", "1.3", "--tls-max", "1.2", *TARGET), "--tls-min 1.3 and --tls-max 1.2 leave no version"),
    (
        ("--listen-tls-min", "1.3", "--listen-tls-max", "1.2", *OWN, *LISTEN),
        "--listen-tls-min 1.3 and --listen-tls-max 1.2 leave no version",
    ),
    (("--pin", "00" * 32, "--psk-file", "f", *TARGET), "--pin is about certificates, and with --psk-file there"),
    (("--listen-pin", "00" * 32, *OWN, *LISTEN), "--listen-pin is about certificates of clients, which --client-ca"),
    (("--listen-ciphers", "A", *TARGET), "--listen-ciphers is for TLS: write tls:// in LISTEN, or --listen-tls"),
    (("--listen-alpn", "h2", *TARGET), "--listen-alpn is for TLS: write tls:// in LISTEN"),
    (("--client-key-password", "prompt", *OWN, *LISTEN), "--client-key-password is for TLS: write tls:// in TARGET"),
    (("--alpn", "h2", *OWN, *LISTEN), "--alpn is for TLS: write tls:// in TARGET, or --tls"),
    (("--keylog", "f", ANY, "h:1"), "--keylog is for TLS: write tls:// in LISTEN or in TARGET"),
]  # fmt: skip


@in_turn("words, complaint", WRONG_USAGE)
def test_wrong_usage_names_the_option_of_its_side(
    words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["relay", *words]) == 2
    assert f"wireline: {complaint}" in capsys.readouterr().err


def the_error(start: Start, server: ssl.SSLContext, *words: str) -> str:
    """The line about a target whose handshake fails."""
    with tcp_server() as (listener, target):
        relay = start("relay", *CA, *words, ANY, f"tls://{target}")
        with connect(relay.port()) as client:
            with accept(listener) as raw, contextlib.suppress(OSError):
                # In TLS 1.3 the server may see the end only after its handshake.
                with server.wrap_socket(raw, server_side=True) as peer:
                    peer.recv(1)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert relay.process.stderr is not None
        return relay.process.stderr.readline().decode()


def test_errors_of_a_target_name_its_options(start: Start) -> None:
    assert "has no certificate of --pin: " in the_error(start, serving(), "--pin", OTHER_PIN)
    assert "supports none of the protocols of --alpn" in the_error(start, serving(), "--alpn", "h2")


@needs_psk
def test_errors_of_clients_name_their_options(start: Start, tmp_path: Path) -> None:
    with tcp_server() as (_, target):
        relay = start("relay", "--listen-psk-file", psk_file(tmp_path, KEYS), "tls://127.0.0.1:0", target)
        context = SslContext(verify_mode=VerifyMode.NONE)
        context.client_get_psk = lambda hint: ("stranger", bytes(32))
        with pytest.raises(OSError):
            dial("127.0.0.1", relay.port(), tls=context, timeout=10)
        relay.send_signal(signal.SIGTERM)
        assert "of any identity in the file of --listen-psk-file\n" in relay.end().err


def test_show_code_has_the_settings_of_each_side(capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--listen-tls-max", "1.2", "--listen-alpn", "h2", "--key-password", "env:ONE")
    more = ("--pin", "00" * 32, "--alpn", "http/1.1", "--client-key-password", "prompt", "--keylog", "log")
    own = ("--cert", "a", "--key", "b", "--client-cert", "c", "--client-key", "d")
    assert main(["relay", "--show-code", *words, *more, *own, "tls://:0", "tls://h:1"]) == 0
    out = capfd.readouterr().out
    assert (
        'target_context = SslContext(cert_file="c", key_file="d", alpn=["http/1.1"], keylog_file="log", '
        f'pinned=["{"00" * 32}"], password=getpass.getpass)\n' in out
    )
    assert "target_context.require_alpn = True\n" in out
    assert (
        'listen_context = SslContext(verify_mode=VerifyMode.NONE, cert_file="a", key_file="b", alpn=["h2"], '
        'keylog_file="log", max_version=ssl.TLSVersion.TLSv1_2, password=os.environ["ONE"])\n' in out
    )
    compile(out, "program", "exec")
