"""Limits, flags and option names: the values that all modules share."""

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
    "MAX_FRAME_SIZE",
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
"""The bytes of one recv(2) into the read buffer.

64 KiB is the largest power of two for which glibc's malloc does not use mmap and its page faults (it does from 128
KiB), and a receiver on loopback or a LAN seldom has more waiting.
"""

MAX_LINE_LENGTH = 1_000_000
"""The default limit of one line, in bytes without its terminator. As in Nim's ``std/net``."""

MAX_FRAME_SIZE = 16 * 1024 * 1024
"""The default limit of the payload of a frame, and the limit of ``fill`` and ``unread``: 16 MiB."""

AF_INET = socket.AF_INET
AF_INET6 = socket.AF_INET6
# `socket` has no AF_UNIX on Windows. It is 1 everywhere; on Windows its use is an error of the operating system.
AF_UNIX: int = getattr(socket, "AF_UNIX", 1)
SOCK_STREAM = socket.SOCK_STREAM
SOCK_DGRAM = socket.SOCK_DGRAM
IPPROTO_TCP = socket.IPPROTO_TCP
IPPROTO_UDP = socket.IPPROTO_UDP
SOMAXCONN = socket.SOMAXCONN


class SocketFlag(enum.Flag):
    """How a call treats its data, and a peer that has gone."""

    NONE = 0
    """No flag: for a call without ``SAFE_DISCONN``."""
    PEEK = enum.auto()
    """Do not consume the bytes: the next read returns them again."""
    SAFE_DISCONN = enum.auto()
    """A peer that has gone is the end of the stream for a read, and no error for a send."""

    # By value, because of `DEFAULT_FLAGS`.

    def __eq__(self, other: object) -> bool:
        return self.value == other.value if isinstance(other, SocketFlag) else NotImplemented

    __hash__ = enum.Flag.__hash__

    def to_os_flags(self) -> int:
        """The ``MSG_*`` bits of these flags. ``SAFE_DISCONN`` belongs to this library and has none."""
        return socket.MSG_PEEK if SocketFlag.PEEK in self else 0


SAFE_DISCONN = SocketFlag.SAFE_DISCONN
"""The default of every ``flags`` parameter, unless the socket has other ``default_flags``."""


DEFAULT_FLAGS = object.__new__(SocketFlag)
"""The ``default_flags`` of the socket, as the default of a parameter: equal to ``SAFE_DISCONN``, and another object.

A call that is given no flags is compared with this object, and asks the socket only when it judges an error.
"""
vars(DEFAULT_FLAGS).update(vars(SAFE_DISCONN))


def effective_flags(flags: SocketFlag, default: SocketFlag) -> SocketFlag:
    """Return the flags of a call, on a socket with the default flags ``default``."""
    return default if flags is DEFAULT_FLAGS else flags


def check_flags(flags: SocketFlag) -> None:
    """Refuse flags of another type, such as ``MSG_*`` bits.

    Raises:
        TypeError: ``flags`` is not a ``SocketFlag``.
    """
    if not isinstance(flags, SocketFlag):
        raise TypeError(f"flags is a SocketFlag, not {type(flags).__name__}")


def check_default_flags(flags: SocketFlag) -> SocketFlag:
    """Return the ``default_flags`` of a socket.

    Raises:
        TypeError: ``flags`` is not a ``SocketFlag``.
        ValueError: ``flags`` has ``PEEK``.
    """
    if not isinstance(flags, SocketFlag):
        raise TypeError(f"default_flags is a SocketFlag, not {type(flags).__name__}")
    if SocketFlag.PEEK in flags:
        raise ValueError("with PEEK in default_flags no read would ever consume a byte: give it to a read")
    return flags


def check_iterator_flags(flags: SocketFlag) -> None:
    """Refuse flags that an iterator over lines or frames cannot have.

    Raises:
        TypeError: ``flags`` is not a ``SocketFlag``.
        ValueError: ``flags`` has ``PEEK``.
    """
    check_flags(flags)
    if SocketFlag.PEEK in flags:
        raise ValueError("an iterator consumes what it returns: PEEK has no meaning here")


class SockOpt(enum.Enum):
    """Boolean socket options."""

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
        """The protocol level: ``IPPROTO_TCP`` for ``NO_DELAY``, ``SOL_SOCKET`` for the others."""
        return socket.IPPROTO_TCP if self is SockOpt.NO_DELAY else socket.SOL_SOCKET

    def to_int(self) -> int:
        """The operating system's number of this option.

        Raises:
            OSError: ``ENOPROTOOPT``, if this platform does not have the option.
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
    """The result of ``try_recv_line``."""

    FULL_LINE = enum.auto()
    """A complete line, returned without its terminator."""
    PARTIAL_LINE = enum.auto()
    """A part of a line. A copy is returned; the bytes stay in the buffer."""
    DISCONNECTED = enum.auto()
    """The end of the stream. The bytes of an unfinished line, if any, are returned and stay readable."""
    NONE = enum.auto()
    """No data yet."""


class AcceptResult(enum.Enum):
    """The result of ``try_accept_addr``."""

    NO_CLIENT = enum.auto()
    """No client is waiting to be accepted."""
    NO_HANDSHAKE = enum.auto()
    """There is a client, but its TLS handshake is not finished or has failed."""
    SUCCESS = enum.auto()
    """A client that is ready for use."""


class Handshake(enum.Enum):
    """Which side of a handshake a connected socket takes."""

    AS_CLIENT = enum.auto()
    """Send the ClientHello, and verify the server."""
    AS_SERVER = enum.auto()
    """Wait for the ClientHello, and present the certificate."""


# Ints, because to combine two `socket.MsgFlag` takes as long as to encrypt a small message.
NO_SIGNAL = int(getattr(socket, "MSG_NOSIGNAL", 0))
"""MSG_NOSIGNAL: sending to a peer that has gone is an error, never SIGPIPE, even in a process that enabled it."""

DONT_WAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
"""MSG_DONTWAIT: one call on a blocking descriptor does not wait. 0 on Windows, where our streams never block."""

# POSIX names, then the two that Windows adds: WSAEDISCON and ERROR_NETNAME_DELETED.
_DISCONNECTIONS = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ENETRESET, errno.ECONNABORTED, errno.ESHUTDOWN}
    | ({10101, 64} if sys.platform == "win32" else set())
)


def is_disconnection_error(flags: SocketFlag, error: OSError | int) -> bool:
    """Whether ``error`` means only that the peer has gone, and ``flags`` contain ``SAFE_DISCONN``.

    Args:
        flags: of the call that failed.
        error: the exception, or its ``errno``.

    Raises:
        TypeError: an argument has another type.
    """
    check_flags(flags)
    if not isinstance(error, int | OSError):
        raise TypeError(f"error is an OSError or an errno, not {type(error).__name__}")
    code = error if isinstance(error, int) else error.errno
    return SocketFlag.SAFE_DISCONN in flags and code in _DISCONNECTIONS
