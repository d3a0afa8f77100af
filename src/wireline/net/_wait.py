"""Waiting for one descriptor, with a deadline, and in a way that ``close`` can end.

Who is woken by what: a connected stream by ``shutdown``, which the kernel reports to everybody who polls or sits in
a system call on it. Nothing reports anything for a listener, a datagram socket or one that is connecting (Linux
does, others do not, and on Linux it would reach the other processes that share a listener). These wait for a
``Waker`` beside their own descriptor.
"""

from __future__ import annotations

import select
import socket
import threading
import time

from wireline._resolver import Lookup, outcome
from wireline._sansio.deadline import Deadline
from wireline._sansio.race import AddrInfo
from wireline.errors import SocketTimeout

__all__ = ["Readiness", "Waker", "start_deadline", "wait_for_lookup"]

# poll(2) takes an int of milliseconds.
_LONGEST_POLL = 2**31 - 1


def start_deadline(timeout: float | None) -> Deadline | None:
    """The moment ``timeout`` seconds from now; None for "wait for ever"."""
    return None if timeout is None else Deadline(timeout, time.monotonic())


class Waker:
    """Ends the waits of a socket from another thread; made when somebody waits for the first time.

    Once rung it stays rung: it is for ``close``.
    """

    def __init__(self) -> None:
        self._events: set[threading.Event] = set()
        self._lock = threading.Lock()
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._rung = False

    def fileno(self) -> int:
        """A descriptor that becomes readable when the waker is rung."""
        with self._lock:
            if self._pair is None:
                self._pair = socket.socketpair()
                if self._rung:
                    self._pair[1].send(b"\0")
            return self._pair[0].fileno()

    def ring(self) -> None:
        """Wake everybody who waits, now and later."""
        with self._lock:
            self._rung = True
            for event in self._events:
                event.set()
            if self._pair is not None:
                self._pair[1].send(b"\0")

    def wait_for(self, event: threading.Event, seconds: float | None) -> None:
        """Wait until ``event`` is set, at most for ``seconds``; the waker sets it when it is rung."""
        with self._lock:
            if self._rung:
                event.set()
                return
            self._events.add(event)
        try:
            event.wait(seconds)
        finally:
            with self._lock:
                self._events.discard(event)

    def close(self) -> None:
        """Let go of the descriptors; nobody waits any more."""
        with self._lock:
            if self._pair is not None:
                for end in self._pair:
                    end.close()
                self._pair = None


def wait_for_lookup(
    lookup: Lookup, operation: str, deadline: Deadline | None, waker: Waker
) -> list[AddrInfo] | None:
    """Wait for the addresses of a name; None if the waker was rung first.

    Raises:
        SocketTimeout: the deadline passed first. The lookup goes on by itself.
        socket.gaierror: the name does not resolve.
    """
    done = threading.Event()

    def wake(_: Lookup) -> None:
        done.set()

    lookup.add_done_callback(wake)
    try:
        waker.wait_for(done, None if deadline is None else deadline.remaining(time.monotonic()))
    finally:
        lookup.remove_done_callback(wake)
    if lookup.done():
        return outcome(lookup)
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

    def wait(self, deadline: Deadline | None) -> bool:
        """Return True when the descriptor is ready (or broken, or woken), False when the deadline has passed.

        A deadline that has passed already still asks once: what is there, is there.
        """
        seconds = None if deadline is None else deadline.remaining(time.monotonic())
        if self._waker is None:
            return self._ready(seconds)
        # A pair of descriptors is made only for who really has to wait.
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
