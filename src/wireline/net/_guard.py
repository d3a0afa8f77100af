"""Who uses a descriptor, and who closes it.

Theory of operation. A connected stream has one ``StreamCore``. It rests in ``_resting``, a list of at most one, and
whoever reads takes it out (``list.pop`` is atomic): so an empty list is what tells a second reader that it is one,
without a lock on the way. Writers queue for ``_turn``. Every other use of the descriptor is counted in ``_users``.

``close`` may come from any thread at any moment. It marks the socket closed, wakes the waiters, and then
*the last user out closes the descriptor*, as in Go's fdMutex: only who can take the core, the turn and finds no user
left may do it. A number is therefore never given back to the system while somebody is about to use it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

from wireline._descriptor import State
from wireline._sansio.deadline import Deadline
from wireline._sansio.stream import StreamCore
from wireline._secure import SecureSocket
from wireline.errors import BusyError, SockAddr, SocketTimeout
from wireline.net._turns import WriteTurn
from wireline.net._wait import Readiness, Waker
from wireline.options import AF_UNIX, DONT_WAIT, NO_SIGNAL

T = TypeVar("T")

_WAIT_ALL: int = getattr(socket, "MSG_WAITALL", 0)

# Seconds between two attempts where no event tells when the next one may succeed. Guesses: short beside a human, long
# beside a system call.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class GuardedSocket(SecureSocket):
    """A socket whose descriptor several threads may use and one may close."""

    _shared = True

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._resting: list[StreamCore] = []
        self._turn = WriteTurn()
        self._lock = threading.Lock()
        self._users = 0
        self._one_at_a_time = threading.Lock()
        self._waker = Waker()
        self._readable: Readiness | None = None
        self._writable: Readiness | None = None
        self._disposal: Callable[[], None] | None = None
        self._no_reader = self._no_writer = True
        super()._setup(sock, buffered, state, peer)

    def _opened(self) -> None:
        assert self._core is not None
        self._readable = self._writable = None
        self._waker.close()  # it was for `connect`; `shutdown` wakes whoever waits on a stream
        self._no_reader = self._no_writer = False

    def _published(self) -> None:
        assert self._core is not None
        self._resting.append(self._core)
        self._let_go_of_turn()

    def _unconnected(self) -> None:
        with self._lock:
            self._no_reader = self._no_writer = True
            super()._unconnected()

    # Using and closing the descriptor.

    def _use(self, operation: str) -> AbstractContextManager[socket.socket]:
        return _Use(self, operation)

    @contextlib.contextmanager
    def _alone(self, operation: str) -> Iterator[None]:
        """Refuse a second thread that connects, or receives datagrams."""
        if not self._one_at_a_time.acquire(blocking=False):
            raise BusyError(f"{operation}: another thread is using this socket")
        try:
            yield
        finally:
            self._one_at_a_time.release()

    def _retire(self, linger: float | None) -> None:
        self._disposal = functools.partial(self._dispose, linger)
        self._turn.send_away()
        if not self._last_one_out():
            self._wake()

    def _last_one_out(self) -> bool:
        """After ``close``: dispose of the descriptor if nobody uses it any more. Nobody new may begin."""
        with self._lock:
            if self._core is not None:
                with contextlib.suppress(IndexError):  # a reader has it, and will come by here
                    self._resting.pop()
                    self._no_reader = True
                    self._lines.clear()  # a reader that was in between may have split some off since
                self._no_writer = self._no_writer or self._turn.held.acquire(False)
            if self._users or not (self._no_reader and self._no_writer) or self._disposal is None:
                return self._disposal is None
            dispose, self._disposal = self._disposal, None
        self._waker.close()
        dispose()
        return True

    def _wake(self) -> None:
        self._waker.ring()
        # Under the lock, and only while the disposal is still to be done: else the number may be somebody else's.
        # Only the direction that somebody waits in: shutting down writing sends FIN, which an abortive close must not.
        with self._lock, contextlib.suppress(OSError):  # the peer is gone, and with it the reason to wait
            if self._disposal is not None and not self._no_reader:
                self._deaf = True
                self._sock.shutdown(socket.SHUT_RD)
            if self._disposal is not None and not self._no_writer:
                # A Unix socket that is full reports nothing to a writer in `poll` until both directions are shut.
                self._sock.shutdown(socket.SHUT_RDWR if self._sock.family == AF_UNIX else socket.SHUT_WR)

    def _give_up(self) -> int:
        # `detach` is a close that keeps the descriptor, and unlike `close` it does not send anybody away.
        with self._lock:
            if self._users:
                raise OSError(errno.EBUSY, "detach: another thread is using the socket")
            if self._core is not None:
                self._take_core_and_turn()
            fd = super()._give_up()
        self._turn.send_away()
        self._waker.close()
        return fd

    def _take_core_and_turn(self) -> None:
        try:
            core = self._resting.pop()
        except IndexError:
            raise OSError(errno.EBUSY, "detach: another thread is reading") from None
        # A reader may have left something since `detach` looked.
        if core or not self._turn.try_acquire():
            self._resting.append(core)
            raise OSError(errno.EBUSY, "detach: another thread is reading or sending")

    def _hold(self, operation: str) -> StreamCore:
        """Be the only one who reads and writes the stream."""
        if self._core is None:
            self._refuse(operation)
        with self._lock:
            self._open_sock(operation)
            try:
                core = self._resting.pop()
            except IndexError:
                raise BusyError(f"{operation}: another thread is reading this socket") from None
            if not self._turn.try_acquire():
                self._resting.append(core)
                raise BusyError(f"{operation}: another thread is sending")
        return core

    def _let_go_of_turn(self) -> None:
        self._turn.release()
        if self._disposal is not None:
            self._last_one_out()

    # Waiting.

    def _fill(self, core: StreamCore, operation: str, most: int = 0, *, wait: bool) -> bytes | None:
        """Receive once and big.

        Args:
            core: what to fill.
            operation: for whom, in words.
            most: if no more bytes than this come, they are the answer, and do not go through the core's buffer.
            wait: let the kernel wait until something is there.

        Returns:
            That answer, or None: the core is to be asked.

        Raises:
            BlockingIOError: nothing is there, and nobody waited.
        """
        try:
            if not wait:
                data = self._sock.recv(core.want, DONT_WAIT)
            elif core.want_whole:
                # One system call, no joining of pieces, no way through the buffer: what bulk costs a bare socket.
                data = self._sock.recv(core.want, _WAIT_ALL)
                if core.from_scratch and len(data) == core.want:
                    return data
            else:
                data = self._sock.recv(core.want)
        except BlockingIOError:
            raise
        except OSError as error:
            self._fail(core, error, operation)
        else:
            if data and most:
                return core.feed_some(data, most)
            self._feed(core, data, operation)
        return None

    def _feed(self, core: StreamCore, data: bytes, operation: str) -> None:
        if not data:
            self._raise_if_closed(operation)  # then it was `close` that woke us
        core.feed(data)

    def _fail(self, core: StreamCore, error: OSError, operation: str) -> None:
        self._raise_if_closed(operation)
        core.fail(self._annotated(error, operation))

    def _wait_for_input(self, operation: str, deadline: Deadline | None) -> None:
        """Wait until there is something on a connected stream. It is tried first, always: that may cost less."""
        if self._readable is None:
            self._readable = Readiness(self._sock.fileno())
        if not self._readable.wait(deadline):
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds)

    def _send_once(
        self, operation: str, data: bytes | memoryview, deadline: Deadline | None, sent: int | None
    ) -> int:
        """One low-level send on a connected stream, as soon as there is room for something."""
        while True:
            try:
                return self._sock.send(data, DONT_WAIT | NO_SIGNAL)
            except BlockingIOError:
                self._wait_for_room(operation, deadline, sent)

    def _wait_for_room(self, operation: str, deadline: Deadline | None, sent: int | None = 0) -> None:
        if self._writable is None:
            self._writable = Readiness(self._sock.fileno(), write=True)
        if not self._writable.wait(deadline):
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds, sent)

    def _until_ready(
        self, operation: str, deadline: Deadline | None, attempt: Callable[[], T], *, write: bool = False
    ) -> T:
        """Repeat a call that may not wait until it does not have to, for any socket but a connected stream."""
        readiness: Readiness | None = None
        pause = 0.0
        while True:
            try:
                return attempt()
            except BlockingIOError:
                if readiness is None:
                    readiness = Readiness(self._sock.fileno(), write=write, waker=self._waker)
                elif write:
                    pause = self._ready_and_yet_refused(pause, deadline)
            except OSError as error:
                self._raise_if_closed(operation)
                raise self._annotated(error, operation) from error.__cause__
            late = pause and deadline is not None and deadline.passed(time.monotonic())
            if late or not readiness.wait(deadline):
                assert deadline is not None
                raise SocketTimeout(operation, deadline.seconds, 0 if write else None)
            self._raise_if_closed(operation)

    def _ready_and_yet_refused(self, pause: float, deadline: Deadline | None) -> float:
        """Wait a little: the system reports that a Unix socket may send, but not that its receiver's queue is full."""
        pause = min(2 * pause, _LONGEST_PAUSE) or _FIRST_PAUSE
        seconds = pause if deadline is None else min(pause, deadline.remaining(time.monotonic()))
        self._waker.wait_for(threading.Event(), seconds)
        return pause


class _Use:
    """One counted use of a descriptor."""

    __slots__ = ("_operation", "_socket")

    def __init__(self, guarded: GuardedSocket, operation: str) -> None:
        self._socket = guarded
        self._operation = operation

    def __enter__(self) -> socket.socket:
        guarded = self._socket
        with guarded._lock:
            sock = guarded._open_sock(self._operation)
            guarded._users += 1
        return sock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        guarded = self._socket
        with guarded._lock:
            guarded._users -= 1
        if guarded._disposal is not None:
            guarded._last_one_out()
