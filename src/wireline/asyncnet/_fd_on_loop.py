"""A descriptor that belongs to a loop: which calls may touch it, which close it, and from where.

The async twin of ``FdGuard``.

Theory of operation. A descriptor has one owner of each kind:

* *A process* (``epoch``). In a forked child only ``abandon`` may be called: it closes the child's descriptor. No
  ``epoll_ctl``, no ``remove_reader``, no wake-up, for all of these are shared with the parent. A child that goes on
  with the socket first detaches it from the parent's loop (``reset_after_fork``); the ``loop`` of all the parent's
  ports is None there, so the child finds out where the loops are compared (``enter``), and nowhere else.
* *A loop*, from the first await on (``enter``). Only its thread touches the descriptor and the registrations, and only
  its callbacks wake tasks.
* *One task that reads, and one that writes.* The reader has the core (``ReadWaiter``), the writer has ``write_lock``.
  Between two awaits nothing else runs, so there is no last user to wait for: ``close`` closes.

``close`` may be called in any thread, and at any bytecode of the loop's own thread: a signal handler or a finalizer may
have interrupted a callback of this library that is half done, or the loop itself. So it has two parts.

At once, in steps none of which can be seen half done: every object that knows the descriptor is marked (``closed``),
the poller forgets the number, and the descriptor is closed, which frees the number (a program may bind to the port of
a listener as soon as it has closed it). The interrupted code finds out by itself: its ``socket.socket`` raises
``EBADF`` and it reads the mark, or it is about to sleep and reads the mark last, after ``close`` can find it. It never
keeps the number: it asks the ``socket.socket`` each time, which returns -1 after the close.

Later, in a callback of the loop (``_wake_all``), where no step of this library is half done: tasks are woken with
``ClosedError``, in the queues too, and timers are cancelled. Where no task waits, this part is left out.

Where a thread of another loop, or of none, calls ``close`` (the collector runs in any), all of it happens in the loop's
thread: only there no system call with the descriptor is under way. A loop that does not run has no call under way; on a
closed one no task waits.

On a loop without readiness an operation of the loop may use the descriptor. Then it is closed when the last of them is
done.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.stream import StreamCore
from wireline._os.close import close_quietly
from wireline._os.descriptor import State
from wireline._os.passed_fds import PassedFds, Receiver
from wireline._os.process import process
from wireline._socket_base import BaseSocket, closed_meanwhile, inherit, require_open
from wireline.asyncnet._completion_queue import open_queue, when_done
from wireline.asyncnet._operations import Readable, WeakAnnotator, Writable
from wireline.asyncnet._port import UNBOUND, Completion, Port, running_port
from wireline.asyncnet._queue import NotYet, Operation, OperationQueue
from wireline.asyncnet._sync import Notifier, WriteLock
from wireline.asyncnet._waiters import ReadWaiter
from wireline.errors import BusyError, SocketTimeout
from wireline.options import SOCK_DGRAM
from wireline.timing import Timeout

__all__ = ["FdOnLoop", "is_blocking"]

T = TypeVar("T")

# Seconds between two attempts where no event tells when the next one may succeed: a Unix listener or receiver whose
# queue is full. Guesses: short beside a human, long beside a system call.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class FdOnLoop:
    """One descriptor, and all that the library has of it in a loop.

    Attributes:
        epoch: the process that owns it; any other process may only close its copy of the descriptor.
        opened_at: when it was connected (``time.monotonic()``); None if it is not.
        passed: descriptors that a Unix peer has passed, and no caller has yet; None where none can arrive.
        port: that of the loop which it belongs to, or ``UNBOUND``.
        read_queue: the tasks that wait for input, except for the bytes of a stream; None until it is needed, as the
            next two.
        read_waiter: the task that waits for the bytes of a stream.
        sock: the descriptor's owner object; ``connect`` may replace it.
        state: what the descriptor is: connected, listening, or neither.
        was_blocking: whether the descriptor is handed back in blocking mode, see ``AsyncSocket.detach``.
        write_lock: held by the task that writes.
        write_queue: the tasks that wait until they can write.
    """

    __slots__ = (
        "_notifiers",
        "epoch",
        "opened_at",
        "passed",
        "port",
        "read_queue",
        "read_waiter",
        "sock",
        "state",
        "was_blocking",
        "write_lock",
        "write_queue",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.state = State.FRESH
        self.opened_at: float | None = None
        self.epoch: object = process.epoch
        self.port = UNBOUND
        self.write_lock = WriteLock()
        self.read_queue: OperationQueue | None = None
        self.write_queue: OperationQueue | None = None
        self.read_waiter: ReadWaiter | None = None
        self.was_blocking = True
        self.passed: PassedFds | None = None
        self._notifiers: set[Notifier] | None = None

    # Belonging to a loop, and to a process.

    def enter(self, owner: BaseSocket) -> Port:
        """Return the port of the running loop, to which the descriptor belongs from its first await on.

        Args:
            owner: the socket.

        Raises:
            RuntimeError: it belongs to another loop.
        """
        port = self.port
        return port if port.loop is port.running_loop() else self._bind(owner, running_port())

    def _bind(self, owner: BaseSocket, port: Port) -> Port:
        if self.is_foreign:
            inherit(owner)
        if self.port.loop is not None:
            raise RuntimeError(f"{owner!r} belongs to another event loop")
        self.port = port
        return port

    def deadline(self, owner: BaseSocket, timeout: float | None) -> CallDeadline | None:
        """Return the deadline of a call; None without a timeout."""
        return None if timeout is None else CallDeadline(timeout, self.enter(owner).time())

    def replace(self, sock: socket.socket) -> None:
        """Go on with another descriptor; close the old one, once no operation uses it any more."""
        old, self.sock = self.sock, sock
        when_done(self.clear(old), functools.partial(close_quietly, old))

    @property
    def is_foreign(self) -> bool:
        """Whether another process owns it: this process is its child, and has not used the socket."""
        return self.epoch is not process.epoch

    def is_in_use(self) -> bool:
        """Whether a call uses it in a process that does not own it: no, the first await makes the process its owner."""
        return False

    def reset_after_fork(self) -> None:
        """In a forked child: have nothing to do with the parent's loop, its tasks and its registrations."""
        self.epoch = process.epoch
        self.port = UNBOUND
        self.read_queue = self.write_queue = self.read_waiter = self._notifiers = None
        self.write_lock = WriteLock()

    # The waits, of a bound descriptor. All are made when they are needed: most sockets need one of them.

    def open_read_queue(self) -> OperationQueue:
        """The queue of the tasks that wait for input."""
        if self.read_queue is None:
            self.read_queue = open_queue(self.port, self.sock)
        return self.read_queue

    def open_write_queue(self) -> OperationQueue:
        """The queue of the tasks that wait until they can write."""
        if self.write_queue is None:
            self.write_queue = open_queue(self.port, self.sock, write=True)
        return self.write_queue

    def open_read_waiter(
        self, source: Receiver, core_slot: list[StreamCore], annotator: WeakAnnotator
    ) -> ReadWaiter:
        """A waiter for the bytes of a stream, on a loop with readiness."""
        self.read_waiter = ReadWaiter(self.port, self.sock, source, core_slot, annotator)
        return self.read_waiter

    @contextlib.contextmanager
    def notifier(self) -> Iterator[Notifier]:
        """A notifier that ``close`` uses, too."""
        notifier = Notifier(self.port)
        with self.notifying_of_close(notifier):
            yield notifier

    @contextlib.contextmanager
    def notifying_of_close(self, notifier: Notifier) -> Iterator[None]:
        """Let ``close`` use a notifier during the block."""
        notifiers = self._notifiers = self._notifiers or set()
        notifiers.add(notifier)
        if self.write_lock.closed:
            notifier.notify()  # `close` was called before it could find this one
        try:
            yield
        finally:
            notifiers.discard(notifier)

    # Operations.

    def raise_if_closed(self, operation: str) -> None:
        if self.write_lock.closed:
            raise closed_meanwhile(operation)

    async def spend_budget(self) -> None:
        """Count an operation that may need no wait; let the other tasks run when the budget is spent."""
        port = self.port
        if port.budget <= 0:
            await port.checkpoint()
        elif port.raise_if_cancelled is not None:
            await port.raise_if_cancelled()
        port.budget -= 1

    async def retry_with_backoff(
        self, retried: Operation[T], operation: str, deadline: CallDeadline | None
    ) -> T:
        """Try again and again, where no event says when to, with pauses that ``close`` can end."""
        pause = _FIRST_PAUSE
        with self.notifier() as notifier:
            while True:
                with contextlib.suppress(BlockingIOError):
                    result = retried.try_once()
                    assert not isinstance(result, NotYet)
                    return result
                now = self.port.time()
                until = now + pause
                if deadline is not None:
                    if deadline.passed(now):
                        raise SocketTimeout(operation, deadline.seconds)
                    until = min(until, deadline.at)
                await notifier.wait(until)
                self.raise_if_closed(operation)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def wait_readable(self, owner: BaseSocket, timeout: Timeout) -> None:
        """Wait until there is a client to accept or a datagram; no other task may wait for one of these."""
        deadline = await self.begin(owner, "wait_readable", timeout)
        queue = self.open_read_queue()
        if queue.busy:
            raise BusyError("wait_readable: another task is using this socket")
        await self._wait_until(Readable(self.sock, queue), queue, "wait_readable", deadline)

    async def wait_writable(self, owner: BaseSocket, timeout: Timeout) -> None:
        """Wait until something can be sent."""
        deadline = await self.begin(owner, "wait_writable", timeout)
        await self._wait_until(Writable(self.sock), self.open_write_queue(), "wait_writable", deadline)

    async def begin(self, owner: BaseSocket, operation: str, timeout: Timeout) -> CallDeadline | None:
        """Begin a call; return its deadline."""
        timeout = check_timeout(timeout)
        require_open(owner, operation)
        self.enter(owner)
        deadline = self.deadline(owner, timeout)
        await self.spend_budget()
        self.raise_if_closed(operation)
        return deadline

    async def _wait_until(
        self, ready: Operation[bool], queue: OperationQueue, operation: str, deadline: CallDeadline | None
    ) -> None:
        with contextlib.suppress(BlockingIOError):
            ready.try_once()
            return
        if deadline is not None and deadline.seconds == 0:
            raise SocketTimeout(operation, 0)
        if self.port.completions is None:
            await queue.wait(ready, operation, deadline)
            return
        queue.held = True
        try:
            await self.retry_with_backoff(ready, operation, deadline)
        finally:
            queue.held = False

    async def try_or_wait(self, tried: Operation[T], operation: str, deadline: CallDeadline | None) -> T:
        """Try to send what no operation of a loop can send; wait until that is possible."""
        with contextlib.suppress(BlockingIOError):
            result = tried.try_once()
            assert not isinstance(result, NotYet)
            return result
        # A Unix datagram socket is writable even if the queue of the receiver is full.
        if self.port.completions is not None or self.sock.type == SOCK_DGRAM:
            return await self.retry_with_backoff(tried, operation, deadline)
        return await self.open_write_queue().wait(tried, operation, deadline)

    @property
    def busy(self) -> bool:
        """Whether a task waits in a queue, or an operation of the loop uses the descriptor."""
        return any(queue.busy or queue.in_flight for queue in self._queues())

    @property
    def write_in_flight(self) -> bool:
        """Whether an operation of the loop, started for a send that was given up, is still running."""
        return self.write_queue is not None and self.write_queue.in_flight

    @property
    def send_was_cut(self) -> bool:
        """After ``close``: whether an operation was cancelled while it sent bytes that are counted as sent."""
        closing = None if self.write_queue is None else self.write_queue.closing
        return closing is not None and closing.cancelled()

    def _queues(self) -> list[OperationQueue]:
        return [queue for queue in (self.read_queue, self.write_queue) if queue is not None]

    def _waits(self) -> list[OperationQueue | ReadWaiter]:
        waits = (self.read_waiter, self.read_queue, self.write_queue)
        return [wait for wait in waits if wait is not None]

    # The end.

    def clear(self, sock: socket.socket | None = None) -> list[Completion | None]:
        """Wake every task, from a task of the loop; return the operations that still use the descriptor."""
        self.drop_read_waiter()
        queues = self._queues()
        for queue in queues:
            queue.close(closed_meanwhile)
        self.port.forget((sock or self.sock).fileno())
        self.read_queue = self.write_queue = None
        return [queue.closing for queue in queues]

    def drop_read_waiter(self) -> None:
        """The same for the task that waits for the bytes of a stream."""
        waiter, self.read_waiter = self.read_waiter, None
        if waiter is not None:
            waiter.close(closed_meanwhile)

    def drop_read_queue(self) -> None:
        """The same for the tasks that wait for input, unless the queue may have a result that no task has got."""
        if self.read_queue is not None and self.port.completions is None:
            queue, self.read_queue = self.read_queue, None
            queue.close(closed_meanwhile)

    def abandon(self) -> None:
        """Close the descriptor, and nothing else: this process does not own it."""
        self.close_received()
        close_quietly(self.sock)

    def close_received(self) -> None:
        """Close the descriptors that a peer has passed, and no caller has got: this process has its own copies."""
        if self.passed is not None:
            self.passed.close()

    @property
    def disposed(self) -> bool:
        """Whether ``begin_close`` is complete: each of its steps may be done again."""
        return self.sock.fileno() < 0

    def begin_close(self, dispose: Callable[[], object]) -> None:
        """Wake every task, and close the descriptor by ``dispose``. Anywhere, at any bytecode, once."""
        self.write_lock.close()
        port = self.port
        if port.is_here() or not port.is_running():
            self._close(dispose)
            return
        try:
            port.call_threadsafe(self._close, dispose)
        except RuntimeError:  # the loop was closed in this moment
            self._close(dispose)

    def _close(self, dispose: Callable[[], object]) -> None:
        for wait in self._waits():
            wait.closed = True
        port = self.port
        in_use = not port.is_over() and any(queue.in_flight for queue in self._queues())
        if not port.is_over() and (in_use or self._is_awaited()):
            try:
                port.call_threadsafe(self._wake_all, dispose if in_use else None)
            except RuntimeError:  # the loop was closed in this moment: no task waits, and no operation runs
                in_use = False
        if not in_use:
            port.forget(self.sock.fileno())
            dispose()

    def _is_awaited(self) -> bool:
        """Whether a task waits, or is about to: it reads ``closed`` after it can be found here."""
        if self.write_lock.queue or self._notifiers:
            return True
        return any(wait.needs_loop for wait in self._waits())

    def _wake_all(self, dispose: Callable[[], object] | None) -> None:
        """In a callback of the loop: wake every task."""
        try:
            self.write_lock.refuse_queued()
            for notifier in self._notifiers or ():
                notifier.notify()
            for wait in self._waits():
                wait.close_now(closed_meanwhile)
        except BaseException:
            # An exception of a signal handler, or of one task that was woken: the others are still to be woken.
            self.port.call_threadsafe(self._wake_all, dispose)
            raise
        if dispose is not None:
            self.port.forget(self.sock.fileno())
            when_done([queue.closing for queue in self._queues()], dispose)

    def detach(self) -> None:
        """Leave the descriptor as it was given, for the caller's own use."""
        self.clear()
        if self.was_blocking:
            self.sock.setblocking(True)


def is_blocking(sock: socket.socket) -> bool:
    """Whether a descriptor from elsewhere is in blocking mode."""
    if os.name == "posix":
        return os.get_blocking(sock.fileno())
    return sock.gettimeout() != 0  # the system cannot be asked
