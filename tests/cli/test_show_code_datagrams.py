"""``--show-code`` with groups, broadcast addresses and Unix datagrams: the program does the same as the command."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.command import PATIENCE
from tests.cli.test_groups import BROADCAST, GROUP, member
from tests.cli.test_show_code import Run, finish, port_of, run
from tests.cli.test_unix_datagrams import place, server
from wireline.cli import main

__all__ = ["place", "run", "server"]  # fixtures


def test_connect_to_a_unix_socket(
    run: Run, place: Path, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(place / "tmp"))
    process = run("connect", "--timeout", "0.2", f"unix-dgram:{place}/server")
    assert process.stdin is not None
    process.stdin.write(b"ping")
    data, path = server.recvfrom(100)
    server.sendto(b"pong", path)
    assert (data, finish(process)) == (b"ping", b"pong")
    assert os.listdir(place / "tmp") == []


def test_listen_on_a_unix_socket(run: Run, place: Path, server: socket.socket) -> None:
    process = run("listen", "--timeout", "0.5", f"unix-dgram:{place}/listener")
    _wait(process, f"unix-dgram:{place}/listener")
    server.sendto(b"question", str(place / "listener"))
    assert process.stdin is not None
    process.stdin.write(b"answer")
    assert server.recv(100) == b"answer"
    assert finish(process) == b"question"


def test_echo_on_a_unix_socket(run: Run, place: Path, server: socket.socket) -> None:
    process = run("listen", "--echo", f"unix-dgram:{place}/listener")
    _wait(process, f"unix-dgram:{place}/listener")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
        nameless.sendto(b"x", str(place / "listener"))
    server.sendto(b"hello", str(place / "listener"))
    assert server.recv(100) == b"hello"


def test_connect_to_a_group(run: Run) -> None:
    with member() as (sock, port), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        process = run("connect", "--timeout", "0.2", "--interface", "lo", f"udp://{GROUP}:{port}")
        assert process.stdin is not None
        process.stdin.write(b"ping")
        data, sender = sock.recvfrom(100)
        other.sendto(b"pong", sender)
        assert (data, finish(process)) == (b"ping", b"pong")


def test_connect_to_a_broadcast_address(run: Run) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(("", 0))
        target = f"udp://{BROADCAST}:{sock.getsockname()[1]}"
        process = run("connect", "--timeout", "0.2", "--source", "127.0.0.1", target)
        assert process.stdin is not None
        process.stdin.write(b"ping")
        data, sender = sock.recvfrom(100)
        assert sender[0] == "127.0.0.1"
        sock.sendto(b"pong", sender)
        assert (data, finish(process)) == (b"ping", b"pong")


def test_listen_to_a_group(run: Run) -> None:
    process = run("listen", "--keep", "--interface", "lo", f"udp://{GROUP}:0")
    port = port_of(process)
    assert process.stdout is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sock.sendto(b"hello", (GROUP, port))
        assert os.read(process.stdout.fileno(), 100) == b"hello"


@in_turn("command", ["connect", "listen"])
@in_turn(
    "target, group, interface",
    [
        ("udp://[ff02::1%7]:9", "ff02::1%7", 7),
        ("udp://[ff15::1%eth0]:9", "ff15::1", "eth0"),
    ],
)
def test_the_interface_of_an_ipv6_group(
    command: str, target: str, group: str, interface: object, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--show-code", target]) == 0
    program, _ = capfd.readouterr()
    values = [node.value for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Constant)]
    assert group in values
    assert interface in values


def _wait(process: subprocess.Popen[bytes], target: str) -> None:
    assert process.stderr is not None
    assert re.fullmatch(rf"listening on {re.escape(target)}\n", process.stderr.readline().decode())
