"""The other side of a conversation: a stream, or datagrams with the interface of a stream."""

from __future__ import annotations

import argparse
import os
import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wireline import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Address,
    Deadline,
    SocketFlag,
    SocketTimeout,
    Target,
)
from wireline.net import Socket, dial

if TYPE_CHECKING:
    from wireline.cli._verbose import ConnectionReport

_CHUNK = 256 * 1024
"""The most bytes of one read, of standard input or of a stream. Measured: at 64 KiB a large file takes a tenth more CPU
time."""

MAX_UDP_PAYLOAD = 65507
"""Bytes of the largest UDP datagram: 65535 less the headers of IPv4 (20) and UDP (8)."""

REPLY_TIMEOUT = 1.0
"""Seconds without a datagram after which no more replies are expected. A guess: a round trip is shorter anywhere."""

ANY_DATAGRAM = 65535
"""A buffer size in bytes that no datagram exceeds."""

NO_FLAGS = SocketFlag(0)
"""Without ``SAFE_DISCONN``: a reset is an error here, not an end, because it may have discarded data."""


class Source(NamedTuple):
    """The end of a connection on this machine.

    Attributes:
        family: of both ends; ``AF_UNSPEC`` means any.
        address: host and port to connect from; None leaves both to the system.
        verbose: whether lines on standard error say how the connection was made.
    """

    family: int = socket.AF_UNSPEC
    address: Address | None = None
    verbose: bool = False


ANY_SOURCE = Source()


def dial_stream(target: Target, timeout: float | None, source: Source = ANY_SOURCE) -> Socket:
    """Connect to a TCP or Unix socket address."""
    # The port may be in TIME_WAIT after an earlier connection.
    reused = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)] if source.address and source.address.port else []
    return _dial(target, timeout, source, IPPROTO_TCP, reused)


def dial_datagrams(target: Target, timeout: float | None, source: Source = ANY_SOURCE) -> Socket:
    """Connect a datagram socket, also to a broadcast address."""
    return _dial(target, timeout, source, IPPROTO_UDP, [(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)])


def _dial(
    target: Target, timeout: float | None, source: Source, protocol: int, options: list[tuple[int, int, int]]
) -> Socket:
    address, port = dial_address(target)
    report = _report(target, timeout) if source.verbose else None
    sock = dial(
        address,
        port,
        protocol,
        timeout=timeout,
        local_addr=source.address,
        family=source.family,
        options=options,
        resolver=report.resolve if report and not target.path else None,
    )
    if report:
        report.connected(sock, "connected to" if protocol == IPPROTO_TCP else "sending to")
    return sock


def _report(target: Target, timeout: float | None) -> ConnectionReport:
    from wireline.cli._verbose import ConnectionReport  # only --verbose needs it

    return ConnectionReport(target, timeout)


def dial_address(target: Target) -> tuple[str, int | None]:
    """The address and port of a target, as ``dial`` takes them."""
    return (str(target), None) if target.path else (target.host, target.port)


def reply_timeout(options: argparse.Namespace) -> float:
    """Seconds without a datagram after which ``connect`` ends."""
    return options.timeout or options.quit_after or REPLY_TIMEOUT


class Peer(Protocol):
    """The operations that a conversation needs.

    Attributes:
        name: as the user would write it.
        chunk: the most bytes that ``send`` takes at once.
        reply_timeout: seconds without data after which a peer without an end of stream is done; None if it has one.
    """

    name: str
    chunk: int
    reply_timeout: float | None

    def receive(self, timeout: float | None) -> bytes | None:
        """Wait for bytes; None is the end."""

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""

    def end_input(self) -> None:
        """Announce the end of the data that is sent."""

    def raise_reset(self) -> None:
        """Raise the error of a reset that arrived after the peer's end: no read and no end of input reports it."""

    def close(self, *, abort: bool = False) -> None:
        """Close the connection, even while another thread waits in it; ``abort`` resets it."""


class StreamPeer:
    """The other end of a connected stream socket."""

    chunk = _CHUNK
    reply_timeout: float | None = None

    def __init__(self, sock: Socket, name: str, timeout: float | None) -> None:
        self.name = name
        self._sock = sock
        self._timeout = timeout

    def receive(self, timeout: float | None) -> bytes | None:
        return self._sock.recv_some(_CHUNK, timeout, NO_FLAGS) or None

    def send(self, data: bytes) -> None:
        left = memoryview(data)
        while True:
            try:
                self._sock.send(left, NO_FLAGS, self._timeout)
                return
            except SocketTimeout as error:
                # The time limit is for a peer that accepts nothing; a slow one gets more time.
                if not error.bytes_sent:
                    raise
                left = left[error.bytes_sent :]

    def end_input(self) -> None:
        self._sock.shutdown_write(self._timeout)

    def raise_reset(self) -> None:
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if isinstance(error, int) and error:
            raise OSError(error, os.strerror(error))

    def close(self, *, abort: bool = False) -> None:
        self._sock.close(linger=0 if abort else None)


class DatagramPeer:
    """The peer of a connected datagram socket."""

    chunk = MAX_UDP_PAYLOAD

    def __init__(self, sock: Socket, name: str, reply_timeout: float) -> None:
        self.name = name
        self.reply_timeout: float | None = reply_timeout
        self._sock = sock

    def receive(self, timeout: float | None) -> bytes | None:
        return self._sock.recv_from(ANY_DATAGRAM, NO_FLAGS, timeout).data

    def send(self, data: bytes) -> None:
        self._sock.send(data, NO_FLAGS)

    def end_input(self) -> None:
        """Do nothing: datagrams have no end."""

    def raise_reset(self) -> None:
        """Do nothing: datagrams have no reset."""

    def close(self, *, abort: bool = False) -> None:
        self._sock.close()


class FirstSender(DatagramPeer):
    """The first sender to a listening datagram socket. Datagrams of other senders are dropped."""

    def __init__(self, sock: Socket, timeout: float | None, reply_timeout: float) -> None:
        """Wait for the first datagram, at most ``timeout`` seconds."""
        first = sock.recv_from(ANY_DATAGRAM, NO_FLAGS, timeout)
        super().__init__(sock, str(Target("udp", *first.address)), reply_timeout)
        self._address: Address = first.address
        self._first: bytes | None = first.data

    def receive(self, timeout: float | None) -> bytes | None:
        if self._first is not None:
            data, self._first = self._first, None
            return data
        deadline = Deadline(timeout)
        while True:
            data, address = self._sock.recv_from(ANY_DATAGRAM, NO_FLAGS, deadline)
            if address == self._address:
                return data

    def send(self, data: bytes) -> None:
        self._sock.send_to(*self._address, data, NO_FLAGS)
