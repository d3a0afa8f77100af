"""The port for trio. The one file of the async flavour that imports trio.

Theory of operation. The sockets share the epoll of ``FdPoller``, which one system task watches, and not one wait for
each read: nothing is awaited between the kernel and the buffer, so a cancelled call has consumed nothing, and a
timeout is an entry in a heap that one system task looks at. (A ``CancelScope`` for each read costs 9 us.) Both tasks
end when there is nothing to watch and no timer is left, so that an idle program has no task of ours.

trio starts a task that is woken in its next batch, never inside the call that wakes it. From then on it cannot be
cancelled out of that sleep: it has its result (R5). And no exception may leave a callback, where it would end the run
as a ``TrioInternalError``: the task that waits gets it.

trio ends the system tasks when the main task is done. Only async generators run afterwards, in a cancelled scope: a
call of theirs that sleeps raises the cancellation, as trio's own do.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import heapq
import itertools
import logging
import math
import os
import types
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, cast

import outcome
import trio
from trio.lowlevel import (
    Abort,
    checkpoint_if_cancelled,
    current_task,
    current_trio_token,
    notify_closing,
    reschedule,
    spawn_system_task,
    wait_task_rescheduled,
)

from wireline.asyncnet._poller import FdPoller

if TYPE_CHECKING:
    from wireline.asyncnet._waiters import Waiter

__all__ = ["TrioPort", "running_port"]

T = TypeVar("T")

_log = logging.getLogger("wireline")

# Seconds until the next attempt to watch a descriptor that the system has refused. A guess: soon, and no busy loop.
_RETRY = 0.01


class TrioPort(FdPoller):
    """One run of trio."""

    # Calls that need not sleep and may be made before the others run. Fewer than on asyncio: trio's users rely on it
    # that every call lets the others run. 20,000 sends of one task gave another one 1,250 turns.
    turn_budget = 16
    takes_waiters = False
    callbacks_may_raise = False
    cancelled_error = trio.Cancelled
    completions = None
    tasks = None
    raise_if_cancelled = staticmethod(checkpoint_if_cancelled)

    def __init__(self) -> None:
        super().__init__()
        self.loop: trio.lowlevel.TrioToken | None = current_trio_token()
        self.running_loop: Callable[[], object] = current_trio_token
        self.time: Callable[[], float] = trio.current_time
        self._over = False
        self._watches: dict[tuple[int, bool], trio.CancelScope] = {}
        self._timers = _Timers(self)
        _ports.add(self)

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> bool:
        """Start a system task; False if the run is about to end."""
        if self._over:
            return False
        try:
            # A context of its own: that of the calling task would be kept for the rest of the run.
            spawn_system_task(function, *args, name="wireline", context=Context())
        except RuntimeError:  # the main task is done, and so are the system tasks
            self.end()
            return False
        return True

    def end(self) -> None:
        """The run is about to end: watch nothing any more."""
        self._over = True
        epoll, self._epoll = self._epoll, None
        self._readers.clear()
        self._writers.clear()
        if epoll is not None:
            epoll.close()

    def disown(self) -> None:
        """In a forked child: have nothing to do with the parent's run and its epoll any more."""
        self.loop = None
        self._over = True
        self._disown()

    @contextlib.asynccontextmanager
    async def open_tasks(self) -> AsyncIterator[_Tasks]:
        await checkpoint_if_cancelled()
        manager = trio.open_nursery()
        nursery = await manager.__aenter__()
        try:
            yield _Tasks(nursery)
        except BaseException:
            nursery.cancel_scope.cancel()
            raise
        finally:
            # Not with the exception, which would then be in a group.
            await manager.__aexit__(None, None, None)

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

    @types.coroutine
    def park(self, waiter: Waiter) -> Generator[Any, Any, None]:
        if self._over:
            yield from self._refuse()
        # In place of a callback and its context: the task, and an object that wakes it. (`cast` would be a call.)
        waiter.callback = current_task()  # type: ignore[assignment]
        message = waiter.message
        if message is None:
            waiter.context = _resume
            message = waiter.message = _message_to_sleep(weakref.ref(waiter))
        (yield message).unwrap()

    async def _refuse(self) -> None:
        await checkpoint_if_cancelled()
        raise RuntimeError("the run of trio is about to end: no socket can wait any more")

    async def checkpoint(self) -> None:
        self.budget = self.turn_budget
        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def move_on_at(self, until: float | None, awaitable: Awaitable[T]) -> T | None:
        with trio.CancelScope(deadline=math.inf if until is None else until):
            return await awaitable
        return None

    # Callbacks.

    def call_soon(self, callback: Callable[..., object], *args: object, context: Context) -> None:
        context.run(callback, *args)  # `_resume`, which does not run the task

    def call_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        if self.loop is None:
            raise RuntimeError("the run of trio is the parent process's")
        self.loop.run_sync_soon(functools.partial(self.call, callback, *args))

    def call_at(self, when: float, callback: Callable[[], object]) -> _Timer:
        return self._timers.add(when, callback)

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Call back, in a system task, which ends the run if it raises."""
        try:
            callback(*args)
        except BaseException as error:  # noqa: BLE001
            self.report(error)

    def report(self, error: BaseException) -> None:
        _log.error("a socket's callback failed", exc_info=error)

    # Readiness.

    def watch_fd(self, fd: int, callback: Callable[[], object], *, write: bool = False) -> None:
        scope = self._watches[fd, write] = trio.CancelScope()
        if not self.spawn(self._watch_fd, fd, callback, write, scope):
            self._watches.pop((fd, write), None)

    async def _watch_fd(
        self, fd: int, callback: Callable[[], object], write: bool, scope: trio.CancelScope
    ) -> None:
        wait = trio.lowlevel.wait_writable if write else trio.lowlevel.wait_readable
        try:
            with scope, contextlib.suppress(trio.ClosedResourceError):
                while True:
                    try:
                        await wait(fd)
                    except OSError:  # no memory to watch it with
                        await trio.sleep(_RETRY)
                        continue
                    if self._watches.get((fd, write)) is not scope:
                        return  # and the number may be another file's by now
                    try:
                        callback()
                    except BaseException as error:  # noqa: BLE001 -- a system task that raises ends the run
                        self.report(error)
        finally:
            nursery = current_task().parent_nursery
            if not scope.cancel_called and (nursery is None or nursery.cancel_scope.cancel_called):
                self.end()

    def unwatch_fd(self, fd: int, *, write: bool = False) -> None:
        scope = self._watches.pop((fd, write), None)
        if scope is None or self._over:
            return
        if self.is_here():
            scope.cancel()
            notify_closing(fd)  # at once: the descriptor may be closed next
        else:
            with contextlib.suppress(RuntimeError):  # the run is over
                self.call_threadsafe(scope.cancel)

    def forget(self, fd: int) -> None:
        super().forget(fd)
        # The program may have given the number to trio's own `wait_readable`.
        if fd >= 0 and self.is_here():
            notify_closing(fd)


def _message_to_sleep(waiter: weakref.ref[Waiter]) -> object:
    """Return what ``wait_task_rescheduled`` yields to trio: the order to sleep, and the function that may end it.

    A waiter yields the same object each time that it sleeps, and trio only reads it. That saves a coroutine, a
    generator and a closure: a tenth of the instructions of an exchange. The reference is weak, so that no cycle keeps
    the waiter of a dropped socket; a task that sleeps has its waiter in a frame.
    """

    def abort(_: object) -> Abort:
        sleeping = waiter()
        if sleeping is None or not sleeping.pending:
            return Abort.FAILED  # it was woken already, and its result must not be lost
        sleeping.forget_task()
        return Abort.SUCCEEDED

    return wait_task_rescheduled(abort).send(None)  # noqa: ASYNC105 -- `park` yields what it yields


class _Woken(outcome.Outcome[None]):
    """What a task is woken with: None. One object serves every time, where a ``Value`` is used up."""

    def unwrap(self) -> None:
        return None

    def send(self, gen: Generator[Any, None, Any]) -> Any:
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[Any, None]) -> Any:
        return await agen.asend(None)


_WOKEN = _Woken()


class _Resume:
    """What a ``Waiter`` calls in place of a ``Context``."""

    @staticmethod
    def run(task: trio.lowlevel.Task, waiter: Waiter) -> None:
        if waiter.error is None:
            reschedule(task, _WOKEN)
            return
        error = cast(BaseException, waiter.take_error())
        reschedule(task, outcome.Error(error))
        del error  # its traceback will have this frame


_resume = cast(Context, _Resume())


class _Task:
    """A child of a nursery that can be cancelled by itself."""

    def __init__(self, nursery: trio.Nursery, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self._name = name
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._callbacks: list[Callable[[Any], object]] = []
        nursery.start_soon(self._run, coroutine, name=name)

    async def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        _current_task.set(self)
        try:
            with self._scope:
                await coroutine
        except Exception as error:  # noqa: BLE001 -- beside the cancellation, in a nursery of the coroutine
            _log.error("%s failed while it was cancelled", self._name, exc_info=error)
        finally:
            self._done.set()
            for callback in self._callbacks:
                callback(self)

    def __await__(self) -> Generator[Any, Any, object]:
        return self._done.wait().__await__()

    def done(self) -> bool:
        return self._done.is_set()

    def cancel(self) -> None:
        self._scope.cancel()

    def get_name(self) -> str:
        return self._name

    def add_done_callback(self, callback: Callable[[Any], object], /, *, context: Context) -> None:
        self._callbacks.append(callback)


class _Tasks:
    """The tasks of a nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> _Task:
        try:
            return _Task(self._nursery, coroutine, name)
        except RuntimeError:  # the block is over
            coroutine.close()
            raise

    @staticmethod
    def current() -> _Task:
        # In a task that is not ours its own object will do: it is compared, and nothing else.
        return _current_task.get() or cast(_Task, current_task())


# Children of a handler, in nurseries of its own, count as the handler.
_current_task: contextvars.ContextVar[_Task | None] = contextvars.ContextVar("wireline_task", default=None)


class _Timer:
    """A callback that is due at a time."""

    __slots__ = ("_timers", "callback")

    def __init__(self, timers: _Timers, callback: Callable[[], object]) -> None:
        self._timers = timers
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._timers.one_less()


class _Timers:
    """The timers of a run, and the task that waits for the earliest of them."""

    def __init__(self, port: TrioPort) -> None:
        self._port = port
        self._heap: list[tuple[float, int, _Timer]] = []
        self._number = itertools.count()  # no two entries compare the timers themselves
        self._live = 0
        self._scope: trio.CancelScope | None = None
        self._has_task = False

    def add(self, when: float, callback: Callable[[], object]) -> _Timer:
        timer = _Timer(self, callback)
        heapq.heappush(self._heap, (when, next(self._number), timer))
        self._live += 1
        if not self._has_task:
            self._has_task = self._port.spawn(self._run)
        elif self._scope is not None and when < self._scope.deadline:
            self._scope.deadline = when
        return timer

    def one_less(self) -> None:
        """A timer was cancelled, or has gone off. Without timers there is no task."""
        self._live -= 1
        if not self._live and self._scope is not None and self._port.is_here():
            self._scope.cancel()

    async def _run(self) -> None:
        try:
            while self._live:
                with trio.CancelScope(deadline=self._heap[0][0]) as self._scope:
                    await trio.sleep_forever()
                self._call_due()
            self._heap.clear()
        finally:
            self._has_task = False
            self._scope = None

    def _call_due(self) -> None:
        now = trio.current_time()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].callback is None):
            timer = heapq.heappop(self._heap)[2]
            callback = timer.callback
            if callback is not None:
                timer.cancel()
                self._port.call(callback)


_current = trio.lowlevel.RunVar[TrioPort]("wireline")

_ports: weakref.WeakSet[TrioPort] = weakref.WeakSet()


def running_port() -> TrioPort:
    """Return the one port of the running loop."""
    try:
        port = _current.get()
    except LookupError:
        port = None
    if port is None or port.loop is None:  # that of a parent process
        port = TrioPort()
        _current.set(port)
    return port


def _disown_all() -> None:
    for port in list(_ports):
        port.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
