"""ncat at the other end: TCP, UDP and Unix sockets, as the one that connects and as the one that listens.

A listening ncat drops what it has not sent yet when its peer half-closes (seen with 7.93 and any peer).
"""

from __future__ import annotations

import pathlib

import pytest

from tests.interop.conversations import exchange_connected_datagrams, exchange_datagrams, hold_a_conversation
from tests.interop.programs import PATIENCE, Program, on_a_free_port
from tests.tools import require_tool
from wireline import AF_INET, AF_INET6, AF_UNIX, IPPROTO_UDP, SOCK_DGRAM, Address
from wireline.net import Socket, dial

pytestmark = pytest.mark.interop

IP = [pytest.param("127.0.0.1", AF_INET, id="v4"), pytest.param("::1", AF_INET6, id="v6")]
LISTENS = rb"Listening on .*\n"


def ncat(*words: str) -> Program:
    return Program(require_tool("ncat", "ncat"), "-v", "-n", *words)


@pytest.mark.parametrize(("host", "family"), IP)
def test_ncat_connects(host: str, family: int) -> None:
    with Socket(family) as listener:
        listener.bind_addr(0, host)
        listener.listen()
        with ncat(host, str(listener.local_addr.port)) as program:
            client, address = listener.accept_addr(timeout=PATIENCE)
            with client:
                assert address.host == host
                hold_a_conversation(program, client)


@pytest.mark.parametrize(("host", "family"), IP)
def test_ncat_listens(host: str, family: int) -> None:
    with on_a_free_port(lambda port: ncat("-l", host, str(port)), LISTENS) as (program, port):
        with Socket(family) as sock:
            sock.connect(host, port, timeout=PATIENCE)
            hold_a_conversation(program, sock, may_half_close=False)


@pytest.mark.parametrize(("host", "family"), IP)
def test_ncat_sends_datagrams(host: str, family: int) -> None:
    with Socket(family, SOCK_DGRAM) as sock:
        sock.bind_addr(0, host)
        with ncat("-u", host, str(sock.local_addr.port)) as program:
            peer = exchange_datagrams(program, sock)
            assert peer.host == host


@pytest.mark.parametrize(("host", "family"), IP)
def test_ncat_answers_datagrams(host: str, family: int) -> None:
    with on_a_free_port(lambda port: ncat("-u", "-l", host, str(port)), LISTENS) as (program, port):
        with dial(host, port, IPPROTO_UDP, timeout=PATIENCE) as sock:
            exchange_connected_datagrams(program, sock)


@pytest.mark.parametrize(("host", "family"), IP)
def test_ncat_answers_datagrams_of_an_unconnected_socket(host: str, family: int) -> None:
    with on_a_free_port(lambda port: ncat("-u", "-l", host, str(port)), LISTENS) as (program, port):
        with Socket(family, SOCK_DGRAM) as sock:
            exchange_datagrams(program, sock, Address(host, port))


def test_ncat_connects_to_a_unix_socket(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "socket"
    with Socket(AF_UNIX) as listener:
        listener.bind_unix(path)
        listener.listen()
        with ncat("-U", str(path)) as program, listener.accept(timeout=PATIENCE) as client:
            hold_a_conversation(program, client)


def test_ncat_listens_on_a_unix_socket(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "socket"
    with ncat("-l", "-U", str(path)) as program, Socket(AF_UNIX) as sock:
        program.says(LISTENS)
        sock.connect_unix(path, timeout=PATIENCE)
        hold_a_conversation(program, sock, may_half_close=False)
