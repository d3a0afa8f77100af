"""The command against ``openssl s_server`` and ``openssl s_client``."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE
from tests.cli.conftest import Start
from tests.cli.test_tls import client_words, needs_psk, psk_file, server_words
from tests.tls import certificates
from tests.tools import require_tool

pytestmark = pytest.mark.interop

KEY = "0123456789abcdef" * 2


@contextlib.contextmanager
def s_server(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that sends back each line reversed; yields the process and its address as a target."""
    openssl = require_tool("openssl", "openssl")
    process = subprocess.Popen(
        [openssl, "s_server", "-accept", "127.0.0.1:0", "-rev", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    with process:
        try:
            for line in process.stdout:
                if line.startswith(b"ACCEPT 127.0.0.1:"):
                    yield process, f"tls://localhost:{int(line.rpartition(b':')[2])}"
                    return
            raise AssertionError("openssl s_server did not start")
        finally:
            process.kill()


def s_client(port: int, *words: str, typed: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a client to its end."""
    openssl = require_tool("openssl", "openssl")
    return subprocess.run(
        [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", "-no_ign_eof", *words],
        input=typed,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_connect_to_s_server(start: Start, version: str) -> None:
    cert, key = certificates.chained()
    with s_server("-cert", cert, "-cert_chain", cert, "-key", key, version) as (_, target):
        command = start(*client_words(), target)
        command.type(b"hello\n")
        assert command.read(6) == b"olleh\n"
        assert command.finish(b"").code == 0


@needs_psk
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_connect_to_s_server_with_a_pre_shared_key(start: Start, version: str, tmp_path: Path) -> None:
    mine = psk_file(tmp_path, f"me:{KEY}")
    with s_server("-nocert", "-psk", KEY, "-psk_identity", "me", version) as (_, target):
        command = start("connect", "--at-eof", "half-close", "--psk-file", mine, target)
        command.type(b"hello\n")
        assert command.read(6) == b"olleh\n"
        assert command.finish(b"").code == 0


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_to_listen(start: Start, version: str) -> None:
    command = start(*server_words(), "--client-ca", certificates.ca_file(), "tls://127.0.0.1:0")
    leaf = certificates.client()
    words = ["-CAfile", certificates.ca_file(), "-verify_return_error", "-cert", leaf.cert, "-key", leaf.key]
    port = command.port()
    result = s_client(port, *words, version, typed=b"hello\n")
    assert result.returncode == 0, result.stderr
    assert command.finish(b"") == (0, b"hello\n", "")


@needs_psk
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_to_listen_with_a_pre_shared_key(start: Start, version: str, tmp_path: Path) -> None:
    command = start("listen", "--psk-file", psk_file(tmp_path, f"me:{KEY}"), "tls://127.0.0.1:0")
    port = command.port()
    result = s_client(port, "-psk", KEY, "-psk_identity", "me", version, typed=b"hello\n")
    assert result.returncode == 0, result.stderr
    assert command.finish(b"") == (0, b"hello\n", "")
