"""``wireline connect``: ``HOST PORT`` as two words, ``-4`` and ``-6``, ``--source``, broadcast addresses."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import accept, read_all, tcp_server, udp_socket
from tests.cli.conftest import Start
from tests.tls import certificates
from wireline import parse_target
from wireline.cli import main
from wireline.cli.parser._parser import parse


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_host_and_port_as_two_words(start: Start, host: str) -> None:
    with tcp_server(host) as (server, target):
        command = start("connect", host, target.rpartition(":")[2])
        with accept(server) as peer:
            peer.sendall(b"hello")
        assert command.finish(b"") == (0, b"hello", "")


TWO_WORDS = [
    (["h", "80"], "h:80"),
    (["::1", "80"], "[::1]:80"),
    (["[::1]", "80"], "[::1]:80"),
    (["tls://h", "443"], "tls://h:443"),
    (["--tls", "h", "443"], "tls://h:443"),
    (["udp://h", "53"], "udp://h:53"),
]


def test_the_target_of_two_words() -> None:
    for words, target in TWO_WORDS:
        assert parse(["connect", *words]).target == parse_target(target)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def test_source_twice_in_a_row(start: Start) -> None:
    """The port is in TIME_WAIT after the first connection."""
    with tcp_server() as (server, target):
        port = free_port()
        for source in (f"127.0.0.2:{port}", f"127.0.0.2:{port}"):
            command = start("connect", "--at-eof", "close", "--source", source, target)
            with accept(server) as peer:
                assert peer.getpeername() == ("127.0.0.2", port)
                command.finish(b"")
                read_all(peer)


def test_source_with_tls_and_with_datagrams(start: Start) -> None:
    with udp_socket() as (peer, target):
        start("connect", "--quit-after", "0.1", "--source", "127.0.0.3", target).finish(b"x")
        assert peer.recvfrom(10)[1][0] == "127.0.0.3"
    with tcp_server() as (server, target):
        words = ["--ca-file", certificates.ca_file(), "--source", "127.0.0.3"]
        start("connect", *words, f"tls://{target}", stdin=subprocess.DEVNULL)
        with accept(server) as peer:
            assert peer.getpeername()[0] == "127.0.0.3"


def test_one_family(start: Start) -> None:
    with tcp_server("::1") as (server, target):
        port = target.rpartition(":")[2]
        command = start("connect", "-6", "--at-eof", "half-close", "::1", port)
        with accept(server) as peer:
            peer.sendall(b"6")
        assert command.finish(b"") == (0, b"6", "")


def test_a_broadcast_address(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.255.255.255", 0))
        peer.settimeout(10)
        target = f"udp://127.255.255.255:{peer.getsockname()[1]}"
        result = start("connect", "--timeout", "0.1", target).finish(b"to all")
        assert result == (0, b"", "")
        assert peer.recv(10) == b"to all"


def test_a_source_that_is_not_here(start: Start) -> None:
    with tcp_server() as (_, target):
        result = start("connect", "--source", "192.0.2.1", target).finish(b"")
    assert result.code == 3
    assert "--source needs an address of this machine" in result.err
    result = start("connect", "--source", "::1", target).finish(b"")
    assert result.code == 3
    assert "--source is an address of another kind (IPv4, IPv6) than the target's" in result.err


WRONG_USAGE: list[tuple[list[str], str]] = [
    (["h", "none"], "TARGET: 'h:none' is not a target: this system knows no service 'none' for TCP"),
    (["h:80", "90"], "is not a target"),
    (["h"], "TARGET: 'h' is not a target: the port is missing, write h:port"),
    (["--source", "tls://h:1", "h:1"], "is not HOST:PORT, HOST or :PORT"),
    (["--source", "h:x", "h:1"], "'h:x' is not an address to connect from: the port must be a number"),
    (["-4", "::1", "1"], "::1 is an address of the other kind"),
    (["-6", "127.0.0.1:1"], "127.0.0.1 is an address of the other kind"),
    (["-4", "-6", "h:1"], "not allowed with"),
    (["-4", "unix:/x"], "a Unix socket has none"),
    (["--source", ":1", "unix:/x"], "a Unix socket has none"),
]


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words, complaint in WRONG_USAGE:
        assert main(["connect", *words]) == 2
        assert complaint in capsys.readouterr().err


def test_show_code(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["connect", "--show-code", "-4", "--source", "127.0.0.2:0", "h", "80"]) == 0
    assert 'dial("h", 80, family=AF_INET, local_addr=("127.0.0.2", 0))' in capfd.readouterr().out
    with udp_socket() as (peer, target):
        assert main(["connect", "--show-code", "--source", "127.0.0.2", "--timeout", "0.1", target]) == 0
        program = tmp_path / "program.py"
        program.write_text(capfd.readouterr().out)
        subprocess.run([sys.executable, program], input=b"x", check=True, timeout=20)
        assert peer.recvfrom(10)[1][0] == "127.0.0.2"
