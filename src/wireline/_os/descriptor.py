"""Operations on a bare descriptor, and the meaning of their errors. None of them waits."""

from __future__ import annotations

import _socket
import contextlib
import enum
import errno
import itertools
import operator
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wireline._core.happy_eyeballs import AddrInfo
from wireline.errors import SockAddr
from wireline.options import (
    AF_INET,
    AF_INET6,
    DONT_WAIT,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_DGRAM,
    SOCK_STREAM,
    SocketFlag,
)

if TYPE_CHECKING:
    from wireline._core.stream import Sender

# accept(2), "Error handling": what goes wrong with one connection before it is accepted says nothing about the next.
_FAILED_BEFORE_ACCEPT = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED ECONNRESET EPROTO ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH ENETDOWN ENETUNREACH EPERM"
    ).split()
    if hasattr(errno, name)
)

CONNECTING = frozenset(
    getattr(errno, name)
    for name in "EINPROGRESS EWOULDBLOCK EAGAIN EINTR WSAEWOULDBLOCK".split()
    if hasattr(errno, name)
)
"""The error numbers of a non-blocking ``connect`` that has begun. After EINTR it goes on, too."""

# `struct linger` of SO_LINGER, on and 0 seconds: close(2) drops unsent data and resets the connection.
_ABORT = struct.pack("ii", 1, 0)

_DISCONNECTED = frozenset({errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE})


# Flags that Linux allows in a socket's type.
_TYPE_FLAGS: int = getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0)


_UNSUPPORTED_TYPES = {
    int(kind): kind.name
    for kind in socket.SocketKind
    if kind not in (SOCK_STREAM, SOCK_DGRAM) and not kind & _TYPE_FLAGS
}


# Python's `socket.socket` waits in the kernel. gevent and the like replace it by a class whose `recv` waits in their
# loop for the socket's own timeout, with MSG_DONTWAIT or without.
KERNEL_WAITS: bool = bool(DONT_WAIT) and issubclass(socket.socket, _socket.socket)
"""Whether ``recv`` and ``send`` of a blocking descriptor wait in the kernel, and do not with MSG_DONTWAIT."""


def require_kernel_waits(sock: socket.socket) -> None:
    """Refuse a socket if ``socket.socket`` was replaced after this library was imported.

    Raises:
        RuntimeError: it was replaced, and timeouts would be ignored.
    """
    if not isinstance(sock, _socket.socket):
        raise RuntimeError(
            f"{type(sock).__module__} has replaced socket.socket after wireline was imported, and timeouts would be"
            " ignored; import wireline after the patch"
        )


class State(enum.Enum):
    """The state of a socket."""

    FRESH = "unconnected"
    LISTENING = "listening"
    CONNECTED = "connected"


def default_protocol(domain: int, sock_type: int, protocol: int) -> int:
    """Return the protocol that fits the domain and the type, where the caller gave the default, TCP."""
    if protocol != IPPROTO_TCP:
        return protocol
    if domain not in (AF_INET, AF_INET6):
        return 0
    return IPPROTO_UDP if sock_type == SOCK_DGRAM else protocol


def require_kind(sock_type: int, *, exists: bool = True) -> None:
    """Refuse a socket type other than ``SOCK_STREAM`` and ``SOCK_DGRAM``.

    Args:
        sock_type: the type.
        exists: the socket exists already. For a new one the operating system decides about unknown types.

    Raises:
        ValueError: it is ``SOCK_SEQPACKET``, ``SOCK_RAW``, ...
    """
    kind = sock_type & ~_TYPE_FLAGS
    name = _UNSUPPORTED_TYPES.get(kind)
    if name is not None or (exists and kind not in (SOCK_STREAM, SOCK_DGRAM)):
        raise ValueError(f"a socket type is SOCK_STREAM or SOCK_DGRAM; {name or kind} is not supported")


def create(domain: int, sock_type: int, protocol: int) -> socket.socket:
    """Make a non-blocking socket. A TCP stream has TCP_NODELAY from the start (promise C7)."""
    sock = socket.socket(domain, sock_type, protocol)
    try:
        sock.setblocking(False)  # `socket.setdefaulttimeout` may have set a timeout
        set_no_delay(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def create_prepared(info: AddrInfo, prepare: Callable[[socket.socket], object]) -> socket.socket:
    """Make a non-blocking socket for one address, and let ``prepare`` set options of it or bind it.

    Raises:
        OSError: it failed; the socket is closed.
    """
    sock = create(*info[:3])
    try:
        prepare(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def begin_connect(info: AddrInfo, prepare: Callable[[socket.socket], object]) -> tuple[socket.socket, bool]:
    """Make a socket and begin to connect it; return it, and whether it is connected already.

    Raises:
        OSError: it failed at once; the socket is closed.
    """
    sock = create_prepared(info, prepare)
    try:
        code = sock.connect_ex(info[4])
        if code and code not in CONNECTING:
            raise OSError(code, os.strerror(code))
        if not code:
            reject_self_connect(sock)
    except BaseException:
        sock.close()
        raise
    return sock, not code


Unclaimed = list[tuple[int, SockAddr]]
"""Accepted clients that no caller has got yet: the number of the descriptor, and the peer's address."""


def accept_now(listener: socket.socket, unclaimed: Unclaimed) -> tuple[socket.socket, SockAddr]:
    """Accept a client without waiting, one of ``unclaimed`` first.

    An exception of a signal handler loses no descriptor: its number goes from the system call to a list, and from there
    to the object that closes it, and no handler can run in between. After an exception it is in ``unclaimed``, for the
    next call or ``close_unclaimed``.

    Raises:
        BlockingIOError: no client is waiting.
    """
    if not isinstance(listener, _socket.socket):
        return listener.accept()  # gevent's, which has other internals
    family, kind, protocol = listener.family, listener.type, listener.proto
    client: socket.socket = socket.socket.__new__(socket.socket)
    vars_of: Any = client
    vars_of._io_refs, vars_of._closed = 0, False  # as `socket.socket.__init__` does
    mine: Unclaimed = []
    try:
        try:
            mine.extend(map(list.pop, (unclaimed,)))
        except IndexError:
            mine.extend(map(type(listener)._accept, (listener,)))  # type: ignore[attr-defined]
        sockaddr = mine[0][1]
        number = map(operator.itemgetter(0), map(list.pop, (mine,)))
        for _ in map(_socket.socket.__init__, (client,), (family,), (kind,), (protocol,), number):
            break
    except BaseException:
        unclaimed += mine
        raise
    return client, sockaddr


def close_unclaimed(unclaimed: Unclaimed) -> None:
    """Close the descriptors of clients that no caller has got."""
    numbers = map(operator.itemgetter(0), map(list.pop, itertools.repeat(unclaimed)))
    with contextlib.suppress(IndexError):  # the list is empty
        for _ in map(socket.close, numbers):
            pass


def is_writable(sock: socket.socket) -> bool:
    """Whether the send buffer has free space."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        return bool(poll.poll(0))
    return bool(select.select((), (sock,), (), 0)[1])


def is_readable(sock: socket.socket) -> bool:
    """Whether there is something to receive or to accept, or the end, or an error."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select((sock,), (), (), 0)[0])


def connect_result(sock: socket.socket) -> OSError | None:
    """Return the error of a connection attempt that has ended; None if it is connected."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        return OSError(code, os.strerror(code))
    try:
        reject_self_connect(sock)
    except OSError as error:
        return error
    return None


def reject_self_connect(sock: socket.socket) -> None:
    """Report a TCP connection to itself as refused (promise C8).

    The kernel chooses the local port. If it chooses the destination port, at which nothing listens, the SYN reaches its
    own socket: TCP's simultaneous open with one end. The program would read its own request.

    Raises:
        ConnectionRefusedError: both ends of the connection are this socket.
        OSError: from getsockname(2).
    """
    if sock.type != SOCK_STREAM or sock.family not in (AF_INET, AF_INET6):
        return
    local = sock.getsockname()
    try:
        peer = sock.getpeername()
    except OSError:  # reset already, so there was a peer
        return
    if local[:2] != peer[:2] or local[3:] != peer[3:]:  # all but the flow label of IPv6
        return
    # After an ordinary close the socket is in TIME_WAIT for a minute, and a server could not bind the port.
    with contextlib.suppress(OSError):  # the attempt has failed in any case
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    error = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    error.add_note("nothing listens there: the socket had connected to itself")
    raise error


def set_no_delay(sock: socket.socket) -> None:
    """Set TCP_NODELAY on a TCP stream; leave any other socket alone."""
    if sock.type == SOCK_STREAM and sock.family in (AF_INET, AF_INET6) and sock.proto in (0, IPPROTO_TCP):
        sock.setsockopt(IPPROTO_TCP, socket.TCP_NODELAY, 1)


def probe_state(sock: socket.socket) -> tuple[State, SockAddr | None]:
    """Ask the operating system for the state of a socket, and for its peer if it is connected."""
    with contextlib.suppress(OSError):  # not on every system, and not for every type
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return State.LISTENING, None
    try:
        return State.CONNECTED, sock.getpeername()
    except OSError:
        return State.FRESH, None


def is_failed_before_accept(flags: SocketFlag, error: OSError) -> bool:
    """Whether ``accept`` failed because of one client that has gone, so that the next can be tried (promise S4)."""
    return SocketFlag.SAFE_DISCONN in flags and error.errno in _FAILED_BEFORE_ACCEPT


def shut_down_writing(sock: Sender) -> None:
    """Half-close. A peer that has gone already is no error."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno not in _DISCONNECTED:
            raise
