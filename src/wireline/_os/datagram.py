"""One datagram: what a receive gives, and the one system call that gives it."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from wireline.address import Address, to_display_address
from wireline.errors import SockAddr
from wireline.options import DONT_WAIT, SocketFlag

__all__ = [
    "Datagram",
    "RawDatagram",
    "ReceivedInto",
    "make_datagram",
    "parse_raw",
    "receive",
    "receive_into",
    "receive_raw",
    "store_datagram",
    "truncate",
    "truncate_into",
]

# Bytes. The system's call takes its memory before it knows what comes. A UDP datagram has 64 KiB at most, one of a Unix
# socket as much as its send buffer holds. A guess: much more than the buffers that systems are set up with.
_MAX_DATAGRAM = 16 * 1024 * 1024


class _DatagramFields(NamedTuple):
    data: bytes
    address: Address


class Datagram(_DatagramFields):
    """One datagram: ``(data, address)``, and whether the operating system cut it.

    Attributes:
        data: what was received.
        address: who sent it.
        truncated: it was larger than the size that was asked for; the rest is gone.
    """

    truncated: bool = False


class _ReceivedIntoFields(NamedTuple):
    size: int
    address: Address


class ReceivedInto(_ReceivedIntoFields):
    """One datagram in the caller's buffer: ``(size, address)``, and whether the operating system cut it.

    Attributes:
        size: bytes that were received.
        address: who sent them.
        truncated: it was larger than the buffer; the rest is gone.
    """

    truncated: bool = False


RawDatagram = tuple[bytes, bool, SockAddr | None]
"""What was received, whether the operating system cut it, and its sender."""


def receive(sock: socket.socket, size: int, flags: SocketFlag) -> Datagram:
    """Receive one datagram of at most ``size`` bytes, without waiting."""
    arrived: list[tuple[Any, ...]] = []
    receive_raw(sock, size, flags.to_os_flags() | DONT_WAIT, arrived)
    return make_datagram(*parse_raw(arrived[0], size))


def receive_into(sock: socket.socket, target: memoryview, flags: SocketFlag) -> ReceivedInto:
    """The same into the caller's buffer."""
    arrived: list[tuple[Any, ...]] = []
    receive_raw(sock, len(target), flags.to_os_flags() | DONT_WAIT, arrived)
    return store_datagram(target, *parse_raw(arrived[0], len(target)))


def receive_raw(sock: socket.socket, size: int, os_flags: int, arrived: list[tuple[Any, ...]]) -> None:
    """Receive one datagram; it is in ``arrived`` before a signal handler can run, in the form of the system call."""
    size = min(size, _MAX_DATAGRAM)
    if hasattr(sock, "recvmsg"):
        arrived.extend(map(sock.recvmsg, (size,), (0,), (os_flags,)))
    else:
        # Windows has no recvmsg. One byte more than was asked for tells whether there was more.
        arrived.extend(map(sock.recvfrom, (size + 1,), (os_flags,)))


def parse_raw(arrived: tuple[Any, ...], size: int) -> RawDatagram:
    """What ``receive_raw`` has got, at most ``size`` bytes of it: it may have been received for another call."""
    data, *more = arrived
    truncated = len(data) > size or (len(more) == 3 and bool(more[1] & socket.MSG_TRUNC))
    return data[:size], truncated, more[-1]


def truncate(data: bytes, sender: SockAddr | None, size: int) -> Datagram:
    """Make of a whole datagram what ``receive`` would have given."""
    return make_datagram(data[:size], len(data) > size, sender)


def truncate_into(data: bytes, sender: SockAddr | None, target: memoryview) -> ReceivedInto:
    """Make of a whole datagram what ``receive_into`` would have given."""
    return store_datagram(target, data[: len(target)], len(data) > len(target), sender)


def make_datagram(data: bytes, truncated: bool, sender: SockAddr | None) -> Datagram:
    """What ``receive`` gives."""
    datagram = Datagram(data, to_display_address(sender))
    if truncated:
        datagram.truncated = True
    return datagram


def store_datagram(target: memoryview, data: bytes, truncated: bool, sender: SockAddr | None) -> ReceivedInto:
    """What ``receive_into`` gives."""
    target[: len(data)] = data
    received = ReceivedInto(len(data), to_display_address(sender))
    if truncated:
        received.truncated = True
    return received
