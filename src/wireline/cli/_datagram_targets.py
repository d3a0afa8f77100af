"""Targets without connections: what the parser has to know about them."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address

from wireline import IpAddress, Target, is_ip_address, parse_ip_address

# The scopes of RFC 4291, 2.7, that are an interface or a link: the address alone does not say which.
_LOCAL_SCOPES = (1, 2)


def is_datagram(target: Target) -> bool:
    """Whether messages are sent to it, and there are no connections."""
    return target.scheme in ("udp", "unix-dgram")


def scheme_of(target: Target) -> str:
    """The beginning of a datagram target, for errors about its kind."""
    return "unix-dgram:" if target.path else f"{target.scheme}://"


def group_of(target: Target) -> IpAddress | None:
    """The multicast group that a target is; None if it is none. A name is none, whatever it resolves to."""
    host = target.host.partition("%")[0]
    address = parse_ip_address(host) if target.scheme == "udp" and is_ip_address(host) else None
    return address if address is not None and address.is_multicast else None


def on_interface(target: Target, interface: str | None) -> tuple[Target, str | int | None]:
    """A target, and the name or number of its group's interface, which may be a zone: ``ff02::1%eth0``.

    Afterwards the addresses of a link or an interface have a zone, and no others: the system's resolver refuses it.

    Raises:
        ValueError: the interface is missing, given twice, or the target is no group.
    """
    group = group_of(target)
    if group is None:
        if interface is not None:
            raise ValueError(f"--interface is for multicast groups, and {target} is none")
        return target, None
    host, _, zone = target.host.partition("%")
    if zone and interface:
        raise ValueError(f"the interface of {target} is {zone}: leave out --interface")
    interface = zone or interface
    if isinstance(group, IPv6Address) and group.packed[1] & 15 in _LOCAL_SCOPES:
        if not interface:
            raise ValueError(f"{host} is a group of one link: name its interface with --interface")
        host = f"{host}%{interface}"
    number = int(interface) if interface and interface.isdecimal() else None
    return target._replace(host=host), number or interface


def find_interface(interface: str | int | None) -> int | None:
    """The number of a network interface.

    Raises:
        OSError: there is none.
    """
    if interface is None:
        return None
    for number, name in socket.if_nameindex():
        if interface in (number, name):
            return number
    raise OSError(f"this machine has no network interface {interface!r}")
