"""Descriptors that Unix sockets pass to each other (``SCM_RIGHTS``): sending them, and keeping the received ones.

Theory of operation. The kernel passes descriptors with a byte of the stream, and one recvmsg(2) returns no byte behind
those that were sent together with descriptors. So each receive is one *piece* of the stream, and the descriptors belong
to a byte of it: which one, the kernel does not tell. ``recv_fds`` returns the descriptors of a piece with the first
byte of the piece that it returns, or with the next byte if another read has taken the first: with their byte or before
it, and never after it. It returns no byte behind the piece, as the kernel does.

``PassedFds`` receives in place of the ``socket.socket`` of a Unix stream, so no other stream pays for this. An
exception of a signal handler loses no descriptor: a message is stored by the statement that receives it, and its
descriptors are noted in lines without a call, in which CPython runs no handler (as in ``_core.buffer``).
"""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

from wireline._core.stream import StreamCore
from wireline._validation import require_int
from wireline.options import AF_UNIX

__all__ = [
    "CLOSE_ON_EXEC",
    "CONTROL_SIZE",
    "MAX_FDS",
    "Ancillary",
    "Delivery",
    "PassedFds",
    "ReceivedFds",
    "Receiver",
    "as_ancillary",
    "can_pass_fds",
    "recv_fds",
    "send_first",
]

MAX_FDS = 253
"""The most descriptors of one message (``SCM_MAX_FD`` of Linux), and of all that a socket keeps."""

_FD_SIZE = array.array("i").itemsize
CONTROL_SIZE: int = socket.CMSG_SPACE(MAX_FDS * _FD_SIZE) if hasattr(socket, "CMSG_SPACE") else 0
"""Bytes that ``recvmsg`` needs for the descriptors of one message."""

CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
"""The flag of ``recvmsg`` for descriptors that programs which this process executes do not inherit."""

_TRUNCATED = int(getattr(socket, "MSG_CTRUNC", 0))  # not the enumeration, whose operators take microseconds
_RIGHTS = int(getattr(socket, "SCM_RIGHTS", -1))

# Linux passes a descriptor of the sender's process with every message, if the program has asked for it by its number
# (SO_PASSPIDFD). Nothing here returns it.
_PIDFD = 4

_NOTED = object()
"""In place of the sender's address in a message whose descriptors are in ``pieces`` already."""

Ancillary: TypeAlias = tuple[tuple[int, int, bytes], ...]
"""What ``sendmsg`` takes besides the data."""


class ReceivedFds(NamedTuple):
    """The result of ``recv_fds``: ``(data, fds, truncated)``.

    Attributes:
        data: the bytes; ``b""`` at the end of the stream, for a size of 0, and if the next message has too many
            descriptors for this result.
        fds: the descriptors, which belong to the caller.
        truncated: how many descriptors were closed: those above ``max_fds``, and those above the 253 that a socket
            keeps. Descriptors that the operating system could not pass (``EMFILE``) count as one for each message.
    """

    data: bytes
    fds: list[int]
    truncated: int


class _Kept(NamedTuple):
    """The descriptors of one message, in place of what ``recvmsg`` returns about them."""

    fds: tuple[int, ...]
    truncated: int


class _Piece(NamedTuple):
    """The descriptors of one receive of a stream.

    Attributes:
        start, end: the position of its first byte, and the first behind it, in bytes that ``PassedFds`` has counted.
        fds: the descriptors.
    """

    start: int
    end: int
    fds: tuple[int, ...]


def as_ancillary(fds: Iterable[int]) -> Ancillary:
    """Return what ``sendmsg`` takes for these descriptors.

    Raises:
        TypeError: it is not an iterable of ints.
        ValueError: one of them is negative, or there are more than ``MAX_FDS``.
    """
    try:
        numbers = list(fds)
    except TypeError:
        raise TypeError(f"fds is an iterable of descriptors, not {type(fds).__name__}") from None
    for number in numbers:
        require_int("a descriptor", number)
    if len(numbers) > MAX_FDS:
        raise ValueError(f"one message passes at most {MAX_FDS} descriptors, got {len(numbers)}")
    if not numbers:
        return ()
    return ((socket.SOL_SOCKET, _RIGHTS, array.array("i", numbers).tobytes()),)


def close_fds(numbers: list[int]) -> None:
    """Close descriptors. A signal handler that raises meanwhile closes none of them twice."""
    while numbers:
        with contextlib.suppress(OSError, IndexError):
            for _ in map(os.close, map(list.pop, itertools.repeat(numbers))):
                pass


def can_pass_fds(sock: socket.socket) -> bool:
    """Whether descriptors may arrive with what a socket receives."""
    return sock.family == AF_UNIX and _RIGHTS >= 0 and hasattr(sock, "recvmsg")


def send_first(
    sock: socket.socket, payload: bytes | memoryview, ancillary: Ancillary, flags: int
) -> Iterator[int]:
    """Return an iterator that sends as much as it can in one attempt, with the descriptors, and yields the size.

    ``for self.sent in send_first(...)`` leaves no place for a signal handler between the system call and the count.
    """
    return map(sock.sendmsg, ((payload,),), (ancillary,), (flags,))


class Receiver(Protocol):
    """What receives the bytes of a stream: its ``socket.socket``, or ``PassedFds``."""

    def recv(self, size: int, flags: int, /) -> bytes:
        """Receive at most ``size`` bytes."""
        ...


class Delivery:
    """What one call of ``recv_fds`` has taken, and gives back if it is interrupted.

    Attributes:
        pieces: whose descriptors it returns.
        truncated: what it reports as closed.
    """

    __slots__ = ("pieces", "truncated")

    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        self.truncated = 0


class PassedFds:
    """The descriptors that one Unix socket has received, and no call has returned yet.

    Attributes:
        closed: ``close`` was called.
        datagrams: the datagram that is being received, or was when a call was interrupted, as ``recvmsg`` returns it.
        message: the same of a stream.
        pieces: descriptors that the reads of a stream have left, the oldest first. Each piece has at least one, and all
            together have at most ``MAX_FDS``.
        truncated: descriptors that were closed, or could not be passed, since ``recv_fds`` has reported them.
    """

    __slots__ = (
        "_condemned",
        "_flags",
        "_received",
        "_receiving",
        "_recvmsg",
        "_size",
        "closed",
        "datagrams",
        "message",
        "pieces",
        "truncated",
    )

    def __init__(self, sock: socket.socket, datagrams: list[tuple[Any, ...]] | None = None) -> None:
        self._recvmsg = sock.recvmsg
        # The arguments of the last receive, and what makes another one like it.
        self._size = self._flags = -1
        self._receiving: Iterator[tuple[Any, ...]] = iter(())
        self._condemned: list[int] = []  # to be closed
        self._received = 0  # bytes, counted while there are pieces
        self.closed = False
        self.datagrams = [] if datagrams is None else datagrams
        self.message: tuple[Any, ...] | None = None
        self.pieces: list[_Piece] = []
        self.truncated = 0

    def __bool__(self) -> bool:
        """Whether there is anything that a call has yet to return."""
        return bool(self.pieces or self.message)

    # Streams.

    def recv(self, size: int, flags: int, /) -> bytes:
        """Do what ``socket.recv`` does, and keep the descriptors that arrive."""
        data: bytes
        if self.message is None:  # else a call was interrupted
            if size != self._size or flags != self._flags:
                self._receive_as(size, flags)
            receiving = self._receiving
            for self.message in receiving:
                break
        data, ancillary, os_flags, _ = self.message  # type: ignore[misc] # the loop has set it
        if ancillary or os_flags & _TRUNCATED or self.pieces:
            self._keep()
        self.message = None  # from here to the `return` there is no place for a signal handler
        return data

    def _receive_as(self, size: int, flags: int) -> None:
        arguments = (size, CONTROL_SIZE, flags | CLOSE_ON_EXEC)
        receiving = map(self._recvmsg, *map(itertools.repeat, arguments))
        self._receiving, self._size, self._flags = receiving, size, flags

    def _keep(self) -> None:
        """Note where the message is in the stream, and its descriptors."""
        data, ancillary, os_flags, noted = self.message  # type: ignore[misc]
        if noted is _NOTED:
            return
        pieces, condemned = self.pieces, self._condemned
        start = self._received if pieces else 0
        end = start + len(data)
        kept, others = _parse(ancillary, os_flags)
        free = MAX_FDS - sum(len(piece.fds) for piece in pieces) if kept.fds else 0
        fitting, surplus = kept.fds[:free], kept.fds[free:]
        more = (_Piece(start, end, fitting),) if fitting else ()
        truncated = self.truncated + kept.truncated + len(surplus)
        # From here to the call there is no place for a signal handler.
        self.message = (data, (), 0, _NOTED)
        self._received = end
        self.truncated = truncated
        pieces += more
        condemned += surplus + others
        close_fds(condemned)

    def due(self, size: int, unread: int, max_fds: int) -> tuple[int, int]:
        """Decide what the next ``recv_fds`` returns.

        Descriptors are closed here if the first piece has more than ``max_fds``. A later piece that does not fit waits
        for the next call, with its bytes and those behind it.

        Args:
            size: the most bytes.
            unread: bytes that were received, and not read.
            max_fds: the most descriptors.

        Returns:
            The number of bytes, and the number of pieces.
        """
        free = max_fds
        for count, piece in enumerate(self.pieces):
            start = unread - (self._received - piece.start)
            if start >= size:
                return size, count
            if not count:
                piece = self._trim_first(max_fds)
            elif len(piece.fds) > free:
                return min(size, max(start, 0)), count
            free -= len(piece.fds)
            end = unread - (self._received - piece.end)
            if end > 0:
                size = min(size, end)
        return size, len(self.pieces)

    def _trim_first(self, max_fds: int) -> _Piece:
        pieces, condemned = self.pieces, self._condemned
        piece = pieces[0]
        surplus = piece.fds[max_fds:]
        if not surplus:
            return piece
        piece = _Piece(piece.start, piece.end, piece.fds[:max_fds])
        truncated = self.truncated + len(surplus)
        # As in `_keep`.
        pieces[0] = piece
        self.truncated = truncated
        condemned += surplus
        close_fds(condemned)
        return piece

    # Datagrams.

    def trim_datagram(self, max_fds: int) -> _Kept:
        """Close the descriptors of the received datagram above ``max_fds``; return the others."""
        datagrams, condemned = self.datagrams, self._condemned
        data, ancillary, os_flags, sender = datagrams[0]
        kept, others = (ancillary, ()) if type(ancillary) is _Kept else _parse(ancillary, os_flags)
        surplus = kept.fds[max_fds:]
        kept = _Kept(kept.fds[:max_fds], kept.truncated + len(surplus))
        # As in `_keep`.
        datagrams[0] = (data, kept, os_flags, sender)
        condemned += surplus + others
        close_fds(condemned)
        return kept

    # The end.

    def close_if_ended(self) -> None:
        """Close what a call has given back after ``close``."""
        if self.closed:
            self.close()

    def close(self) -> None:
        """Close all descriptors that no call has returned. It may be interrupted and done again."""
        self.closed = True
        pieces, condemned = self.pieces, self._condemned
        if self.message is not None:
            self._keep()
            self.message = None
        if self.datagrams:
            self.trim_datagram(0)
        numbers = [fd for piece in pieces for fd in piece.fds]
        # As in `_keep`.
        del pieces[:]
        condemned += numbers
        close_fds(condemned)


def _parse(ancillary: Iterable[tuple[int, int, bytes]], os_flags: int) -> tuple[_Kept, tuple[int, ...]]:
    """Return the descriptors of a message, and those in it that are none of the sender's. It may be done again."""
    fds, others = array.array("i"), array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind in (_RIGHTS, _PIDFD):
            (fds if kind == _RIGHTS else others).frombytes(data[: len(data) - len(data) % _FD_SIZE])
    if not CLOSE_ON_EXEC:
        for fd in fds:
            os.set_inheritable(fd, False)
    return _Kept(tuple(fds), 1 if os_flags & _TRUNCATED else 0), tuple(others)


# The requests of a core, as those in `_core.named`.


def recv_fds(
    core: StreamCore, size: int, max_fds: int, passed: PassedFds, delivery: Delivery
) -> ReceivedFds | None:
    """At least one byte and at most ``size``, with the descriptors that were passed with them, or before them."""
    unread = len(core.buffer)
    if size and not unread and not core.ended:
        core.recv_some(size)
        # Just these bytes: the kernel then decides which descriptors belong to them.
        core.recv_size = min(size, core.recv_size)
        core.direct_limit = 0
        return None
    readable, count = passed.due(min(size, unread), unread, max_fds)
    data = core.recv_some(readable if unread else size) or b""
    pieces = passed.pieces
    received = ReceivedFds(data, [fd for piece in pieces[:count] for fd in piece.fds], passed.truncated)
    # From here to the `return` there is no place for a signal handler.
    delivery.truncated = received.truncated
    delivery.pieces = pieces[:count]
    del pieces[:count]
    passed.truncated = 0
    return received
