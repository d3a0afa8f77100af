"""``wireline check --cert FILE --key FILE``: a certificate before it is deployed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.cli.checked import the_report, the_tls
from tests.cli.test_check_json import SCHEMA, faults
from tests.tls import certificates
from wireline.cli import main

TRUSTING = ["check", "--ca-file", certificates.ca_file()]


def of(leaf: certificates.Leaf) -> list[str]:
    return [*TRUSTING, "--cert", leaf.cert, "--key", leaf.key]


def test_good_files(capfd: pytest.CaptureFixture[str]) -> None:
    leaf = certificates.chained()
    assert main([*of(leaf), "--sni", "localhost"]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith(
        f"OK: {leaf.cert}: certificate and key belong together, certificates valid for "
    )
    assert lines[1:5] == [
        "for clients",
        "  name          matches: localhost",
        "  chain         trusted",
        "certificates",
    ]
    assert "[not in the file, trusted here]" in out
    assert err == ""


def test_without_a_name_none_is_checked(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(of(certificates.elsewhere())) == 0
    assert "  name          not checked (--sni)\n" in capfd.readouterr().out
    assert main([*of(certificates.elsewhere()), "--sni", "localhost"]) == 5
    assert "is not for 'localhost': it is for elsewhere.test" in capfd.readouterr().err


def test_the_json_matches_the_schema(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*of(certificates.expired()), "--json"]) == 5
    out = capfd.readouterr().out
    assert faults(json.loads(out), SCHEMA) == []
    assert (the_report(out)["target"], the_tls(out)["at_fault"]) == (certificates.expired().cert, 0)


def test_what_is_wrong_with_trust_says_what_to_do_with_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    old, ca_file = certificates.below(intermediate=(-9, -2))
    for leaf, words in (
        (certificates.incomplete(), "which is neither in the file nor trusted here; append the intermediate"),
        (certificates.expired(), "; it must be renewed in the file"),
        (certificates.self_signed(), "is self-signed and not trusted here; clients must trust it"),
        (certificates.stranger(), "O=another CA"),
    ):
        assert main(of(leaf)) == 5
        err = capfd.readouterr().err
        assert err.startswith(f"wireline: the certificate of {leaf.cert} ")
        assert (words in err, err.count("\n")) == (True, 1), err
    assert main(["check", "--ca-file", ca_file, "--cert", old.cert, "--key", old.key]) == 5
    assert "the intermediate certificate CN=the intermediate (2 of 3 in the chain)" in capfd.readouterr().err


def test_files_that_cannot_be_deployed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good, other = certificates.server(), certificates.client()
    empty = tmp_path / "empty.pem"
    empty.touch()
    for cert, key, code, words in (
        (
            good.cert,
            other.key,
            5,
            f"the certificate in '{good.cert}' does not belong to the key in '{other.key}'",
        ),
        (str(empty), good.key, 5, f"there is no certificate in '{empty}': it is empty"),
        (good.cert, str(tmp_path / "none"), 1, f"{tmp_path}/none: No such file or directory"),
        (
            good.cert,
            certificates.encrypted().key,
            5,
            "is encrypted; give its password with --key-password, or decrypt it first",
        ),
    ):
        assert main([*TRUSTING, "--cert", cert, "--key", key]) == code
        out, err = capfd.readouterr()
        assert (words in err, out) == (True, f"FAILED: {err.removeprefix('wireline: ')}"), err


def test_a_certificate_that_expires_soon(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*of(certificates.ending()), "--days", "21", "--nagios"]) == 1
    assert "4 days are fewer than the 21 of --days" in capfd.readouterr().out


def test_without_a_thread_nothing_is_checked_and_nothing_leaks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "wireline-check":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert main([*of(certificates.server()), "--nagios"]) == 3
    assert "can't start new thread" in capfd.readouterr().out


def test_options_of_connections_need_a_target(capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["--first"], ["--starttls", "smtp"], ["--show-code"]):
        assert main([*of(certificates.server()), *words]) == 2
        assert f"{words[0]} needs a TARGET" in capfd.readouterr().err
