"""A socket whose descriptor several threads may use and one may close (``_fd_guard``), and how its calls wait."""

from __future__ import annotations

import functools
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from wireline._core.deadline import Deadline
from wireline._core.stream import ALL, StreamCore
from wireline._os.descriptor import State, Unclaimed, close_unclaimed
from wireline._os.process import process
from wireline._secure import SecureSocket
from wireline.errors import BusyError, ClosedError, SockAddr, SocketTimeout
from wireline.net._fd_guard import FdGuard, Use
from wireline.net._poll import Latch, Readiness
from wireline.net._write_lock import Permit
from wireline.options import DONT_WAIT, NO_SIGNAL

T = TypeVar("T")

_WAIT_ALL: int = getattr(socket, "MSG_WAITALL", 0)

# Seconds between two attempts where no event tells when the next one may succeed. Guesses: short beside a human, long
# beside a system call.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class GuardedSocket(SecureSocket):
    """A socket whose descriptor several threads may use and one may close."""

    _shared = True

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._guard = FdGuard(sock)
        # What every message looks at, without the way through the guard.
        self._resting = self._guard.resting
        self._writing = self._guard.writing
        # The epoch in which a call may end without more ado: that of the owning process, and none from `close` on.
        self._quiet_epoch: object = process.epoch
        # What the system gave and no caller has: a datagram, clients.
        self._arrived: list[tuple[Any, ...]] = []
        self._unclaimed: Unclaimed = []
        self._readable: Readiness | None = None
        self._writable: Readiness | None = None
        self._receive: Iterator[bytes] = iter(())
        self._receive_as = (0, 0)
        super()._setup(sock, buffered, state, peer)

    def _take_core(self, core: StreamCore) -> None:
        super()._take_core(core)
        self._guard.cores = (core,)

    def _opened(self) -> None:
        assert self._core is not None
        self._readable = self._writable = None
        self._receive_as = (0, 0)
        self._guard.waker.close()  # it was for `connect`; `shutdown` wakes whatever waits on a stream
        self._guard.connected(self._core)

    def _published(self) -> None:
        self._guard.publish()
        if self._quiet_epoch is not process.epoch:
            self._leave()

    def _unconnected(self) -> None:
        self._guard.unconnected()
        super()._unconnected()

    def _let_go(self, old: socket.socket) -> None:
        self._guard.sock = self._sock
        super()._let_go(old)

    # Using and closing the descriptor.

    def _use(self, operation: str) -> AbstractContextManager[socket.socket]:
        return Use(self._guard, operation)

    def _alone(self, operation: str) -> AbstractContextManager[socket.socket]:
        """The same, and refuse a second thread that connects, or receives datagrams."""
        return Use(self._guard, operation, alone=True)

    def _inherit(self) -> None:
        self._quiet_epoch = process.epoch
        # A thread of the parent may have been waiting in `poll`: its object refuses every other call, for ever.
        self._readable = self._writable = None
        if self._closing.locked():  # by another thread, in this moment
            self._quiet_epoch = None

    def _is_in_use(self) -> bool:
        return self._guard.is_in_use()

    def _abandon(self) -> None:
        self._quiet_epoch = None
        close_unclaimed(self._unclaimed)
        self._guard.abandon()

    def _arrive(self) -> None:
        """A call begins in another process than the last one, or after ``close``."""
        if self._is_foreign and not self._closing.locked():
            self.adopt()

    def _leave(self) -> None:
        """A call ends that was the first in a forked child, or during which the socket was closed."""
        if self._guard.closing:
            self._guard.close_if_unused()
        elif self._is_foreign:
            self.adopt()

    def _retire(self, linger: float | None) -> None:
        self._quiet_epoch = None
        self._guard.begin_close(functools.partial(self._dispose, linger))

    def _dispose(self, linger: float | None) -> None:
        close_unclaimed(self._unclaimed)
        self._deaf = self._guard.read_shutdown
        super()._dispose(linger)

    def _is_disposed(self) -> bool:
        return self._guard.disposed

    def _give_up(self) -> int:
        # `detach` is a close that keeps the descriptor, and unlike `close` it does not send calls away.
        self._guard.give_up()
        self._quiet_epoch = None
        return super()._give_up()

    def _hold(self, operation: str) -> tuple[StreamCore, Permit]:
        """Be the only call that reads and writes the stream, for as long as the caller has what is returned."""
        core = self._take_core_or_raise(operation)
        permit = self._writing.try_acquire()
        if permit is None:
            self._resting += self._guard.cores
            raise BusyError(f"{operation}: another thread is sending")
        return core, permit

    def _take_core_or_raise(self, operation: str) -> StreamCore:
        """Say why there is no core to be had, or take it from a call that is gone."""
        self._arrive()
        if self._core is None:
            self._refuse(operation)
        core = self._guard.take_core()
        if core is None:
            self._open_sock(operation)
            if self._guard.closing:  # by `detach`, in this moment
                raise ClosedError(f"{operation}: the socket is closed")
            raise BusyError(f"{operation}: another thread is reading this socket")
        return core

    def _release_permit(self) -> None:
        self._writing.release()
        if self._quiet_epoch is not process.epoch:
            self._leave()

    # Waiting.

    def _fill(self, core: StreamCore, operation: str, *, wait: bool) -> bool:
        """Receive once and big, into ``core.inbox``.

        A signal handler runs only where the interpreter calls or loops back. There is no such place between the end of
        the system call, which ``for`` makes, and the store: nothing that the kernel gave can be lost.

        Args:
            core: where to.
            operation: the call, in words.
            wait: let the kernel wait until something is there.

        Returns:
            False if nothing is there, and nothing waited.
        """
        receive = (core.recv_size, (_WAIT_ALL if core.direct is ALL else 0) if wait else DONT_WAIT)
        if receive != self._receive_as:
            self._receive = map(self._sock.recv, *map(itertools.repeat, receive))
            self._receive_as = receive
        try:
            for core.inbox in self._receive:
                break
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._is_the_systems(error):
                raise
            core.inbox = error
            self._raise_if_closed(operation)
            self._annotated(error, operation)
        if not core.inbox:
            self._raise_if_closed(operation)  # then it was `close` that woke us
        return True

    def _is_the_systems(self, error: OSError) -> bool:
        """Whether a system call has failed, and not a signal handler raised an ``OSError`` (``TimeoutError`` is one).

        The handler's is not the end of the stream. Its traceback goes on to the frame of the handler, where that of a
        system call ends at ours; but for a socket whose methods are not of C, of which the number is all that tells.
        """
        if error.errno is None:
            return False
        trace = error.__traceback__
        if trace is None or trace.tb_next is None:
            return True
        return getattr(type(self._sock), "recv", None) is not getattr(socket.SocketType, "recv", None)

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
        """One send on a connected stream, as soon as there is room for something; how many bytes it took."""
        while True:
            try:
                return self._sender.send(data, DONT_WAIT | NO_SIGNAL)
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
                    readiness = Readiness(self._sock.fileno(), write=write, waker=self._guard.waker)
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
        self._guard.waker.wait_for(Latch(), seconds)
        return pause
