"""A pool of connections for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, Self

from wireline._core.deadline import check_timeout
from wireline._pool import BasePool, Claim, PoolCore, PoolLimits, T, is_closed
from wireline._server_common import check_callback
from wireline.errors import BusyError, SocketTimeout
from wireline.net._socket import Socket
from wireline.options import SocketFlag
from wireline.timing import Deadline, Timeout

__all__ = ["Pool"]


class Pool(BasePool[T]):
    """Connections that are made when they are needed, used by one block at a time, and used again.

    A connection may be anything with a ``close`` that does not wait: a ``Socket``, or an object that has one. A closed
    one is recognized by an ``is_closed`` that is true. The pool does no work in the background: connections that have
    been idle for too long are closed by the next call. It belongs to the process that made it. In a forked child it is
    empty, and the parent's connections are dropped there without being shut down.
    """

    def __init__(
        self,
        connect: Callable[[Deadline], T],
        *,
        max_size: int = 10,
        max_idle: int | None = None,
        idle_timeout: float | None = 60.0,
        max_lifetime: float | None = None,
        healthy: Callable[[T], bool] | None = None,
    ) -> None:
        """Make an empty pool.

        Args:
            connect: makes a connection; called with the ``Deadline`` of the ``acquire`` that needs it.
            max_size: the number of connections that may exist at a time.
            max_idle: the number of connections that are kept for later; None means ``max_size``.
            idle_timeout: seconds after which an idle connection is closed and not used again; None means no limit.
            max_lifetime: seconds after which a connection is not used again, however busy it was; None means no limit.
            healthy: decides whether an idle connection can be used again. An ``OSError`` means that it cannot; any
                other exception is raised by ``acquire``. By default a socket must be open, with nothing to read: data
                that no request has asked for, and the end of the stream, make it useless.

        Raises:
            TypeError, ValueError: an argument has the wrong type, or is out of range.
        """
        check_callback("connect", "a Deadline", connect)
        if healthy is not None:
            check_callback("healthy", "a connection", healthy)
        super().__init__(PoolLimits.from_arguments(max_size, max_idle, idle_timeout, max_lifetime))
        self._connect = connect
        self._healthy: Callable[[T], bool] = healthy or _has_nothing_to_read

    def acquire(self, timeout: Timeout = None) -> AbstractContextManager[T]:
        """Return a context manager that gives a connection to its block.

        The block gets an idle connection, or a new one. If ``max_size`` connections are in use, it waits until one is
        returned; the call that began to wait first is served first. After the block the connection is kept for the
        next call, unless the block raised an exception or closed it. A timeout or a cancellation leaves the pool as it
        was.

        Args:
            timeout: seconds to wait and to connect, from the beginning of the ``with`` statement; None means no limit.

        Raises:
            SocketTimeout: no connection was returned in time.
            ClosedError: the pool is closed, or was closed during the wait.
            Exception: whatever ``connect`` or ``healthy`` raised.
            TypeError, ValueError: ``timeout`` is not a number, or is negative.
        """
        check_timeout(timeout)
        return _Acquired(self, self._core, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Acquired(Generic[T]):
    """The context manager of one ``acquire``."""

    __slots__ = ("_claim", "_find_core", "_pool", "_timeout")

    def __init__(self, pool: Pool[T], find_core: Callable[[], PoolCore[T]], timeout: Timeout) -> None:
        self._pool = pool
        self._find_core = find_core
        self._timeout = timeout
        self._claim: Claim[T] | None = None

    def __enter__(self) -> T:
        if self._claim is not None:
            raise RuntimeError("acquire: this context manager has been entered already")
        deadline = Deadline(self._timeout)
        core = self._find_core()
        claim = self._claim = Claim(core)
        try:
            if not core.try_take(claim):
                self._wait(core, claim, deadline)
            return self._choose(core, claim, deadline)
        except BaseException:
            self._claim = None
            core.abandon(claim)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.core.release(claim, reusable=kind is None)

    def _wait(self, core: PoolCore[T], claim: Claim[T], deadline: Deadline) -> None:
        seconds = check_timeout(self._timeout)
        bell = _Bell()
        claim.wake = bell.ring
        core.join(claim)
        while not core.take(claim):
            remaining = deadline.remaining()
            if not remaining:
                assert seconds is not None
                core.timeouts += 1
                raise SocketTimeout("acquire", seconds)
            bell.wait(remaining)
        core.leave(claim)

    def _choose(self, core: PoolCore[T], claim: Claim[T], deadline: Deadline) -> T:
        while (item := core.candidate(claim)) is not None:
            if self._is_healthy(item):
                core.accept(claim)
                return item
            core.reject(claim)
        made = self._pool._connect(deadline)
        core.fill(claim, made)
        return made

    def _is_healthy(self, item: T) -> bool:
        try:
            return bool(self._pool._healthy(item))
        except OSError:
            return False


class _Bell:
    """Wakes one thread. A lock of C, and no event: a signal handler may ring at any moment."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # rung before, and not heard yet

    def wait(self, seconds: float) -> None:
        """Wait until it rings, or has rung since the last wait."""
        self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


def _has_nothing_to_read(item: object) -> bool:
    """Whether a connection is open, its peer too, and no data has arrived that no request has asked for."""
    if not isinstance(item, Socket):
        return not is_closed(item)
    try:
        item.recv_some(1, 0, SocketFlag.PEEK)
    except SocketTimeout:
        return True
    except BusyError:  # the block has left a reader behind
        return False
    return False
