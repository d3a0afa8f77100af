"""socat at the other end: TCP, UDP, Unix and abstract sockets, as the one that connects and as the one that listens."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

from tests.interop.conversations import exchange_connected_datagrams, exchange_datagrams, hold_a_conversation
from tests.interop.programs import PATIENCE, Program
from tests.tools import require_tool
from wireline import AF_INET, AF_INET6, AF_UNIX, IPPROTO_UDP, SOCK_DGRAM
from wireline.net import Socket, dial

pytestmark = pytest.mark.interop

TCP = [pytest.param("127.0.0.1", AF_INET, "4", id="tcp4"), pytest.param("::1", AF_INET6, "6", id="tcp6")]
UDP = [pytest.param("127.0.0.1", AF_INET, "4", id="udp4"), pytest.param("::1", AF_INET6, "6", id="udp6")]
UNIX = [
    "unix",
    pytest.param(
        "abstract",
        marks=pytest.mark.skipif(sys.platform != "linux", reason="abstract names exist on Linux only"),
    ),
]


def socat(address: str) -> Program:
    # `-d -d` makes it say where it listens; `-t` is how long it lets one direction go on after the other has ended.
    return Program(require_tool("socat", "socat"), "-d", "-d", "-t", str(PATIENCE), "-", address)


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def said_port(program: Program) -> int:
    return int(program.says(rb"listening on .*:(\d+)\n")[1])


@pytest.fixture
def names(tmp_path: pathlib.Path) -> dict[str, tuple[str, str, str]]:
    """For each kind of Unix socket: how socat calls it, socat's name for it, and our path."""
    path = str(tmp_path / "socket")
    name = f"wireline-{os.getpid()}-{tmp_path.name}"
    return {"unix": ("UNIX", path, path), "abstract": ("ABSTRACT", name, "\0" + name)}


@pytest.mark.parametrize(("host", "family", "version"), TCP)
def test_socat_connects(host: str, family: int, version: str) -> None:
    with Socket(family) as listener:
        listener.bind_addr(0, host)
        listener.listen()
        with socat(f"TCP{version}:{bracketed(host)}:{listener.local_addr.port}") as program:
            client, address = listener.accept_addr(timeout=PATIENCE)
            with client:
                assert address.host == host
                assert client.peer_addr == address
                hold_a_conversation(program, client)


@pytest.mark.parametrize(("host", "family", "version"), TCP)
def test_socat_listens(host: str, family: int, version: str) -> None:
    with socat(f"TCP{version}-LISTEN:0,bind={bracketed(host)}") as program:
        port = said_port(program)
        with dial(host, port, timeout=PATIENCE) as sock:
            assert sock.peer_addr == (host, port)
            hold_a_conversation(program, sock)


@pytest.mark.parametrize("kind", UNIX)
def test_socat_connects_to_a_unix_socket(kind: str, names: dict[str, tuple[str, str, str]]) -> None:
    verb, theirs, ours = names[kind]
    with Socket(AF_UNIX) as listener:
        listener.bind_unix(ours)
        listener.listen()
        with socat(f"{verb}-CONNECT:{theirs}") as program, listener.accept(timeout=PATIENCE) as client:
            hold_a_conversation(program, client)


@pytest.mark.parametrize("kind", UNIX)
def test_socat_listens_on_a_unix_socket(kind: str, names: dict[str, tuple[str, str, str]]) -> None:
    verb, theirs, ours = names[kind]
    with socat(f"{verb}-LISTEN:{theirs}") as program, Socket(AF_UNIX) as sock:
        program.says(rb"listening on AF=1")
        sock.connect_unix(ours, timeout=PATIENCE)
        assert sock.peer_addr == (ours, 0)
        hold_a_conversation(program, sock)


@pytest.mark.parametrize(("host", "family", "version"), UDP)
def test_socat_sends_datagrams(host: str, family: int, version: str) -> None:
    with Socket(family, SOCK_DGRAM) as sock:
        sock.bind_addr(0, host)
        with socat(f"UDP{version}:{bracketed(host)}:{sock.local_addr.port}") as program:
            peer = exchange_datagrams(program, sock)
            assert peer.host == host


@pytest.mark.parametrize(("host", "family", "version"), UDP)
def test_socat_answers_datagrams(host: str, family: int, version: str) -> None:
    with socat(f"UDP{version}-LISTEN:0,bind={bracketed(host)}") as program:
        port = said_port(program)
        with dial(host, port, IPPROTO_UDP, timeout=PATIENCE) as sock:
            exchange_connected_datagrams(program, sock)


@pytest.mark.parametrize("kind", UNIX)
def test_socat_exchanges_unix_datagrams(kind: str, names: dict[str, tuple[str, str, str]]) -> None:
    verb, theirs, ours = names[kind]
    with Socket(AF_UNIX, SOCK_DGRAM) as sock:
        sock.bind_unix(ours)
        with socat(f"{verb}-SENDTO:{theirs},bind={theirs}.socat") as program:
            peer = exchange_datagrams(program, sock)
            assert peer == (ours + ".socat", 0)
