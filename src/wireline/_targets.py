"""Targets, as users write them on a command line: ``host:port``, ``tls://host:port``, ``unix:/path``, ..."""

from __future__ import annotations

import re
from typing import NamedTuple

from wireline.address import MAX_PORT, Address, format_ip, parse_zoned_ip, unix_path

__all__ = ["Target", "parse_target"]

_SCHEMES = ("tcp", "tls", "udp")
_UNIX_SCHEMES = ("unix", "unix-dgram")
# Characters of mistyped targets that no host name contains: parts of URLs, brackets, blanks.
_INVALID_IN_HOST = re.compile(r"[\s/?#@\[\]\0]")
# Characters. A host name has at most 253 (RFC 1035), the path of a Unix socket about 100.
_MAX_TARGET_LENGTH = 300


class Target(NamedTuple):
    """An address to connect to or to listen at. ``str`` gives its canonical spelling, which ``parse_target`` accepts.

    Attributes:
        scheme: ``"tcp"``, ``"tls"``, ``"udp"``, ``"unix"`` or ``"unix-dgram"``.
        host: a name or an address, without brackets; ``""`` for every interface.
        port: 0 for a Unix socket.
        path: of a Unix socket; an abstract name begins with a NUL.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.scheme in _UNIX_SCHEMES:
            return f"{self.scheme}:{'@' + self.path[1:] if self.path[:1] == chr(0) else self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'' if self.scheme == 'tcp' else self.scheme + '://'}{host}:{self.port}"


def parse_target(text: str, *, listening: bool = False) -> Target:
    """Parse a target.

    It is ``host:port`` or ``[v6]:port``, alone or after ``tcp://``, ``tls://`` or ``udp://``; or ``unix:/path``; or
    ``unix:@name`` for an abstract name; or the same after ``unix-dgram:``, for a datagram socket.

    Args:
        text: the target.
        listening: also accept ``:port`` and a bare ``port``, which stand for every interface, and port 0, which stands
            for a free port.

    Raises:
        TypeError: ``text`` is not a ``str``.
        ValueError: it is not a target; the message tells the user what to change.
    """
    if not isinstance(text, str):
        raise TypeError(f"a target is a str, not {type(text).__name__}")
    if len(text) > _MAX_TARGET_LENGTH:
        raise ValueError(
            f"a target has at most {_MAX_TARGET_LENGTH} characters, got {len(text)}: {text[:60]!r}..."
        )
    try:
        kind, _, path = text.partition(":")
        if kind.lower() in _UNIX_SCHEMES:
            return _unix_target(kind.lower(), path)
        scheme, slashes, rest = text.partition("://")
        if not slashes:
            return Target("tcp", *_host_and_port(text, listening, ""))
        if scheme.lower() not in _SCHEMES:
            raise ValueError(
                f"unknown scheme {scheme!r}, use {'://, '.join(_SCHEMES)}://, unix: or unix-dgram:"
            )
        return Target(scheme.lower(), *_host_and_port(rest, listening, f"{scheme}://"))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a target: {error}") from None


def _unix_target(scheme: str, rest: str) -> Target:
    path = "\0" + rest[1:] if rest.startswith("@") else rest
    unix_path(path)
    return Target(scheme, path=path)


def _host_and_port(text: str, listening: bool, prefix: str) -> Address:
    """Parse what follows the scheme. The advice in errors keeps the scheme: without ``tls://`` it would drop TLS."""
    host, colon, port = text.rpartition(":")
    if listening and not colon and port.isdigit():
        return Address("", _parse_port(port, listening))
    if not colon or not port or port.endswith("]"):
        raise ValueError(f"the port is missing, write {prefix}{text.rstrip(':') or 'host'}:port")
    if not host and not listening:
        raise ValueError(f"the host is missing, write {prefix}host:{port}")
    return Address(_parse_host(host, prefix), _parse_port(port, listening))


def _parse_host(text: str, prefix: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        ip = parse_zoned_ip(text[1:-1])
        if ip.version != 6:
            raise ValueError("brackets are for IPv6 addresses only")
        return format_ip(ip)
    if ":" in text:
        scheme = "" if prefix else ", a scheme slashes, tls://host:443"
        raise ValueError(f"more than one colon; an IPv6 address needs brackets, {prefix}[::1]:443{scheme}")
    wrong = _INVALID_IN_HOST.search(text)
    if wrong:
        raise ValueError(f"a host must not contain {wrong[0]!r}")
    return text


def _parse_port(text: str, listening: bool) -> int:
    lowest = 0 if listening else 1
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and lowest <= int(text) <= MAX_PORT):
        raise ValueError(f"the port must be a number from {lowest} to {MAX_PORT}, not {text[:20]!r}")
    return int(text)
