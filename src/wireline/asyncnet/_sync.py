"""How tasks wait for each other: a notification, the lock of the writers; and the wait for a lookup."""

from __future__ import annotations

import contextlib

from wireline._core.deadline import CallDeadline
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os.resolver import Lookup
from wireline.asyncnet._port import Port
from wireline.asyncnet._waiters import OneShot
from wireline.errors import SocketTimeout

__all__ = ["Notifier", "WriteLock", "wait_for_lookup"]


class Notifier:
    """Something has changed: for a task that waits for one of several things, and looks for itself which it was."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self._waiters: set[OneShot] = set()
        self._notified = False

    def notify(self) -> None:
        """Wake the tasks that wait now; if there is none, the next task that waits does not sleep."""
        self._notified = not self._waiters
        for waiter in self._waiters:
            waiter.set(True)

    def notify_threadsafe(self) -> None:
        """The same from any thread, and when the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self.port.call_threadsafe(self.notify)

    async def wait(self, until: float | None) -> bool:
        """Sleep until the next ``notify``; False if the loop's clock shows ``until`` first."""
        if self._notified:
            self._notified = False
            return True
        waiter = OneShot(self.port)
        self._waiters.add(waiter)
        try:
            return await waiter.wait(until)
        finally:
            self._waiters.discard(waiter)


class WriteLock:
    """A fair lock: one task writes at a time, in the order in which they asked (W5). It begins locked: a socket is not
    writable before it is connected.

    The fast path of every send takes it by setting ``locked``, if it finds it free.

    Attributes:
        locked: a task writes, or none may.
        closed: no task may write any more.
        queue: the tasks that wait; None until the first has to. Each of ten thousand sockets has a lock, and an empty
            list would be 56 bytes, an empty deque 700.
    """

    __slots__ = ("closed", "locked", "queue")

    def __init__(self) -> None:
        self.locked = True
        self.closed = False
        self.queue: list[OneShot] | None = None

    async def acquire(self, port: Port, until: float | None) -> bool:
        """Queue for the lock; False if the clock showed ``until`` first, or the lock was closed."""
        entry = OneShot(port)
        if self.queue is None:
            self.queue = []
        self.queue.append(entry)
        acquired = False
        try:
            if self.closed:
                return False  # read last: a `close` from now on finds the entry
            acquired = await entry.wait(until)
            return acquired
        finally:
            if not acquired:
                if entry.value:
                    self.release()  # the lock was handed to it in the same moment as it was cancelled
                with contextlib.suppress(ValueError):  # the entry was refused, or handed the lock
                    (self.queue or []).remove(entry)

    def release(self) -> None:
        """Hand the lock to the first task in the queue, or unlock it."""
        while self.queue:
            if self.queue.pop(0).set(True):
                return
        self.locked = self.closed

    def close(self) -> None:
        """Let no task write any more. From any thread; those that queue are refused by ``refuse_queued``."""
        self.closed = self.locked = True

    def refuse_queued(self) -> None:
        """Wake the tasks that queue: they do not get the lock."""
        if self.queue:
            refused, self.queue = self.queue, None
            for entry in refused:
                entry.set(False)


async def wait_for_lookup(
    lookup: Lookup, operation: str, deadline: CallDeadline | None, notifier: Notifier
) -> list[AddrInfo] | None:
    """Wait for the addresses of a name; None if the notifier was used for another reason first.

    Raises:
        SocketTimeout: the deadline passed first. The lookup goes on by itself.
        socket.gaierror: the name does not resolve.
    """
    if lookup.done():
        return lookup.result()

    def on_done(_: Lookup) -> None:
        notifier.notify_threadsafe()

    lookup.add_done_callback(on_done)
    try:
        notified = await notifier.wait(None if deadline is None else deadline.at)
    finally:
        lookup.remove_done_callback(on_done)
    if not notified and deadline is not None:
        raise SocketTimeout(operation, deadline.seconds)
    return lookup.result() if lookup.done() else None
