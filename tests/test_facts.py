"""TCP_INFO, the credentials of a Unix peer, and the options of keepalive."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from tests.cases import in_turn
from wireline._os.facts import PeerCredentials, TcpInfo, parse_tcp_info, peer_credentials, tcp_info
from wireline._os.keep_alive import KeepAlive, keep_alive_options

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO and SO_PEERCRED are those of Linux")


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            with server:
                yield client, server


@ON_LINUX
def test_the_state_of_a_connection_follows_it() -> None:
    with connected() as (client, server):
        server.sendall(bytes(100_000))
        received = 0
        while received < 100_000:
            received += len(client.recv(65536))
        info = tcp_info(server)
        assert info.state == "ESTABLISHED"
        assert 0 < (info.rtt or 0) < 10
        assert 0 <= (info.rtt_var or 0) < 10
        assert (info.congestion_window or 0) > 1000
        assert (info.retransmits, info.unacked) >= (0, 0)  # type: ignore[operator] # not None
        assert info.delivery_rate is None or info.delivery_rate >= 0
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        assert tcp_info(server).state == "CLOSE_WAIT"
        assert tcp_info(client).state in ("FIN_WAIT1", "FIN_WAIT2")


@ON_LINUX
@in_turn("family, kind", [(socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)])
def test_only_tcp_has_tcp_info(family: int, kind: int) -> None:
    with socket.socket(family, kind) as sock, pytest.raises(OSError, match="no TCP socket"):
        tcp_info(sock)


def test_an_older_kernel_says_less() -> None:
    numbers = list(range(100, 124))
    base = bytes([8, 0, 0, 0, 0, 0, 0, 0]) + struct.pack("=24I", *numbers)
    info = parse_tcp_info(base)
    assert info == TcpInfo(
        state="CLOSE_WAIT",
        rtt=115e-6,
        rtt_var=116e-6,
        retransmits=123,
        congestion_window=118 * 102,
        unacked=104 * 102,
    )
    assert parse_tcp_info(base + bytes(56) + struct.pack("=Q", 12345)).delivery_rate == 12345
    assert parse_tcp_info(b"\x01") == TcpInfo(state="ESTABLISHED")
    assert parse_tcp_info(b"\xc8") == TcpInfo(state="STATE_200")
    assert parse_tcp_info(b"").state == "UNKNOWN"


@ON_LINUX
def test_the_credentials_are_those_of_the_process_at_the_other_end() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert peer_credentials(here) == PeerCredentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())


@ON_LINUX
def test_credentials_need_a_unix_socket_with_a_peer() -> None:
    with socket.socket(socket.AF_UNIX) as alone, pytest.raises(OSError, match="no peer"):
        peer_credentials(alone)
    with socket.socket() as tcp, pytest.raises(OSError, match="no Unix socket"):
        peer_credentials(tcp)


@in_turn("question", [tcp_info, peer_credentials])
def test_a_platform_without_the_fact_says_so(question: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    with socket.socket() as sock, pytest.raises(NotImplementedError, match="plan9"):
        question(sock)  # type: ignore[operator]


def test_keepalive_has_the_numbers_of_go() -> None:
    assert KeepAlive() == (15, 15, 9)


def test_keepalive_refuses_what_the_system_would() -> None:
    for name in ("idle", "interval", "count"):
        for value in (0, -1, 32_768):
            with pytest.raises(ValueError, match=name):
                KeepAlive(**{name: value})
        for wrong in (1.5, "1", True):
            with pytest.raises(TypeError, match=name):
                KeepAlive(**{name: wrong})  # type: ignore[arg-type]


def test_the_options_of_keepalive_are_those_that_the_system_has() -> None:
    with socket.socket() as sock:
        for level, option, value in keep_alive_options(KeepAlive(20, 5, 3)):
            sock.setsockopt(level, option, value)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if sys.platform == "linux":
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [sock.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [20, 5, 3]
        for level, option, value in keep_alive_options(None):
            sock.setsockopt(level, option, value)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    with pytest.raises(TypeError, match="KeepAlive or None"):
        next(keep_alive_options(True))  # type: ignore[arg-type]
