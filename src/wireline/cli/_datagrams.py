"""Datagrams with the interface of a stream: ``udp://`` and ``unix-dgram:``.

A connected socket reports errors of the peer and drops the datagrams of others. It cannot be used with a broadcast
address or a multicast group: the replies have the addresses of the members. It cannot be used by a listener either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

from wireline import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_UDP,
    SOCK_DGRAM,
    Address,
    Deadline,
    DialError,
    SocketTimeout,
    SockOpt,
    Target,
)
from wireline.cli._datagram_targets import find_interface, group_of
from wireline.cli._outcome import Stage, during
from wireline.cli._peer import NO_FLAGS, Source, connection_report, dial_target
from wireline.cli._stderr import print_stderr
from wireline.net import Datagram, Socket

if TYPE_CHECKING:
    import argparse

MAX_PAYLOAD = 65507
"""Bytes of the largest UDP datagram: 65535 less the headers of IPv4 (20) and UDP (8)."""

REPLY_TIMEOUT = 1.0
"""Seconds without a datagram after which no more replies are expected. A guess: a round trip is shorter anywhere."""

SILENT_WAIT = 2.0
"""Seconds for a full queue before a line says so. A guess: a receiver that works makes room sooner."""

_MAX_UDP_DATAGRAM = 65535
_MAX_UNIX_DATAGRAM = 1024 * 1024
"""Bytes of a buffer. A guess: the send buffer limits a datagram, 208 KiB by default. A larger one is cut."""


def buffer_size(target: Target) -> int:
    """Bytes for a datagram of any size."""
    return _MAX_UNIX_DATAGRAM if target.path else _MAX_UDP_DATAGRAM


def reply_timeout(options: argparse.Namespace) -> float:
    """Seconds without a datagram after which ``connect`` ends."""
    return options.timeout or options.quit_after or REPLY_TIMEOUT


def open_peer(options: argparse.Namespace, source: Source) -> DatagramPeer:
    """The peer of ``connect``."""
    target: Target = options.target
    limit = reply_timeout(options)
    if target.path:
        return UnixPeer(target, source, limit, options.timeout)
    if group_of(target) is not None:
        return GroupPeer(target, source, limit, options.interface)
    try:
        sock = dial_target(target, options.timeout, source, IPPROTO_UDP)
    except DialError as error:
        # connect(2) to a broadcast address reports this while SO_BROADCAST is not set.
        if all(attempt.errno != errno.EACCES for _, attempt, _ in error.attempts):
            raise
        return GroupPeer(target, source, limit)
    return DatagramPeer(sock, target, str(target), limit)


class DatagramPeer:
    """The peer of a connected datagram socket."""

    chunk = MAX_PAYLOAD

    def __init__(
        self, sock: Socket, target: Target, name: str, reply_timeout: float, timeout: float | None = None
    ) -> None:
        """Send and receive by a socket.

        Args:
            sock: closed by ``close``.
            target: the socket's address, or that of the peer.
            name: of the peer, in messages.
            reply_timeout: as in ``Peer``.
            timeout: seconds for the peer to accept a datagram.
        """
        self.name = name
        self.reply_timeout: float | None = reply_timeout
        self._sock = sock
        self._size = buffer_size(target)
        self._timeout = timeout

    def receive(self, timeout: float | None) -> bytes | None:
        return self._sock.recv_from(self._size, NO_FLAGS, timeout).data

    def send(self, data: bytes) -> None:
        self._sock.send(data, NO_FLAGS, self._timeout)

    def end_input(self) -> None:
        """Do nothing: datagrams have no end."""

    def raise_reset(self) -> None:
        """Do nothing: datagrams have no reset."""

    def close(self, *, abort: bool = False) -> None:
        self._sock.close()


class GroupPeer(DatagramPeer):
    """A broadcast address or a multicast group. Any of its members may reply."""

    def __init__(
        self, target: Target, source: Source, reply_timeout: float, interface: str | int | None = None
    ) -> None:
        sock = Socket(AF_INET6 if ":" in target.host else AF_INET, SOCK_DGRAM)
        super().__init__(sock, target, str(target), reply_timeout)
        self._address = Address(target.host, target.port)
        self._verbose = source.verbose
        self._stage = Stage.CONNECT
        try:
            if group_of(target) is None:
                sock.set_sock_opt(SockOpt.BROADCAST, True)
            else:
                sock.multicast_interface = find_interface(interface)
            host, port = source.address or ("", 0)
            sock.bind_addr(port, host)
            if source.verbose:
                print_stderr(f"wireline: sending to {target}")
        except socket.gaierror as error:
            self.close()
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)) from error
        except BaseException:
            self.close()
            raise

    def receive(self, timeout: float | None) -> bytes | None:
        data, address = self._sock.recv_from(self._size, NO_FLAGS, timeout)
        if self._verbose:
            print_stderr(f"wireline: {len(data)} bytes from {Target('udp', *address)}")
        return data

    def send(self, data: bytes) -> None:
        # The first one looks for a route, as connect(2) does for other addresses.
        with during(self._stage, self.name):
            self._sock.send_to(*self._address, data, NO_FLAGS)
        self._stage = Stage.TALK


class UnixPeer(DatagramPeer):
    """A Unix datagram socket. The peer can only reply to a path: ours is in a directory that ``close`` removes."""

    def __init__(self, target: Target, source: Source, reply_timeout: float, timeout: float | None) -> None:
        sock = Socket(AF_UNIX, SOCK_DGRAM)
        super().__init__(sock, target, str(target), reply_timeout, timeout)
        self._says_that_it_waits = timeout is None
        self._directory = self._path = ""
        report = connection_report(target, timeout, source)
        try:
            self._bind()
            sock.connect_unix(target.path, timeout)
            # A server of another user needs these to reply. A connected socket receives from its peer only.
            os.chmod(self._path, 0o666)
            os.chmod(self._directory, 0o711)
        except BaseException:
            self.close()
            raise
        if report:
            report.connected(sock, "sending to")

    def _bind(self) -> None:
        import tempfile  # only this peer needs it

        try:
            self._directory = tempfile.mkdtemp(prefix="wireline-client-")
        except OSError as error:
            # Not as it is: "no such file" would be about the server.
            raise OSError(f"cannot make a temporary directory: {error.strerror or error}") from error
        self._path = os.path.join(self._directory, "client")
        try:
            self._sock.bind_unix(self._path)
        except ValueError as error:
            raise ValueError(f"{error}; set TMPDIR to a directory with a shorter path") from error

    def send(self, data: bytes) -> None:
        # Other datagrams never wait for their receiver: what it has no room for is dropped.
        if self._says_that_it_waits:
            try:
                self._sock.send(data, NO_FLAGS, SILENT_WAIT)
                return
            except SocketTimeout:
                self._says_that_it_waits = False
                print_stderr(
                    f"wireline: {self.name} accepts no data, its queue is full: waiting; --timeout sets a limit"
                )
        super().send(data)

    def close(self, *, abort: bool = False) -> None:
        # Also called by the thread that watches for signals. `Socket.close` may leave the file to a call that waits.
        for remove, path in ((os.unlink, self._path), (os.rmdir, self._directory)):
            with contextlib.suppress(FileNotFoundError):
                remove(path)
        super().close()


class FirstSender(DatagramPeer):
    """The first sender to a listening datagram socket. Datagrams of other senders are dropped."""

    def __init__(
        self, sock: Socket, target: Target, first: Datagram, timeout: float | None, reply_timeout: float
    ) -> None:
        """Begin with the first datagram, which ``sock`` has received."""
        super().__init__(sock, target, sender_name(target, first.address), reply_timeout, timeout)
        self._address: Address = first.address
        self._first: bytes | None = first.data

    def receive(self, timeout: float | None) -> bytes | None:
        if self._first is not None:
            data, self._first = self._first, None
            return data
        deadline = Deadline(timeout)
        while True:
            data, address = self._sock.recv_from(self._size, NO_FLAGS, deadline)
            if address == self._address:
                return data

    def send(self, data: bytes) -> None:
        reply(self._sock, self._address, data, self._timeout)


def sender_name(target: Target, address: Address) -> str:
    """The name of a sender in messages. The path of a Unix socket may be anything, or missing."""
    return f"a client of {target}" if target.path else str(Target("udp", *address))


def reply(sock: Socket, address: Address, data: bytes, timeout: float | None) -> None:
    """Send a datagram to the sender of another one.

    Raises:
        OSError: the system refuses it, or the sender is a Unix socket without an address.
    """
    if not address.host:
        raise OSError(errno.EDESTADDRREQ, "it has no address to reply to")
    sock.send_to(*address, data, NO_FLAGS, timeout)
