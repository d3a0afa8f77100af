"""TLS options that ``connect`` and ``listen`` share: pins, passwords of keys, versions, ciphers, the key log."""

from __future__ import annotations

import base64
import hashlib
import signal
import ssl
import stat
from pathlib import Path

import pytest

from tests.cli.checked import the_tls
from tests.cli.command import connect
from tests.cli.conftest import Start
from tests.cli.terminal import on_terminal
from tests.cli.test_check_tls import serving
from tests.cli.test_tls import KEYS, needs_psk, psk_file
from tests.tls import certificates
from tests.tls.certificates import PASSWORD
from tests.tls.test_pkcs12 import of as pkcs12_of
from wireline.cli import main
from wireline.tls import Certificate, _openssl

CLIENT = ("connect", "--at-eof", "half-close", "--ca-file", certificates.ca_file())
SERVER = (
    "listen",
    "--echo",
    "--keep",
    "--cert",
    certificates.server().cert,
    "--key",
    certificates.server().key,
)


def der(cert: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(
        Path(cert).read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    )


def key_pin(cert: str) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    key = x509.load_der_x509_certificate(der(cert)).public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256/" + base64.b64encode(hashlib.sha256(spki).digest()).decode()


def test_pins(start: Start) -> None:
    target = start(*SERVER, "tls://127.0.0.1:0").listening_on()
    cert = certificates.server().cert
    pins = (key_pin(cert), Certificate(der(cert)).fingerprint(), key_pin(certificates.ca_file()))
    for pin in pins:
        assert start(*CLIENT, "--pin", pin, target).finish(b"x") == (0, b"x", "")
    other = key_pin(certificates.other_ca_file())
    result = start(*CLIENT, "--pin", other, target).finish(b"x")
    assert (result.code, result.out) == (5, b"")
    assert (
        f"{target} has no certificate of --pin: the keys of its chain, the server's first, are {pins[0]}"
        in result.err
    )
    assert start(*CLIENT, "--pin", other, "--pin", pins[0], target).finish(b"x").code == 0


def test_a_server_pins_its_clients(start: Start) -> None:
    words = ("--client-ca", certificates.ca_file(), "--pin", key_pin(certificates.client().cert))
    target = start(*SERVER, *words, "tls://127.0.0.1:0").listening_on()
    mine, other = certificates.client(), certificates.server()
    assert start(*CLIENT, "--cert", mine.cert, "--key", mine.key, target).finish(b"x").out == b"x"
    assert start(*CLIENT, "--cert", other.cert, "--key", other.key, target).finish(b"x").code != 0


@pytest.mark.parametrize("kind", ["file", "fd", "env"])
def test_the_password_of_a_key(start: Start, kind: str, tmp_path: Path) -> None:
    locked = certificates.encrypted()
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    source = {"file": f"file:{password}", "fd": "fd:3", "env": "env:KEY_PASSWORD"}[kind]
    words = ("listen", "--echo", "--cert", locked.cert, "--key", locked.key, "--key-password", source)
    redirect = f"3<{password}" if kind == "fd" else ""
    server = start(*words, "tls://127.0.0.1:0", redirect=redirect, env={"KEY_PASSWORD": PASSWORD})
    assert start(*CLIENT, server.listening_on()).finish(b"x") == (0, b"x", "")
    assert server.end().code == 0


def test_the_password_of_a_key_is_asked_for() -> None:
    locked = certificates.encrypted()
    words = ("listen", "--cert", locked.cert, "--key", locked.key, "--key-password", "prompt")
    with on_terminal(*words, "tls://127.0.0.1:0") as command:
        command.see(f"password of the key {locked.key}: ")
        command.type(f"{PASSWORD}\n")
        command.see("listening on tls://127.0.0.1:")
        assert PASSWORD not in command.raw


NO_PASSWORD = {
    "file:{wrong}": "password",
    "file:{none}": "{none}: No such file or directory",
    "file:{open}": "other users can open {open} (mode 0644)",
    "env:NOT_SET": "there is no environment variable NOT_SET",
    "fd:77": "fd:77: Bad file descriptor",
    "prompt": "there is no terminal to ask for the password",
}


def test_a_password_that_is_not_there(start: Start, tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("wrong", "none", "open")}
    for name, mode in (("wrong", 0o600), ("open", 0o644)):
        Path(files[name]).write_text("5ecre7")
        Path(files[name]).chmod(mode)
    locked = certificates.encrypted()
    for source, complaint in NO_PASSWORD.items():
        words = ("--cert", locked.cert, "--key", locked.key, "--key-password", source.format(**files))
        result = start(*CLIENT, *words, "tls://127.0.0.1:1").finish(b"")
        assert result.code == 1
        assert result.err.startswith("wireline: cannot use TLS: ")
        assert complaint.format(**files) in result.err
        assert "5ecre7" not in result.err
        assert result.err.count("\n") == 1


def test_versions_and_ciphers(start: Start) -> None:
    target = start(
        *SERVER, "--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256", "tls://127.0.0.1:0"
    ).port()
    context = ssl.create_default_context(cafile=certificates.ca_file())
    with context.wrap_socket(connect(target), server_hostname="localhost") as peer:
        assert peer.cipher() == ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", 128)
    result = start(*CLIENT, "--tls-min", "1.3", f"tls://127.0.0.1:{target}").finish(b"x")
    assert result.code == 5
    result = start(*CLIENT, "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384", f"tls://127.0.0.1:{target}").finish(
        b"x"
    )
    assert result.code == 5
    assert "there is no common cipher" in result.err


def test_files_and_ciphers_that_do_not_exist(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = str(tmp_path / "none" / "log")
    for words, complaint in (
        (["--ciphers", "nope"], "OpenSSL has none of the ciphers that --ciphers names"),
        (["--ciphers", "TLS_NOPE"], "none of the suites of TLS 1.3 that --ciphers names")
        if _openssl.available()
        else (["--ciphers", "TLS_NOPE"], "ciphersuites cannot be set in this interpreter"),
        (
            ["--keylog", log],
            f"{log}: No such file or directory (it is the file of --keylog or SSLKEYLOGFILE)",
        ),
    ):
        assert main([*CLIENT, *words, "tls://127.0.0.1:1"]) == 1
        assert complaint in capfd.readouterr().err


@pytest.mark.parametrize("by_option", [True, False])
def test_the_key_log(start: Start, by_option: bool, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    words, env = (["--keylog", str(log)], {}) if by_option else ([], {"SSLKEYLOGFILE": str(log)})
    server = start(*SERVER, *words, "tls://127.0.0.1:0", env=env)
    target = server.listening_on()
    assert start(*CLIENT, target).finish(b"x").code == 0
    of_server = log.read_text()
    assert "CLIENT_TRAFFIC_SECRET_0 " in of_server
    assert start(*CLIENT, *words, target, env=env).finish(b"x").code == 0
    assert (
        log.read_text().count("CLIENT_TRAFFIC_SECRET_0 ") == of_server.count("CLIENT_TRAFFIC_SECRET_0 ") + 2
    )
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    server.send_signal(signal.SIGTERM)
    assert server.end().err == ""


@needs_psk
def test_keys_from_a_descriptor(start: Start, tmp_path: Path) -> None:
    target = start(
        "listen",
        "--echo",
        "--psk-file",
        "fd:3",
        "tls://127.0.0.1:0",
        redirect=f"3<{psk_file(tmp_path, KEYS)}",
    ).listening_on()
    mine = psk_file(tmp_path, "alice:" + "0b" * 32, "mine")
    words = ("connect", "--at-eof", "half-close", "--psk-file", "fd:4")
    assert start(*words, target, redirect=f"4<{mine}").finish(b"x") == (0, b"x", "")


needs_bridge = pytest.mark.skipif(not _openssl.available(), reason="PKCS#12 needs the bridge to OpenSSL")


def pkcs12_file(directory: Path, leaf: certificates.Leaf, name: str = "own.p12") -> str:
    """A PKCS#12 file with a certificate and its key."""
    file = directory / name
    file.write_bytes(pkcs12_of(leaf, PASSWORD))
    return str(file)


@needs_bridge
def test_pkcs12_of_server_and_client(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", PASSWORD)
    own = pkcs12_file(tmp_path, certificates.server())
    mine = pkcs12_file(tmp_path, certificates.client(), "mine.p12")
    words = ("--cert", own, "--key-password", "env:PW", "--client-ca", certificates.ca_file())
    target = start("listen", "--echo", "--keep", *words, "tls://127.0.0.1:0").listening_on()
    mine_words = ("--cert", mine, "--key-password", "env:PW")
    assert start(*CLIENT, *mine_words, target).finish(b"x") == (0, b"x", "")
    code, _, err = start(
        "check", "--first", "--ca-file", certificates.ca_file(), *mine_words, target
    ).finish()
    assert (code, err) == (0, "")
    both = (
        "--cert",
        own,
        "--key-password",
        "env:PW",
        "--client-cert",
        mine,
        "--client-key-password",
        "env:PW",
    )
    relay = start("relay", "--ca-file", certificates.ca_file(), *both, "tls://127.0.0.1:0", target)
    assert start(*CLIENT, relay.listening_on()).finish(b"x") == (0, b"x", "")


@needs_bridge
def test_pkcs12_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    own = pkcs12_file(tmp_path, certificates.server())
    monkeypatch.setenv("PW", "5ecre7")
    for words, complaint in (
        ([], f"the PKCS#12 file '{own}' is encrypted; give its password with --key-password\n"),
        (
            ["--key-password", "env:PW"],
            f"the password does not open the PKCS#12 file '{own}', or the file is dam",
        ),
        (["--key", "k"], "k: No such file or directory"),
    ):
        for command in ("connect", "listen"):
            assert main([command, "--cert", own, *words, "tls://127.0.0.1:1"]) == 1
            err = capfd.readouterr().err
            assert err.startswith("wireline: cannot use TLS: ")
            assert complaint in err
            assert "5ecre7" not in err
    for name, side in (("--client-cert", "--client-key-password"), ("--cert", "--key-password")):
        where = ["tls://127.0.0.1:0", "h:1"] if name == "--cert" else ["127.0.0.1:0", "tls://127.0.0.1:1"]
        assert main(["relay", name, own, *where]) == 1
        assert f"is encrypted; give its password with {side}\n" in capfd.readouterr().err


def test_check_with_pins(capfd: pytest.CaptureFixture[str]) -> None:
    good, other = key_pin(certificates.server().cert), key_pin(certificates.other_ca_file())
    with serving(certificates.server()) as target:
        words = ["check", "--first", "--json", "--ca-file", certificates.ca_file()]
        assert main([*words, "--pin", other, "--pin", good, target]) == 0
        capfd.readouterr()
        assert main([*words, "--pin", other, target]) == 5
        out, err = capfd.readouterr()
    assert (
        f"{target} has no certificate of --pin: the keys of its chain, the server's first, are {good}" in err
    )
    assert err.count("\n") == 1
    tls = the_tls(out)
    assert (tls["chain_trusted"], tls["name_matches"], len(tls["chain"])) == (True, True, 2)


def test_check_of_files_with_pins(capfd: pytest.CaptureFixture[str]) -> None:
    cert, key = certificates.server()
    words = ["check", "--ca-file", certificates.ca_file(), "--sni", "localhost", "--cert", cert, "--key", key]
    assert main([*words, "--pin", key_pin(cert)]) == 0
    capfd.readouterr()
    assert main([*words, "--pin", key_pin(certificates.other_ca_file())]) == 5
    assert "has no certificate of --pin" in capfd.readouterr().err


def test_check_with_versions_ciphers_and_a_key_log(start: Start, tmp_path: Path) -> None:
    target = start(*SERVER, "tls://127.0.0.1:0").listening_on()
    log = tmp_path / "log"
    words = ("check", "--first", "--json", "--ca-file", certificates.ca_file())
    for options, version in (
        (("--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"), "TLSv1.2"),
        (("--tls-min", "1.3", "--keylog", str(log)), "TLSv1.3"),
    ):
        code, out, err = start(*words, *options, target).finish()
        assert (code, err) == (0, "")
        assert the_tls(out)["version"] == version
    assert "CLIENT_TRAFFIC_SECRET_0 " in log.read_text()
    code, _, err = start(
        *words, "--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES256-GCM-SHA384", target
    ).finish()
    assert (code, "there is no common cipher" in err) == (5, True)


def test_check_reads_a_password_once_for_all_handshakes(start: Start, tmp_path: Path) -> None:
    """A descriptor gives the password once, and a check makes many handshakes with several targets."""
    first = start(*SERVER, "tls://127.0.0.1:0").listening_on()
    second = start(*SERVER, "tls://127.0.0.1:0").listening_on()
    locked, password = certificates.encrypted(), tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    words = ("--ca-file", certificates.other_ca_file(), "--cert", locked.cert, "--key", locked.key)
    command = start("check", *words, "--key-password", "fd:3", first, second, redirect=f"3<{password}")
    code, out, _ = command.finish()
    assert code == 5
    assert out.startswith(b"FAILED: 2 of 2 targets")


def test_check_asks_for_a_password_once() -> None:
    locked = certificates.encrypted()
    words = ("--ca-file", certificates.other_ca_file(), "--cert", locked.cert, "--key", locked.key)
    with (
        serving(certificates.server()) as target,
        on_terminal("check", "--first", *words, "--key-password", "prompt", target) as command,
    ):
        command.see(f"password of the key {locked.key}: ")
        command.type(f"{PASSWORD}\n")
        command.see("FAILED")
        assert command.raw.count("password of the key") == 1


def test_check_of_files_takes_no_options_of_connections(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--tls-min", "1.3"], ["--ciphers", "x"], ["--keylog", "x"]):
        assert main(["check", "--cert", "c", *words]) == 2
        assert f"{words[0]} needs a TARGET" in capsys.readouterr().err


def test_a_password_of_a_relay_needs_its_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    for words, needed in (
        (["--client-key-password", "prompt", ":1", "tls://h:1"], "--client-cert FILE"),
        (
            ["--psk-file", "x", "--self-signed", "--key-password", "prompt", "tls://:1", "tls://h:1"],
            "--cert FILE",
        ),
    ):
        assert main(["relay", *words]) == 2
        assert f"-key-password is for the key of a certificate: {needed}" in capsys.readouterr().err


WRONG_USAGE: list[tuple[list[str], str]] = [
    (["--pin", "none", "tls://h:1"], "--pin: 'none' is not sha256/ and 44 characters of base64"),
    (
        ["--key-password", "5ecre7", "tls://h:1"],
        "the source of a password is file:PATH, fd:N, env:NAME or prompt",
    ),
    (["--key-password", "prompt", "tls://h:1"], "--key-password is for the key of a certificate"),
    (["--tls-min", "1.3", "--tls-max", "1.2", "tls://h:1"], "leave no version"),
    (["--tls-min", "1.1", "tls://h:1"], "invalid choice"),
    (["--ciphers", "a b", "tls://h:1"], "is not a list of ciphers"),
    (["--keylog", "x", "h:1"], "--keylog is for TLS: write tls://h:1"),
    (["--pin", "00" * 32, "--psk-file", "x", "tls://h:1"], "with --psk-file there are none"),
]


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words, complaint in WRONG_USAGE:
        assert main(["connect", *words]) == 2
        err = capsys.readouterr().err
        assert complaint in err
        assert "5ecre7" not in err


def test_pins_of_clients_need_their_certificates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--self-signed", "--pin", "00" * 32, "tls://:1"]) == 2
    assert "which --client-ca FILE asks for" in capsys.readouterr().err


def test_show_code_has_the_settings_and_no_secret(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PW", "5ecre7")
    file = tmp_path / "password"
    file.write_text("5ecre7")
    for source, shown in (
        ("env:PW", 'password=os.environ["PW"]'),
        ("prompt", "password=getpass.getpass"),
        (f"file:{file}", f'password=open("{file}").read()'),
        ("fd:3", "password=open(3).read()"),
    ):
        words = ["--cert", "c", "--key-password", source, "--tls-min", "1.3", "--keylog", "log"]
        assert main(["connect", "--show-code", *words, "tls://h:1"]) == 0
        out, err = capfd.readouterr()
        assert shown in out
        assert 'keylog_file="log", min_version=ssl.TLSVersion.TLSv1_3' in out
        assert "5ecre7" not in out + err
        compile(out, "program", "exec")
