"""What is done to a bare descriptor, and what its errors mean. None of it waits."""

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
"""What ``connect`` says when it was not allowed to wait and has begun. Interrupted by a signal it goes on, too."""

# A value of SO_LINGER: closing drops what was not sent, and resets the connection.
_ABORT = struct.pack("ii", 1, 0)

_GONE = frozenset({errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE})


# Linux lets a socket's type carry two flags.
_TYPE_FLAGS: int = getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0)


_OTHER_KINDS = {
    int(kind): kind.name
    for kind in socket.SocketKind
    if kind not in (SOCK_STREAM, SOCK_DGRAM) and not kind & _TYPE_FLAGS
}


# `socket.socket` as Python has it waits in the kernel. gevent and its like put a class of their own in its place, whose
# `recv` waits in their loop for the socket's own timeout, MSG_DONTWAIT or not.
KERNEL_WAITS: bool = bool(DONT_WAIT) and issubclass(socket.socket, _socket.socket)
"""Whether a stream of the blocking flavour may wait inside ``recv`` and ``send``, and refuse to by a flag."""


def require_kernel_waits(sock: socket.socket) -> None:
    """Refuse a socket of a class that was put in the place of ``socket.socket`` after this library was imported.

    Raises:
        RuntimeError: it is one: its timeouts would be ignored.
    """
    if not isinstance(sock, _socket.socket):
        raise RuntimeError(
            f"{type(sock).__module__} has replaced socket.socket after wireline was imported, and timeouts would be"
            " ignored: patch first, and import wireline then"
        )


class State(enum.Enum):
    """What a socket has become."""

    FRESH = "unconnected"
    LISTENING = "listening"
    CONNECTED = "connected"


def fitting_protocol(domain: int, sock_type: int, protocol: int) -> int:
    """What the default protocol, TCP, stands for."""
    if protocol != IPPROTO_TCP:
        return protocol
    if domain not in (AF_INET, AF_INET6):
        return 0
    return IPPROTO_UDP if sock_type == SOCK_DGRAM else protocol


def require_kind(sock_type: int, *, made: bool = True) -> None:
    """Refuse a kind of socket that is neither a stream nor datagrams.

    Args:
        sock_type: the kind.
        made: there is such a socket. What there is not yet, and has no name in Python, the operating system may refuse.

    Raises:
        ValueError: it is ``SOCK_SEQPACKET``, ``SOCK_RAW``, ...
    """
    kind = sock_type & ~_TYPE_FLAGS
    name = _OTHER_KINDS.get(kind)
    if name is not None or (made and kind not in (SOCK_STREAM, SOCK_DGRAM)):
        raise ValueError(f"a socket is SOCK_STREAM or SOCK_DGRAM here; {name or kind} is not supported")


def create(domain: int, sock_type: int, protocol: int) -> socket.socket:
    """Make a descriptor. Every TCP stream has TCP_NODELAY from its first moment (C7)."""
    sock = socket.socket(domain, sock_type, protocol)
    try:
        sock.setblocking(False)  # whatever `socket.setdefaulttimeout` says
        no_delay(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def begin_connect(info: AddrInfo) -> tuple[socket.socket, bool]:
    """Make a socket and begin to connect it; also whether that is done already.

    Raises:
        OSError: it failed at once; the socket is closed again.
    """
    family, sock_type, protocol, _, sockaddr = info
    sock = create(family, sock_type, protocol)
    try:
        code = sock.connect_ex(sockaddr)
        if code and code not in CONNECTING:
            raise OSError(code, os.strerror(code))
        if not code:
            refuse_itself(sock)
    except BaseException:
        sock.close()
        raise
    return sock, not code


Unclaimed = list[tuple[int, SockAddr]]
"""Clients that were accepted, and are not handed out: the number of a descriptor, and an address."""


def accept_now(listener: socket.socket, unclaimed: Unclaimed) -> tuple[socket.socket, SockAddr]:
    """Accept a client that is there already, one of ``unclaimed`` first.

    An exception of a signal handler loses no descriptor: the number passes from the system call to a list, and from
    there to the object that closes it, without a moment in which a handler can run. What an exception leaves is in
    ``unclaimed``, for the next call or ``close_unclaimed``.

    Raises:
        BlockingIOError: there is none.
    """
    if not isinstance(listener, _socket.socket):
        return listener.accept()  # gevent's, which says nothing of how it does it
    family, kind, protocol = listener.family, listener.type, listener.proto
    client: socket.socket = socket.socket.__new__(socket.socket)
    vars_of: Any = client
    vars_of._io_refs, vars_of._closed = 0, False  # what `__init__` does besides
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
    """Close the descriptors of clients that are not handed out."""
    numbers = map(operator.itemgetter(0), map(list.pop, itertools.repeat(unclaimed)))
    with contextlib.suppress(IndexError):  # that was all
        for _ in map(socket.close, numbers):
            pass


def has_room(sock: socket.socket) -> bool:
    """Whether the kernel would take something more to send."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        return bool(poll.poll(0))
    return bool(select.select((), (sock,), (), 0)[1])


def connect_result(sock: socket.socket) -> OSError | None:
    """What became of a connection attempt that is over."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        return OSError(code, os.strerror(code))
    try:
        refuse_itself(sock)
    except OSError as error:
        return error
    return None


def refuse_itself(sock: socket.socket) -> None:
    """Take a TCP connection to itself for a refused attempt (C8).

    The kernel chooses the local port of an attempt. If it chooses the very port that is dialled, at which nothing
    listens, the attempt meets itself: TCP's simultaneous open, with one end. A program would read its own request.

    Raises:
        ConnectionRefusedError: both ends of the connection are this socket.
        OSError: the socket could not be asked.
    """
    if sock.type != SOCK_STREAM or sock.family not in (AF_INET, AF_INET6):
        return
    local = sock.getsockname()
    try:
        peer = sock.getpeername()
    except OSError:  # reset already: there was a peer
        return
    if local[:2] != peer[:2] or local[3:] != peer[3:]:  # but for the flow label of IPv6
        return
    # Closed in the ordinary way it would wait for its own last segments, and keep the server that is missing here from
    # binding its port for a minute.
    with contextlib.suppress(OSError):  # then it waits; the attempt has failed in any case
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    error = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    error.add_note("nothing listens there: the connection had reached its own socket")
    raise error


def no_delay(sock: socket.socket) -> None:
    """Set TCP_NODELAY on a TCP stream; of any other socket leave all as it is."""
    if sock.type == SOCK_STREAM and sock.family in (AF_INET, AF_INET6) and sock.proto in (0, IPPROTO_TCP):
        sock.setsockopt(IPPROTO_TCP, socket.TCP_NODELAY, 1)


def state_of(sock: socket.socket) -> tuple[State, SockAddr | None]:
    """Ask the operating system what a descriptor from elsewhere has become."""
    with contextlib.suppress(OSError):  # not everywhere, and not for every kind
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return State.LISTENING, None
    try:
        return State.CONNECTED, sock.getpeername()
    except OSError:
        return State.FRESH, None


def is_failed_before_accept(flags: SocketFlag, error: OSError) -> bool:
    """Whether ``accept`` failed for a client that went away before, and should go on with the next one (S4)."""
    return SocketFlag.SAFE_DISCONN in flags and error.errno in _FAILED_BEFORE_ACCEPT


def shut_down_writing(sock: Sender) -> None:
    """Half-close. A peer that has gone already is no error."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno not in _GONE:
            raise
