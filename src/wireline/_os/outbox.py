"""Where datagrams go: addresses that were checked before, and batches of datagrams."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TypeAlias

from wireline._os.datagram import Datagram
from wireline._os.resolver import getaddrinfo_now
from wireline._validation import Buffer, as_bytes_like, check_peer_arguments
from wireline.address import IpAddress, is_ip_address, unix_path
from wireline.errors import SockAddr
from wireline.options import AF_UNIX, DONT_WAIT, NO_SIGNAL

__all__ = ["Batch", "Outgoing", "Targets", "check_outgoing", "is_refusal"]

Outgoing: TypeAlias = Datagram | tuple[Buffer, str | IpAddress, int]
"""A datagram to send: one that was received, or ``(data, address, port)``."""

_NOW = DONT_WAIT | NO_SIGNAL

# A guess: more peers than most programs have, and at most 100 kB.
_MAX_KNOWN = 256

# Datagrams that are sent without a look at signals, the deadline and `close`: about 0.2 ms.
_CHUNK = 64


class Targets:
    """The addresses that one socket has sent to, as the system takes them.

    Only literal addresses are kept: the addresses of a name change.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], SockAddr] = {}

    def find(self, sock: socket.socket, address: str | IpAddress, port: int) -> SockAddr | None:
        """Return the address to send to; None for a name, which is to be resolved.

        Raises:
            TypeError, ValueError: the address or the port is wrong.
        """
        target = self.known(address, port)
        if target is not None:
            return target
        host, number = check_destination(sock, address, port)
        if sock.family == AF_UNIX:
            target = host
        elif isinstance(host, str) and is_ip_address(host):
            numeric = socket.AI_NUMERICHOST
            target = getaddrinfo_now(host, number, sock.family, sock.type, sock.proto, numeric)[0][4]
        else:
            return None
        if type(address) is str and type(port) is int:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[address, port] = target
        return target

    def known(self, address: object, port: object) -> SockAddr | None:
        """Return an address that was found before, for a ``str`` and an ``int``; else None."""
        # Exact types: a port of 80.0 equals one of 80, and is a mistake.
        if type(address) is str and type(port) is int:
            return self._known.get((address, port))
        return None


class Batch:
    """Datagrams that are sent one after the other.

    Attributes:
        sent: the size of each that was sent. The system call and the entry here are one step, which neither a signal
            handler nor a cancellation can divide.
    """

    __slots__ = ("_payloads", "_sock", "_targets", "sent")

    def __init__(
        self, sock: socket.socket, payloads: Sequence[bytes | memoryview], targets: Sequence[SockAddr]
    ) -> None:
        self._sock = sock
        self._payloads = payloads
        self._targets = targets
        self.sent: list[int] = []

    @property
    def next(self) -> tuple[bytes | memoryview, SockAddr] | None:
        """The first one that was not sent; None if all were."""
        number = len(self.sent)
        return None if number == len(self._payloads) else (self._payloads[number], self._targets[number])

    def send_chunk(self) -> None:
        """Send some of the rest without waiting.

        Raises:
            BlockingIOError: none could be sent.
            OSError: the next one was refused.
        """
        number = len(self.sent)
        payloads = self._payloads[number : number + _CHUNK]
        try:
            self.sent.extend(map(self._sock.sendto, payloads, repeat(_NOW), self._targets[number:]))
        except BlockingIOError:
            if len(self.sent) == number:
                raise


def check_destination(sock: socket.socket, address: str | IpAddress, port: int) -> tuple[str | bytes, int]:
    """Check an address and a port, or the path of a Unix socket, without a system call.

    Raises:
        TypeError, ValueError: the address or the port is wrong.
    """
    if sock.family == AF_UNIX:
        return unix_path(str(address) if isinstance(address, IpAddress) else address), 0
    return check_peer_arguments(address, port)


def check_outgoing(
    sock: socket.socket, targets: Targets, datagrams: Iterable[Outgoing]
) -> list[tuple[bytes | memoryview, str | IpAddress, int]]:
    """Return the datagrams of a ``send_many_to`` as ``(data, address, port)``, checked without a system call.

    Raises:
        TypeError, ValueError: one of them is no datagram, its data is no buffer, or its address or port is wrong.
    """
    if isinstance(datagrams, Datagram | str | bytes | bytearray | memoryview):
        raise TypeError(
            f"send_many_to takes an iterable of datagrams, not one {type(datagrams).__name__}: see send_to"
        )
    try:
        items: list[object] = list(datagrams)
    except TypeError:
        raise TypeError(
            f"send_many_to takes an iterable of datagrams, not {type(datagrams).__name__}"
        ) from None
    checked: list[tuple[bytes | memoryview, str | IpAddress, int]] = []
    for item in items:
        if isinstance(item, Datagram):
            data, (address, port) = item
        elif isinstance(item, tuple) and len(item) == 3:
            data, address, port = item
        else:
            raise TypeError(
                f"send_many_to takes Datagrams and (data, address, port), not {type(item).__name__}"
            )
        if targets.known(address, port) is None:
            check_destination(sock, address, port)
        checked.append((as_bytes_like(data), address, port))
    return checked


def is_refusal(error: OSError, sock: socket.socket) -> bool:
    """Whether an error of a send is about an earlier datagram: a message (ICMP) that its port is closed.

    The system reports it once, and another attempt would not find it again. For a Unix socket the error is about this
    datagram.
    """
    return error.errno == errno.ECONNREFUSED and sock.family != AF_UNIX
