"""The other side of a conversation, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from wireline import SocketTimeout
from wireline.cli._peer import StreamPeer
from wireline.net import Socket

SMALL_BUFFER = 4096


@pytest.fixture
def pair() -> Iterator[tuple[Socket, socket.socket]]:
    """A connection with small buffers, and its other end."""
    ours, other = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    with Socket.from_socket(ours) as sock, other:
        other.settimeout(10)
        yield sock, other


def test_a_slow_peer_is_within_the_limit_while_it_accepts_some_data(
    pair: tuple[Socket, socket.socket],
) -> None:
    sock, other = pair
    data = bytes(range(256)) * 200
    received = bytearray()

    def take_slowly() -> None:
        pause = threading.Event()
        while len(received) < len(data):
            received.extend(other.recv(SMALL_BUFFER))
            pause.wait(0.12)

    taker = threading.Thread(target=take_slowly)
    taker.start()
    StreamPeer(sock, "peer", timeout=1).send(data)
    taker.join()
    assert received == data


def test_a_peer_that_accepts_no_data_runs_into_the_limit(pair: tuple[Socket, socket.socket]) -> None:
    peer = StreamPeer(pair[0], "peer", timeout=0.05)
    with pytest.raises(SocketTimeout):
        peer.send(bytes(1_000_000))


def test_ending_the_input_after_the_peer_has_closed_is_not_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = Socket()
        sock.connect("127.0.0.1", server.getsockname()[1])
        other, _ = server.accept()
    with sock:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        with pytest.raises(ConnectionResetError):
            StreamPeer(sock, "peer", None).receive(None)
        StreamPeer(sock, "peer", None).end_input()
