"""A part of the port for trio: enough for a socket to connect, read, send, time out and be cancelled and closed.

It shows that the seam holds: tests/asyncnet/test_trio.py runs it. Missing for trio are tasks (so ``serve`` refuses
to run there), a cancel point in calls that need not wait, TLS and everything else that no test runs, trio's own errors.
A timer and a watched descriptor cost a system task each here, which is slower than it has to be; sockets share the
epoll of ``FdPoller``, so there is one watched descriptor.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import math
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING, TypeVar

import trio
from trio.lowlevel import Abort, current_trio_token, spawn_system_task

from wireline.asyncnet._poller import BUDGET, FdPoller

if TYPE_CHECKING:
    from wireline.asyncnet._waiters import Waiter

__all__ = ["TrioPort", "running_port"]

T = TypeVar("T")

_log = logging.getLogger("wireline")


class TrioPort(FdPoller):
    """One run of trio."""

    takes_waiters = False
    cancelled_error = trio.Cancelled
    completions = None
    tasks = None

    def __init__(self) -> None:
        super().__init__()
        self.loop = current_trio_token()
        self.running_loop: Callable[[], object] = current_trio_token
        self.time = trio.current_time
        self._over = False
        self._watches: dict[tuple[int, bool], trio.CancelScope] = {}
        self._spawn(self._note_the_end)

    def _spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        # A context of its own: that of the calling task would be kept for the rest of the run.
        spawn_system_task(function, *args, name="wireline", context=contextvars.Context())

    async def _note_the_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._over = True

    # Where and when.

    def is_here(self) -> bool:
        try:
            return current_trio_token() is self.loop
        except RuntimeError:
            return False

    def is_running(self) -> bool:
        return not self._over

    def is_over(self) -> bool:
        return self._over

    # Sleeping.

    async def park(self, waiter: Waiter) -> None:
        task = trio.lowlevel.current_task()
        waiter.add_done_callback(lambda _: trio.lowlevel.reschedule(task), context=task.context)

        def abort(_: object) -> Abort:
            if not waiter.pending:
                return Abort.FAILED  # it was woken already, and its result must not be lost
            waiter.forget_task()
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        waiter.result()

    async def checkpoint(self) -> None:
        self.budget = BUDGET
        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def move_on_at(self, until: float | None, awaitable: Awaitable[T]) -> T | None:
        with trio.CancelScope(deadline=math.inf if until is None else until):
            return await awaitable
        return None

    # Callbacks.

    def call_soon(self, callback: Callable[..., object], *args: object, context: Context) -> None:
        self.loop.run_sync_soon(callback, *args)

    def call_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        self.loop.run_sync_soon(functools.partial(self._call, callback, *args))

    def call_at(self, when: float, callback: Callable[[], object]) -> trio.CancelScope:
        scope = trio.CancelScope()
        self._spawn(self._call_at, when, callback, scope)
        return scope

    async def _call_at(self, when: float, callback: Callable[[], object], scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep_until(when)
        if not scope.cancel_called:
            self._call(callback)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except BaseException as error:  # noqa: BLE001 -- a system task that raises ends the run
            self.report(error)

    def report(self, error: BaseException) -> None:
        _log.error("a socket's callback failed", exc_info=error)

    # Readiness.

    def watch_fd(self, fd: int, callback: Callable[[], object], *, write: bool = False) -> None:
        scope = self._watches[fd, write] = trio.CancelScope()
        wait = trio.lowlevel.wait_writable if write else trio.lowlevel.wait_readable
        self._spawn(self._watch_fd, functools.partial(wait, fd), callback, scope)

    async def _watch_fd(
        self, wait: Callable[[], Awaitable[None]], callback: Callable[[], object], scope: trio.CancelScope
    ) -> None:
        with scope, contextlib.suppress(trio.ClosedResourceError):
            while True:
                await wait()
                if scope.cancel_called:
                    return  # and the number may be another file's by now
                self._call(callback)

    def unwatch_fd(self, fd: int, *, write: bool = False) -> None:
        scope = self._watches.pop((fd, write), None)
        if scope is not None and self.is_here():
            scope.cancel()
            trio.lowlevel.notify_closing(fd)  # at once: the descriptor may be closed next


_port = trio.lowlevel.RunVar[TrioPort]("wireline")


def running_port() -> TrioPort:
    """Return the one port of the running loop."""
    try:
        return _port.get()
    except LookupError:
        port = TrioPort()
        _port.set(port)
        return port
