"""``wireline relay --fault`` as a process: each fault takes effect."""

from __future__ import annotations

import socket
import time

import pytest

from tests.cli.command import read_all
from tests.cli.conftest import Start
from tests.cli.test_relay import through


def test_chunk_and_order(start: Start) -> None:
    with through(start, "--fault", "chunk=3,jitter=2ms") as (_, client, peer):
        data = bytes(range(100))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert read_all(peer) == data


def test_delay_and_rate_take_their_time(start: Start) -> None:
    with through(start, "--fault", "delay=200ms,rate=10k") as (_, client, peer):
        began = time.monotonic()
        client.sendall(bytes(1024))
        client.shutdown(socket.SHUT_WR)
        assert len(read_all(peer)) == 1024
        assert time.monotonic() - began >= 0.3


def test_reset_after(start: Start) -> None:
    with through(start, "--fault", "reset-after=4k") as (_, client, peer):
        peer.sendall(bytes(5000))
        got = b""
        with pytest.raises(ConnectionResetError):
            while True:
                got += client.recv(1 << 16)
        assert len(got) == 4096
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_truncate_after(start: Start) -> None:
    with through(start, "--fault", "truncate-after=1k") as (_, client, peer):
        peer.sendall(bytes(5000))
        assert len(read_all(client)) == 1024
        client.sendall(b"x")
        assert peer.recv(1) == b"x"
