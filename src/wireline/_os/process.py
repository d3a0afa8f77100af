"""The identity of the running process: was an object made before a fork, or after it?

A forked child has copies of the parent's objects and shares its descriptors. An object that must not touch a descriptor
of another process stores the epoch of its owner and compares it with ``process.epoch``.
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager

__all__ = ["ProcessLock", "process"]


class Process:
    """The running process.

    Attributes:
        epoch: an object that a forked child replaces. An object that stores an older one belongs to the parent.
    """

    __slots__ = ("epoch",)

    def __init__(self) -> None:
        self.epoch = object()


process = Process()


class ProcessLock:
    """A lock of which each forked child gets a new one: the thread that held it at the fork does not exist there.

    It is re-entrant, because a signal handler or a finalizer may need it while the interrupted frame holds it.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks = {process.epoch: threading.RLock()}

    @property
    def here(self) -> AbstractContextManager[object]:
        """The lock of this process, for ``with``: an ``RLock`` is entered and left in one bytecode each."""
        lock = self._locks.get(process.epoch)
        if lock is None:
            lock = self._locks.setdefault(process.epoch, threading.RLock())  # two threads get the same one
        return lock


def _reset_after_fork() -> None:
    process.epoch = object()


if hasattr(os, "register_at_fork"):
    # Registered at the first import of this package, so it runs before its other hooks.
    os.register_at_fork(after_in_child=_reset_after_fork)
