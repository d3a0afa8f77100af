"""A connected stream of the async flavour: make a request of the core, and while it has no result, wait and feed it.

A call that need not wait still lets the other tasks run once in ``BUDGET`` operations (``_poller``). A read does so
before it asks the core: a cancellation there finds nothing consumed. A send does so when it has the write lock and has
sent nothing, so that it keeps its place among the writers. A send that cannot deliver, because the peer is gone, does
so every time: otherwise ``while True: await sock.send(data)`` would stop all other tasks.

Ciphertext is sent by the task that holds the write lock, in the order in which it was made. A read can make some too
(the answer to a key update, an alert). The reader never waits for the lock: it sends if the lock is free, and a task
that has held the lock looks again after releasing it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar, TypeVarTuple, cast

from wireline._core.buffer import EMPTY, ReceiveBuffer
from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.stream import Sender, StreamCore
from wireline._os.close import close_quietly
from wireline._os.descriptor import is_writable
from wireline._os.linger import close_in_background
from wireline._os.passed_fds import Ancillary, Receiver
from wireline._socket_base import BaseSocket, annotated, raise_if_closed, refuse
from wireline._stream_common import NOW, notify_output, receiver_of, should_raise
from wireline._tls_facts import closing_output
from wireline.asyncnet._fd_on_loop import FdOnLoop
from wireline.asyncnet._operations import Read, Send, SendFds, WeakAnnotator, Writable
from wireline.errors import BusyError, SocketTimeout
from wireline.options import DONT_WAIT, SAFE_DISCONN, SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["StreamIO"]

A = TypeVar("A")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StreamIO:
    """Reads and sends a connected stream. Before it is connected, the slot is empty and the lock is locked.

    The socket is an argument of the calls and no attribute: that would be a cycle, which only the collector ends.

    Attributes:
        core: the core of the connection; None before there is one.
        buffer: that of the core.
        write_shut: ``shutdown_write`` was called.
        core_slot: the core, while no task reads. ``close`` puts another list here and leaves the old one to the reader.
        default_flags: of the calls that are given none.
        fd: the descriptor.
        payload_sent: bytes that sending calls have sent, since the beginning.
        relayed: a relay holds the stream: its unread bytes wait for the other side.
        sender: sends plaintext: the socket, or an object that encrypts it first.
        source: receives.
    """

    __slots__ = (
        "buffer",
        "core",
        "core_slot",
        "default_flags",
        "fd",
        "payload_sent",
        "relayed",
        "sender",
        "source",
        "write_shut",
    )

    kernel_waits = False
    shared = False

    def __init__(self, fd: FdOnLoop) -> None:
        self.fd = fd
        self.core: StreamCore | None = None
        self.buffer = EMPTY
        self.write_shut = False
        self.payload_sent = 0
        self.relayed = False
        self.default_flags = SAFE_DISCONN
        self.core_slot: list[StreamCore] = []
        self.sender: Sender = fd.sock
        self.source: Receiver = fd.sock

    # States.

    def open(self, owner: BaseSocket, core: StreamCore) -> None:
        """The descriptor is a connected stream. No task may read or write before it is published."""
        self.use_core(owner, core)
        self.fd.clear()  # of `connect`
        self.core_slot = []
        self.fd.write_lock.locked = True

    def use_core(self, owner: BaseSocket, core: StreamCore) -> None:
        """Read and send by this core from now on."""
        core.default_flags = self.default_flags
        self.core = core
        self.buffer = core.buffer
        self.sender = core.sender(self.fd.sock)
        self.source = receiver_of(self.fd, is_tls=core.is_tls)
        notify_output(core, owner)

    def publish(self, owner: BaseSocket) -> None:
        """Let every task read and write."""
        assert self.core is not None
        if not owner.is_closed:
            self.core_slot[:] = [self.core]
        self.release_write_lock(owner)

    def unconnected(self) -> None:
        """The connection failed."""
        self.core = None
        self.buffer = EMPTY
        self.sender = self.source = self.fd.sock
        self.payload_sent = 0

    def inherit(self) -> None:
        """In a forked child that becomes the owner: a task of the parent that read or sent goes on there, not here."""
        self.fd.reset_after_fork()
        if self.core is not None:
            self.core_slot = [self.core]
            self.fd.write_lock.locked = False

    def close(self) -> None:
        """Let no task read any more."""
        # New lists: a reader that is at work in this moment puts what it has back into the old ones.
        self.core_slot = []
        self.buffer.drop_ahead()
        self.buffer = EMPTY

    def dispose(self, linger: float | None) -> None:
        """Close the descriptor."""
        core, sock = self.core, self.fd.sock
        self.fd.close_received()
        if core is not None and self.fd.send_was_cut:
            core.send_in_flight = True
        linger, final_bytes = closing_output(core, linger)
        if linger is None or core is None or sock.fileno() < 0:
            close_quietly(sock)
            return
        # A send that this close has interrupted is to find a closed socket, and not the new one.
        heir = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        close_in_background(heir, linger, final_bytes)

    def detach(self) -> None:
        """Refuse if a call uses the socket; after this none can begin. The descriptor stays open."""
        if not self.fd.is_foreign:
            if self.is_used() or self.fd.busy:
                raise OSError(errno.EBUSY, "detach: another task is using the socket")
            self.fd.detach()
        self.core_slot = []
        self.fd.write_lock.close()

    def is_used(self) -> bool:
        """Whether a task reads or writes the stream, if there is one."""
        return self.core is not None and (self.is_writing() or self.is_reading())

    def is_reading(self) -> bool:
        """Whether a task reads."""
        return not self.core_slot

    def is_writing(self) -> bool:
        """Whether a task writes."""
        return self.fd.write_lock.locked

    def show_progress(self) -> None:
        """Nothing to do: bytes are counted when they arrive."""

    def hold(self, owner: BaseSocket, operation: str) -> StreamCore:
        """Be the only task that reads and writes the stream."""
        if self.core is None or owner.is_closed:
            refuse(owner, operation)
        if self.is_used():
            raise BusyError(f"{operation}: another task is using this socket")
        self.fd.write_lock.locked = True
        self.fd.drop_read_waiter()  # it knows the core that there was
        return self.core_slot.pop()

    # Reading.

    def ready_line(self, buffer: ReceiveBuffer, max_length: int) -> bytes | None:
        """Take a line that has arrived; None if there is none, or if a request must look closer."""
        port = self.fd.port
        if port.budget <= 0 or port.loop is not port.running_loop():
            return None
        line = buffer.ready_line(max_length, self.core_slot)
        if line is not None:
            port.budget -= 1
        return line

    def ask_now(self, owner: BaseSocket, request: Callable[[StreamCore, A], object], argument: A) -> None:
        """Make a request that never has to wait."""
        if not self.core_slot:
            self.raise_not_readable(owner, request.__name__)
        request(self.core_slot[0], argument)

    def ask(
        self,
        owner: BaseSocket,
        request: Callable[[StreamCore, *Ts], T | None],
        timeout: Timeout,
        *args: *Ts,
    ) -> T | None:
        """Make one request of the core; None if it has no result yet, or if the budget is spent."""
        if timeout is not None:
            check_timeout(timeout)
        port = self.fd.port
        if port.loop is not port.running_loop():
            port = self.fd.enter(owner)
        core_slot = self.core_slot
        if not core_slot:
            self.raise_not_readable(owner, request.__name__)
        left = port.budget
        if left <= 0:
            return None  # and `wait_for` yields before it asks the core
        port.budget = left - 1
        return request(core_slot[0], *args)

    def wait_for(
        self,
        owner: BaseSocket,
        request: Callable[[StreamCore, *Ts], T | None],
        timeout: Timeout,
        *args: *Ts,
    ) -> Awaitable[T]:
        """Return an awaitable of the result.

        Args:
            owner: the socket.
            request: a method of the core, which has just returned None.
            timeout: seconds to wait.
            args: its arguments.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self.fd.port.budget <= 0:
            return self._yield_then_read(owner, request, timeout, *args)
        if timeout == 0:
            return self._read_nowait(owner, request, *args)
        core_slot = self.core_slot
        if not core_slot:
            self.raise_not_readable(owner, request.__name__)  # closed in this moment
        waiter = self.fd.read_waiter
        if waiter is None or waiter.closed:
            if self.fd.enter(owner).completions is not None:
                return self._read_portably(owner, request, timeout, *args)
            waiter = self.fd.open_read_waiter(self.source, core_slot, WeakAnnotator(owner))
        return waiter.wait(request, args, timeout)

    async def wait_readable(self, owner: BaseSocket, timeout: Timeout) -> None:
        """Wait until a read would not wait."""
        if self.ask(owner, StreamCore.wait_readable, timeout):
            return
        if self.core_slot and self.core_slot[0].reads_ahead:
            await self.wait_for(owner, StreamCore.wait_readable, timeout)
        else:
            await self._wait_for_kernel(owner, timeout)

    async def _wait_for_kernel(self, owner: BaseSocket, timeout: Timeout) -> None:
        """Wait until the kernel has something, and leave it there."""
        if not self.core_slot:
            self.raise_not_readable(owner, "wait_readable")
        self.fd.drop_read_waiter()  # the poller has one callback for each direction of a descriptor
        core_slot = self.core_slot
        core = core_slot.pop()
        try:
            if not core.wait_readable():  # else the budget was spent
                await self.fd.wait_readable(owner, timeout)
        finally:
            self.fd.drop_read_queue()
            core_slot.append(core)

    async def _yield_then_read(
        self,
        owner: BaseSocket,
        request: Callable[[StreamCore, *Ts], T | None],
        timeout: Timeout,
        *args: *Ts,
    ) -> T:
        """Let the other tasks run, and then begin: with the request, which may not have been made yet."""
        await self.fd.port.checkpoint()
        answer = self.ask(owner, request, timeout, *args)
        if answer is None:
            answer = await self.wait_for(owner, request, timeout, *args)
        return answer

    async def _read_portably(
        self,
        owner: BaseSocket,
        request: Callable[[StreamCore, *Ts], T | None],
        timeout: float | None,
        *args: *Ts,
    ) -> T:
        queue = self.fd.open_read_queue()
        deadline = None if timeout is None else CallDeadline(timeout, self.fd.port.time())
        core = self.core_slot.pop()
        try:
            read = Read(self.fd.sock, core, WeakAnnotator(owner), request, args)
            return await queue.wait(read, request.__name__, deadline)
        finally:
            if not owner.is_closed:
                self.core_slot.append(core)

    async def _read_nowait(
        self, owner: BaseSocket, request: Callable[[StreamCore, *Ts], T | None], *args: *Ts
    ) -> T:
        """Answer from the bytes that the kernel has, and do not wait for more (R4)."""
        port = self.fd.enter(owner)
        if port.raise_if_cancelled is not None:
            await port.raise_if_cancelled()
        if self.fd.read_queue is not None:
            await self.fd.read_queue.drain_orphan()
        answer = self.feed_available(owner, request, *args)
        if answer is None:
            raise SocketTimeout(request.__name__, 0)
        return answer

    def feed_available(
        self, owner: BaseSocket, request: Callable[[StreamCore, *Ts], T | None], *args: *Ts
    ) -> T | None:
        """Feed the core all that the kernel has, until it can answer; None if it cannot."""
        core_slot = self.core_slot
        if not core_slot:
            # Closed, or read by another task, in this moment.
            self.raise_not_readable(owner, request.__name__)
        core = core_slot[0]
        while (answer := request(core, *args)) is None:
            queue = self.fd.read_queue
            orphan = None if queue is None else queue.take_orphan()
            if orphan is None and queue is not None and queue.in_flight:
                return None  # the bytes may be in an operation of the loop already
            try:
                core.feed(
                    self.source.recv(core.recv_size, DONT_WAIT)
                    if orphan is None
                    else cast(bytes, orphan.result())
                )
            except BlockingIOError:
                return None
            except OSError as error:
                raise_if_closed(owner, request.__name__)
                core.fail(annotated(error, request.__name__, owner))
        return answer

    def receive_now(self, owner: BaseSocket, operation: str) -> bool:
        """Receive once without waiting, after a request of the core has set how much; False if nothing has arrived."""
        core = self.core
        assert core is not None
        try:
            core.feed(self.source.recv(core.recv_size, DONT_WAIT))
        except BlockingIOError:
            return False
        except OSError as error:
            raise_if_closed(owner, operation)
            core.fail(annotated(error, operation, owner))
        return True

    def raise_not_readable(self, owner: BaseSocket, operation: str) -> NoReturn:
        """Say why there is no core in the slot."""
        if self.core is None or owner.is_closed:
            refuse(owner, operation)
        raise BusyError(f"{operation}: another task is reading this socket")

    # Sending. All but `acquire_write_lock`, `send_output` and `send_locked` is for the task that holds the write lock.

    async def acquire_write_lock(
        self, owner: BaseSocket, operation: str, deadline: CallDeadline | None
    ) -> StreamCore:
        """Wait for the write lock; return the core to send by."""
        lock = self.fd.write_lock
        if self.core is None or owner.is_closed:
            refuse(owner, operation)
        if not lock.locked:
            lock.locked = True
        elif not await lock.acquire(self.fd.enter(owner), None if deadline is None else deadline.at):
            raise_if_closed(owner, operation)
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds, 0)
        return self.core

    def release_write_lock(self, owner: BaseSocket) -> None:
        """Release the write lock, and send the ciphertext that a read has made meanwhile."""
        self.fd.write_lock.release()
        self.send_output(owner)

    def send_output(self, owner: BaseSocket) -> None:
        """Send the ciphertext that a read has made, unless another task is sending, which will look again."""
        core = self.core
        if core is not None and core.has_output and not self.fd.write_lock.locked and not owner.is_closed:
            with contextlib.suppress(OSError):  # the peer is gone: the next read or send finds out by itself
                self.flush_now(core)

    async def fail_send(self, owner: BaseSocket, error: OSError, flags: SocketFlag) -> None:
        """Raise the error of a send that has sent nothing, unless the peer is gone and the flags allow that."""
        owner.last_bytes_sent = 0
        try:
            if should_raise(self, owner, error, flags, "send"):
                raise error
        finally:
            del error  # its traceback will have this frame
        await self.fd.port.checkpoint()  # it could not deliver (FA23)

    async def send_locked(
        self,
        owner: BaseSocket,
        payload: bytes | memoryview,
        sent: int | None,
        flags: SocketFlag,
        deadline: CallDeadline | None,
    ) -> None:
        """Send the rest that one attempt has left, or all if there was none yet, with the write lock held."""
        port = self.fd.enter(owner)
        if self.fd.write_lock.locked:
            try:
                await self.acquire_write_lock(owner, "send", deadline)
            except BaseException:
                owner.last_bytes_sent = 0  # the count of another task may be there by now
                raise
        if not await self._send_rest_of(owner, payload, sent, flags, deadline):
            await port.checkpoint()  # it could not deliver (FA23)

    async def _send_rest_of(
        self,
        owner: BaseSocket,
        payload: bytes | memoryview,
        sent: int | None,
        flags: SocketFlag,
        deadline: CallDeadline | None,
    ) -> bool:
        """Take the lock, if it is free, send the rest of a message, and release it; False if the peer is gone."""
        core = self.core
        assert core is not None
        try:
            # In here: the handler of a signal may raise as soon as it is done.
            self.fd.write_lock.locked = True
            if sent is None:
                owner.last_bytes_sent = sent = 0
                await self.fd.spend_budget()
            await self.send_payload(owner, "send", payload, sent, deadline)
            core.message_incomplete = False
        except SocketTimeout:
            raise
        except OSError as error:
            if should_raise(self, owner, error, flags, "send"):
                raise
            return False
        finally:
            lock = self.fd.write_lock
            if not lock.queue:
                lock.locked = (
                    lock.closed
                )  # without a call: the handler of a signal may raise at the beginning of one
            if type(payload) is memoryview:
                payload.release()  # W4: an exception would keep the caller's buffer
            self.release_write_lock(owner)
        return True

    async def send_payload(
        self,
        owner: BaseSocket,
        operation: str,
        payload: bytes | memoryview,
        sent: int,
        deadline: CallDeadline | None,
    ) -> None:
        """Send the rest of a payload. At the end, and after an error, ``last_bytes_sent`` is how much of it is sent."""
        core = self.core
        assert core is not None
        send: Send | None = None
        try:
            await self.finish_orphan(operation, deadline)
            if core.unsent:
                await self.flush(core, operation, deadline, sent)
            while sent < len(payload):
                try:
                    sent += self.sender.send(memoryview(payload)[sent:] if sent else payload, NOW)
                except BlockingIOError:
                    send = Send(self.fd.sock, payload, sent)
                if send is not None:  # not inside `except`, which would be the context of its errors
                    await self._send_remaining(operation, send, deadline)
                    sent = send.sent
                if core.unsent:
                    await self.flush(core, operation, deadline, sent)
        finally:
            if send is not None:
                sent = send.sent
                send.release()
            owner.last_bytes_sent = sent
            self.payload_sent += sent

    async def send_some(
        self, owner: BaseSocket, core: StreamCore, payload: bytes | memoryview, deadline: CallDeadline | None
    ) -> int:
        """Send as much as the kernel takes in one send; return how much that was."""
        await self.flush(core, "send_some", deadline, 0)
        if not payload:
            return 0
        if core.seals:
            await self._wait_writable("send_some", deadline)  # a timeout is to have sent nothing
        owner.last_bytes_sent = sent = await self._send_once("send_some", payload, deadline)
        self.payload_sent += sent
        # A whole record, or the peer waits for its rest while we wait for its answer.
        with contextlib.suppress(SocketTimeout):  # the next send takes the rest along
            await self.flush(core, "send_some", deadline)
        core.message_incomplete = False
        return sent

    async def send_fds(
        self,
        owner: BaseSocket,
        payload: bytes | memoryview,
        ancillary: Ancillary,
        deadline: CallDeadline | None,
    ) -> None:
        """Send descriptors with the first byte of a message, and then the rest; ``last_bytes_sent`` is always right."""
        sock = self.fd.sock
        first = SendFds(sock, payload, ancillary)
        rest: Send | None = None
        try:
            await self.finish_orphan("send_fds", deadline)
            await self.fd.try_or_wait(first, "send_fds", deadline)
            if first.sent < len(payload):
                rest = Send(sock, payload, first.sent)
                await self._send_remaining("send_fds", rest, deadline)
        except SocketTimeout as error:
            raise SocketTimeout(
                "send_fds", error.seconds, first.sent if rest is None else rest.sent
            ) from None
        finally:
            owner.last_bytes_sent = first.sent if rest is None else rest.sent
            self.payload_sent += owner.last_bytes_sent
            if rest is not None:
                rest.release()

    async def finish_orphan(self, operation: str, deadline: CallDeadline | None) -> None:
        """Wait for an operation of the loop, started for a send that was given up: its bytes count as sent."""
        if self.fd.write_in_flight:
            await self._send_remaining(operation, Send(self.fd.sock, b"", 0), deadline)

    async def _send_remaining(self, operation: str, send: Send, deadline: CallDeadline | None) -> None:
        """Wait until all is sent, or for ``once`` something."""
        try:
            await self.fd.open_write_queue().wait(send, operation, deadline)
        except SocketTimeout as error:
            raise SocketTimeout(operation, error.seconds, send.sent) from None

    async def _send_once(
        self, operation: str, payload: bytes | memoryview, deadline: CallDeadline | None
    ) -> int:
        await self.finish_orphan(operation, deadline)
        with contextlib.suppress(BlockingIOError):
            return self.sender.send(payload, NOW)
        send = Send(self.fd.sock, payload, 0, once=True)
        try:
            if self.fd.port.completions is not None:
                # A started operation of the loop cannot be taken back, and a send that is given up has sent nothing.
                await self.fd.retry_with_backoff(send, operation, deadline)
            else:
                await self._send_remaining(operation, send, deadline)
            return send.sent
        finally:
            send.release()

    async def _wait_writable(self, operation: str, deadline: CallDeadline | None) -> None:
        if is_writable(self.fd.sock):
            return
        writable = Writable(self.fd.sock)
        try:
            if self.fd.port.completions is not None:
                await self.fd.retry_with_backoff(writable, operation, deadline)
            else:
                await self.fd.open_write_queue().wait(writable, operation, deadline)
        except SocketTimeout as error:
            raise SocketTimeout(operation, error.seconds, 0) from None

    @property
    def write_in_flight(self) -> bool:
        """Whether an operation of the loop, started for a send that was given up, is still running."""
        return self.fd.write_in_flight

    def flush_now(self, core: StreamCore) -> bool:
        """Send the ciphertext that is there as far as the kernel takes it; return whether that was all."""
        return not self.fd.write_in_flight and core.flush(self.fd.sock.send, NOW)

    async def flush(
        self,
        core: StreamCore,
        operation: str,
        deadline: CallDeadline | None,
        sent: int | None = None,
    ) -> None:
        """Send the ciphertext that is there, waiting until the kernel takes it."""
        while core.has_output and not self.flush_now(core):
            send = Send(self.fd.sock, core.pending_output(), 0)
            core.send_in_flight = True
            try:
                await self._send_remaining(operation, send, deadline)
            except SocketTimeout as error:
                raise SocketTimeout(operation, error.seconds, sent) from None
            finally:
                core.sent(send.sent)
                core.send_in_flight = False
                send.release()

    # The handshake.

    async def handshake(
        self, owner: BaseSocket, core: TlsCore, operation: str, deadline: CallDeadline | None
    ) -> None:
        """Make the handshake; no other task reads or writes."""
        try:
            while True:
                done = core.handshake()
                await self.flush(core, operation, deadline)
                if done:
                    return
                await self._wait_for_handshake_input(owner, core, operation, deadline)
        except BaseException as error:
            core.fail_handshake(error)
            with contextlib.suppress(OSError):  # the alert, if the peer is still there
                self.flush_now(core)
            if isinstance(error, OSError):
                raise_if_closed(owner, operation)
                annotated(error, operation, owner)
            raise

    async def _wait_for_handshake_input(
        self, owner: BaseSocket, core: TlsCore, operation: str, deadline: CallDeadline | None
    ) -> None:
        """Wait until the handshake can go on."""
        port = self.fd.enter(owner)
        if port.budget <= 0:
            await port.checkpoint()  # not in the wait below, where the core rests as if it were for anyone
            raise_if_closed(owner, operation)
        seconds = None if deadline is None else deadline.remaining(port.time())
        self.core_slot[:] = [core]  # for as long as it takes to begin to wait
        try:
            request = cast("Callable[[StreamCore], bytes | None]", type(core).handshake_input)
            await self.wait_for(owner, request, seconds)
        except SocketTimeout:
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds) from None
        finally:
            self.core_slot.clear()
        raise_if_closed(owner, operation)
