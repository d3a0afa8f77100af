"""Host names to addresses, in threads, so that a caller waits no longer than its timeout.

``getaddrinfo`` cannot be interrupted and has limits of its own (30 s and more). So lookups run in daemon threads, and a
caller whose timeout passes leaves. Callers with the same query share one lookup while it is in progress. A lookup that
no caller waits for, and no worker has started, is dropped.

One dead name server must not occupy all workers. The first half of them takes lookups in the order of the queue. When
that half is busy with lookups older than ``_HANGING_AFTER`` seconds, the other half is used one worker at a time, for
the latest name in the queue whose domain is not that of a hanging lookup (or else for the latest of all). A lookup that
hangs in its turn frees that place after ``_HANGING_AFTER`` seconds. At this rate the second half lasts longer than the
30 s after which glibc gives up.

As in ``_os.linger`` there is no lock: at any point a signal handler or a finalizer may interrupt a caller and call this
module again (a coroutine that is collected leaves its lookup).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import cast

from wireline._core.happy_eyeballs import AddrInfo
from wireline._os import background
from wireline.address import is_ip_address

__all__ = ["Lookup", "getaddrinfo_now", "resolve"]


_Query = tuple[str, int, int, int, int]

# The most threads. They wait for the network, not for a processor; asyncio's default executor has at most 32, too. 16
# of them are enough for healthy name servers: with lookups of 50 ms that is 320 names a second.
_MAX_WORKERS = 32
_HALF = _MAX_WORKERS // 2

# Seconds after which a lookup counts as hanging. A guess: ordinary lookups take milliseconds, and glibc repeats a query
# after 5 s.
_HANGING_AFTER = 2.0

# Seconds that a worker waits for another lookup before it ends. A guess: a program that dials often keeps one worker.
_IDLE_TIMEOUT = 5.0

# Seconds that a started thread has to begin to run, before it stops counting as a worker. A guess.
_START_TIMEOUT = 5.0

_THREAD_NAME = "wireline-resolve"


class Lookup:
    """One query, and the callers that wait for its result: the methods are those of ``concurrent.futures.Future``.

    Attributes:
        query: the arguments of ``getaddrinfo``, the host first.
        started_at: monotonic seconds at which a worker took it; None before that.
    """

    def __init__(self, query: _Query) -> None:
        self.query = query
        self.started_at: float | None = None
        self._is_done = False
        self._found: list[AddrInfo] = []
        self._error: BaseException | None = None
        self._callbacks: dict[Callable[[Lookup], object], None] = {}
        self._dropped: list[Callable[[Lookup], object]] = []

    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._is_done

    def add_done_callback(self, callback: Callable[[Lookup], object]) -> None:
        """Call ``callback(lookup)`` when the lookup is done: in the worker, or at once if it is done already."""
        self._callbacks[callback] = None
        if self._is_done:
            self._run_callbacks()
        elif self._dropped:  # at this moment, because the last caller left
            self._resubmit()

    def remove_done_callback(self, callback: Callable[[Lookup], object]) -> None:
        """Remove a callback. Without any, a lookup that no worker has started is dropped."""
        self._callbacks.pop(callback, None)
        if not self._callbacks and self.started_at is None and not self._is_done:
            _pool.drop(self)

    def set_result(self, found: list[AddrInfo]) -> None:
        """Set the addresses, and run the callbacks."""
        self._found = found
        self._is_done = True
        self._run_callbacks()

    def set_exception(self, error: BaseException) -> None:
        """Set an error, of which each caller gets a copy, and run the callbacks."""
        self._error = error
        self._is_done = True
        self._run_callbacks()

    def result(self, timeout: float | None = None) -> list[AddrInfo]:
        """Return the addresses; wait for them if the lookup is not done.

        Args:
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: the timeout passed; the lookup goes on.
            socket.gaierror: the name does not resolve. Each caller gets a copy.
        """
        if not self._is_done:
            self._wait(timeout)
        if self._error is not None:
            raise copy.copy(self._error)
        return self._found

    def _wait(self, timeout: float | None) -> None:
        gate = threading.Lock()
        gate.acquire()

        def open_gate(_: Lookup) -> None:
            gate.release()

        self.add_done_callback(open_gate)
        try:
            if not gate.acquire(timeout=-1 if timeout is None else timeout):
                raise TimeoutError(f"no answer for {self.query[0]!r} within {timeout:g} s")
        finally:
            self.remove_done_callback(open_gate)

    def dropped(self, submit: Callable[[Lookup], object]) -> None:
        """Called when the pool has dropped the lookup. ``submit`` queues it again if a caller waits after all."""
        self._dropped.append(submit)
        if self._callbacks:
            self._resubmit()

    def _resubmit(self) -> None:
        try:
            submit = self._dropped.pop()
        except IndexError:  # another thread has taken it
            return
        submit(self)

    def _run_callbacks(self) -> None:
        while self._callbacks:
            try:
                callback, _ = self._callbacks.popitem()
            except KeyError:  # removed, or taken by another thread
                return
            try:
                callback(self)
            except Exception:
                import logging  # rarely needed, and a tenth of the time of `import wireline.net`

                logging.getLogger("wireline").exception(
                    "a callback of the lookup of %r raised an exception", self.query[0]
                )


def resolve(host: str, port: int, family: int, sock_type: int, protocol: int) -> Lookup:
    """Start to look up ``host``. A failed lookup raises ``socket.gaierror``, which names the host.

    An address literal (with or without a zone id) is done at once and needs no thread. At the end of the interpreter,
    when no thread can run, a name is looked up in the calling thread, which cannot be interrupted.
    """
    query = (host, port, family, sock_type, protocol)
    if is_ip_address(host.partition("%")[0]):
        lookup = Lookup(query)
        _run(lookup, socket.AI_NUMERICHOST)
        return lookup
    return _pool.submit(query)


def _run(lookup: Lookup, flags: int = 0, before_result: Callable[[], object] = lambda: None) -> None:
    """Look up in this thread, call ``before_result``, and set the result."""
    try:
        found = getaddrinfo_now(*lookup.query, flags)
    except Exception as error:  # noqa: BLE001 -- the callers get it
        before_result()
        # The traceback refers to the lookup, which refers to the error. A caller's copy has its own traceback.
        lookup.set_exception(error.with_traceback(None))
    except BaseException as error:
        # It is for this thread only: SystemExit or KeyboardInterrupt. The callers get an error that names it.
        before_result()
        lookup.set_exception(_unavailable(lookup, f"the lookup was ended by {type(error).__name__}"))
        raise
    else:
        before_result()
        lookup.set_result(found)


def _unavailable(lookup: Lookup, reason: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_AGAIN, f"{reason} (host name {lookup.query[0]!r})")


class _Worker:
    """One thread, started or running."""

    __slots__ = ("is_running", "started")

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.is_running = False


class _Pool:
    """The workers, and the lookups in progress."""

    def __init__(self) -> None:
        self._in_progress: dict[_Query, Lookup] = {}
        self._queue: deque[Lookup] = deque()
        # The lookups that a worker has started, in the order of their starts; and all workers.
        self._busy: dict[_Worker, Lookup] = {}
        self._workers: dict[_Worker, None] = {}
        # A held lock for each worker that waits. The caller that takes one out releases it, which wakes the worker.
        self._idle: deque[threading.Lock] = deque()

    # For callers.

    def submit(self, query: _Query) -> Lookup:
        """Return the lookup in progress for a query, or start one."""
        fresh = Lookup(query)
        if not background.can_run_threads():  # the workers are frozen
            _run(fresh)
            return fresh
        try:
            shared = self._in_progress.setdefault(query, fresh)
            if shared is fresh:
                self._enqueue(fresh)
        except BaseException:
            # Of a signal handler. The lookup must not stay in progress without a worker: other callers may share it.
            if self._withdraw(fresh) or (self._in_progress.get(query) is fresh and fresh.started_at is None):
                self._forget(fresh)
                fresh.set_exception(_unavailable(fresh, "the lookup was interrupted"))
            raise
        return shared

    def _enqueue(self, lookup: Lookup) -> None:
        self._queue.append(lookup)
        try:
            self._idle.pop().release()
        except IndexError:
            pass  # all workers are busy: may one more be started?
        else:
            return
        if len(self._workers) >= _MAX_WORKERS:
            self._drop_dead_workers()
        if len(self._workers) >= _MAX_WORKERS:
            return
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 -- any error means that there is no thread
            self._on_no_thread(lookup, error)

    def _start(self) -> None:
        worker = _Worker()
        try:
            self._workers[worker] = None
            background.start(_THREAD_NAME, functools.partial(self._resolve_worker, worker))
        except BaseException:
            self._workers.pop(worker, None)
            raise

    def _drop_dead_workers(self) -> None:
        """Stop counting workers that were started long ago and do not run."""
        too_late = time.monotonic() - _START_TIMEOUT
        for worker in list(self._workers):
            if not worker.is_running and worker.started < too_late:
                self._workers.pop(worker, None)

    def _on_no_thread(self, lookup: Lookup, reason: Exception) -> None:
        """Go on without a new thread. With no worker at all, look up in this thread, or fail the lookup."""
        if self._workers or not self._withdraw(lookup):
            return
        self._forget(lookup)
        if background.is_ending():
            _run(lookup)
        else:
            # Not in this thread: it may run an event loop, and the caller has a deadline.
            error = _unavailable(lookup, "cannot start a thread for the lookup")
            error.__cause__ = reason
            lookup.set_exception(error)

    def drop(self, lookup: Lookup) -> None:
        """Remove a lookup that no caller waits for from the queue, unless a worker is about to start it.

        So a caller that retries with a timeout close to 0 gets its result in the end.
        """
        if not _may_start(list(self._busy.values()), time.monotonic()) and self._withdraw(lookup):
            self._forget(lookup)
            lookup.dropped(self._enqueue)

    def _withdraw(self, lookup: Lookup) -> bool:
        """Remove a lookup from the queue; False if it is not there."""
        try:
            self._queue.remove(lookup)
        except ValueError:
            return False
        return True

    def _forget(self, lookup: Lookup) -> None:
        """Make the next caller start a new lookup. Called only by the thread that owns this one."""
        if self._in_progress.get(lookup.query) is lookup:
            del self._in_progress[lookup.query]

    # For workers.

    def _resolve_worker(self, worker: _Worker) -> None:
        worker.is_running = True
        self._workers[worker] = None
        me = threading.current_thread()
        try:
            while True:
                lookup = self._take_next(worker)
                if lookup is not None:
                    me.name = f"{_THREAD_NAME}-{lookup.query[0]}"
                    _run(lookup, before_result=functools.partial(self._finish, worker, lookup))
                    me.name = _THREAD_NAME
                elif not self._wait_for_work(worker):
                    return
        finally:
            self._busy.pop(worker, None)
            if self._workers.pop(worker, self) is None and self._queue:
                # An exception such as SystemExit ended this worker: start another for the rest of the queue.
                with contextlib.suppress(
                    RuntimeError
                ):  # no thread can be started: the next caller tries again
                    self._start()

    def _finish(self, worker: _Worker, lookup: Lookup) -> None:
        self._forget(lookup)
        self._busy.pop(worker, None)

    def _take_next(self, worker: _Worker) -> Lookup | None:
        """Start the next lookup; None if there is none, or it may not start yet."""
        now = time.monotonic()
        lookup = self._pop_next(list(self._busy.values()), now)
        if lookup is None:
            return None
        lookup.started_at = now
        self._busy[worker] = lookup
        # Another worker may have started one at the same moment. The later of the two gives it back.
        workers = list(self._busy)
        ahead = workers[: workers.index(worker)]
        if _may_start([other for other in map(self._busy.get, ahead) if other is not None], now):
            return lookup
        del self._busy[worker]
        lookup.started_at = None
        self._queue.appendleft(lookup)
        return None

    def _pop_next(self, busy: list[Lookup], now: float) -> Lookup | None:
        while self._queue and _may_start(busy, now):
            hanging = _hanging(busy, now)
            try:
                if len(hanging) < _HALF:
                    return self._queue.popleft()
                lookup = _pick_unsuspected(list(self._queue), hanging)
                self._queue.remove(lookup)
            except (IndexError, ValueError):  # another worker has taken it
                continue
            return lookup
        return None

    def _wait_for_work(self, worker: _Worker) -> bool:
        """Wait until a lookup may start; False, and the worker ends, after ``_IDLE_TIMEOUT`` seconds without one."""
        gate = threading.Lock()
        gate.acquire()
        self._idle.append(gate)
        # A lookup that was queued before the append has not woken this worker: look now.
        busy, now = list(self._busy.values()), time.monotonic()
        if not self._queue:
            seconds = _IDLE_TIMEOUT
        elif _may_start(busy, now):
            seconds = 0.0
        else:
            seconds = _seconds_until_one_hangs(busy, now)
        if gate.acquire(timeout=seconds):
            return True
        try:
            self._idle.remove(gate)
        except ValueError:  # a caller has just woken this worker
            return True
        if seconds < _IDLE_TIMEOUT:
            return True
        self._workers.pop(worker, None)
        # A caller from here on does not count this worker. The lookup of an earlier one is seen here.
        if not self._queue:
            return False
        self._workers[worker] = None
        return True


def _hanging(busy: Iterable[Lookup], now: float) -> list[Lookup]:
    """The lookups that have taken longer than ``_HANGING_AFTER``."""
    return [
        lookup
        for lookup in busy
        if lookup.started_at is not None and now - lookup.started_at > _HANGING_AFTER
    ]


def _seconds_until_one_hangs(busy: Iterable[Lookup], now: float) -> float:
    ages = [now - lookup.started_at for lookup in busy if lookup.started_at is not None]
    left = min((_HANGING_AFTER - age for age in ages if age <= _HANGING_AFTER), default=_HANGING_AFTER)
    return left + 0.001  # just past the limit


def _may_start(busy: list[Lookup], now: float) -> bool:
    """Whether one more lookup may start beside those in ``busy``."""
    hanging = len(_hanging(busy, now))
    return len(busy) < _MAX_WORKERS and len(busy) - hanging < max(1, _HALF - hanging)


def _pick_unsuspected(queue: list[Lookup], hanging: list[Lookup]) -> Lookup:
    """The latest lookup in the queue whose domain has no hanging lookup, or else the latest of all.

    Raises:
        IndexError: the queue is empty.
    """
    suspects = {_domain(lookup) for lookup in hanging}
    unsuspected = [lookup for lookup in queue if _domain(lookup) not in suspects]
    return (unsuspected or queue)[-1]


def _domain(lookup: Lookup) -> str:
    """The last two labels of a name: names that share them are likely to share name servers."""
    return ".".join(lookup.query[0].lower().rstrip(".").rsplit(".", 2)[-2:])


def getaddrinfo_now(
    host: str, port: int, family: int, sock_type: int, protocol: int, flags: int
) -> list[AddrInfo]:
    """Call ``getaddrinfo`` in this thread; ``""`` stands for no host.

    Raises:
        socket.gaierror: the lookup failed; the text names the host (promise C6).
    """
    if family == socket.AF_INET6 and host:
        # An IPv4 sender, as an IPv6 socket reports it, can be answered through that socket (promise W8).
        flags |= getattr(socket, "AI_V4MAPPED", 0)
    # As bytes, for which Python does not load its codec for IDNA: an address needs none.
    name = host.encode() if flags & socket.AI_NUMERICHOST and host.isascii() else host or None
    try:
        found = socket.getaddrinfo(name, port, family, sock_type, protocol, flags)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{error.strerror} (host name {host!r})") from None
    except UnicodeError:  # the text of the codec names positions
        words = f"between two dots there is nothing, or more than 63 characters (host name {host!r})"
        raise socket.gaierror(socket.EAI_NONAME, words) from None
    # typeshed has another type for Pythons built without IPv6.
    return cast("list[AddrInfo]", found)


_pool = _Pool()


def _reset_after_fork() -> None:
    """Start with an empty pool in a forked child, which has none of the parent's threads."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
