"""Sentences that no peer of the other tests provokes: each row of each table, and wrong usage of each kind."""

from __future__ import annotations

import errno
import os
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.test_tls import psk_file
from tests.tls import certificates
from wireline.cli import _tls_failures, main
from wireline.cli._outcome import (
    ExitCode,
    Failure,
    HandshakeFailure,
    Outcome,
    ReportedFailure,
    Stage,
    classify,
    report,
)
from wireline.cli.check import _chain_faults
from wireline.cli.check._certificate_info import CertificateInfo

_WORDS = "unknown reason"
"""The text of an error of OpenSSL."""

_LEFT_OVER = re.compile(r"[{}]|\(\)|: ;|; ;|  ")
"""What a table that was filled in wrongly leaves behind."""


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] {_WORDS} (_ssl.c:1000)")
    error.reason = reason
    return error


def sentence_of(error: ssl.SSLError, *, server: bool = False, psk: bool = False) -> str:
    failure = HandshakeFailure(error, server=server, psk=psk, name="server.test")
    failure.at_fault = 0
    code, sentence = classify(Failure(Stage.CONNECT, failure, "tls://server.test:443"))
    assert code is ExitCode.HANDSHAKE
    assert not _LEFT_OVER.search(sentence), sentence
    return sentence


@pytest.mark.parametrize("server", [False, True])
def test_each_reason_of_openssl_has_a_sentence(server: bool) -> None:
    table = _tls_failures._SERVER_REASONS if server else _tls_failures._CLIENT_REASONS
    for reason in table:
        sentence = sentence_of(tls_error(reason), server=server)
        assert _WORDS not in sentence
    unknown = sentence_of(tls_error("SOMETHING_NEW"), server=server)
    assert "breaks the rules of TLS, or was changed on the way (OpenSSL: unknown reason)" in unknown


def test_each_alert_has_a_sentence() -> None:
    for alert in _tls_failures._ALERTS:
        for reason in (f"TLSV1_ALERT_{alert}", f"TLSV13_ALERT_{alert}", f"SSLV3_ALERT_{alert}"):
            sentence = sentence_of(tls_error(reason))
            assert sentence.startswith("tls://server.test:443 refused the handshake: ")
            assert _WORDS not in sentence
    assert "(an alert of TLS)" in sentence_of(tls_error("TLSV1_ALERT_SOMETHING_NEW"))
    assert "another identity or another key" in sentence_of(tls_error("TLSV1_ALERT_DECRYPT_ERROR"), psk=True)


@pytest.mark.parametrize("server", [False, True])
def test_each_fault_of_a_certificate_has_a_sentence(server: bool) -> None:
    for code in (*_tls_failures._RULES, 999):
        error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] no (_ssl.c:1)")
        error.verify_code, error.verify_message = code, _WORDS
        error.reason = "CERTIFICATE_VERIFY_FAILED"
        sentence = sentence_of(error, server=server)
        assert sentence.startswith("the certificate of tls://server.test:443 ")
        # Alone it would not say what it means: "is refused", or "is not safe".
        assert _WORDS not in sentence or re.search(rf"\(OpenSSL: {_WORDS}|is not safe: {_WORDS}", sentence)


def test_data_that_cannot_be_decrypted_is_exit_code_6() -> None:
    code, sentence = classify(Failure(Stage.TALK, tls_error("DECRYPTION_FAILED"), "tls://server.test:443"))
    assert code is ExitCode.TRUNCATED
    assert "it sent what cannot be decrypted (OpenSSL: unknown reason)" in sentence


def info(subject: str, **more: object) -> CertificateInfo:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    values = {
        "subject": subject,
        "issuer": "CN=issuer",
        "names": ("server.test",),
        "key": "",
        "signature": "",
        "not_before": now,
        "not_after": now,
        "sha256": "00",
        "sent": True,
        "self_signed": False,
    }
    return CertificateInfo(**{**values, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("of_files", [False, True])
def test_each_fault_in_a_chain_has_a_sentence(of_files: bool, capfd: pytest.CaptureFixture[str]) -> None:
    chain = [info("CN=leaf"), info("CN=intermediate"), info("CN=root", self_signed=True, sent=False)]
    rules = {**_chain_faults._RULES, **(_chain_faults._RULES_OF_FILES if of_files else {})}
    for code in (*rules, 999):
        for index in (0, 1, 2, None):
            text = _chain_faults.sentence(code, _WORDS, index, chain, "server.test:443", of_files=of_files)
            assert not _LEFT_OVER.search(text), text
            assert _WORDS not in text or f"(OpenSSL: {_WORDS})" in text
            assert "server.test:443" in text
            report(ReportedFailure(Outcome(ExitCode.HANDSHAKE, text)))
            assert capfd.readouterr().err.count("\n") == 1


USAGE = {
    "check --show-code a:1 b:1": "--show-code shows the program for one target",
    "listen --show-code --fd systemd": "--show-code shows --fd systemd only for any number of connections",
    "connect [127.0.0.1]:1": "brackets are for IPv6 addresses only",
    "connect :80": "the host is missing, write host:80",
    f"connect {'x' * 400}:1": "a target has at most 300 characters, got 402",
    "connect h:1 --timeout": "--timeout: expected one argument",
    "connect --crlf=1 h:1": "--crlf: ignored explicit argument '1'",
    "relay --fault rate=x :0 h:1": "rate is a number of bytes, such as 512, 4k or 1M, not 'x'",
    "relay --fault rate=0 :0 h:1": "rate is at least 1 and at most 1 PiB, not 0",
    "relay --fault seed=x :0 h:1": "seed is a number, not 'x'",
    "relay --fault delay=soon :0 h:1": "delay is a time, such as 200ms or 1.5s, not 'soon'",
    "relay --fault delay=1s,delay=2s :0 h:1": "delay is given twice",
}


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for line, complaint in USAGE.items():
        assert main(line.split()) == 2
        err = capsys.readouterr().err
        assert complaint in err
        assert err.count("\n") == 1


def test_the_key_log_is_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, link = tmp_path / "log", tmp_path / "link"
    log.touch(0o644)
    log.chmod(0o644)
    link.symlink_to(log)
    for path, complaint in (
        (log, "other users can open it (mode 0644): chmod 600 it"),
        (Path("/dev/null"), "it is not a regular file"),
        (link, "Too many levels of symbolic links"),
    ):
        assert main(["connect", "--keylog", str(path), "--no-verify", "tls://127.0.0.1:1"]) == 1
        err = capsys.readouterr().err.splitlines()[-1]
        assert f"{path}: " in err
        assert complaint in err


def test_a_key_log_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: log.stat().st_uid + 1)
    assert main(["connect", "--keylog", str(log), "--no-verify", "tls://127.0.0.1:1"]) == 1
    assert (
        f"{log}: session keys are not written to this file: it belongs to another user"
        in capsys.readouterr().err
    )


def test_places_on_the_file_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for words, code, complaint in (
        (["listen", f"unix:{file}"], 1, "choose another path if the file is no socket"),
        (["listen", f"unix:{file}/below"], 1, "a part of the path is a file"),
        (["connect", f"unix:{file}/below"], 3, "a part of the path is a file"),
    ):
        assert main(words) == code
        assert complaint in capsys.readouterr().err
    assert file.read_text() == "precious"


def test_a_socket_of_another_user_and_a_source_in_use() -> None:
    for stage, number, subject, complaint in (
        (
            Stage.CONNECT,
            errno.EACCES,
            "unix:/run/x",
            "this user may not use the file, or a directory above it",
        ),
        (Stage.CONNECT, errno.EADDRINUSE, "server:1", "another connection uses the port of --source"),
        (Stage.CONNECT, errno.EINVAL, "[fe80::1]:1", "needs its interface, as in [fe80::1%eth0]:80"),
        (Stage.CONNECT, errno.ENODEV, "udp://[ff02::1]:1", "name the interface of the multicast group with"),
        (Stage.LISTEN, errno.EINVAL, "[fe80::1]:1", "needs its interface, as in [fe80::1%eth0]:80"),
    ):
        failure = Failure(stage, OSError(number, os.strerror(number)), subject)
        assert complaint in classify(failure).sentence


def test_a_bug_is_called_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from wireline.cli import _connect

    def fail(*_: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(_connect, "_connect", fail)
    assert main(["connect", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == (
        "wireline: this is a bug in wireline: ZeroDivisionError: no; --debug shows where\n"
    )


def test_a_key_in_place_of_a_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "--psk-file", f"me:{'5e' * 16}", "tls://127.0.0.1:1"]) == 1
    assert "a key in an argument can be seen by all users" in capsys.readouterr().err
    # A path may look like one.
    path = Path(psk_file(tmp_path, "me:00ff", "me:5e5e5e5e5e"))
    assert main(["connect", "--psk-file", str(path), "tls://127.0.0.1:1"]) == 3
    assert "refused the connection" in capsys.readouterr().err


def test_a_public_key_of_pgp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key.asc"
    path.write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n")
    assert (
        main(["listen", "--cert", certificates.server().cert, "--key", str(path), "tls://127.0.0.1:0"]) == 1
    )
    assert "it has a public key of PGP, which TLS does not use" in capsys.readouterr().err
