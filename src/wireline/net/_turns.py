"""Who may write: one at a time, in the order in which they came (W5).

``threading.Lock`` is neither fair nor can those who wait for it be sent away, as ``close`` must.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from wireline._sansio.deadline import Deadline

__all__ = ["WriteTurn"]


class _Ticket:
    """A place in the queue."""

    __slots__ = ("called", "granted")

    def __init__(self) -> None:
        self.called = threading.Lock()
        self.called.acquire()
        self.granted = False

    def call(self, granted: bool) -> None:
        self.granted = granted
        self.called.release()


class WriteTurn:
    """A fair lock with a deadline. It begins taken: a socket is not writable before it is connected.

    The turn is handed from one thread to the next without being let go, so nobody can jump the queue. A thread that
    queues does so *before* it looks whether the turn is free, and one that lets go looks at the queue *after* it:
    so one of the two sees the other.
    """

    __slots__ = ("_held", "_mutex", "_over", "_queue")

    def __init__(self) -> None:
        self._held = threading.Lock()
        self._held.acquire()
        self._mutex = threading.Lock()
        self._queue: deque[_Ticket] = deque()
        self._over = False

    def try_acquire(self) -> bool:
        """Take the turn if it is free and nobody queues for it."""
        return not self._queue and self._held.acquire(blocking=False)

    def acquire(self, deadline: Deadline | None) -> bool:
        """Queue for the turn; False if the deadline passed first, or the queue was sent away."""
        ticket = _Ticket()
        with self._mutex:
            if self._over:
                return False
            self._queue.append(ticket)
            if self._queue[0] is ticket and self._held.acquire(blocking=False):
                self._queue.popleft()
                return True
        seconds = -1 if deadline is None else deadline.remaining(time.monotonic())
        if not ticket.called.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            with self._mutex:
                if ticket in self._queue:  # else it was called at the last moment
                    self._queue.remove(ticket)
        return ticket.granted

    def release(self) -> None:
        """Hand the turn to the next in the queue, or let it go."""
        if not self._queue:
            self._held.release()
            if not self._queue:
                return
            if not self._held.acquire(blocking=False):
                return  # whoever has it now will see the queue
        with self._mutex:
            if self._queue:
                self._queue.popleft().call(True)
            else:
                self._held.release()

    def send_away(self) -> None:
        """Refuse everybody who queues, now and later. Who has the turn keeps it."""
        with self._mutex:
            self._over = True
            while self._queue:
                self._queue.popleft().call(False)
