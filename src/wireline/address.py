"""IP addresses, and the addresses of the ``socket`` module.

Two functions ask the kernel: ``get_primary_ip_addr`` for a route, and ``to_sockaddr`` for the number of a named
interface. The rest is pure. ``ipaddress`` parses; added are strictness (RFC 6943 explains the harm of lenient parsers)
and the same text on every Python version (RFC 5952).

Only the names in ``__all__`` are public.
"""

from __future__ import annotations

import enum
import ipaddress
import operator
import os
import re
import socket
import sys
from typing import NamedTuple, SupportsIndex, TypeAlias

from wireline.errors import InetSockAddr, SockAddr

__all__ = [
    "IPV4_ANY",
    "IPV4_BROADCAST",
    "IPV4_LOOPBACK",
    "IPV6_ANY",
    "IPV6_LOOPBACK",
    "Address",
    "IpAddress",
    "IpAddressFamily",
    "format_ip",
    "from_sockaddr",
    "get_primary_ip_addr",
    "ip_family",
    "is_ip_address",
    "parse_hostname",
    "parse_ip_address",
    "to_sockaddr",
]

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV4_ANY = ipaddress.IPv4Address("0.0.0.0")
IPV4_LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
IPV4_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
IPV6_ANY = ipaddress.IPv6Address("::")
IPV6_LOOPBACK = ipaddress.IPv6Address("::1")

MAX_PORT = 0xFFFF
_MAX_SCOPE_ID = 0xFFFF_FFFF
# Characters of "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255". A longer text is no address, and too long for a
# message.
_MAX_IP_LENGTH = 45
# Characters. An interface name has at most 15 bytes on Linux, 256 on Windows. A guess between them.
_MAX_ZONE_LENGTH = 64
_MAX_HOSTNAME = 253  # RFC 1035, as text
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_HAS_ABSTRACT_NAMES = sys.platform in ("linux", "android")
# Bytes of `sun_path` in <sys/un.h>, on Linux and elsewhere (the BSDs, macOS). A path needs a NUL at its end.
_SUN_PATH_SIZE = 108 if _HAS_ABSTRACT_NAMES else 104


class Address(NamedTuple):
    """The local or remote address of a socket. A Unix socket has its path as ``host`` and 0 as ``port``."""

    host: str
    port: int


class IpAddressFamily(enum.Enum):
    """The two kinds of IP address."""

    IPV4 = 4
    IPV6 = 6


class _MappedIPv6Address(ipaddress.IPv6Address):
    """An IPv4-mapped address whose text is ``::ffff:1.2.3.4``, as in ``ipaddress`` from Python 3.13 on.

    Remove it when 3.13 is the oldest supported Python.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return format_ip(self)

    def __repr__(self) -> str:
        return f"IPv6Address({str(self)!r})"


def ip_family(ip: IpAddress) -> IpAddressFamily:
    """Return the family of an address.

    Raises:
        TypeError: ``ip`` is not an ``ipaddress`` object.
    """
    return IpAddressFamily(_require_ip(ip).version)


def format_ip(ip: IpAddress) -> str:
    """Return the text of RFC 5952, the same on every Python version, a scope id included.

    IPv4-mapped addresses end in dotted decimals (section 5). ``str`` returns the same text for all addresses that this
    library makes, and from Python 3.13 on for those that ``ipaddress`` makes.

    Raises:
        TypeError: ``ip`` is not an ``ipaddress`` object.
    """
    ip = _require_ip(ip)
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is None:
        return ipaddress.IPv6Address.__str__(ip)
    return f"::ffff:{ip.ipv4_mapped}" + (f"%{ip.scope_id}" if ip.scope_id else "")


def parse_ip_address(text: str) -> IpAddress:
    """Parse an IPv4 or IPv6 address, strictly: no blanks, no leading zeros, no zone id, no ``127.1``.

    Raises:
        TypeError: ``text`` is not a ``str``.
        ValueError: ``text`` is not an address; the message says why.
    """
    ip = parse_zoned_ip(text)
    if "%" in text:
        raise ValueError(f"{text!r} is more than an IP address: it has a zone id")
    return ip


def is_ip_address(text: object) -> bool:
    """Whether ``parse_ip_address`` accepts ``text``. Never raises."""
    if not isinstance(text, str):
        return False
    try:
        parse_ip_address(text)
    except ValueError:
        return False
    return True


def parse_zoned_ip(text: str) -> IpAddress:
    """Parse an address that may carry a zone id, as in ``fe80::1%eth0``."""
    if not isinstance(text, str):
        raise TypeError(f"an IP address is parsed from str, not {type(text).__name__}")
    address, _, zone = text.partition("%")
    if len(address) > _MAX_IP_LENGTH or len(zone) > _MAX_ZONE_LENGTH:
        raise ValueError(f"{text[:20]!r}... is too long for an IP address: {len(text)} characters")
    try:
        if ":" not in address:
            return ipaddress.IPv4Address(text)
        ip = ipaddress.IPv6Address(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an IP address: {error}") from None
    return ip if ip.ipv4_mapped is None else _MappedIPv6Address(text)


def _require_ip(ip: object) -> IpAddress:
    if isinstance(ip, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return ip
    raise TypeError(f"an IPv4Address or IPv6Address is needed, not {type(ip).__name__}")


def to_sockaddr(ip: IpAddress, port: int) -> InetSockAddr:
    """Return an address for the ``socket`` module: ``(host, port)``, for IPv6 with flow information and scope id.

    Args:
        ip: the address; its scope id may be a number or the name of an interface.
        port: 0 to 65535.

    Raises:
        TypeError: ``ip`` is not an ``ipaddress`` object, or ``port`` not an int.
        ValueError: the port or the scope id is out of range.
        OSError: there is no interface of that name.
    """
    number = check_port(port)
    ip = _require_ip(ip)
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip), number
    return format_ip(ip).partition("%")[0], number, 0, _scope_number(ip.scope_id or "0")


def _scope_number(zone: str) -> int:
    if not (zone.isascii() and zone.isdigit()):
        try:
            return socket.if_nametoindex(zone)
        except OSError as error:
            error.add_note(f"looking for the interface {zone!r}")
            raise
    if len(zone) > 10 or int(zone) > _MAX_SCOPE_ID:
        raise ValueError(f"a scope id is at most {_MAX_SCOPE_ID}, got {zone:.20}")
    return int(zone)


def from_sockaddr(sockaddr: SockAddr) -> tuple[IpAddress, int]:
    """Return the address and port of an address of the ``socket`` module, with its scope id unless that is 0.

    Raises:
        ValueError: it is not the address of an IPv4 or IPv6 socket.
    """
    match sockaddr:
        case (str(host), int(port)):
            scope = 0
        case (str(host), int(port), int(), int(scope)) if ":" in host and 0 <= scope <= _MAX_SCOPE_ID:
            pass
        case _:
            raise ValueError(f"not the address of an IPv4 or IPv6 socket: {sockaddr!r}")
    if scope:
        host = f"{host.partition('%')[0]}%{scope}"
    return parse_zoned_ip(host), check_port(port)


def get_primary_ip_addr(dest: IpAddress | str = "8.8.8.8") -> IpAddress:
    """Return the local address from which packets to ``dest`` would be sent. No packet is sent.

    Args:
        dest: an IPv4 or IPv6 address, not a name.

    Raises:
        ValueError: ``dest`` is not an IP address.
        OSError: there is no route to it.
    """
    ip = parse_zoned_ip(dest) if isinstance(dest, str) else _require_ip(dest)
    family = socket.AF_INET if isinstance(ip, ipaddress.IPv4Address) else socket.AF_INET6
    # connect(2) of a UDP socket only chooses the route. Any port but 0 will do.
    sockaddr = to_sockaddr(ip, 80)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(sockaddr)
        except OSError as error:
            error.add_note(f"looking for the route to {format_ip(ip)}")
            raise
        return from_sockaddr(probe.getsockname())[0]


def to_display_address(sockaddr: SockAddr | None) -> Address:
    """Convert an address that ``accept``, ``getpeername`` or ``recvfrom`` of the ``socket`` module returned.

    An IPv6 scope id becomes ``%<number>``; IPv4-mapped IPv6 becomes IPv4; a Unix path becomes the host, with the
    leading NUL of an abstract name; no address becomes ``("", 0)``. An ``Address`` is returned as it is.
    """
    if type(sockaddr) is Address:
        return sockaddr
    if isinstance(sockaddr, tuple):
        if len(sockaddr) == 2:
            return Address._make(sockaddr)
        host, port, _, scope = sockaddr
        # `inet_ntop` of every platform writes mapped addresses like this, and no others.
        if host.startswith("::ffff:") and "." in host:
            return Address(host.removeprefix("::ffff:"), port)
        return Address(f"{host}%{scope}" if scope else host, port)
    return Address(os.fsdecode(sockaddr) if sockaddr else "", 0)


known_addresses: dict[SockAddr | None, Address] = {}
"""The senders of the last datagrams, as ``cached_address`` returns them: for a look without a call."""

# A guess: more peers than most programs have, and at most 200 kB.
_MAX_KNOWN = 512


def cached_address(sockaddr: SockAddr | None) -> Address:
    """Return the same as ``to_display_address``, and keep it for the next datagram of the same sender."""
    if len(known_addresses) >= _MAX_KNOWN:
        known_addresses.clear()
    address = known_addresses[sockaddr] = to_display_address(sockaddr)
    return address


def check_port(port: SupportsIndex) -> int:
    """Return ``port`` as an int.

    Raises:
        TypeError: it is not an integer, or a bool.
        ValueError: it is outside 0 to 65535.
    """
    if isinstance(port, bool):
        raise TypeError("a port is an int, not bool")
    try:
        number = operator.index(port)
    except TypeError:
        raise TypeError(f"a port is an int, not {type(port).__name__}") from None
    if not 0 <= number <= MAX_PORT:
        raise ValueError(f"a port is 0 to {MAX_PORT}, got {number}")
    return number


def check_host(host: IpAddress | str) -> str:
    """Return a host as text: a name, the text of an address, or an ``ipaddress`` object.

    Raises:
        TypeError: it is something else.
        ValueError: it contains a NUL, at which the operating system would truncate it.
    """
    if not isinstance(host, str):
        if not isinstance(host, ipaddress.IPv4Address | ipaddress.IPv6Address):
            raise TypeError(f"a host is a str or an ipaddress object, not {type(host).__name__}")
        return format_ip(host)
    if "\0" in host:
        raise ValueError(f"a host must not contain a NUL, got {host[:80]!r}")
    return host if host.isascii() or ":" in host else to_ascii(host)


def to_ascii(name: str) -> str:
    """Return a host name as in DNS: ``straße.example`` is ``xn--strae-oqa.example`` (IDNA 2008, UTS 46).

    Python's own codec follows IDNA 2003, in which that name is the one of another host, ``strasse.example``.

    Raises:
        ValueError: it is no host name, or the package ``idna`` is not installed.
    """
    if name.isascii():
        return name
    try:
        import idna
    except ImportError:
        raise ValueError(
            f"{name!r} is not ASCII: install the package idna, or write the name as in DNS, with xn--"
        ) from None
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"{name!r} is not a host name: {error}") from None


def parse_hostname(hostname: str | IpAddress) -> str:
    """Return the name or address of a server in the spelling that certificates are compared with.

    Every ``hostname`` of a TLS connection is read so. A program that takes the name from its user can call it first,
    and refuse a wrong one before it connects. The brackets and the zone id of an IPv6 address are removed, and the
    final dot of a name; names become lower case ASCII (IDNA 2008).

    Raises:
        TypeError: ``hostname`` is neither text nor an ``ipaddress`` object.
        ValueError: it is not a host name; ``host:port`` is not one either.
    """
    if isinstance(hostname, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return format_ip(hostname).partition("%")[0]
    if not isinstance(hostname, str):
        raise TypeError(f"hostname is a str or an ipaddress object, not {type(hostname).__name__}")
    in_brackets = hostname.startswith("[") and hostname.endswith("]")
    try:
        ip = ipaddress.ip_address(hostname[1:-1] if in_brackets else hostname)
    except ValueError:
        return _dns_name(hostname)
    return format_ip(ip).partition("%")[0]


def _dns_name(hostname: str) -> str:
    name = to_ascii(hostname).lower().removesuffix(".")
    if len(name) > _MAX_HOSTNAME or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError(f"{hostname[:_MAX_HOSTNAME]!r} is not a host name")
    return name


def unix_path(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str | bytes:
    """Check the path of a Unix socket; return it as ``str`` or ``bytes``.

    Args:
        path: a path, or on Linux an abstract name: a NUL and the name, which may contain more NULs.

    Raises:
        TypeError: it is not a path.
        ValueError: it is empty or too long, a path contains a NUL, or there are no abstract names on this system.
    """
    text = os.fspath(path)
    raw = os.fsencode(text)
    abstract = raw.startswith(b"\0")
    if abstract and not _HAS_ABSTRACT_NAMES:
        raise ValueError("abstract names of Unix sockets exist on Linux only")
    if not raw.removeprefix(b"\0"):
        raise ValueError("a Unix socket's path cannot be empty")
    # A NUL ends a path. In an abstract name it has no special meaning (unix(7)).
    if not abstract and b"\0" in raw:
        raise ValueError(f"a Unix socket's path must not contain a NUL: {raw[:80]!r}")
    allowed = _SUN_PATH_SIZE if abstract else _SUN_PATH_SIZE - 1
    if len(raw) > allowed:
        raise ValueError(f"a Unix socket's path has at most {allowed} bytes, got {len(raw)}: {raw[:60]!r}...")
    return text


def format_address(address: Address) -> str:
    """Return an address as text: ``127.0.0.1:80``, ``[::1]:80``, or the path of a Unix socket in quotes."""
    if not address.port:
        return repr(address.host)
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
