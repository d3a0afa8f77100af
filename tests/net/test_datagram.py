"""W8: receiving a datagram where the platform cannot say that it was cut."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from wireline import SAFE_DISCONN, SocketFlag
from wireline._os.datagram import receive, receive_into


class WithoutRecvmsg:
    """A datagram socket as Windows has it."""

    def __init__(self, sock: socket.socket) -> None:
        self.recvfrom = sock.recvfrom


Pair = tuple[socket.socket, WithoutRecvmsg]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.socket(type=socket.SOCK_DGRAM) as here, socket.socket(type=socket.SOCK_DGRAM) as there:
        for sock in (here, there):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(5)
        here.connect(there.getsockname())
        yield here, WithoutRecvmsg(there)


@pytest.mark.parametrize(
    ("size", "data", "truncated"), [(3, b"abc", True), (4, b"abcd", False), (9, b"abcd", False)]
)
def test_W8_one_byte_more_shows_whether_there_was_more(
    pair: Pair, size: int, data: bytes, truncated: bool
) -> None:
    here, there = pair
    for _ in range(2):
        here.send(b"abcd")
    datagram = receive(there, size, SAFE_DISCONN)  # type: ignore[arg-type]
    assert datagram == (data, here.getsockname())
    assert datagram.truncated is truncated
    buffer = bytearray(b"........")
    received = receive_into(there, memoryview(buffer)[:size], SAFE_DISCONN)  # type: ignore[arg-type]
    assert received == (len(data), here.getsockname())
    assert received.truncated is truncated
    assert buffer == data.ljust(8, b".")


def test_W8_peek_there(pair: Pair) -> None:
    here, there = pair
    here.send(b"abcd")
    for flags in (SocketFlag.PEEK, SAFE_DISCONN):
        assert receive(there, 4, flags).data == b"abcd"  # type: ignore[arg-type]
