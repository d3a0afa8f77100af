"""Multicast: the structures that the options take, and the groups and interfaces that a caller may name."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import TypeAlias

from wireline.address import IpAddress, parse_zoned_ip
from wireline.options import AF_INET, AF_INET6

__all__ = [
    "IPV4_INTERFACE",
    "Interface",
    "MulticastOption",
    "check_group",
    "check_interface",
    "interface_number",
    "loop_option",
    "membership",
    "outgoing_interface",
    "read_outgoing_interface",
    "require_ip_family",
    "ttl_option",
]

Interface: TypeAlias = str | int | ipaddress.IPv4Address
"""An interface: its name or index, or for IPv4 one of its addresses."""

MulticastOption: TypeAlias = tuple[int, int, bytes]
"""Level, number and value of a socket option."""

IPV4_INTERFACE = (socket.IPPROTO_IP, socket.IP_MULTICAST_IF)
"""Level and number of the option for the interface of what is sent over IPv4."""

# `struct ip_mreqn`: the group, the address of the interface, its index. `struct ipv6_mreq`: the group, the index.
_IPV4_REQUEST = struct.Struct("@4s4si")
_IPV6_REQUEST = struct.Struct("@16sI")
_ANY_ADDRESS = bytes(4)
_MAX_INDEX = 2**31 - 1

_TTL: dict[int, tuple[int, int]] = {
    AF_INET: (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL),
    AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS),
}
_LOOP: dict[int, tuple[int, int]] = {
    AF_INET: (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP),
    AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP),
}


# Arguments: nothing here asks the system.


def check_group(group: str | IpAddress) -> tuple[IpAddress, str | None]:
    """Return a group, and the interface that its zone names (``ff02::1%eth0``).

    Raises:
        TypeError: it is neither a ``str`` nor an ``ipaddress`` object.
        ValueError: it is no IP address, or none of a group.
    """
    ip = group if isinstance(group, ipaddress.IPv4Address | ipaddress.IPv6Address) else parse_zoned_ip(group)
    if not ip.is_multicast:
        raise ValueError(f"{ip} is not a multicast address")
    return ip, ip.scope_id if isinstance(ip, ipaddress.IPv6Address) else None


def check_interface(interface: Interface | None, family: int) -> Interface | None:
    """Return an interface as a name, an index or an address; None for the system's choice.

    Raises:
        TypeError: it is none of these.
        ValueError: the name is empty, the index no index, or the address none of an IPv4 interface.
    """
    if interface is None:
        return None
    if isinstance(interface, int) and not isinstance(interface, bool):
        if not 1 <= interface <= _MAX_INDEX:
            raise ValueError(f"the index of an interface is 1 to {_MAX_INDEX}, got {interface}")
        return interface
    found = _address_or_name(interface)
    if isinstance(found, str) or (isinstance(found, ipaddress.IPv4Address) and family == AF_INET):
        return found
    raise ValueError(f"an interface is a name, an index or, for IPv4, an IPv4 address, got {found}")


def _address_or_name(interface: object) -> str | IpAddress:
    if isinstance(interface, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return interface
    if not isinstance(interface, str):
        raise TypeError(
            f"an interface is a name, an index or an IPv4 address, not {type(interface).__name__}"
        )
    try:
        return parse_zoned_ip(interface)
    except ValueError:
        if not interface or "\0" in interface:
            raise ValueError(f"the name of an interface has no NUL, got {interface!r}") from None
        return interface


def require_ip_family(family: int, operation: str) -> None:
    """Refuse a Unix socket.

    Raises:
        TypeError: it is one.
    """
    if family not in _TTL:
        raise TypeError(f"{operation} needs an IP socket, this is a Unix socket")


# Options.


def ttl_option(family: int) -> tuple[int, int]:
    """Return level and number of the option for the hops of a multicast datagram."""
    return _TTL[family]


def loop_option(family: int) -> tuple[int, int]:
    """Return level and number of the option that returns multicast datagrams to this host."""
    return _LOOP[family]


def interface_number(interface: Interface | None) -> int:
    """Return the index of an interface; 0 for an address, and for None.

    Raises:
        OSError: there is no interface of that name.
    """
    if isinstance(interface, str):
        try:
            return socket.if_nametoindex(interface)
        except OSError as error:
            error.add_note(f"looking for the interface {interface!r}")
            raise
    return interface if isinstance(interface, int) else 0


def membership(group: IpAddress, interface: Interface | None, *, join: bool) -> MulticastOption:
    """Return the option that joins or leaves a group."""
    number = interface_number(interface)
    if isinstance(group, ipaddress.IPv4Address):
        option = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
        value = _IPV4_REQUEST.pack(group.packed, _address_of(interface), number)
        return socket.IPPROTO_IP, option, value
    option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
    return socket.IPPROTO_IPV6, option, _IPV6_REQUEST.pack(group.packed, number)


def outgoing_interface(family: int, interface: Interface | None) -> MulticastOption:
    """Return the option that chooses the interface of what is sent."""
    number = interface_number(interface)
    if family == AF_INET:
        value = _IPV4_REQUEST.pack(_ANY_ADDRESS, _address_of(interface), number)
        return *IPV4_INTERFACE, value
    return socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("@i", number)


def read_outgoing_interface(sock: socket.socket, set_value: int | bytes | None) -> Interface | None:
    """Return the interface of what is sent: a name, an address, or None for the system's choice.

    Args:
        sock: the socket.
        set_value: what this object has set. Linux tells an IPv4 address only, and no index.
    """
    if sock.family == AF_INET6:
        return _name_of(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF))
    if isinstance(set_value, bytes) and (number := _IPV4_REQUEST.unpack(set_value)[2]):
        return _name_of(number)
    address = ipaddress.IPv4Address(sock.getsockopt(*IPV4_INTERFACE, 4))
    return address if int(address) else None


def _address_of(interface: Interface | None) -> bytes:
    return interface.packed if isinstance(interface, ipaddress.IPv4Address) else _ANY_ADDRESS


def _name_of(number: int) -> str | int | None:
    """Return the name of an interface; its number if it was removed."""
    try:
        return socket.if_indextoname(number) if number else None
    except OSError:
        return number
