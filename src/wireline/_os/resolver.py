"""Host names to addresses, without ever blocking the caller for longer than it wants to wait.

``getaddrinfo`` cannot be interrupted and has limits of its own (30 s and more). So lookups run in daemon threads, and
a caller that runs out of patience just leaves. Callers that ask the same query while it is under way share one
lookup; one that no caller waits for any more, and no worker has started_at, is dropped.

The workers are few, and one dead name server must not occupy all of them. The first half of them serves the queue in
its order. Once that half sits in lookups that are older than ``_OLD`` seconds, the other half is used one at a time:
for the latest name in the queue, before all for one that is not of the same domain as those that hang. A lookup that
hangs in its turn makes room after ``_OLD`` seconds. At that rate the second half lasts longer than the 30 s after
which glibc gives up.

As in ``_os.linger``, no lock is involved: a caller may be interrupted at any point by a signal handler or a finalizer
that gets here, too (a coroutine that is collected leaves its lookup).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
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

_log = logging.getLogger("wireline")

_Query = tuple[str, int, int, int, int]

# Threads that may look up names at one time. They wait for the network, not for a processor: asyncio, too, takes 32 for
# such work at most. Half of them is what healthy name servers get: 16 lookups of 50 ms each are 320 names a second.
_MAX_WORKERS = 32
_HALF = _MAX_WORKERS // 2

# Seconds after which a lookup is taken for one that hangs. Ordinary ones take milliseconds, and glibc sends its second
# query after five seconds.
_HANGING_AFTER = 2.0

# Seconds that a worker waits for another lookup before it ends. A guess: a program that dials often keeps one.
_IDLE_TIMEOUT = 5.0

# Seconds in which a thread that was started is believed to be on its way.
_START_TIMEOUT = 5.0

_THREAD_NAME = "wireline-resolve"


class Lookup:
    """One query, and all callers that wait for the answer."""

    def __init__(self, query: _Query) -> None:
        self.query = query
        self.started_at: float | None = None
        self._is_done = False
        self._found: list[AddrInfo] = []
        self._error: BaseException | None = None
        self._callbacks: dict[Callable[[Lookup], object], None] = {}
        self._dropped: list[Callable[[Lookup], object]] = []

    def done(self) -> bool:
        """Whether there is an answer."""
        return self._is_done

    def add_done_callback(self, callback: Callable[[Lookup], object]) -> None:
        """Call ``callback(lookup)`` when there is an answer: in the worker, or at once if there is one already."""
        self._callbacks[callback] = None
        if self._is_done:
            self._run_callbacks()
        elif self._dropped:  # by the last caller that left, in this moment
            self._resubmit()

    def remove_done_callback(self, callback: Callable[[Lookup], object]) -> None:
        """Wait no longer. Nothing is left behind; a lookup that is not started_at and not wanted is dropped."""
        self._callbacks.pop(callback, None)
        if not self._callbacks and self.started_at is None and not self._is_done:
            _pool.drop(self)

    def set_result(self, found: list[AddrInfo]) -> None:
        """Answer."""
        self._found = found
        self._is_done = True
        self._run_callbacks()

    def set_exception(self, error: BaseException) -> None:
        """Answer with an error, of which each caller gets a copy."""
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
        """It is in the queue no more. A caller that got hold of it before, and waits only now, has it submitted."""
        self._dropped.append(submit)
        if self._callbacks:
            self._resubmit()

    def _resubmit(self) -> None:
        try:
            submit = self._dropped.pop()
        except IndexError:  # another thread does it
            return
        submit(self)

    def _run_callbacks(self) -> None:
        while self._callbacks:
            try:
                callback, _ = self._callbacks.popitem()
            except KeyError:  # it has left, or another thread calls it
                return
            try:
                callback(self)
            except Exception:  # noqa: BLE001 -- one caller's, and the others wait, too
                _log.exception("a callback of the lookup of %r failed", self.query[0])


def resolve(host: str, port: int, family: int, sock_type: int, protocol: int) -> Lookup:
    """Find the addresses of ``host``. The lookup fails with ``socket.gaierror``, which names the host.

    An address literal (with or without a zone id) is answered at once and needs no thread. Where no thread can run
    any more, at the end of the interpreter, a name is looked up in the calling thread, and that cannot be cut short.
    """
    query = (host, port, family, sock_type, protocol)
    if is_ip_address(host.partition("%")[0]):
        lookup = Lookup(query)
        _run(lookup, socket.AI_NUMERICHOST)
        return lookup
    return _pool.submit(query)


def _run(lookup: Lookup, flags: int = 0, when_known: Callable[[], object] = lambda: None) -> None:
    """Ask here and now, call ``when_known``, and answer."""
    try:
        found = getaddrinfo_now(*lookup.query, flags)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the callers are to get it
        when_known()
        # The traceback holds the lookup, which holds the error. A caller's copy has a traceback of its own.
        lookup.set_exception(error.with_traceback(None))
    except BaseException as error:
        # Meant for this thread: to end it (SystemExit), or the user's (KeyboardInterrupt). Others only hear of it.
        when_known()
        lookup.set_exception(_unavailable(lookup, f"the lookup was ended by {type(error).__name__}"))
        raise
    else:
        when_known()
        lookup.set_result(found)


def _unavailable(lookup: Lookup, reason: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_AGAIN, f"{reason} (host name {lookup.query[0]!r})")


class _Worker:
    """One thread."""

    __slots__ = ("is_running", "started")

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.is_running = False


class _Pool:
    """The workers, and the lookups that are under way."""

    def __init__(self) -> None:
        self._in_progress: dict[_Query, Lookup] = {}
        self._queue: deque[Lookup] = deque()
        # The lookups that a worker has started_at, in that order; and every worker there is.
        self._busy: dict[_Worker, Lookup] = {}
        self._workers: dict[_Worker, None] = {}
        # A lock for each worker that waits, to be released once by the caller that takes it out.
        self._idle: deque[threading.Lock] = deque()

    # For callers.

    def submit(self, query: _Query) -> Lookup:
        """The lookup that is under way for a query, or a new one."""
        fresh = Lookup(query)
        if not background.can_run_threads():  # those that look up are frozen
            _run(fresh)
            return fresh
        try:
            shared = self._in_progress.setdefault(query, fresh)
            if shared is fresh:
                self._enqueue(fresh)
        except BaseException:
            # Of a signal handler. It is not in the queue yet, or must get out of it: others may wait for it already.
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
            pass  # all are busy: is there room for one more?
        else:
            return
        if len(self._workers) >= _MAX_WORKERS:
            self._drop_dead_workers()
        if len(self._workers) >= _MAX_WORKERS:
            return
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 -- whatever the reason is, there is no thread
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
        """Forget workers that have never got to run."""
        late = time.monotonic() - _START_TIMEOUT
        for worker in list(self._workers):
            if not worker.is_running and worker.started < late:
                self._workers.pop(worker, None)

    def _on_no_thread(self, lookup: Lookup, reason: Exception) -> None:
        """No thread is to be had. With one worker it is only slower; with none it is looked up here, or not at all."""
        if self._workers or not self._withdraw(lookup):
            return
        self._forget(lookup)
        if background.is_ending():
            _run(lookup)
        else:
            # Not here: the caller may be an event loop, and has a deadline.
            error = _unavailable(lookup, "there is no thread to be had for the lookup")
            error.__cause__ = reason
            lookup.set_exception(error)

    def drop(self, lookup: Lookup) -> None:
        """Take out of the queue what no caller waits for; nothing, if a worker has it or is about to begin it.

        So a caller that tries again and again with a timeout of next to nothing gets its answer in the end.
        """
        if not _may_start(list(self._busy.values()), time.monotonic()) and self._withdraw(lookup):
            self._forget(lookup)
            lookup.dropped(self._enqueue)

    def _withdraw(self, lookup: Lookup) -> bool:
        """Take a lookup out of the queue; False if it is not there."""
        try:
            self._queue.remove(lookup)
        except ValueError:
            return False
        return True

    def _forget(self, lookup: Lookup) -> None:
        """Let the next caller have a fresh answer. Only the thread that has the lookup in hand does that."""
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
                    _run(lookup, when_known=functools.partial(self._finish, worker, lookup))
                    me.name = _THREAD_NAME
                elif not self._wait_for_work(worker):
                    return
        finally:
            self._busy.pop(worker, None)
            if self._workers.pop(worker, self) is None and self._queue:
                # It was made to end: another one does the work.
                with contextlib.suppress(RuntimeError):  # none to be had: the next caller tries again
                    self._start()

    def _finish(self, worker: _Worker, lookup: Lookup) -> None:
        self._forget(lookup)
        self._busy.pop(worker, None)

    def _take_next(self, worker: _Worker) -> Lookup | None:
        """Take the next lookup; None if there is none, or it may not begin yet."""
        now = time.monotonic()
        lookup = self._pop_next(list(self._busy.values()), now)
        if lookup is None:
            return None
        lookup.started_at = now
        self._busy[worker] = lookup
        # Another worker may have taken one in the same moment. The later of the two gives it back.
        everyone = list(self._busy)
        ahead = everyone[: everyone.index(worker)]
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
        """Wait until there may be something to do; False, and the worker ends, if there was nothing for long."""
        gate = threading.Lock()
        gate.acquire()
        self._idle.append(gate)
        # A lookup that was put into the queue before that has not woken this worker.
        busy, now = list(self._busy.values()), time.monotonic()
        if not self._queue:
            seconds = _IDLE_TIMEOUT
        elif _may_start(busy, now):
            seconds = 0.0
        else:  # until the next of them is old
            ages = [now - lookup.started_at for lookup in busy if lookup.started_at is not None]
            seconds = (
                min((_HANGING_AFTER - age for age in ages if age <= _HANGING_AFTER), default=_HANGING_AFTER)
                + 0.001
            )
        if gate.acquire(timeout=seconds):
            return True
        try:
            self._idle.remove(gate)
        except ValueError:  # it was woken just now
            return True
        if seconds < _IDLE_TIMEOUT:
            return True
        self._workers.pop(worker, None)
        # A caller from here on does not count on this worker. One that has asked before is seen here.
        if not self._queue:
            return False
        self._workers[worker] = None
        return True


def _hanging(busy: Iterable[Lookup], now: float) -> list[Lookup]:
    """Those of ``busy`` that hang."""
    return [
        lookup
        for lookup in busy
        if lookup.started_at is not None and now - lookup.started_at > _HANGING_AFTER
    ]


def _may_start(busy: list[Lookup], now: float) -> bool:
    """Whether one more lookup may begin beside these."""
    hanging = len(_hanging(busy, now))
    return len(busy) < _MAX_WORKERS and len(busy) - hanging < max(1, _HALF - hanging)


def _pick_unsuspected(queue: list[Lookup], hanging: list[Lookup]) -> Lookup:
    """The latest in the queue, before all of those whose domain is not that of a lookup that hangs.

    Raises:
        IndexError: the queue is empty.
    """
    suspects = {_domain(lookup) for lookup in hanging}
    unsuspected = [lookup for lookup in queue if _domain(lookup) not in suspects]
    return (unsuspected or queue)[-1]


def _domain(lookup: Lookup) -> str:
    """The part of a name that stands for "the same name servers"."""
    return ".".join(lookup.query[0].lower().rstrip(".").rsplit(".", 2)[-2:])


def getaddrinfo_now(
    host: str, port: int, family: int, sock_type: int, protocol: int, flags: int
) -> list[AddrInfo]:
    """Call ``getaddrinfo`` here and now; ``""`` is no host at all.

    Raises:
        socket.gaierror: the host is named in its text (C6).
    """
    if family == socket.AF_INET6 and host:
        # A sender whose IPv4 address came out of an IPv6 socket can be answered through it (W8).
        flags |= getattr(socket, "AI_V4MAPPED", 0)
    try:
        found = socket.getaddrinfo(host or None, port, family, sock_type, protocol, flags)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{error.strerror} (host name {host!r})") from None
    except UnicodeError as error:  # a label that is empty or too long for IDNA
        raise socket.gaierror(socket.EAI_NONAME, f"{error} (host name {host!r})") from None
    # typeshed's other shape of a socket address is that of Pythons built without IPv6.
    return cast("list[AddrInfo]", found)


_pool = _Pool()


def _reset_after_fork() -> None:
    """In a forked child none of the parent's threads exists: ask anew."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
