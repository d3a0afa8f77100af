"""The right to write: one thread at a time, in the order in which they asked (W5).

``threading.Lock`` is not fair, ``close`` cannot end the waits for it, and it stays locked forever when an exception
has ended the call that held it.
"""

from __future__ import annotations

import sys
import threading
import time

from wireline._core.deadline import CallDeadline
from wireline.errors import BusyError
from wireline.net._abandoned import is_abandoned, is_inside_a_call, recovering

__all__ = ["Permit", "WriteLock"]

# Seconds between two looks of a waiter whether the thread that it waits for is still there. It is woken at once when
# that thread releases the lock; this is for one that an exception ended at the wrong moment. A guess: a stall that a
# peer survives, and too seldom to cost anything.
_LOOK = 0.2


class Permit:
    """The one thing that the holder of the lock has: a reference to it."""

    __slots__ = ()


class _Entry:
    """A place in the queue."""

    __slots__ = ("_called",)

    def __init__(self) -> None:
        self._called = threading.Lock()
        self._called.acquire()

    def wake(self) -> None:
        """Let the thread look. A lock of C, and no event: a signal handler may call this at any moment."""
        try:
            self._called.release()
        except RuntimeError:
            pass  # woken before, and has not looked yet

    def wait(self, seconds: float) -> None:
        self._called.acquire(timeout=seconds)


class WriteLock:
    """A fair lock with a deadline. It begins closed: a socket is not writable before it is connected.

    The fast path of every send takes the permit out of ``free`` if ``queue`` is empty, and puts it back with ``free
    += permits``. A thread joins the queue *before* it looks whether the permit is free, and one that puts it back
    looks at the queue *after* that: so one of the two sees the other.

    Attributes:
        free: the permit, while no thread writes.
        permits: the permit, always: what is added to ``free``.
        queue: the threads that wait, first come first.
        closed: no thread may write, yet or any more.
        interrupted: an exception ended a call, and its traceback may keep a reference to the permit.
    """

    __slots__ = ("closed", "free", "interrupted", "permits", "queue")

    def __init__(self) -> None:
        self.permits = (Permit(),)
        self.free: list[Permit] = []
        self.queue: list[_Entry] = []
        self.closed = True
        self.interrupted = False

    def open(self) -> None:
        """Let the threads write."""
        self.closed = False
        if not self.free:
            self.release()

    def try_acquire(self) -> Permit | None:
        """Take the permit if it is free and no thread queues for it; the caller keeps it in a variable."""
        if self.queue:
            return None
        try:
            return self.free.pop()
        except IndexError:
            return None if self.closed else self._take_abandoned()

    def acquire(self, deadline: CallDeadline | None, owner: object, operation: str) -> Permit | None:
        """Queue for the permit.

        Args:
            deadline: until when.
            owner: the socket.
            operation: the call, in words.

        Returns:
            The permit, which the caller keeps in a variable until it puts it back; None if the deadline passed first,
            or the lock was closed.

        Raises:
            BusyError: a signal handler interrupted a call of this thread on the same socket, and cannot wait for it.
        """
        if threading.current_thread() is threading.main_thread() and is_inside_a_call(owner):
            raise BusyError(
                f"{operation}: a signal handler has interrupted a call on this socket, and cannot wait for it"
            )
        entry = _Entry()
        queue = self.queue
        try:
            queue.append(entry)
            while not self.closed:
                if queue[0] is entry:
                    try:
                        return self.free.pop()
                    except IndexError:
                        if (permit := self._take_abandoned()) is not None:
                            return permit
                seconds = _LOOK
                if deadline is not None:
                    seconds = min(seconds, deadline.remaining(time.monotonic()))
                    if not seconds:
                        return None
                entry.wait(seconds)
                self._drop_abandoned_entries()
            return None
        finally:
            if entry in queue:
                queue.remove(entry)
            if queue and self.free:
                self.wake_next()

    def release(self) -> None:
        """Put the permit back."""
        free = self.free
        free += self.permits
        if self.queue:
            self.wake_next()

    def wake_next(self) -> None:
        """Let the first thread in the queue try, after the permit was put back."""
        for entry in self.queue[:1]:
            entry.wake()

    def close(self) -> None:
        """Send the threads that queue away, now and later. The holder keeps the permit."""
        self.closed = True
        for entry in tuple(self.queue):
            entry.wake()

    def renew(self) -> None:
        """In a forked child: the threads that hold the permit or queue for it are not there."""
        self.queue.clear()
        if not self.closed:
            self.free[:] = self.permits

    def claim(self) -> bool:
        """Take the permit for good, after ``close``; False if a thread holds it."""
        try:
            self.free.pop()
        except IndexError:
            return self._is_abandoned()
        return True

    def _is_abandoned(self) -> bool:
        search, self.interrupted = self.interrupted, False  # one for each interruption: it costs
        return is_abandoned(self.permits[0], 1, search=search)

    def _take_abandoned(self) -> Permit | None:
        with recovering.lock:
            if not self._is_abandoned():
                return None
            try:
                return self.free.pop()  # put back in this moment
            except IndexError:
                return self.permits[0]

    def _drop_abandoned_entries(self) -> None:
        """Remove the entries at the front whose threads are gone: no frame refers to one of them."""
        queue = self.queue
        # The list's reference, our variable, and the argument of `getrefcount`; a waiter's frame has one more.
        while queue and sys.getrefcount(first := queue[0]) <= 3:
            queue.remove(first)
