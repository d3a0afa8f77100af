"""Receiving one datagram with one system call, and the public tuples that hold it."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from wireline._os.passed_fds import CLOSE_ON_EXEC, CONTROL_SIZE
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

# Bytes. Python allocates the whole size before recvmsg(2). A UDP datagram has at most 64 KiB, a Unix datagram at most
# the size of its sender's send buffer. A guess: far above the send buffers that systems are configured with.
_MAX_DATAGRAM = 16 * 1024 * 1024


class _DatagramFields(NamedTuple):
    data: bytes
    address: Address


class Datagram(_DatagramFields):
    """One datagram: ``(data, address)``, and whether the operating system truncated it.

    Attributes:
        data: the bytes received.
        address: the sender.
        truncated: the datagram was larger than the requested size; the rest is lost.
    """

    truncated: bool = False


class _ReceivedIntoFields(NamedTuple):
    size: int
    address: Address


class ReceivedInto(_ReceivedIntoFields):
    """One datagram in the caller's buffer: ``(size, address)``, and whether the operating system truncated it.

    Attributes:
        size: the number of bytes received.
        address: the sender.
        truncated: the datagram was larger than the buffer; the rest is lost.
    """

    truncated: bool = False


RawDatagram = tuple[bytes, bool, SockAddr | None]
"""The bytes, whether the operating system truncated them, and the sender."""


def receive(sock: socket.socket, size: int, flags: SocketFlag) -> Datagram:
    """Receive at most ``size`` bytes of one datagram, without waiting."""
    arrived: list[tuple[Any, ...]] = []
    receive_raw(sock, size, flags.to_os_flags() | DONT_WAIT, arrived)
    return make_datagram(*parse_raw(arrived[0], size))


def receive_into(sock: socket.socket, target: memoryview, flags: SocketFlag) -> ReceivedInto:
    """Receive one datagram into ``target``, without waiting."""
    arrived: list[tuple[Any, ...]] = []
    receive_raw(sock, len(target), flags.to_os_flags() | DONT_WAIT, arrived)
    return store_datagram(target, *parse_raw(arrived[0], len(target)))


def receive_raw(
    sock: socket.socket, size: int, os_flags: int, arrived: list[tuple[Any, ...]], *, with_fds: bool = False
) -> None:
    """Receive one datagram into ``arrived``, as ``recvmsg`` returns it. A signal handler cannot run between the two.

    Args:
        sock: the socket.
        size: the most bytes.
        os_flags: of the system call.
        arrived: an empty list.
        with_fds: receive its descriptors too; else the system closes them.
    """
    size = min(size, _MAX_DATAGRAM)
    if with_fds:
        arrived.extend(map(sock.recvmsg, (size,), (CONTROL_SIZE,), (os_flags | CLOSE_ON_EXEC,)))
    elif hasattr(sock, "recvmsg"):
        arrived.extend(map(sock.recvmsg, (size,), (0,), (os_flags,)))
    else:
        # Windows has no recvmsg: one byte more than requested shows whether the datagram is larger.
        arrived.extend(map(sock.recvfrom, (size + 1,), (os_flags,)))


def parse_raw(arrived: tuple[Any, ...], size: int) -> RawDatagram:
    """Take at most ``size`` bytes of a received datagram. It may have been received for a call with a larger size."""
    data, *more = arrived
    truncated = len(data) > size or (len(more) == 3 and bool(more[1] & socket.MSG_TRUNC))
    return data[:size], truncated, more[-1]


def truncate(data: bytes, sender: SockAddr | None, size: int) -> Datagram:
    """Return the result of ``receive`` for a complete datagram."""
    return make_datagram(data[:size], len(data) > size, sender)


def truncate_into(data: bytes, sender: SockAddr | None, target: memoryview) -> ReceivedInto:
    """Return the result of ``receive_into`` for a complete datagram."""
    return store_datagram(target, data[: len(target)], len(data) > len(target), sender)


def make_datagram(data: bytes, truncated: bool, sender: SockAddr | None) -> Datagram:
    """Make the public tuple."""
    datagram = Datagram(data, to_display_address(sender))
    if truncated:
        datagram.truncated = True
    return datagram


def store_datagram(target: memoryview, data: bytes, truncated: bool, sender: SockAddr | None) -> ReceivedInto:
    """Copy the data to ``target``, and make the public tuple."""
    target[: len(data)] = data
    received = ReceivedInto(len(data), to_display_address(sender))
    if truncated:
        received.truncated = True
    return received
