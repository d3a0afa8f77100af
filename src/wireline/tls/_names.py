"""Host names for TLS: one spelling for the certificate check, for SNI and for the session cache."""

from __future__ import annotations

import ipaddress
import re

from wireline.address import IpAddress, format_ip, to_ascii

__all__ = ["normalise"]

_MAX_NAME = 253  # RFC 1035, as text
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def normalise(hostname: str | IpAddress) -> str:
    """Return the name or address of a server in the spelling that certificates are compared with.

    The brackets and the zone id of an IPv6 address are removed, and the final dot of a name; names become lower case
    ASCII (IDNA 2008). ``""`` stays ``""``: there is no name.

    Raises:
        TypeError: ``hostname`` is neither text nor an ``ipaddress`` object.
        ValueError: it is not a host name; ``host:port`` is not one either.
    """
    if isinstance(hostname, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return _address(hostname)
    if not isinstance(hostname, str):
        raise TypeError(f"hostname is a str or an ipaddress object, not {type(hostname).__name__}")
    if not hostname:
        return ""
    try:
        return _address(ipaddress.ip_address(_without_brackets(hostname)))
    except ValueError:
        return _name(hostname)


def _without_brackets(text: str) -> str:
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _address(ip: IpAddress) -> str:
    return format_ip(ip).partition("%")[0]


def _name(hostname: str) -> str:
    name = to_ascii(hostname).lower().removesuffix(".")
    if len(name) > _MAX_NAME or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError(f"{hostname!r} is not a host name")
    return name
