"""The other side of a conversation: a stream, or datagrams made to look like one."""

from __future__ import annotations

from time import monotonic
from typing import Protocol

from wireline import (
    BUFFER_SIZE,
    Address,
    SocketFlag,
    SocketTimeout,
    Target,
)
from wireline.net import Socket

LARGEST_PAYLOAD = 65507
"""Bytes of the largest UDP datagram: 65535 less the headers of IPv4 (20) and UDP (8)."""

DEFAULT_SILENCE = 1.0
"""Seconds without a datagram after which nothing more is expected. A guess: a slow answer crosses the world in less."""

ANY_DATAGRAM = 65535
"""Bytes that no datagram exceeds."""

NO_FLAGS = SocketFlag(0)
"""Without ``SAFE_DISCONN``: a reset is an error here, not an end, because it may have eaten data."""


class Peer(Protocol):
    """What a conversation needs of the other side.

    Attributes:
        name: as the user would write it.
        chunk: the most bytes that ``send`` takes at once.
        silence: seconds without a byte after which a peer without an end of stream counts as done; None if it has one.
    """

    name: str
    chunk: int
    silence: float | None

    def receive(self, timeout: float | None) -> bytes | None:
        """Wait for bytes; None is the end."""

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""

    def end_input(self) -> None:
        """Tell the peer that no more will be sent."""

    def close(self, *, abort: bool = False) -> None:
        """Hang up, also while another thread waits here; ``abort`` lets the peer know that something is missing."""


class StreamPeer:
    """The other end of a connected stream socket."""

    chunk = BUFFER_SIZE
    silence: float | None = None

    def __init__(self, sock: Socket, name: str, timeout: float | None) -> None:
        self.name = name
        self._sock = sock
        self._timeout = timeout

    def receive(self, timeout: float | None) -> bytes | None:
        return self._sock.recv_some(BUFFER_SIZE, timeout, NO_FLAGS) or None

    def send(self, data: bytes) -> None:
        left = memoryview(data)
        while True:
            try:
                self._sock.send(left, NO_FLAGS, self._timeout)
                return
            except SocketTimeout as error:
                # The time limit is for a peer that takes nothing, not for one that is slow.
                if not error.bytes_sent:
                    raise
                left = left[error.bytes_sent :]

    def end_input(self) -> None:
        self._sock.shutdown_write(self._timeout)

    def close(self, *, abort: bool = False) -> None:
        self._sock.close(linger=0 if abort else None)


class DatagramPeer:
    """Whoever a connected datagram socket is connected to."""

    chunk = LARGEST_PAYLOAD

    def __init__(self, sock: Socket, name: str, silence: float) -> None:
        self.name = name
        self.silence: float | None = silence
        self._sock = sock

    def receive(self, timeout: float | None) -> bytes | None:
        return self._sock.recv_from(ANY_DATAGRAM, NO_FLAGS, timeout).data

    def send(self, data: bytes) -> None:
        self._sock.send(data, NO_FLAGS)

    def end_input(self) -> None:
        """Datagrams have no end."""

    def close(self, *, abort: bool = False) -> None:
        self._sock.close()


class CallerPeer(DatagramPeer):
    """The first who sends to a datagram socket that listens. What anybody else sends is dropped."""

    def __init__(self, sock: Socket, timeout: float | None, silence: float) -> None:
        """Wait for the first datagram, at most ``timeout`` seconds."""
        first = sock.recv_from(ANY_DATAGRAM, NO_FLAGS, timeout)
        super().__init__(sock, str(Target("udp", *first.address)), silence)
        self._address: Address = first.address
        self._first: bytes | None = first.data

    def receive(self, timeout: float | None) -> bytes | None:
        if self._first is not None:
            data, self._first = self._first, None
            return data
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            data, address = self._sock.recv_from(ANY_DATAGRAM, NO_FLAGS, left)
            if address == self._address:
                return data

    def send(self, data: bytes) -> None:
        self._sock.send_to(*self._address, data, NO_FLAGS)
