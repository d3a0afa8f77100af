"""The other side of a conversation: a stream. Datagrams have the same interface in `_datagrams`."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wireline import (
    IPPROTO_TCP,
    Address,
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
    return dial_target(target, timeout, source, IPPROTO_TCP, reused)


def dial_target(
    target: Target,
    timeout: float | None,
    source: Source,
    protocol: int,
    options: Sequence[tuple[int, int, int]] = (),
) -> Socket:
    """Connect to a target, and say so if the user wants to see it."""
    address, port = dial_address(target)
    report = connection_report(target, timeout, source)
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


def connection_report(target: Target, timeout: float | None, source: Source) -> ConnectionReport | None:
    """What prints the lines of ``--verbose``; None without it."""
    if not source.verbose:
        return None
    from wireline.cli._verbose import ConnectionReport  # only --verbose needs it

    return ConnectionReport(target, timeout)


def dial_address(target: Target) -> tuple[str, int | None]:
    """The address and port of a target, as ``dial`` takes them."""
    return (str(target), None) if target.path else (target.host, target.port)


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
