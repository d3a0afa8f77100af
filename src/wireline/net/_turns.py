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

    Whoever finds nobody in ``queue`` may take ``held``, without more ado: that is the fast path of every send. With
    somebody in the queue everybody joins it, and who lets go of ``held`` calls the next (``pass_on``). A thread joins
    the queue *before* it looks whether the turn is free, and one that lets go looks at the queue *after* it: so
    one of the two sees the other.

    Attributes:
        held: the lock itself.
        queue: those who wait, first come first.
    """

    __slots__ = ("_mutex", "_over", "held", "queue")

    def __init__(self) -> None:
        self.held = threading.Lock()
        self.held.acquire()
        self.queue: deque[_Ticket] = deque()
        self._mutex = threading.Lock()
        self._over = False

    def try_acquire(self) -> bool:
        """Take the turn if it is free and nobody queues for it."""
        return not self.queue and self.held.acquire(False)

    def acquire(self, deadline: Deadline | None) -> bool:
        """Queue for the turn; False if the deadline passed first, or the queue was sent away."""
        ticket = _Ticket()
        with self._mutex:
            if self._over:
                return False
            self.queue.append(ticket)
            if self.queue[0] is ticket and self.held.acquire(False):
                self.queue.popleft()
                return True
        seconds = -1 if deadline is None else deadline.remaining(time.monotonic())
        if not ticket.called.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            with self._mutex:
                if ticket in self.queue:  # else it was called at the last moment
                    self.queue.remove(ticket)
        return ticket.granted

    def release(self) -> None:
        """Let the turn go, to the next in the queue if there is one."""
        self.held.release()
        if self.queue:
            self.pass_on()

    def pass_on(self) -> None:
        """Give the turn, if it is still free, to the first in the queue."""
        with self._mutex:
            if self.queue and self.held.acquire(False):
                self.queue.popleft().call(True)

    def send_away(self) -> None:
        """Refuse everybody who queues, now and later. Who has the turn keeps it."""
        with self._mutex:
            self._over = True
            while self.queue:
                self.queue.popleft().call(False)
