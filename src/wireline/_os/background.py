"""Background threads that cannot hang or fail the process, and a hook for its end.

Four things rule out the ordinary ways. A finalizer runs at any allocation, in any thread, also inside the code below; a
signal handler runs between any two bytecodes. Both may close a socket, so closing must not take a lock that the
interrupted frame may hold. A forked child has no threads. An interpreter that ends starts none: on 3.12 and later
``start`` raises; on 3.11 the new thread never runs, and ``Thread.start`` waits for it forever.

So shared state is a ``deque`` or a ``dict``, changed only by operations that are atomic under the GIL (``append``,
``popleft``, ``setdefault``, ``pop``), and the code can be re-entered at any point. Nothing here waits for a thread to
start.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable

from wireline._os.process import process

__all__ = ["DaemonThread", "ExitHook", "can_run_threads", "is_ending", "is_main_thread", "start"]

# `multiprocessing` calls its finalizers by falling priority; those of its queues have 10 and -5. Ours is to be the
# last.
_EXIT_PRIORITY = -100


def can_run_threads() -> bool:
    """Whether other threads still run. After ``atexit`` they are frozen."""
    return not sys.is_finalizing()


def is_ending() -> bool:
    """Whether the main thread has returned: only other threads, ``atexit`` and finalizers still run."""
    return not threading.main_thread().is_alive()


def is_main_thread() -> bool:
    """Whether the caller runs in the main thread, which also runs ``atexit`` after it has ended."""
    return threading.main_thread().ident == threading.get_ident()


def start(name: str, run: Callable[[], object]) -> None:
    """Start a daemon thread without waiting until it runs.

    Raises:
        RuntimeError: the process is at its limit of threads, or ends.
    """
    if not can_run_threads():
        raise RuntimeError("cannot start a thread: the interpreter is finalizing")
    DaemonThread(name, run).start()


class _AlwaysSet(threading.Event):
    """An event whose ``wait`` returns at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return True


class DaemonThread(threading.Thread):
    """A daemon thread whose ``start`` does not wait until it runs.

    ``Thread.start`` waits for an event that the new thread sets. That takes long in a process with many threads, and
    forever if a ``MemoryError`` ends the thread first.
    """

    def __init__(self, name: str, run: Callable[[], object]) -> None:
        super().__init__(target=run, name=name, daemon=True)
        # Undocumented. In a Python that names it differently, `start` waits as usual.
        vars(self)["_started"] = _AlwaysSet()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread ends, also if it does not run yet."""
        threading.Event.wait(vars(self)["_started"], timeout)
        super().join(timeout)


class ExitHook:
    """Calls a function when the process ends, whichever ordinary way it ends.

    An interpreter runs ``atexit``. A child of ``multiprocessing`` runs the finalizers of ``multiprocessing.util`` and
    then calls ``os._exit``; finalizers registered before the fork are dropped there, and from 3.13 on ``atexit``
    functions, too. So ``arm`` registers with both in each process that has something to do at its end.
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
        """Whether the function has run in this process, or will not run any more."""
        if self._ran_in is process.epoch:
            return True
        is_exiting = getattr(sys.modules.get("multiprocessing.util"), "is_exiting", None)
        return is_exiting is not None and bool(is_exiting())

    def arm(self) -> None:
        """Register the function in this process, if it is not. Cheap when it is."""
        if self._epoch is not process.epoch:
            self._finalizer = None
            atexit.unregister(self._run)
            atexit.register(self._run)
            self._epoch = process.epoch
        # Not imported here: a process started by `multiprocessing`, or about to start one, has imported it.
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            still_active = getattr(self._finalizer, "still_active", None)
            if still_active is None or not still_active():
                # None while another thread is importing the module.
                finalize = getattr(util, "Finalize", None)
                self._finalizer = finalize and finalize(None, self._run, exitpriority=_EXIT_PRIORITY)

    def _run(self) -> None:
        self._ran_in = process.epoch
        self._function()
