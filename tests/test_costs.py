"""The system calls of a call, and those that it must not make: the part of speed that is the same on every machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.syscalls import Syscalls
from tests.tls import certificates
from wireline import SocketTimeout
from wireline.net import Socket, _stream_io, dial, serve
from wireline.tls import SslContext


@pytest.fixture
def syscalls(monkeypatch: pytest.MonkeyPatch) -> Syscalls:
    return Syscalls(monkeypatch)


with_and_without_timeout = pytest.mark.parametrize("timeout", [None, 30])


@contextmanager
def connected(syscalls: Syscalls) -> Iterator[tuple[Socket, socket.socket]]:
    """A wireline socket whose calls are counted, and a peer whose calls are not."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Socket() as sock:
        sock.connect(*listener.getsockname())
        with listener.accept()[0] as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock, peer


@with_and_without_timeout
def test_a_read_of_waiting_bytes_is_one_recv(syscalls: Syscalls, timeout: float | None) -> None:
    with connected(syscalls) as (sock, peer):
        for read in (
            lambda: sock.recv_some(timeout=timeout),
            lambda: sock.recv(5, timeout),
            lambda: sock.recv_exactly(5, timeout),
            lambda: sock.recv_until(b"\n", timeout=timeout),
            lambda: sock.recv_line(timeout),
            lambda: sock.recv_until((b"\r\n", b"\n"), timeout=timeout),
            lambda: sock.recv_struct("!IB", timeout),
            lambda: sock.recv_frame("B", length_adjust=4 - ord("f"), timeout=timeout),
            lambda: sock.recv_some_into(bytearray(5), timeout),
            lambda: sock.consume(len(sock.fill(5, timeout))),
            lambda: sock.try_recv(),
        ):
            peer.sendall(b"four\n")
            assert sock._fd.sock.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) == b"four\n"
            with syscalls.recording() as calls:
                read()
            assert calls == ["recv"]


@with_and_without_timeout
def test_R16_a_thousand_lines_or_frames_in_one_segment_are_one_recv(
    syscalls: Syscalls, timeout: float | None
) -> None:
    with connected(syscalls) as (sock, peer):
        peer.sendall(b"a line of some sort\n" * 1000)
        assert sock._fd.sock.recv(20_000, socket.MSG_PEEK | socket.MSG_WAITALL)
        with syscalls.recording() as calls:
            for _ in range(1000):
                assert sock.recv_line(timeout) == b"a line of some sort"
        assert calls == ["recv"]
        peer.sendall(b"\0\0\0\5frame" * 1000)
        assert sock._fd.sock.recv(9_000, socket.MSG_PEEK | socket.MSG_WAITALL)
        frames = sock.frames("!I", timeout=timeout)
        with syscalls.recording() as calls:
            for _ in range(500):
                assert next(frames).payload == b"frame"
                assert sock.recv_frame("!I", timeout=timeout) == ((5,), b"frame")
        assert calls == ["recv"]


def test_buffered_bytes_cost_no_system_call_and_no_clock(
    syscalls: Syscalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_clock() -> float:
        raise AssertionError("looked at the clock")

    with connected(syscalls) as (sock, peer):
        peer.sendall(b"x" * 100 + b"\nline\n")
        assert sock.recv_exactly(1) == b"x"
        monkeypatch.setattr(_stream_io.time, "monotonic", no_clock)
        with syscalls.recording() as calls:
            assert sock.recv_some(9, timeout=30) == b"x" * 9
            assert sock.recv_exactly(90, timeout=30) == b"x" * 90
            assert sock.recv_line(timeout=30) == b"\r\n"
            assert sock.recv_line(timeout=30) == b"line"
            sock.unread(b"\1x\2yz")
            assert sock.recv_frame("B", timeout=30) == ((1,), b"x")
            assert sock.fill(2, timeout=30) == b"\2yz"
            sock.consume(1)
            assert sock.recv_struct("cc", timeout=30) == (b"y", b"z")
        assert calls == []
        monkeypatch.setattr(_stream_io.time, "monotonic", time.monotonic)


def test_a_timeout_costs_no_clock_where_something_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_clock() -> float:
        raise AssertionError("looked at the clock")

    ours, peer = socket.socketpair()
    with peer, Socket.from_socket(ours) as sock:
        with monkeypatch.context() as patch:
            patch.setattr(_stream_io.time, "monotonic", no_clock)
            for read in (
                lambda: sock.recv_some(timeout=30),
                lambda: sock.recv_exactly(5, timeout=30),
                lambda: sock.recv_line(timeout=30),
            ):
                peer.sendall(b"four\n")
                assert read()
            with pytest.raises(AssertionError, match="looked at the clock"):
                sock.recv_some(timeout=30)
        with pytest.raises(SocketTimeout):
            sock.recv_some(timeout=0.01)


@with_and_without_timeout
def test_a_send_that_fits_is_one_send(syscalls: Syscalls, timeout: float | None) -> None:
    with connected(syscalls) as (sock, _):
        for send in (
            lambda: sock.send(b"message", timeout=timeout),
            lambda: sock.send_some(b"message", timeout),
            lambda: sock.send_many([b"message"] * 100, timeout=timeout),
        ):
            with syscalls.recording() as calls:
                send()
            assert calls == ["send"]


def test_a_read_that_waits_without_a_timeout_waits_inside_recv(syscalls: Syscalls) -> None:
    with connected(syscalls) as (sock, peer):
        peer.sendall(b"soon")
        with syscalls.recording() as calls:
            assert sock.recv_exactly(4) == b"soon"
        assert "poll" not in calls


def test_TLS_a_message_is_one_record_one_send_and_one_recv(syscalls: Syscalls) -> None:
    leaf = certificates.server()
    server = SslContext(cert_file=leaf.cert, key_file=leaf.key)
    client = SslContext(ca_file=certificates.ca_file())

    def echo(sock: Socket, _: object) -> None:
        while data := sock.recv_some():
            sock.send(data)

    with serve(echo, 0, "127.0.0.1", tls=server) as running:
        with dial("localhost", running.local_addr.port, tls=client, timeout=5) as sock:
            sock.send(b"first")
            assert sock.recv_exactly(5) == b"first"  # and the tickets
            for size in (64, 16_384, 65_536):
                with syscalls.recording() as calls:
                    sock.send(bytes(size))
                assert calls == ["send"], size
                assert sock.recv_exactly(size) == bytes(size)
            with syscalls.recording() as calls:
                sock.send_many([b"x" * 64] * 100)
            assert calls == ["send"]
            assert sock.recv_exactly(6400) == b"x" * 6400
            sock.send(b"again")
            assert sock._fd.sock.recv(1, socket.MSG_PEEK)
            with syscalls.recording() as calls:
                assert sock.recv_exactly(5) == b"again"
            assert calls == ["recv"]
