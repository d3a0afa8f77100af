"""A pool of connections for tasks."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, Self

from wireline._core.deadline import check_timeout
from wireline._pool import BasePool, Claim, PoolCore, PoolLimits, T, is_closed
from wireline._server_common import check_callback
from wireline.asyncnet._port import UNBOUND, running_port
from wireline.asyncnet._socket import AsyncSocket
from wireline.asyncnet._sync import Notifier
from wireline.errors import BusyError, SocketTimeout
from wireline.options import SocketFlag
from wireline.timing import FOREVER, Deadline, Timeout, running_clock

__all__ = ["Pool"]


class Pool(BasePool[T]):
    """Connections that are made when they are needed, used by one block at a time, and used again.

    A connection may be anything with a plain ``close`` that does not wait: an ``AsyncSocket``, or an object that has
    one. A closed one is recognized by an ``is_closed`` that is true. The pool does no work in the background:
    connections that have been idle for too long are closed by the next call. It belongs to the event loop of its first
    ``acquire``, and to the process that made it. In a forked child it is empty, and the parent's connections are
    dropped there without being shut down.
    """

    def __init__(
        self,
        connect: Callable[[Deadline], Awaitable[T]],
        *,
        max_size: int = 10,
        max_idle: int | None = None,
        idle_timeout: float | None = 60.0,
        max_lifetime: float | None = None,
        healthy: Callable[[T], bool | Awaitable[bool]] | None = None,
    ) -> None:
        """Make an empty pool.

        Args:
            connect: makes a connection, as a coroutine; called with the ``Deadline`` of the ``acquire`` that needs it.
            max_size: the number of connections that may exist at a time.
            max_idle: the number of connections that are kept for later; None means ``max_size``.
            idle_timeout: seconds after which an idle connection is closed and not used again; None means no limit.
            max_lifetime: seconds after which a connection is not used again, however busy it was; None means no limit.
            healthy: decides whether an idle connection can be used again; may be a coroutine function. An ``OSError``
                means that it cannot; any other exception is raised by ``acquire``. By default a socket must be open,
                with nothing to read: data that no request has asked for, and the end of the stream, make it useless.

        Raises:
            TypeError, ValueError: an argument has the wrong type, or is out of range.
        """
        check_callback("connect", "a Deadline", connect)
        if healthy is not None:
            check_callback("healthy", "a connection", healthy)
        super().__init__(PoolLimits.from_arguments(max_size, max_idle, idle_timeout, max_lifetime))
        self._connect = connect
        self._healthy: Callable[[T], bool | Awaitable[bool]] = healthy or _has_nothing_to_read
        self._port = UNBOUND

    def acquire(self, timeout: Timeout = None) -> AbstractAsyncContextManager[T]:
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

    def _enter_loop(self) -> None:
        """Belong to the running loop.

        Raises:
            RuntimeError: the pool belongs to another one.
        """
        port = self._port
        if port.loop is None:  # no loop yet, or that of a parent process
            self._port = running_port()
            self._core().clock = running_clock()
        elif port.loop is not port.running_loop():
            raise RuntimeError(f"{self!r} belongs to another event loop")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
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

    async def __aenter__(self) -> T:
        if self._claim is not None:
            raise RuntimeError("acquire: this context manager has been entered already")
        deadline = Deadline(self._timeout)
        self._pool._enter_loop()
        raise_if_cancelled = self._pool._port.raise_if_cancelled
        if raise_if_cancelled is not None:
            await raise_if_cancelled()
        core = self._find_core()
        claim = self._claim = Claim(core)
        try:
            if not core.try_take(claim):
                await self._wait(core, claim, deadline)
            return await self._choose(core, claim, deadline)
        except BaseException:
            self._claim = None
            core.abandon(claim)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.core.release(claim, reusable=kind is None)

    async def _wait(self, core: PoolCore[T], claim: Claim[T], deadline: Deadline) -> None:
        seconds = check_timeout(self._timeout)
        notifier = Notifier(self._pool._port)
        claim.wake = notifier.notify_threadsafe
        core.join(claim)
        while not core.take(claim):
            remaining = deadline.remaining()
            if not remaining:
                assert seconds is not None
                core.timeouts += 1
                raise SocketTimeout("acquire", seconds)
            await notifier.wait(None if remaining > FOREVER else notifier.port.time() + remaining)
        core.leave(claim)

    async def _choose(self, core: PoolCore[T], claim: Claim[T], deadline: Deadline) -> T:
        while (item := core.candidate(claim)) is not None:
            if await self._is_healthy(item):
                core.accept(claim)
                return item
            core.reject(claim)
        made = await self._pool._connect(deadline)
        if inspect.iscoroutinefunction(getattr(made, "close", None)):
            raise TypeError(
                f"the close of a pool's connection must be a plain function, not that of {made!r}"
            )
        core.fill(claim, made)
        return made

    async def _is_healthy(self, item: T) -> bool:
        try:
            answer = self._pool._healthy(item)
            return bool(await answer if inspect.isawaitable(answer) else answer)
        except OSError:
            return False


async def _has_nothing_to_read(item: object) -> bool:
    """Whether a connection is open, its peer too, and no data has arrived that no request has asked for."""
    if not isinstance(item, AsyncSocket):
        return not is_closed(item)
    try:
        await item.recv_some(1, 0, SocketFlag.PEEK)
    except SocketTimeout:
        return True
    except BusyError:  # the block has left a reader behind
        return False
    return False
