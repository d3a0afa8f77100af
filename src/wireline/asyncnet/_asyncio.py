"""The port for asyncio, and for uvloop, which runs asyncio's tasks. The one file that imports asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from wireline.asyncnet._poller import BUDGET, FdPoller
from wireline.errors import SockAddr

if TYPE_CHECKING:
    from wireline.asyncnet._waiters import Waiter

__all__ = ["AsyncioCompletions", "AsyncioPort", "AsyncioTasks", "has_readiness", "running_port"]

T = TypeVar("T")

FORCE_PORTABLE = bool(os.environ.get("WIRELINE_PORTABLE"))
"""Use only the methods that every loop has. For tests, on systems whose loops have more."""


class AsyncioTasks:
    """The tasks of asyncio."""

    @staticmethod
    def spawn(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coroutine, name=name)

    @staticmethod
    def current() -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        return task


class AsyncioCompletions:
    """The operations ``sock_*`` of a loop. asyncio's own loops return coroutines, uvloop returns futures."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def recv(self, sock: socket.socket, size: int) -> asyncio.Future[bytes]:
        return asyncio.ensure_future(self._loop.sock_recv(sock, size), loop=self._loop)

    def recv_from(self, sock: socket.socket, size: int) -> asyncio.Future[tuple[bytes, Any]]:
        return asyncio.ensure_future(self._loop.sock_recvfrom(sock, size), loop=self._loop)

    def send_all(self, sock: socket.socket, data: bytes) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._loop.sock_sendall(sock, data), loop=self._loop)

    def send_to(self, sock: socket.socket, data: bytes, target: SockAddr) -> asyncio.Future[int]:
        return asyncio.ensure_future(self._loop.sock_sendto(sock, data, target), loop=self._loop)

    def accept(self, sock: socket.socket) -> asyncio.Future[tuple[socket.socket, Any]]:
        return asyncio.ensure_future(self._loop.sock_accept(sock), loop=self._loop)

    def connect(self, sock: socket.socket, target: SockAddr) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._loop.sock_connect(sock, target), loop=self._loop)


class AsyncioPort(FdPoller):
    """One event loop. It lives as long as a socket belongs to it."""

    __slots__ = ("call_at", "completions", "loop", "running_loop", "time")

    takes_waiters = True
    cancelled_error = asyncio.CancelledError
    tasks = AsyncioTasks()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = loop
        # An attribute of the object: on the class it would be looked up more slowly, for every message.
        self.running_loop: Callable[[], object] = asyncio.get_running_loop
        self.time = loop.time
        self.call_at = loop.call_at
        self.completions = None if has_readiness(loop) else AsyncioCompletions(loop)

    def disown(self) -> None:
        """In a forked child: have nothing to do with the parent's loop and its epoll any more."""
        self.loop = None
        self._disown()

    # Where and when.

    def is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def is_running(self) -> bool:
        return self.loop is not None and self.loop.is_running()

    def is_over(self) -> bool:
        return self.loop is None or self.loop.is_closed()

    # Sleeping.

    @types.coroutine
    def park(self, waiter: Waiter) -> Generator[Waiter, None, None]:
        waiter._asyncio_future_blocking = True
        yield waiter

    async def checkpoint(self) -> None:
        self.budget = BUDGET
        await _one_turn()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def move_on_at(self, until: float | None, awaitable: Awaitable[T]) -> T | None:
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                return await awaitable
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    # Callbacks.

    def call_soon(self, callback: Callable[..., object], *args: object, context: Context) -> object:
        return self._loop().call_soon(callback, *args, context=context)

    def call_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        return self._loop().call_soon_threadsafe(callback, *args)

    def report(self, error: BaseException) -> None:
        if self.loop is not None:
            self.loop.call_exception_handler({"message": "a socket's callback failed", "exception": error})

    # Readiness.

    def watch_fd(self, fd: int, callback: Callable[[], object], *, write: bool = False) -> None:
        loop = self._loop()
        (loop.add_writer if write else loop.add_reader)(fd, callback)

    def unwatch_fd(self, fd: int, *, write: bool = False) -> None:
        loop = self.loop
        if loop is not None and not loop.is_closed():
            (loop.remove_writer if write else loop.remove_reader)(fd)

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self.loop is None:
            raise RuntimeError("the event loop is the parent process's")
        return self.loop


_ports: weakref.WeakValueDictionary[asyncio.AbstractEventLoop, AsyncioPort] = weakref.WeakValueDictionary()


def running_port() -> AsyncioPort:
    """Return the one port of the running loop."""
    loop = asyncio.get_running_loop()
    port = _ports.get(loop)
    if port is None:
        port = _ports[loop] = AsyncioPort(loop)
    return port


def has_readiness(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop has ``add_reader``. All have the method; that of Windows' default loop only raises."""
    return not FORCE_PORTABLE and type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


@types.coroutine
def _one_turn() -> Generator[None, None, None]:
    yield  # asyncio.sleep(0) without the call


def _disown_all() -> None:
    global _ports
    inherited, _ports = _ports, weakref.WeakValueDictionary()
    for reference in inherited.valuerefs():
        port = reference()
        if port is not None:
            port.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
