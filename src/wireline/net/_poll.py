"""Waiting for one descriptor, with a deadline, and in a way that ``close`` can end.

``close`` wakes the calls of a connected stream by ``shutdown``, which the kernel reports to every ``poll`` and every
system call on it. Nothing reports anything for a listener, a datagram socket or one that is connecting (Linux
does, others do not, and on Linux it would reach the other processes that share a listener). These wait for a
``Waker`` beside their own descriptor.
"""

from __future__ import annotations

import select
import socket
import threading
import time

from wireline._core.deadline import CallDeadline
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os.close import close_quietly
from wireline._os.resolver import Lookup
from wireline.errors import SocketTimeout

__all__ = ["Latch", "Readiness", "Waker", "start_deadline", "wait_for_lookup"]

# poll(2) takes an int of milliseconds.
_LONGEST_POLL = 2**31 - 1


def start_deadline(timeout: float | None) -> CallDeadline | None:
    """The moment ``timeout`` seconds from now; None for "wait forever"."""
    return None if timeout is None else CallDeadline(timeout, time.monotonic())


class Latch:
    """An event that is set once, by a signal handler too: ``threading.Event`` has a lock that the thread may hold."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # set before

    def is_set(self) -> bool:
        return not self._lock.locked()

    def wait(self, seconds: float | None) -> None:
        """Wait until it is set, at most for ``seconds``. One thread at a time."""
        if self._lock.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)):
            self.set()


class Waker:
    """Ends the waits of a socket from another thread, or from a signal handler.

    It takes no lock: its state is changed by single operations of C. Once woken it stays so: it is for ``close``.
    """

    __slots__ = ("_latches", "_pairs", "_woken")

    def __init__(self) -> None:
        self._latches: dict[Latch, None] = {}
        # The pair of descriptors that threads in `poll` wait for, made when one waits for the first time.
        self._pairs: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._woken = False

    def fileno(self) -> int:
        """A descriptor that becomes readable when the waker is woken."""
        pair = self._pairs.get(0)
        if pair is None:
            made = socket.socketpair()
            pair = self._pairs.setdefault(0, made)
            if pair is not made:  # another thread was first
                _close_pair(made)
            else:
                made[1].setblocking(False)
            if self._woken:
                _send_byte(pair)
        return pair[0].fileno()

    def wake(self) -> None:
        """Wake all threads that wait, now and later."""
        self._woken = True
        for latch in tuple(self._latches):
            latch.set()
        for pair in tuple(self._pairs.values()):
            _send_byte(pair)

    def wait_for(self, latch: Latch, seconds: float | None) -> None:
        """Wait until ``latch`` is set, at most for ``seconds``; the waker sets it when it is woken."""
        try:
            self._latches[latch] = None
            if self._woken:
                latch.set()
            latch.wait(seconds)
        finally:
            if latch in self._latches:
                del self._latches[latch]

    def close(self) -> None:
        """Let go of the descriptors; no thread waits any more."""
        pair = self._pairs.pop(0, None)
        if pair is not None:
            _close_pair(pair)

    def renew(self) -> None:
        """In a forked child: the pair is the parent's, too, and is not to be written to."""
        self.close()
        self._latches.clear()


def _close_pair(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        close_quietly(end)


def _send_byte(pair: tuple[socket.socket, socket.socket]) -> None:
    """Make the first end readable, for good."""
    try:
        pair[1].send(b"\0")
    except OSError:
        # No memory for a byte, or thousands of them are there. The end of the stream needs none.
        close_quietly(pair[1])


def wait_for_lookup(
    lookup: Lookup, operation: str, deadline: CallDeadline | None, waker: Waker
) -> list[AddrInfo] | None:
    """Wait for the addresses of a name; None if the waker was woken first.

    Raises:
        SocketTimeout: the deadline passed first. The lookup goes on by itself.
        socket.gaierror: the name does not resolve.
    """
    if lookup.done():
        return lookup.result()
    done = Latch()

    def wake(_: Lookup) -> None:
        done.set()

    lookup.add_done_callback(wake)
    try:
        waker.wait_for(done, None if deadline is None else deadline.remaining(time.monotonic()))
    finally:
        lookup.remove_done_callback(wake)
    if lookup.done():
        return lookup.result()
    if done.is_set() or deadline is None:
        return None
    raise SocketTimeout(operation, deadline.seconds)


class Readiness:
    """Waits until one descriptor is readable, or writable. One thread at a time."""

    __slots__ = ("_poll", "_read", "_waker", "_write")

    def __init__(self, fd: int, *, write: bool = False, waker: Waker | None = None) -> None:
        """Prepare to wait.

        Args:
            fd: the descriptor.
            write: wait for room to write instead of something to read.
            waker: what else ends the wait.
        """
        self._read = [] if write else [fd]
        self._write = [fd] if write else []
        self._waker = waker
        self._poll = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT if write else select.POLLIN)

    def wait(self, deadline: CallDeadline | None) -> bool:
        """Return True when the descriptor is ready (or broken, or woken), False when the deadline has passed.

        A deadline that has passed already still asks once: what is there, is there.
        """
        seconds = None if deadline is None else deadline.remaining(time.monotonic())
        if self._waker is None:
            return self._ready(seconds)
        # A pair of descriptors is made only for a call that really has to wait.
        if self._ready(0.0):
            return True
        if seconds == 0.0:
            return False
        woken = self._waker.fileno()
        if self._poll is None:
            self._read.append(woken)
        else:
            self._poll.register(woken, select.POLLIN)
        self._waker = None
        return self._ready(seconds)

    def _ready(self, seconds: float | None) -> bool:
        if self._poll is None:
            ready = select.select(self._read, self._write, self._write, seconds)
            return any(ready)
        if seconds is None:
            return bool(self._poll.poll())
        return bool(self._poll.poll(min(seconds * 1000, _LONGEST_POLL)))
