"""How a task waits for the bytes of a stream. This is the hot path of the async flavour; the object folds what
``_channel`` does for any job into one, because a stream has one reader at a time.

Theory of operation. A waiting read is a *request* of the core, and it lies here. When the loop says that the descriptor
is readable, the callback receives straight into the core and asks the request. Not yet: the task sleeps on. An answer:
it is handed over and the task goes on at once, from inside the callback. So a reader is woken when its request can be
answered, not whenever bytes arrive; and there is no await between the kernel and the buffer, which is why a
cancellation cannot lose any.

Two requests, for some bytes and for a line, are mostly answered by just what one system call gave. The core then
returns these bytes without a way through its buffer (``accept``), and the next such request is not made at all
(``fast_recv_ok``).

The registration with the loop stays from one read to the next. It is dropped when bytes arrive that nobody waits for:
they stay in the kernel, and a slow consumer holds its peer back.

The core rests in ``resting``, a list of at most one, which the socket shares: an empty list is what tells a second
reader that it is one.
"""

from __future__ import annotations

import errno
import socket
import types
from collections.abc import Callable, Generator
from typing import Any, TypeVarTuple

from wireline._core.stream import StreamCore
from wireline._socket_base import closed_meanwhile
from wireline.asyncnet._asyncio import Loop, Sleep, Timer
from wireline.asyncnet._operations import Owner
from wireline.asyncnet._readiness import loop_state
from wireline.errors import SocketTimeout, fresh_copy
from wireline.options import DONT_WAIT

__all__ = ["StreamReader"]

Ts = TypeVarTuple("Ts")


class StreamReader(Sleep):
    """The one reader of a stream, on a loop with ``add_reader``.

    Attributes:
        closed: the descriptor is closed, or about to be.
    """

    __slots__ = (
        "_answer",
        "_args",
        "_at",
        "_core",
        "_owner",
        "_registered",
        "_request",
        "_resting",
        "_seconds",
        "_sock",
        "_timer",
        "_timer_at",
        "closed",
    )

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        resting: list[StreamCore],
        owner: Owner,
    ) -> None:
        super().__init__(loop)
        self._sock = sock
        self._core = resting[0]
        self._resting = resting
        self._owner = owner
        self._request: Callable[..., bytes | None] = StreamCore.recv
        self._args: tuple[Any, ...] = ()
        self._answer = b""
        self._registered = False
        self.closed = False
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._at: float | None = None

    @types.coroutine
    def wait(
        self,
        request: Callable[[StreamCore, *Ts], bytes | None],
        args: tuple[*Ts],
        timeout: float | None,
    ) -> Generator[StreamReader, None, bytes]:
        """Take the core, and wait for the answer to a request.

        Args:
            request: a method of the core, which has just answered None.
            args: its arguments.
            timeout: seconds to wait.
        """
        if not self._registered:
            self._registered = loop_state(self.loop).watch(self._sock, self)
            if not self._registered:
                self.closed = True
        self._core.fast_recv_ok = False
        self._resting.clear()
        self._request = request
        self._args = args
        if timeout is None:
            self._at = None
        else:
            self._seconds = timeout
            self._at = at = self.loop.time() + timeout
            if self._timer is None or self._timer_at > at:
                self._set_timer(at)
        self.pending = self._asyncio_future_blocking = True
        try:
            if self.closed:
                # Asked last: a close from now on finds a reader that is `pending`.
                self._end()
                raise closed_meanwhile(request.__name__)
            yield self
        except BaseException:
            self.pending = False
            self._resting.append(self._core)
            raise
        answer, self._answer = self._answer, b""
        return answer

    def __call__(self) -> None:
        """Receive: the loop says that there is something. A method with a name would be 64 bytes more a connection."""
        if not self.pending:
            self._unwatch()
            return
        core = self._core
        answer = None
        try:
            try:
                data = self._sock.recv(core.recv_size, DONT_WAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if self.closed:
                    return  # `close` wakes the task, with a `ClosedError`
                core.fail(self._owner.note(error, self._request.__name__))
            else:
                answer = core.accept(data)
            if answer is None:
                try:
                    answer = self._request(core, *self._args)
                except Exception as error:  # noqa: BLE001 -- it belongs to the task that waits
                    self._tell(error)
                else:
                    if answer is None:
                        return
        except BaseException as error:
            self._interrupted(error)
            if isinstance(error, Exception):
                return  # the task has it
            raise
        # What `wake` does, without the call: this is where every message comes by.
        self.pending = False
        if answer is not None:
            self._answer = answer
            self._resting.append(core)
        callback, self._callback = self._callback, None
        if callback is not None:
            self._context.run(callback, self)

    def _interrupted(self, error: BaseException) -> None:
        """An exception of a signal handler, or a fault of ours, between the kernel and the task (FA7).

        What was received may be lost, and nothing tells. So the connection is broken from here on, in words, and the
        task is woken: it is neither asleep for ever nor reads on as if nothing had happened.
        """
        if self.closed or not self.pending:
            return
        operation = self._request.__name__
        broken = OSError(errno.EIO, f"{operation}: {error!r} while bytes were received, which may be lost")
        StreamCore.fail(self._core, broken)
        self.wake_soon(error if isinstance(error, Exception) else fresh_copy(broken))

    def left(self) -> None:
        """Nothing to do: a request is not asked any more when its task is not ``pending``."""

    @property
    def needs_loop(self) -> bool:
        """Whether there is a task to wake, or a timer to cancel."""
        return self.pending or self._timer is not None

    def close(self, error: Callable[[str], BaseException]) -> None:
        """Wake the reader with an error in the next turn of the loop, and let go of the descriptor."""
        self._end()
        if self.pending and not self.loop.is_closed():
            self.wake_soon(error(self._request.__name__))

    def close_now(self, error: Callable[[str], BaseException]) -> None:
        """The same, from a callback of the loop: it goes on at once."""
        self._end()
        if self.pending:
            self.wake_with(error(self._request.__name__))

    def _end(self) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unwatch()

    def _unwatch(self) -> None:
        if self._registered:
            self._registered = False
            loop_state(self.loop).unwatch(self._sock.fileno(), self)

    # One timer for all reads: it is set for the earliest deadline, and looks for itself whether there is a later one
    # by now. So a timeout that never fires makes no timer.

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at  # of uvloop it may be a handle that does not know
        self._timer = self.loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self.pending or self._at is None:
            return
        if self.loop.time() < self._at:
            self._set_timer(self._at)
            return
        self.wake_with(SocketTimeout(self._request.__name__, self._seconds))
