"""The running process. It tells an object that was made before a fork from one that was made after it.

A forked child has copies of the parent's objects and shares the parent's descriptors. An object that must not act on
such a descriptor keeps the epoch of the process that owns it, and compares.
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager

__all__ = ["ProcessLock", "process"]


class Process:
    """The running process.

    Attributes:
        epoch: an object that a forked child replaces. An object that has kept an older one belongs to the parent.
    """

    __slots__ = ("epoch",)

    def __init__(self) -> None:
        self.epoch = object()


process = Process()


class ProcessLock:
    """A lock, and another one in each forked child: a thread that held it at the fork is not there to release it.

    It is re-entrant, for a signal handler or a finalizer may need it that interrupts the thread which holds it.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks = {process.epoch: threading.RLock()}

    @property
    def here(self) -> AbstractContextManager[object]:
        """The lock of this process, for ``with``, which enters and leaves a lock of C in one step."""
        lock = self._locks.get(process.epoch)
        if lock is None:
            lock = self._locks.setdefault(process.epoch, threading.RLock())  # of two threads both get one
        return lock


def _reset_after_fork() -> None:
    process.epoch = object()


if hasattr(os, "register_at_fork"):
    # Registered when the lowest layer is imported, and so run before every other hook of this library.
    os.register_at_fork(after_in_child=_reset_after_fork)
