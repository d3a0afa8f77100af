"""``wireline check`` shows the OCSP response that ``openssl s_server`` staples."""

from __future__ import annotations

import pathlib

import pytest

from tests.cli.checked import the_report, the_tls
from tests.interop.programs import Program
from tests.interop.test_tls_s_server import ocsp_response
from tests.tls import both, certificates
from tests.tools import require_tool
from wireline.cli import main
from wireline.cli.check._ocsp import read_staple

pytestmark = pytest.mark.interop

CHECK = ["check", "--json", "--first", "--ca-file", certificates.ca_file()]


def checked(capfd: pytest.CaptureFixture[str], response: pathlib.Path | None) -> str:
    leaf = certificates.server()
    words = ["-accept", "127.0.0.1:0", "-cert", leaf.cert, "-key", leaf.key]
    words += ["-status_file", str(response)] if response else []
    with Program(require_tool("openssl", "openssl"), "s_server", *words) as program:
        port = program.says(rb"ACCEPT 127\.0\.0\.1:(\d+)\n", on_stdout=True)[1].decode()
        assert main([*CHECK, "--sni", "localhost", f"tls://127.0.0.1:{port}"]) == 0
    return capfd.readouterr().out


def test_the_staple_is_shown(capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    both.needs_the_bridge()
    ocsp_response(certificates.server(), tmp_path / "good")
    staple = the_tls(checked(capfd, tmp_path / "good"))["ocsp"]
    assert (staple["status"], staple["next_update"] > staple["this_update"]) == ("good", True)
    assert the_tls(checked(capfd, None))["ocsp"] is None


def test_a_staple_that_says_revoked_is_a_warning(
    capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    both.needs_the_bridge()
    ocsp_response(certificates.server(), tmp_path / "revoked", revoked=True)
    report = the_report(checked(capfd, tmp_path / "revoked"))
    assert report["addresses"][0]["tls"]["ocsp"]["status"] == "revoked"
    assert report["verdict"].startswith("WARNING: the OCSP staple of tls://127.0.0.1:")


def test_a_staple_that_cannot_be_read_says_so() -> None:
    assert read_staple(b"").status == read_staple(b"\x30\x03\x0a\x01\x06").status == "unreadable"
