"""The public tuples of datagrams, and how they are made of what the system returns."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any, NamedTuple, TypeVar

from wireline.address import Address, IpAddress, cached_address, known_addresses

__all__ = [
    "INFO_SIZE",
    "MSG_TRUNC",
    "Datagram",
    "Raw",
    "ReceivedInto",
    "data_of",
    "make_datagram",
    "make_informed",
    "packet_info_option",
    "store_datagram",
]

T = TypeVar("T")

# Of <linux/in.h>, for which `socket` has a name from Python 3.14 on.
_IP_PKTINFO: int = getattr(socket, "IP_PKTINFO", 8)
_IPV6_PKTINFO: int = getattr(socket, "IPV6_PKTINFO", 50)
MSG_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))
# `struct in_pktinfo`: the interface, the local address, the destination; `struct in6_pktinfo`.
_IPV4_INFO = struct.Struct("@i4s4s")
_IPV6_INFO = struct.Struct("@16sI")

INFO_SIZE = 128
"""Bytes for the ancillary data of one datagram: both structures with their headers fit."""


class _DatagramFields(NamedTuple):
    data: bytes
    address: Address


class Datagram(_DatagramFields):
    """One datagram: the tuple ``(data, address)``, with further attributes that are not items of the tuple.

    Attributes:
        data: the bytes received.
        address: the sender.
        truncated: the datagram was larger than the requested size; the rest is lost.
        destination: the local address that it was sent to, which may be a multicast or broadcast address; None unless
            the socket was made with ``packet_info=True``.
    """

    truncated: bool = False
    destination: IpAddress | None = None
    _interface_index: int = 0

    @property
    def interface(self) -> str | None:
        """The name of the interface that received it.

        None unless the socket was made with ``packet_info=True``, and after the interface was removed.
        """
        # Asked only here: it takes as long as to receive a datagram, and few programs need it.
        try:
            return socket.if_indextoname(self._interface_index) if self._interface_index else None
        except OSError:
            return None


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


Raw = tuple[Any, ...]
"""A datagram as ``recvfrom`` returns it, or as ``recvmsg`` does.

The first item is the data, with one byte more than requested if the datagram is larger (``recvfrom`` does not say that
it was cut), and the last the sender.
"""


def make_datagram(raw: Raw, size: int) -> Datagram:
    """Make the public tuple of what ``recvfrom`` has returned."""
    data, sockaddr = raw
    # `tuple.__new__`, and the same `Address` for each datagram of a sender: half of the time that the classes take.
    address = known_addresses.get(sockaddr) or cached_address(sockaddr)
    if len(data) <= size:
        return tuple.__new__(Datagram, (data, address))
    datagram = tuple.__new__(Datagram, (data[:size], address))
    datagram.truncated = True
    return datagram


def make_informed(raw: Raw, size: int) -> Datagram:
    """Make the public tuple of what ``recvmsg`` has returned, with the packet information."""
    datagram = make_datagram((raw[0], raw[-1]), size)
    if _is_cut(raw, size):
        datagram.truncated = True
    for level, kind, value in raw[1] if len(raw) == 4 else ():
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            datagram._interface_index, _, destination = _IPV4_INFO.unpack_from(value)
            datagram.destination = ipaddress.IPv4Address(destination)
        elif level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            destination, datagram._interface_index = _IPV6_INFO.unpack_from(value)
            ip = ipaddress.IPv6Address(destination)
            datagram.destination = ip.ipv4_mapped or ip
    return datagram


def data_of(raw: Raw, size: int) -> bytes:
    """Return the data alone."""
    data: bytes = raw[0]
    return data if len(data) <= size else data[:size]


def store_datagram(target: memoryview, raw: Raw, size: int) -> ReceivedInto:
    """Copy the data to ``target``, and make the public tuple."""
    data = raw[0][:size]
    sockaddr = raw[-1]
    target[: len(data)] = data
    address = known_addresses.get(sockaddr) or cached_address(sockaddr)
    received = tuple.__new__(ReceivedInto, (len(data), address))
    if _is_cut(raw, size):
        received.truncated = True
    return received


def _is_cut(raw: Raw, size: int) -> bool:
    return len(raw[0]) > size or (len(raw) == 4 and bool(raw[2] & MSG_TRUNC))


def packet_info_option(family: int) -> tuple[int, int]:
    """Return level and number of the option that adds the packet information.

    Raises:
        NotImplementedError: this platform has none.
    """
    if not hasattr(socket.socket, "recvmsg"):
        raise NotImplementedError("this platform has no packet information")
    if family == socket.AF_INET:
        return socket.IPPROTO_IP, _IP_PKTINFO
    return socket.IPPROTO_IPV6, getattr(socket, "IPV6_RECVPKTINFO", 49)
