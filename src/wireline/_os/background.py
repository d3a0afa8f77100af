"""Work in the background that cannot fail the process: threads of the library's own, and the end of the process.

Four things make the ordinary ways dangerous here. A finalizer runs at any allocation, in any thread, also in the
midst of the code below; a signal handler runs between any two bytecodes. Either may close a socket, so that closing
may take no lock that the interrupted frame holds. A forked child has no threads. And an interpreter that ends starts
none: on 3.12 and later ``start`` raises, on 3.11 the new thread never gets to run and ``Thread.start`` waits for it
for ever.

So the state that is shared with such code is a ``deque`` or a ``dict``, changed by single operations that are atomic
under the interpreter's lock (``append``, ``popleft``, ``setdefault``, ``pop``), and every protocol built of these is
safe to be entered again at any point. No module here waits for a thread to start.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable

from wireline._os.process import process

__all__ = ["DaemonThread", "ExitHook", "can_run_threads", "is_ending", "is_main_thread", "start"]

# `multiprocessing` calls its finalizers with the highest number first; those of its queues have -5 and 10.
_EXIT_PRIORITY = -100


def can_run_threads() -> bool:
    """Whether other threads still get to run. From the end of ``atexit`` on those that exist are frozen."""
    return not sys.is_finalizing()


def is_ending() -> bool:
    """Whether the main thread has returned: what still runs are the last threads, ``atexit``, finalizers."""
    return not threading.main_thread().is_alive()


def is_main_thread() -> bool:
    """Whether the caller is the main thread, be it one that has ended and runs ``atexit``."""
    return threading.main_thread().ident == threading.get_ident()


def start(name: str, run: Callable[[], object]) -> None:
    """Start a daemon thread, and do not wait until it runs.

    Raises:
        RuntimeError: there is no thread to be had, for the process is at its limit, or at its end.
    """
    if not can_run_threads():
        raise RuntimeError("no thread can run any more: the interpreter ends")
    DaemonThread(name, run).start()


class _AlwaysSet(threading.Event):
    """An event that its waiters do not wait for."""

    def wait(self, timeout: float | None = None) -> bool:
        return True


class DaemonThread(threading.Thread):
    """A daemon thread whose ``start`` does not wait until it runs.

    ``Thread.start`` waits for an event that the new thread sets. That may take long in a process of many threads, and
    for ever if the thread dies of a ``MemoryError`` before it gets there.
    """

    def __init__(self, name: str, run: Callable[[], object]) -> None:
        super().__init__(target=run, name=name, daemon=True)
        # Not documented. Should a Python have another name for it, `start` waits there as it does everywhere.
        vars(self)["_started"] = _AlwaysSet()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread ends, also if it has not begun yet."""
        threading.Event.wait(vars(self)["_started"], timeout)
        super().join(timeout)


class ExitHook:
    """Calls a function when the process ends, in each ordinary way for a process to end.

    The interpreter's end is ``atexit``. A child of ``multiprocessing`` ends in ``os._exit`` and calls the finalizers
    of ``multiprocessing.util`` before, but forgets those, and from 3.13 on what was registered with ``atexit``, that
    are older than the child. So both are registered anew in each process, when there is something to do at its end.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._epoch = process.epoch
        self._ran_in: object = None
        self._util: object = None
        self._finalizer: object = None
        atexit.register(self._run)

    @property
    def over(self) -> bool:
        """Whether the function was called in this process, or will not be called any more."""
        if self._ran_in is process.epoch:
            return True
        is_exiting = getattr(sys.modules.get("multiprocessing.util"), "is_exiting", None)
        return is_exiting is not None and bool(is_exiting())

    def arm(self) -> None:
        """See to it that the function will be called. Costs next to nothing if that is so already."""
        if self._epoch is not process.epoch:
            self._finalizer = None
            atexit.unregister(self._run)
            atexit.register(self._run)
            self._epoch = process.epoch
        # Loading it here would be of no use: a process that it has started, or that it may start, has it.
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            still_active = getattr(self._finalizer, "still_active", None)
            if still_active is None or not still_active():
                finalize = getattr(
                    util, "Finalize", None
                )  # None: another thread is in the midst of importing it
                self._finalizer = finalize and finalize(None, self._run, exitpriority=_EXIT_PRIORITY)

    def _run(self) -> None:
        self._ran_in = process.epoch
        self._function()
