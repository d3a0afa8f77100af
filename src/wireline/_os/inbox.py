"""Received datagrams that no call has returned yet: none is lost, however a call ends.

Theory of operation. A signal handler can raise an exception after nearly every call, so also between a ``recvfrom``
and the assignment of its result. Two statements leave no place for one: ``for x in iterator`` with an iterator in C
assigns what it has returned, and ``list.extend`` appends it. So ``recvfrom`` is the callable of such an iterator
(``iter(callable, sentinel)``), and its result is an attribute of the inbox until the public object of it is made. From
there on no call is made until the caller has the object. What an exception leaves in the inbox is the next result.

``list.extend`` also makes one loop in C of the many system calls of ``take_many``, and keeps what it has appended when
one of them fails. A pending error of the socket (an ICMP message) is one of these failures: the call after that raises
it, as with recvmmsg(2).
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from wireline._os.datagram import INFO_SIZE, MSG_TRUNC, Datagram, Raw, data_of, make_datagram, make_informed
from wireline._os.passed_fds import CLOSE_ON_EXEC, CONTROL_SIZE, PassedFds, ReceivedFds
from wireline.options import DONT_WAIT

__all__ = ["ANY_DATAGRAM", "MAX_COUNT", "Inbox"]

T = TypeVar("T")

# Bytes. Python allocates the whole size before the system call. A UDP datagram has at most 64 KiB, a Unix datagram at
# most the size of its sender's send buffer. A guess: far above the send buffers that systems are configured with.
_MAX_DATAGRAM = 16 * 1024 * 1024

ANY_DATAGRAM = 64 * 1024
"""Bytes of the largest UDP datagram, rounded up."""

MAX_COUNT = 1024
"""Datagrams of one ``take_many``: about a millisecond, in which no signal handler runs and no other task."""


class Inbox:
    """Receives datagrams without waiting, one call at a time.

    Attributes:
        make: makes a ``Datagram``.
        packet_info: the datagrams have their packet information.
        passed: the descriptors of a datagram that ``take_fds`` has received; None before the first ``take_fds``.
        received: bytes of payload that calls have returned.
    """

    __slots__ = (
        "_error",
        "_incoming",
        "_latest",
        "_pending",
        "_size",
        "_sock",
        "make",
        "packet_info",
        "passed",
        "received",
    )

    def __init__(self) -> None:
        self.packet_info = False
        self.received = 0
        self.passed: PassedFds | None = None
        self.make: Callable[[Raw, int], Datagram] = make_datagram
        # Receives from `_sock`, `_size` bytes at most.
        self._incoming: Iterator[Raw] = iter(())
        self._sock: socket.socket | None = None
        self._size = -1
        # Not returned yet: one datagram of `take`, those of `take_many`, and an error after them.
        self._latest: Raw | None = None
        self._pending: list[Raw] = []
        self._error: OSError | None = None

    def add_packet_info(self) -> None:
        """Receive with ``recvmsg``: the option that adds the packet information is set."""
        self.packet_info = True
        self.make = make_informed
        self._sock = None

    def take(self, sock: socket.socket, size: int, make: Callable[[Raw, int], T]) -> T:
        """Receive one datagram, cut to ``size`` bytes.

        Raises:
            BlockingIOError: none has arrived.
            OSError: a pending error of the socket.
        """
        kept = self._latest is not None or self._pending or self._error is not None
        if (kept or self.passed is not None) and self.has_kept:
            return self._take_kept(size, make)
        if size != self._size or sock is not self._sock:
            self._prepare(sock, size)
        incoming = self._incoming
        for self._latest in incoming:  # no signal handler can run here: see above
            break
        result = make(self._latest, size)  # type: ignore[arg-type] # the loop has set it
        length = len(self._latest[0])  # type: ignore[index]
        self.received += length if length < size else size
        self._latest = None
        return result

    def take_many(self, sock: socket.socket, size: int, count: int, make: Callable[[Raw, int], T]) -> list[T]:
        """Receive at least one datagram, and at most ``count`` of those that have arrived.

        Raises:
            BlockingIOError: none has arrived.
            OSError: a pending error of the socket.
        """
        pending = self._pending
        if self._latest is not None or (self.passed is not None and self.passed.datagrams):
            return [self._take_kept(size, make)]
        if not pending:
            self._raise_kept_error()
            if size != self._size or sock is not self._sock:
                self._prepare(sock, size)
            try:
                pending.extend(islice(self._incoming, min(count, MAX_COUNT)))
            except BlockingIOError:
                if not pending:
                    raise
            except OSError as error:
                if not pending:
                    raise
                self.put_error(error)
        size = min(size, self._size)
        result = [make(raw, size) for raw in pending[:count]]
        received = _payload(pending[:count], size)
        self.received += received
        del pending[:count]
        return result

    def peek(self, sock: socket.socket, size: int, make: Callable[[Raw, int], T]) -> T:
        """Return the datagram that ``take`` would return, and leave it there."""
        kept = self._latest or next(iter(self._pending), None)
        if kept is not None:
            return make(kept, min(size, self._size))
        if self.passed is not None and self.passed.datagrams:
            return _make_of_message(self.passed.datagrams[0], size, make)
        self._raise_kept_error()
        return make(self._receive_call(sock, size, DONT_WAIT | socket.MSG_PEEK)(), size)

    def take_fds(self, sock: socket.socket, size: int, max_fds: int) -> ReceivedFds:
        """Receive one datagram, cut to ``size`` bytes, with its descriptors; those above ``max_fds`` are closed.

        Raises:
            BlockingIOError: none has arrived.
            OSError: a pending error of the socket.
        """
        passed = self.passed
        assert passed is not None
        datagrams = passed.datagrams
        if not datagrams:
            if self.has_kept:  # by a call without descriptors
                return self._take_kept(size, lambda raw, size: ReceivedFds(data_of(raw, size), [], 0))
            arguments = (min(size, _MAX_DATAGRAM),), (CONTROL_SIZE,), (DONT_WAIT | CLOSE_ON_EXEC,)
            datagrams.extend(map(sock.recvmsg, *arguments))
        kept = passed.trim_datagram(max_fds)
        received = ReceivedFds(datagrams[0][0][:size], list(kept.fds), kept.truncated)
        length = len(received.data)
        self.received += length
        del datagrams[0]
        return received

    @property
    def has_kept(self) -> bool:
        """Whether the next call returns, or raises, what an earlier one has left."""
        passed = self.passed is not None and self.passed.datagrams
        return bool(self._latest or self._pending or self._error or passed)

    def put(self, raw: Raw, size: int) -> None:
        """Let a datagram, received for at most ``size`` bytes, be the next result."""
        self._size = size
        self._pending.append(raw)

    def put_error(self, error: OSError) -> None:
        """Let the next call raise an error that the system has reported, and reports once."""
        self._error = error.with_traceback(None)

    def _prepare(self, sock: socket.socket, size: int) -> None:
        self._incoming = iter(self._receive_call(sock, size, DONT_WAIT), None)
        self._sock = sock
        self._size = size

    def _receive_call(self, sock: socket.socket, size: int, os_flags: int) -> Callable[[], Raw]:
        size = min(size, _MAX_DATAGRAM)
        if self.packet_info:
            return functools.partial(sock.recvmsg, size, INFO_SIZE, os_flags)
        return functools.partial(sock.recvfrom, size + 1, os_flags)  # one byte more: see `Raw`

    def _take_kept(self, size: int, make: Callable[[Raw, int], T]) -> T:
        passed = self.passed
        if passed is not None and passed.datagrams:
            passed.trim_datagram(0)
            result = _make_of_message(passed.datagrams[0], size, make)
            received = _payload(passed.datagrams[:1], size)
            self.received += received
            del passed.datagrams[0]
            return result
        # It may have been received for a call with another size, and was cut then.
        size = min(size, self._size)
        if self._latest is not None:
            result = make(self._latest, size)
            received = _payload([self._latest], size)
            self.received += received
            self._latest = None
            return result
        if not self._pending:
            self._raise_kept_error()
        result = make(self._pending[0], size)
        received = _payload(self._pending[:1], size)
        self.received += received
        del self._pending[0]
        return result

    def _raise_kept_error(self) -> None:
        error = self._error
        if error is not None:
            self._error = None
            raise error


def _payload(datagrams: Iterable[Raw], size: int) -> int:
    """Return the bytes that the caller gets of some datagrams, each cut to ``size``."""
    return sum(min(len(raw[0]), size) for raw in datagrams)


def _make_of_message(message: Raw, size: int, make: Callable[[Raw, int], T]) -> T:
    """Make the result of a datagram that ``take_fds`` has received, without its descriptors."""
    data, _, os_flags, sender = message
    if os_flags & MSG_TRUNC:
        return make((data + b"\0", sender), min(size, len(data)))  # one byte more: see `Raw`
    return make((data, sender), size)
