"""``wireline connect -v``: the lines on standard error, and that standard output stays as it is."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import pytest

from tests.cli.command import accept, tcp_server, udp_socket
from tests.cli.conftest import Start
from tests.tls import certificates
from wireline import Target
from wireline.cli._verbose import ConnectionReport

TIME = r"\d+ ms after the start"


def test_an_address(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "-v", target)
        with accept(server) as peer:
            local = "{}:{}".format(*peer.getpeername())
            peer.sendall(b"hello")
        result = command.finish(b"")
    assert result[:2] == (0, b"hello")
    assert re.fullmatch(f"wireline: connected to {target} from {local}, {TIME}\n", result.err)


def test_a_name(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "-v", "-4", "localhost", target.rpartition(":")[2])
        with accept(server) as peer:
            peer.sendall(b"hello")
        first, second = command.finish(b"").err.splitlines()
    assert first == "wireline: localhost has the addresses 127.0.0.1"
    assert second.startswith(f"wireline: connected to {target} from 127.0.0.1:")


def test_tls_is_one_line(start: Start) -> None:
    words = ("--echo", "--cert", certificates.server().cert, "--key", certificates.server().key)
    target = start("listen", *words, "tls://127.0.0.1:0").listening_on()
    ca = ("--ca-file", certificates.ca_file())
    result = start("connect", "-v", "--at-eof", "half-close", *ca, target).finish(b"x")
    assert result[:2] == (0, b"x")
    connected, tls = result.err.splitlines()
    assert connected.startswith("wireline: connected to 127.0.0.1:")
    assert re.fullmatch(
        r"wireline: TLSv1\.3, TLS_\w+(, key exchange \S+)?, certificate .*, valid until \d{4}-\d\d-\d\d", tls
    )


def test_a_silent_tls_server_is_connected_to(start: Start) -> None:
    with tcp_server() as (_, target):
        result = start("connect", "-v", "--no-verify", "--timeout", "0.5", f"tls://{target}").finish(b"")
    assert result.code == 4
    assert f"wireline: connected to {target} from " in result.err


def test_unix_sockets_and_datagrams(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        command = start("connect", "-v", f"unix:{path}")
        server.settimeout(20)
        server.accept()[0].close()
        assert command.finish(b"").err == f"wireline: connected to unix:{path}\n"
    with udp_socket() as (_, target):
        result = start("connect", "--verbose", "--timeout", "0.1", target).finish(b"x")
        assert result.err.startswith(f"wireline: sending to {target.removeprefix('udp://')} from 127.0.0.1:")


def test_a_name_that_does_not_resolve(start: Start) -> None:
    result = start("connect", "-v", "no..such.invalid:80").finish(b"")
    assert result.code == 3
    assert result.err.endswith("; check the name\n")


def test_the_time_limit_ends_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: over.wait(20))
    with pytest.raises(TimeoutError, match=r"its name was not resolved within 0\.1 s"):
        ConnectionReport(Target("tcp", "h", 1), 0.1).resolve("h", 1, 0, 0)
    over.set()
