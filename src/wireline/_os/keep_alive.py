"""TCP keepalive (RFC 9293, 3.8.4): the options of one connection."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "DEFAULT_KEEP_ALIVE",
    "KeepAlive",
    "check_keep_alive",
    "keep_alive_options",
    "require_tcp",
    "set_default_keep_alive",
]


class _Fields(NamedTuple):
    idle: int = 15
    interval: int = 15
    count: int = 9  # type: ignore[assignment] # not the method of a tuple


class KeepAlive(_Fields):
    """When the operating system asks a silent TCP peer whether it is still there. The defaults are those of Go.

    Attributes:
        idle: seconds of silence before the first probe, 1 to 32,767.
        interval: seconds between two probes, 1 to 32,767.
        count: probes without an answer after which the connection fails with ``ETIMEDOUT``, 1 to 127.
    """

    __slots__ = ()

    def __new__(cls, idle: int = 15, interval: int = 15, count: int = 9) -> KeepAlive:
        """Check the values.

        Raises:
            TypeError, ValueError: one of them is no int, or is out of range.
        """
        for name, value, most in (
            ("idle", idle, 32_767),
            ("interval", interval, 32_767),
            ("count", count, 127),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is an int, not {type(value).__name__}")
            if not 1 <= value <= most:
                raise ValueError(f"{name} is 1 to {most}, got {value}")
        return super().__new__(cls, idle, interval, count)


DEFAULT_KEEP_ALIVE = KeepAlive()
"""The default of ``dial`` and ``serve``."""

# macOS has the first under another name. Windows has all three from Windows 10 on.
_IDLE = ("TCP_KEEPIDLE", "TCP_KEEPALIVE")


def check_keep_alive(keep_alive: KeepAlive | None) -> KeepAlive | None:
    """Return the argument ``keep_alive``.

    Raises:
        TypeError: it is neither a ``KeepAlive`` nor None.
    """
    if keep_alive is None or isinstance(keep_alive, KeepAlive):
        return keep_alive
    raise TypeError(f"keep_alive is a KeepAlive or None, not {type(keep_alive).__name__}")


def keep_alive_options(keep_alive: KeepAlive | None) -> Iterator[tuple[int, int, int]]:
    """Yield level, option and value of each option to set; None switches keepalive off.

    Raises:
        TypeError: it is neither.
        OSError: ``ENOPROTOOPT``: this platform cannot set one of them.
    """
    if check_keep_alive(keep_alive) is None:
        yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0
        return
    assert keep_alive is not None
    for names, value in ((_IDLE, keep_alive.idle), (("TCP_KEEPINTVL",), keep_alive.interval)):
        yield socket.IPPROTO_TCP, _option(*names), value
    yield socket.IPPROTO_TCP, _option("TCP_KEEPCNT"), keep_alive.count
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1  # last: the first probe obeys the others


def set_default_keep_alive(sock: socket.socket, keep_alive: KeepAlive | None) -> None:
    """Switch keepalive on for a new TCP socket, with as much of ``keep_alive`` as this platform can set."""
    if keep_alive is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        for level, option, value in keep_alive_options(keep_alive):
            sock.setsockopt(level, option, value)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _option(*names: str) -> int:
    for name in names:
        number: int | None = getattr(socket, name, None)
        if number is not None:
            return number
    raise OSError(errno.ENOPROTOOPT, f"this platform has no {names[0]}")


def require_tcp(sock: socket.socket, operation: str) -> None:
    """Refuse a socket of another protocol.

    Raises:
        OSError: ``EOPNOTSUPP``: it is no TCP socket.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        raise OSError(errno.EOPNOTSUPP, f"{operation}: this is no TCP socket")
