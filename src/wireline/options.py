"""Limits, flags and option names: values that every room shares and that decide nothing by themselves."""

from __future__ import annotations

import enum
import errno
import socket
import sys

__all__ = [
    "AF_INET",
    "AF_INET6",
    "AF_UNIX",
    "BUFFER_SIZE",
    "IPPROTO_TCP",
    "IPPROTO_UDP",
    "MAX_LINE_LENGTH",
    "SAFE_DISCONN",
    "SOCK_DGRAM",
    "SOCK_STREAM",
    "SOMAXCONN",
    "AcceptResult",
    "ReadLineResult",
    "SockOpt",
    "SocketFlag",
    "is_disconnection_error",
]

BUFFER_SIZE = 64 * 1024
"""Bytes asked of the kernel for one fill of the read buffer.

64 KiB is the largest power of two that malloc still serves without an mmap and its page faults (on glibc,
from 128 KiB), and a loopback or LAN receiver seldom has more waiting.
"""

MAX_LINE_LENGTH = 1_000_000
"""Bytes of one line, without its terminator, unless the caller says otherwise. As in Nim's ``std/net``."""

AF_INET = socket.AF_INET
AF_INET6 = socket.AF_INET6
# Windows' `socket` has no AF_UNIX. 1 is its number everywhere, and using it there fails with the OS's error.
AF_UNIX: int = getattr(socket, "AF_UNIX", 1)
SOCK_STREAM = socket.SOCK_STREAM
SOCK_DGRAM = socket.SOCK_DGRAM
IPPROTO_TCP = socket.IPPROTO_TCP
IPPROTO_UDP = socket.IPPROTO_UDP
SOMAXCONN = socket.SOMAXCONN


class SocketFlag(enum.Flag):
    """How a call treats its data and the peer's absence."""

    PEEK = enum.auto()
    """Leave the bytes where they are: the next read gets them again."""
    SAFE_DISCONN = enum.auto()
    """A peer that is gone is the end of the stream (reading) or no error (sending), not an exception."""

    def to_os_flags(self) -> int:
        """The ``MSG_*`` bits of these flags. ``SAFE_DISCONN`` is the library's own and has none."""
        return socket.MSG_PEEK if SocketFlag.PEEK in self else 0


SAFE_DISCONN = SocketFlag.SAFE_DISCONN
"""The default of every ``flags`` parameter."""


def check_flags(flags: SocketFlag) -> None:
    """Refuse flags of another kind: ``MSG_*`` bits, for example.

    Raises:
        TypeError: ``flags`` is not a ``SocketFlag``.
    """
    if not isinstance(flags, SocketFlag):
        raise TypeError(f"flags is a SocketFlag, not {type(flags).__name__}")


class SockOpt(enum.Enum):
    """Boolean socket options. ``level`` is the protocol level that the option belongs to."""

    ACCEPT_CONN = "ACCEPT_CONN"
    BROADCAST = "BROADCAST"
    DEBUG = "DEBUG"
    DONT_ROUTE = "DONT_ROUTE"
    KEEP_ALIVE = "KEEP_ALIVE"
    OOB_INLINE = "OOB_INLINE"
    REUSE_ADDR = "REUSE_ADDR"
    REUSE_PORT = "REUSE_PORT"
    NO_DELAY = "NO_DELAY"

    @property
    def level(self) -> int:
        """``IPPROTO_TCP`` for ``NO_DELAY``, else ``SOL_SOCKET``."""
        return socket.IPPROTO_TCP if self is SockOpt.NO_DELAY else socket.SOL_SOCKET

    def to_int(self) -> int:
        """The operating system's number for this option.

        Raises:
            OSError: ``ENOPROTOOPT``, where this platform does not have the option.
        """
        number: int | None = getattr(socket, _OS_NAMES[self], None)
        if number is None:
            raise OSError(errno.ENOPROTOOPT, f"this platform has no {_OS_NAMES[self]}")
        return number


_OS_NAMES = {
    SockOpt.ACCEPT_CONN: "SO_ACCEPTCONN",
    SockOpt.BROADCAST: "SO_BROADCAST",
    SockOpt.DEBUG: "SO_DEBUG",
    SockOpt.DONT_ROUTE: "SO_DONTROUTE",
    SockOpt.KEEP_ALIVE: "SO_KEEPALIVE",
    SockOpt.OOB_INLINE: "SO_OOBINLINE",
    SockOpt.REUSE_ADDR: "SO_REUSEADDR",
    SockOpt.REUSE_PORT: "SO_REUSEPORT",
    SockOpt.NO_DELAY: "TCP_NODELAY",
}


class ReadLineResult(enum.Enum):
    """What ``try_recv_line`` found."""

    FULL_LINE = enum.auto()
    """A whole line; it is returned without its terminator."""
    PARTIAL_LINE = enum.auto()
    """Some bytes of a line. They stay in the buffer; a copy is returned."""
    DISCONNECTED = enum.auto()
    """The peer is done. Bytes of an unfinished line, if any, are returned and stay readable."""
    NONE = enum.auto()
    """Nothing there yet."""


class AcceptResult(enum.Enum):
    """What ``try_accept_addr`` found."""

    NO_CLIENT = enum.auto()
    """Nobody is waiting to be accepted."""
    NO_HANDSHAKE = enum.auto()
    """Somebody is, but the TLS handshake is not finished or has failed."""
    SUCCESS = enum.auto()
    """A client, ready to be used."""


# Plain numbers: to combine two of `socket.MsgFlag` costs as much as to encrypt a small message.
NO_SIGNAL = int(getattr(socket, "MSG_NOSIGNAL", 0))
"""Flag of the operating system: a peer that is gone is an error, never a signal that ends the process of somebody
who enabled SIGPIPE."""

DONT_WAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
"""Flag of the operating system: one call on a blocking descriptor does not wait. 0 where there is none (Windows):
streams do not block there."""

# POSIX names, then the two that Windows adds: WSAEDISCON and ERROR_NETNAME_DELETED.
_DISCONNECTIONS = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ENETRESET, errno.ECONNABORTED, errno.ESHUTDOWN}
    | ({10101, 64} if sys.platform == "win32" else set())
)


def is_disconnection_error(flags: SocketFlag, error: OSError | int) -> bool:
    """Whether ``error`` only says that the peer is gone, and ``flags`` ask to take that for a plain end.

    Args:
        flags: the flags of the call that failed; without ``SAFE_DISCONN`` the answer is always False.
        error: the exception, or its ``errno``.

    Raises:
        TypeError: one of them is something else.
    """
    check_flags(flags)
    if not isinstance(error, int | OSError):
        raise TypeError(f"error is an OSError or an errno, not {type(error).__name__}")
    code = error if isinstance(error, int) else error.errno
    return SocketFlag.SAFE_DISCONN in flags and code in _DISCONNECTIONS
