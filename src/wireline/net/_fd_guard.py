"""Which threads use a descriptor, and which one closes it.

Theory of operation. A connected stream has one ``StreamCore``, which lies in ``resting`` while no thread reads; a
reader takes it out and puts it back. The permit to write lies in a ``WriteLock`` in the same way. Every other call
that uses the descriptor is in ``users``. All of these are changed by single operations of C (``list.pop``, ``+=``, an
item set or deleted), so there is no lock that a thread could hold when a signal handler, a finalizer or a fork
interrupts it, and ``close`` may be called from each of these.

``close`` marks the guard (``closing``), wakes the threads that wait, and then *the last user out closes the
descriptor*, as in Go's fdMutex: only when the core and the permit could be claimed and no user is left. A number is
therefore never given back to the system while a call is about to use it. A call registers first and looks at
``closing`` then; ``close`` marks first and looks at the users then: so one of the two sees the other.

A call that an exception ended in the wrong moment leaves a thing behind that no call holds (``_abandoned``). The next
call takes it over, and so does ``close``. Each step of closing may be done again, so a ``close`` that was interrupted
is finished by the next one, or by the finalizer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import weakref
from collections.abc import Callable
from types import TracebackType

from wireline._core.stream import StreamCore
from wireline._os.close import close_quietly
from wireline._os.descriptor import State, Unclaimed, close_unclaimed
from wireline._os.passed_fds import PassedFds
from wireline._os.process import process
from wireline.errors import BusyError, ClosedError
from wireline.net._abandoned import is_abandoned, kept_by_tracebacks, recovering, running_owners
from wireline.net._poll import Waker
from wireline.net._write_lock import WriteLock
from wireline.options import AF_UNIX

__all__ = ["ALONE", "FdGuard", "Use"]

ALONE = "alone"
"""The only key of ``FdGuard.alone``."""


class FdGuard:
    """The calls that use one descriptor, and its end.

    Attributes:
        sock: the descriptor's owner object; ``connect`` may replace it.
        state: what the descriptor is: connected, listening, or neither.
        epoch: the process that owns it; any other process may only close its copy of the descriptor.
        unclaimed: clients that the system has accepted, and no caller has yet.
        passed: descriptors that a Unix peer has passed, and no caller has yet; None where none can arrive.
        resting: the core of a connected stream, while no thread reads it.
        cores: the core, always: what is added to ``resting``.
        writing: the permit to write.
        users: the other calls that use the descriptor.
        alone: the one among them that connects, or receives datagrams, as the only value.
        waker: ends their waits.
        closing: ``close`` or ``detach`` was called.
        disposed: the descriptor was closed, or given to the thread that lingers for it.
        readable: threads may read: the stream is connected, and past its handshake.
        write_waits: the call that has the permit may be waiting until it can send. `relay` says when it is not: then
            ``close`` sends no FIN, and an abortive one a reset alone.
        read_shutdown: ``SHUT_RD`` was done, to wake a thread that reads.
        opened_at: when it was connected (``time.monotonic()``); None if it is not.
        interrupted: an exception ended a read, and its traceback may keep a reference to the core.
    """

    __slots__ = (
        "__weakref__",
        "_core_claimed",
        "_disposal_interrupted",
        "_disposals",
        "_dispose",
        "_permit_claimed",
        "alone",
        "closing",
        "cores",
        "disposed",
        "epoch",
        "interrupted",
        "opened_at",
        "passed",
        "read_shutdown",
        "readable",
        "resting",
        "sock",
        "state",
        "unclaimed",
        "users",
        "waker",
        "write_waits",
        "writing",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.state = State.FRESH
        self.opened_at: float | None = None
        self.epoch: object = process.epoch
        self.unclaimed: Unclaimed = []
        self.passed: PassedFds | None = None
        self.resting: list[StreamCore] = []
        self.cores: tuple[StreamCore, ...] = ()
        self.writing = WriteLock()
        self.users: dict[object, None] = {}
        self.alone: dict[str, object] = {}
        self.waker = Waker()
        self.closing = self.disposed = self.readable = self.read_shutdown = self.interrupted = False
        self._core_claimed = self._permit_claimed = self._disposal_interrupted = False
        self.write_waits = True
        self._dispose: Callable[[], None] | None = None
        self._disposals: list[Callable[[], None]] = []
        _guards.add(self)

    def replace(self, sock: socket.socket) -> None:
        """Go on with another descriptor, and close the old one."""
        old, self.sock = self.sock, sock
        close_quietly(old)

    # Readers and writers of a stream.

    def connected(self, core: StreamCore) -> None:
        """The socket is a stream now. No call may read or write before ``publish``."""
        self.cores = (core,)
        self.resting.clear()
        self.readable = False
        self.writing.closed = True
        self.writing.free.clear()

    def publish(self) -> None:
        """Let all calls read and write."""
        resting = self.resting
        if not resting:
            resting += self.cores
        if not self.closing:
            self.readable = True
            self.writing.open()
        else:
            self.writing.release()

    def unconnected(self) -> None:
        """The connection failed: nothing is to be read or written, even if it was for a moment."""
        self.readable = False
        self.writing.closed = True
        self.resting.clear()
        self.writing.free.clear()
        self.cores = ()

    def take_core(self) -> StreamCore | None:
        """Take the core if it rests, or if the call that took it is gone; the caller keeps it in a variable."""
        if not self.readable:
            return None
        with recovering.lock:
            try:
                return self.resting.pop()
            except IndexError:
                # Our reference first, and `closing` last: `close` claims no core that has one, and says so before.
                core = self.cores[0]
                return core if self._core_is_abandoned(1) and not self.closing else None

    def _core_is_abandoned(self, references: int = 0) -> bool:
        # The tuple's reference and the socket's, those of its sender, and the caller's.
        references += 2 + self.cores[0].sender_references
        # One search for each interruption: it costs, and threads that find the core taken may ask again and again.
        search, self.interrupted = self.interrupted, False
        return is_abandoned(self.cores[0], references, search=search)

    # The end.

    def begin_close(self, dispose: Callable[[], None]) -> None:
        """Mark the guard closed, send the writers that queue away, and let the last user out dispose of the descriptor.

        Args:
            dispose: closes the descriptor, or gives it away; it may be called twice if it is interrupted.
        """
        self.closing = True
        try:
            if self._dispose is None:
                self._dispose = dispose
                self._disposals.append(dispose)
        except BaseException:
            self._disposal_interrupted = True  # there is nothing to pop, as if another call were at it
            raise
        self.writing.close()
        if not self.close_if_unused():
            self._wake()

    def close_if_unused(self) -> bool:
        """After ``close``: dispose of the descriptor if no call uses it any more; whether that is done."""
        if self.disposed or self._dispose is None:
            return self.disposed
        if not (self._claim_stream() and self._has_no_users()):
            return False
        try:
            try:
                dispose = self._disposals.pop()
            except IndexError:
                # Another call is at it, unless an exception ended that. Only then a search: when thousands of sockets
                # are closed, each by two threads, one search for each would look at all objects thousands of times.
                pending = self._not_disposed()
                search = self._disposal_interrupted
                if pending is None or not is_abandoned(pending, 2, search=search) or self.disposed:
                    return True
                dispose = pending
            self.waker.close()
            dispose()
            self.disposed = True
            self._dispose = None
        except BaseException:
            self._disposal_interrupted = True
            raise
        return True

    def _not_disposed(self) -> Callable[[], None] | None:
        return self._dispose  # None by now, if another thread has finished

    def _claim_stream(self) -> bool:
        """Take the core and the permit for good, as far as no call has them."""
        if not self.cores:
            return True
        if not self.readable and self.users:
            return False  # the call that connects reads and writes: it makes the handshake
        if not self._core_claimed:
            try:
                self.resting.pop()
            except IndexError:
                # Only ever set: another thread may have the core at this moment, and be about to say so.
                if not self.readable or self._core_is_abandoned():
                    self._core_claimed = True
            else:
                self._core_claimed = True
            if self._core_claimed:
                self.cores[
                    0
                ].buffer.drop_ahead()  # a reader that was in between may have split some off since
        if not self._permit_claimed and self.writing.claim():
            self._permit_claimed = True
        return self._core_claimed and self._permit_claimed

    def _has_no_users(self) -> bool:
        for use in tuple(self.users):
            # The tuple, our variable.
            self._forget_if_abandoned(use, 2)
        return not self.users

    def _forget_if_abandoned(self, use: object, references: int) -> None:
        alone = self.alone
        # The dictionaries, our variable, the argument of `getrefcount`; a call has one more.
        references += 3 + (alone.get(ALONE) is use)
        if sys.getrefcount(use) - kept_by_tracebacks(use) <= references:
            if ALONE in alone and alone[ALONE] is use:
                del alone[ALONE]
            self.users.pop(use, None)

    def be_alone(self, use: object) -> bool:
        """Let ``use``, which is one of ``users``, be the one that connects or receives datagrams; False if one is."""
        alone = self.alone
        if alone.setdefault(ALONE, use) is use:
            return True
        with recovering.lock:
            for other in tuple(alone.values()):
                if other in self.users:
                    self._forget_if_abandoned(other, 2)
                elif ALONE in alone and alone[ALONE] is other:
                    del alone[ALONE]  # it ended between the two steps
            return alone.setdefault(ALONE, use) is use

    def enter_alone(self, use: object, operation: str) -> None:
        """Let ``use``, which is one of ``users``, be the only one that connects or receives datagrams.

        Raises:
            ClosedError: the socket is closed.
            BusyError: another call is alone.
        """
        if self.closing:
            raise ClosedError(f"{operation}: the socket is closed")
        if not self.be_alone(use):
            raise BusyError(f"{operation}: another thread is using this socket")

    def leave(self, use: object) -> None:
        """End a use of the descriptor; after ``close`` the last one closes it."""
        alone = self.alone
        if ALONE in alone and alone[ALONE] is use:
            del alone[ALONE]
        users = self.users
        if use in users:
            del users[use]
        if self.closing:
            self.close_if_unused()

    def _wake(self) -> None:
        self.waker.wake()
        if not self.cores:
            return
        # As a user of the descriptor, else the number may be another file's by now.
        with contextlib.suppress(ClosedError, OSError), Use(self, "close", even_closing=True) as sock:
            # Only the direction in which a call waits: to shut down writing sends FIN, which an abortive close must
            # not.
            if not self._core_claimed:
                self.read_shutdown = True
                sock.shutdown(socket.SHUT_RD)
            if not self._permit_claimed and self.write_waits:
                # A Unix socket that is full reports nothing to a writer in `poll` until both directions are shut.
                sock.shutdown(socket.SHUT_RDWR if sock.family == AF_UNIX else socket.SHUT_WR)

    def detach(self) -> None:
        """Claim everything for ``detach``.

        Raises:
            OSError: EBUSY: a call uses the socket. Nothing has changed.
        """
        with recovering.lock:  # a reader that finds no core looks again with this lock
            self._claim_all()
            self.closing = True
        self.writing.close()
        self.waker.close()

    def _claim_all(self) -> None:
        core = permit = None
        try:
            if self.cores:
                if (core := self.take_core()) is None:
                    raise OSError(errno.EBUSY, "detach: another thread is reading")
                # A reader may have left something since `detach` looked.
                if core or (permit := self.writing.try_acquire()) is None:
                    raise OSError(errno.EBUSY, "detach: another thread is reading or sending")
            if not self._has_no_users():
                raise OSError(errno.EBUSY, "detach: another thread is using the socket")
        except BaseException:
            if core is not None:
                self.resting += self.cores
            if permit is not None:
                self.writing.release()
            raise

    # Processes.

    @property
    def is_foreign(self) -> bool:
        """Whether another process owns it: this process is its child, and has not used the socket."""
        return self.epoch is not process.epoch

    def abandon(self) -> None:
        """In a process that does not own the socket: close the descriptors, and nothing else."""
        self.close_received()
        self.closing = self.disposed = True
        self.writing.closed = True
        self.waker.close()
        close_quietly(self.sock)

    def close_received(self) -> None:
        """Close the descriptors that the system has given, and no caller has got: this process has its own copies."""
        close_unclaimed(self.unclaimed)
        if self.passed is not None:
            self.passed.close()

    def is_in_use(self) -> bool:
        """Whether a call of this process uses the descriptor."""
        reading = self.readable and not self.resting
        return bool(self.users) or reading or not (self.writing.free or self.writing.closed)

    def renew(self) -> None:
        """In a forked child: forget the calls of the parent's threads, which do not exist here.

        What they held is free. Their frames are gone without being unwound, and the references from these with them, or
        kept forever: so a count of references means nothing. The waker's descriptors are the parent's, too: its
        ``close`` would wake the calls of this process, and end every wait at once.
        """
        self.users.clear()
        self.alone.clear()
        self.waker.renew()
        self.writing.renew()
        resting = self.resting
        if self.readable and not resting:
            resting += self.cores
        for core in self.cores:
            core.renew_lock()


_guards: weakref.WeakSet[FdGuard] = weakref.WeakSet()


def _in_child() -> None:
    # At once, and not when a socket is used: then some calls would be of this process, and none could tell which.
    inside = guards_of_running_calls()
    for guard in tuple(_guards):
        if guard not in inside:
            guard.renew()


def guards_of_running_calls() -> list[FdGuard]:
    """Those whose sockets the running thread is inside a call of: a signal handler may fork."""
    parts = [getattr(owner, name, None) for owner in running_owners() for name in ("_fd", "fd")]
    return [part for part in parts if isinstance(part, FdGuard)]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Use:
    """One call that uses a descriptor, as a context manager."""

    __slots__ = ("_alone", "_even_closing", "_guard", "_operation")

    def __init__(
        self, guard: FdGuard, operation: str, *, even_closing: bool = False, alone: bool = False
    ) -> None:
        """Prepare.

        Args:
            guard: of the descriptor.
            operation: the call, in words.
            even_closing: it is part of closing.
            alone: refuse a second call like this one.
        """
        self._guard = guard
        self._operation = operation
        self._even_closing = even_closing
        self._alone = alone

    def __enter__(self) -> socket.socket:
        guard = self._guard
        guard.users[self] = None
        if guard.disposed or (guard.closing and not self._even_closing):
            self.__exit__(None, None, None)
            raise ClosedError(f"{self._operation}: the socket is closed")
        if self._alone:
            try:
                guard.enter_alone(self, self._operation)
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return guard.sock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.leave(self)
