"""One datagram: what a receive gives, and the one system call that gives it."""

from __future__ import annotations

import socket
from typing import NamedTuple

from wireline.address import Address, display_address
from wireline.errors import SockAddr
from wireline.options import DONT_WAIT, SocketFlag

__all__ = ["Datagram", "Received", "cut", "cut_into", "receive", "receive_into"]

# Bytes. The system's call takes its memory before it knows what comes. A UDP datagram has 64 KiB at most, one of a Unix
# socket as much as its send buffer holds. A guess: much more than the buffers that systems are set up with.
_LARGEST = 16 * 1024 * 1024


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


class _ReceivedFields(NamedTuple):
    size: int
    address: Address


class Received(_ReceivedFields):
    """One datagram in the caller's buffer: ``(size, address)``, and whether the operating system cut it.

    Attributes:
        size: bytes that were received.
        address: who sent them.
        truncated: it was larger than the buffer; the rest is gone.
    """

    truncated: bool = False


def receive(sock: socket.socket, size: int, flags: SocketFlag) -> Datagram:
    """Receive one datagram of at most ``size`` bytes, without waiting."""
    return _datagram(*_receive_cut(sock, size, flags.to_os_flags() | DONT_WAIT))


def receive_into(sock: socket.socket, target: memoryview, flags: SocketFlag) -> Received:
    """The same into the caller's buffer."""
    return _received(target, *_receive_cut(sock, len(target), flags.to_os_flags() | DONT_WAIT))


def cut(data: bytes, sender: SockAddr | None, size: int) -> Datagram:
    """Make of a whole datagram what ``receive`` would have given."""
    return _datagram(data[:size], len(data) > size, sender)


def cut_into(data: bytes, sender: SockAddr | None, target: memoryview) -> Received:
    """Make of a whole datagram what ``receive_into`` would have given."""
    return _received(target, data[: len(target)], len(data) > len(target), sender)


def _datagram(data: bytes, truncated: bool, sender: SockAddr | None) -> Datagram:
    datagram = Datagram(data, display_address(sender))
    if truncated:
        datagram.truncated = True
    return datagram


def _received(target: memoryview, data: bytes, truncated: bool, sender: SockAddr | None) -> Received:
    target[: len(data)] = data
    received = Received(len(data), display_address(sender))
    if truncated:
        received.truncated = True
    return received


def _receive_cut(sock: socket.socket, size: int, os_flags: int) -> tuple[bytes, bool, SockAddr | None]:
    size = min(size, _LARGEST)
    if hasattr(sock, "recvmsg"):
        data, _, what_happened, sender = sock.recvmsg(size, 0, os_flags)
        return data, bool(what_happened & socket.MSG_TRUNC), sender
    # Windows has no recvmsg. One byte more than was asked for tells whether there was more.
    data, sender = sock.recvfrom(size + 1, os_flags)
    return data[:size], len(data) > size, sender
