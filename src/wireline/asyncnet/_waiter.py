"""How a task sleeps.

A ``Waiter`` is a future that can be used again: one object serves for sleep after sleep. asyncio's tasks await it
directly, because it follows the protocol by which asyncio recognizes the futures of others (``asyncio.isfuture``). Any
other loop parks its task by its own means and is called back (``Port.park``). A task of asyncio is woken from inside a
callback of the loop, at once, where a ``Future`` would wake it one turn later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wireline.asyncnet._port import Port

__all__ = ["OneShot", "Waiter"]

# `Task` calls `result()` when it is woken. `bool` is the cheapest callable that returns without doing anything.
_no_error = bool

_no_context = Context()


class Waiter:
    """A task's sleep.

    Once woken, a task cannot be cancelled out of this sleep any more: it gets the result, or raises the cancellation
    with the result still there (R5).

    Attributes:
        pending: a task sleeps, or is about to, and was not woken.
        port: the loop that the task's socket belongs to.
        operation: the name of the call that waits.
        get_loop, result: ``asyncio.Task`` calls both for every sleep, so both are C functions (up to 0.2 us).
            ``get_loop`` may be the function that returns the running loop, because a socket is only awaited on its own.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_context",
        "_error",
        "get_loop",
        "operation",
        "pending",
        "port",
        "result",
    )

    def __init__(self, port: Port) -> None:
        self._asyncio_future_blocking = False
        self.port = port
        self._callback: Callable[[Any], object] | None = None
        self._context = _no_context  # until there is a callback
        self._error: BaseException | None = None
        self.get_loop = port.running_loop
        self.result: Callable[[], object] = _no_error
        self.operation = ""
        self.pending = False

    def wake(self) -> None:
        """Let the task go on, now. Only from a callback of the loop, where no task is running.

        A task of asyncio runs before this returns: the caller must have finished with the state that they share.
        """
        self.pending = False
        callback, self._callback = self._callback, None
        if callback is not None:
            self._context.run(callback, self)

    def wake_with(self, error: BaseException) -> None:
        """The same with an exception."""
        self.set_error(error)
        del error  # its traceback will have this frame, which must not refer back to it
        self.wake()

    def wake_soon(self, error: BaseException | None = None) -> None:
        """Let the task go on in the next turn of the loop. From any code in the loop's thread."""
        self.pending = False
        if error is not None:
            self.set_error(error)
        callback, self._callback = self._callback, None
        if callback is not None:
            self.port.call_soon(callback, self, context=self._context)

    def forget_task(self) -> None:
        """The task was cancelled in its sleep and must not be woken. (asyncio calls ``cancel``.)"""
        self.pending = False
        self._callback = None
        self.abandoned()

    def abandoned(self) -> None:
        """The task was cancelled in its sleep. To override, where another object refers to this one."""

    def set_error(self, error: BaseException) -> None:
        """Let the task raise ``error`` when it is woken."""
        self._error = error
        self.result = self._raise_error

    def _raise_error(self) -> None:
        self.result = _no_error
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback has this frame

    # The rest of what `asyncio.Task` calls.

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        self._callback = callback
        self._context = context

    def cancel(self, msg: object = None) -> bool:
        if not self.pending:
            return False  # it was woken already; the task raises the cancellation by itself
        self.abandoned()
        error = self.port.cancelled_error
        self.wake_soon(error() if msg is None else error(msg))
        return True

    def done(self) -> bool:
        return not self.pending

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation or 'unused'}{', pending' if self.pending else ''}>"


class OneShot(Waiter):
    """A bool that one task waits for, and another sets once.

    Attributes:
        value: the bool that was set.
    """

    __slots__ = ("value",)

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.pending = True
        self.value = False

    def set(self, value: bool) -> bool:
        """Wake the task in the next turn; False if it has left, or was woken before."""
        if not self.pending:
            return False
        self.value = value
        self.wake_soon()
        return True

    async def wait(self, until: float | None) -> bool:
        """Sleep until it is set; False if the loop's clock shows ``until`` first."""
        timer = None if until is None else self.port.call_at(until, functools.partial(self.set, False))
        try:
            await self.port.park(self)
            return self.value
        finally:
            self.pending = False
            if timer is not None:
                timer.cancel()
