"""A connected stream of the blocking flavour: make a request of the core, and while it has no answer, wait and feed it.

How a stream waits: without a timeout inside ``recv`` and ``send`` themselves, for the descriptor blocks and the
kernel's wait is one system call instead of three. With a timeout in ``poll``, then ``MSG_DONTWAIT``. Where there is
no such flag the descriptor does not block and every wait is a ``poll`` (or ``select``).

Ciphertext is sent by the thread that holds the write lock, in the order in which it was made. A read can make some too
(the answer to a key update, an alert). The reader never waits for the lock: it sends if the lock is free, and a thread
that has held the lock looks again after releasing it.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, cast

from wireline._core.buffer import EMPTY
from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.stream import ALL, LINE, Sender, StreamCore
from wireline._os.linger import close_in_background
from wireline._os.passed_fds import Ancillary, PassedFds, Receiver, send_first
from wireline._os.process import process
from wireline._socket_base import BaseSocket, annotated, raise_if_closed, refuse
from wireline._stream_common import NOW, notify_output, receiver_of
from wireline._tls_facts import closing_output
from wireline.errors import BusyError, ClosedError, SocketTimeout, WirelineError
from wireline.net._fd_guard import FdGuard
from wireline.net._poll import Readiness, start_deadline
from wireline.net._write_lock import Permit
from wireline.options import DEFAULT_FLAGS, DONT_WAIT, NO_SIGNAL, SAFE_DISCONN, SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline._core.locked_tls import LockedTlsCore
    from wireline._core.tls import TlsCore
    from wireline._core.tls_engine import TlsEngine

__all__ = ["StreamIO"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_RECV_OF_PASSED = PassedFds.recv.__code__

_WAIT_ALL = int(getattr(socket, "MSG_WAITALL", 0))


class StreamIO:
    """What threads do with a connected stream. Before it is connected, the slot is empty and the lock is closed.

    The socket is an argument of the calls and no attribute: that would be a cycle, which only the collector ends.

    Attributes:
        fd: the guard of the descriptor.
        core: the core, always; None before there is one. A call keeps it in no variable while it waits: it would look
            like one that a reader holds.
        wait_all: the flag with which the kernel waits for a whole block; 0 if the bytes before are to be counted.
        core_slot: the core, while no thread reads (that of the guard).
        default_flags: of the calls that are given none.
        engine: that of the core; None without TLS.
        buffer: that of the core.
        write_lock: the right to write (that of the guard).
        write_shut: ``shutdown_write`` was called.
        sender: what sends plaintext.
        source: what receives.
        kernel_flags: the flags of a ``send`` without a timeout that may wait inside the system call; None where the
            descriptor does not block.
        quiet_epoch: the epoch in which a call may end without more ado: that of the owning process, and None from
            ``close`` on.
        receive: each step is one ``recv`` as ``fill`` has made it the last time.
        kernel_waits: the descriptor blocks.
        payload_sent: bytes that sending calls have sent, since the beginning.
        relayed: a relay holds the stream: its unread bytes wait for the other side.
    """

    __slots__ = (
        "_readable",
        "_receive_as",
        "_writable",
        "buffer",
        "core",
        "core_slot",
        "default_flags",
        "engine",
        "fd",
        "kernel_flags",
        "kernel_waits",
        "payload_sent",
        "quiet_epoch",
        "receive",
        "relayed",
        "sender",
        "source",
        "wait_all",
        "write_lock",
        "write_shut",
    )

    shared = True
    write_in_flight = False

    def __init__(self, fd: FdGuard, *, kernel_waits: bool) -> None:
        self.fd = fd
        self.core: StreamCore | None = None
        self.buffer = EMPTY
        self.kernel_waits = kernel_waits
        self.kernel_flags: SocketFlag | None = DEFAULT_FLAGS if kernel_waits else None
        # Every message uses these two: one attribute less on the way.
        self.core_slot = fd.resting
        self.write_lock = fd.writing
        self.engine: TlsEngine | None = None
        self.write_shut = False
        self.payload_sent = 0
        self.relayed = False
        self.default_flags = SAFE_DISCONN
        self.sender: Sender = fd.sock
        self.source: Receiver = fd.sock
        self.quiet_epoch: object = process.epoch
        self.receive: Iterator[bytes] = iter(())
        self._receive_as = (0, 0)
        self._readable: Readiness | None = None
        self.wait_all = _WAIT_ALL
        self._writable: Readiness | None = None

    # States.

    def open(self, owner: BaseSocket, core: StreamCore) -> None:
        """The descriptor is a connected stream. No call may read or write before it is published."""
        self.use_core(owner, core)
        self.forget_polls()
        self.fd.waker.close()  # it was for `connect`; `shutdown` wakes whatever waits on a stream
        self.fd.connected(core)

    def use_core(self, owner: BaseSocket, core: StreamCore) -> None:
        """Read and send by this core from now on."""
        core.default_flags = self.default_flags
        self.fd.cores = (core,)
        self.core = core
        self.engine = cast("TlsCore", core).engine if core.is_tls else None
        self.buffer = core.buffer
        self.sender = core.sender(self.fd.sock)
        self.source = receiver_of(self.fd, is_tls=core.is_tls)
        self.receive = iter(())
        self._receive_as = (0, 0)
        notify_output(core, owner)
        self._expect_signals()

    def publish(self, owner: BaseSocket) -> None:
        """Let every call read and write."""
        self.fd.publish()
        if self.quiet_epoch is not process.epoch:
            self.leave(owner)

    def unconnected(self) -> None:
        """The connection failed."""
        self.fd.unconnected()
        self.core = self.engine = None
        self.buffer = EMPTY
        self.sender = self.source = self.fd.sock
        self.payload_sent = 0

    def close(self) -> None:
        """After this every call ends by ``leave``, and nothing that was split ahead is read."""
        self.quiet_epoch = None
        self.buffer.drop_ahead()
        self.buffer = EMPTY

    def is_reading(self) -> bool:
        """Whether a thread reads."""
        return not self.core_slot

    def is_writing(self) -> bool:
        """Whether a thread writes."""
        return not self.write_lock.free

    def show_progress(self) -> None:
        """Count the bytes of an incomplete block while a read waits for the rest, at the price of system calls."""
        self.wait_all = 0

    def dispose(self, linger: float | None) -> None:
        """Close the descriptor, when no call uses it any more."""
        fd = self.fd
        fd.close_received()
        linger, final_bytes = closing_output(self.core, linger)
        close_in_background(
            fd.sock, linger if self.core is not None else None, final_bytes, read_shutdown=fd.read_shutdown
        )

    def detach(self) -> None:
        """Refuse if a call uses the socket; after this none can begin. The descriptor stays open."""
        self.fd.detach()
        self.quiet_epoch = None

    def inherit(self) -> None:
        """In a forked child that becomes the owner: drop what only the parent has."""
        self.fd.epoch = self.quiet_epoch = process.epoch
        self.forget_polls()
        if (core := self.core) is not None:
            core.renew_lock()
        self._expect_signals()

    def forget_polls(self) -> None:
        """Make new ``poll`` objects: a thread of the parent may be in an old one, which refuses every other call."""
        self._readable = self._writable = None

    def _expect_signals(self) -> None:
        core = self.core
        if core is not None and core.is_tls:
            locked = cast("LockedTlsCore", core)
            assert locked.thread_safe
            locked.thread = threading.get_ident
            locked.signal_thread = threading.main_thread().ident or -1

    # The beginning and the end of a call.

    def arrive(self, owner: BaseSocket) -> None:
        """Begin a call in another process than the last one, or after ``close``."""
        if self.fd.is_foreign and not owner.is_closed:
            owner.adopt()

    def leave(self, owner: BaseSocket) -> None:
        """End a call that was the first in a forked child, or during which the socket was closed."""
        if self.fd.closing:
            self.fd.close_if_unused()
        elif self.fd.is_foreign:
            owner.adopt()

    def hold(self, owner: BaseSocket, operation: str) -> tuple[StreamCore, Permit]:
        """Be the only call that reads and writes the stream, for as long as the caller has what is returned."""
        core = self.take_core_or_raise(owner, operation)
        permit = self.write_lock.try_acquire()
        if permit is None:
            del core
            self.return_core(owner)
            # Since the core was taken a signal handler or another thread may have closed the socket.
            raise_if_closed(owner, operation)
            raise BusyError(f"{operation}: another thread is sending")
        return core, permit

    def take_core_or_raise(self, owner: BaseSocket, operation: str) -> StreamCore:
        """Take the core from a call that is gone, or report why there is none."""
        self.arrive(owner)
        if not self.fd.cores:
            refuse(owner, operation)
        core = self.fd.take_core()
        if core is None:
            if owner.is_closed or self.fd.closing:  # the second by `detach`, in this moment
                if self.fd.closing:
                    self.fd.close_if_unused()  # `close` found the core in use while we looked at it
                raise ClosedError(f"{operation}: the socket is closed")
            raise BusyError(f"{operation}: another thread is reading this socket")
        return core

    def return_core(self, owner: BaseSocket) -> None:
        """Let other calls read again."""
        core_slot = self.core_slot
        if not core_slot:
            core_slot += self.fd.cores
        if self.quiet_epoch is not process.epoch:
            self.leave(owner)

    # Reading.

    def read(
        self,
        owner: BaseSocket,
        request: Callable[[StreamCore, *Ts], T | None],
        timeout: Timeout,
        *args: *Ts,
        into: memoryview | None = None,
        line_limit: int = 0,
    ) -> T:
        """Make one request of the core, and wait until it has an answer.

        Args:
            owner: the socket.
            request: a method of the core.
            timeout: seconds to wait.
            args: its arguments.
            into: a buffer for a copy of the answer.
            line_limit: of a plain ``recv_line``, its ``max_length``.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self.quiet_epoch is not process.epoch:
            self.arrive(owner)
        core_slot = self.core_slot
        try:
            core = core_slot.pop()
        except IndexError:
            core = self.take_core_or_raise(owner, request.__name__)
        try:
            answer: T | None = None
            buffer = core.buffer
            if (
                core.undo is not None
                or core.inbox is not None
                or buffer.size
                or buffer.lines
                or buffer.frames
            ):
                core.note()
                answer = request(core, *args)
            elif line_limit and core.fast_recv_ok:
                # One line after the other: the core would answer "not yet", so no request is made.
                core.direct = LINE
                core.direct_limit = line_limit
            else:
                answer = request(core, *args)
            if answer is None:
                answer = self._wait_for_answer(owner, core, request, timeout, args)
            if into is not None:
                # While the core still has it: a signal handler may interrupt this.
                into[: len(answer)] = answer  # type: ignore[call-overload,arg-type] # it is bytes
        except BaseException as error:
            self.end_interrupted_read(owner, error)
            del core  # the traceback would keep it
            raise
        # From here to the `return` no signal handler can run: the caller gets what the core forgets here.
        core.undo = core.inbox = None
        core_slot += self.fd.cores
        if self.quiet_epoch is not process.epoch:
            self.leave(owner)
        return answer

    def wait_readable(self, owner: BaseSocket, timeout: Timeout) -> None:
        """Wait until a read would not wait."""
        if self.core is None or self.core.reads_ahead:
            self.read(owner, StreamCore.wait_readable, timeout)
            return
        timeout = check_timeout(timeout)
        core = self.take_core_or_raise(owner, "wait_readable")
        try:
            core.note()
            passed = self.fd.passed
            interrupted = passed is not None and passed.message is not None  # received, and not returned yet
            if not interrupted and core.wait_readable() is None:
                self.wait_for_input("wait_readable", start_deadline(timeout))
                raise_if_closed(owner, "wait_readable")
        except BaseException as error:
            self.end_interrupted_read(owner, error)
            del core  # the traceback would keep it
            raise
        core.done()
        self.core_slot += self.fd.cores
        if self.quiet_epoch is not process.epoch:
            self.leave(owner)

    def _wait_for_answer(
        self,
        owner: BaseSocket,
        core: StreamCore,
        request: Callable[[StreamCore, *Ts], T | None],
        timeout: float | None,
        args: tuple[*Ts],
    ) -> T:
        """Receive until the request has an answer, which stays in the core until ``read`` has put that back."""
        operation = request.__name__
        wait = timeout is None and self.kernel_waits
        deadline: CallDeadline | None = None
        try:
            while True:
                if not self.fill(owner, core, operation, wait=wait):
                    # A deadline only now: where something is there, a timeout costs neither an object nor a clock.
                    deadline = deadline or start_deadline(timeout)
                    self.wait_for_input(operation, deadline)
                    continue
                # Only a request that is answered by bytes lets `accept_inbox` answer it.
                answer = cast("T | None", core.accept_inbox())
                if answer is not None or (answer := request(core, *args)) is not None:
                    return answer
                if self.quiet_epoch is None:  # a call that always finds something is not woken by `close`
                    raise_if_closed(owner, operation)
                # A timeout of 0 goes on while the kernel has something: it does not wait, and gets all that is.
                if timeout:
                    deadline = deadline or CallDeadline(timeout, time.monotonic())
                    if deadline.passed(time.monotonic()):
                        raise SocketTimeout(operation, timeout)
        except BaseException:
            del core  # the traceback would keep it
            raise

    def end_fast_recv(self, owner: BaseSocket) -> None:
        """End a receive of ``recv_some`` that has no answer yet: the core is back, and what it gave is in the core."""
        if self.quiet_epoch is not process.epoch:
            self.leave(owner)
            raise_if_closed(owner, "recv_some")  # then it was `close` that woke us

    def fast_recv_failed(self, owner: BaseSocket, core: StreamCore | None, error: BaseException) -> None:
        """Handle the exception of that receive, or of taking the core for it."""
        if core is None:
            if isinstance(error, IndexError):
                return  # it is no stream, or another thread is reading
        elif isinstance(error, OSError) and self.is_the_systems(error):
            if not isinstance(error, BlockingIOError):  # that is where the kernel does not wait
                core.inbox = error
            core_slot = self.core_slot
            core_slot += self.fd.cores
            self.end_fast_recv(owner)
            return
        else:
            self.end_interrupted_read(owner, error)
        try:
            raise error
        finally:
            del error, core  # the traceback keeps this frame

    def end_interrupted_read(self, owner: BaseSocket, error: BaseException) -> None:
        """Put the core back after an exception. The next call undoes what was done to it (``StreamCore.recover``)."""
        core_slot = self.core_slot
        if not core_slot:
            core_slot += self.fd.cores
        if not isinstance(error, WirelineError):  # a timeout leaves none of the frames that have the core
            self.fd.interrupted = True
        if self.quiet_epoch is not process.epoch:
            self.leave(owner)

    def fill(self, owner: BaseSocket, core: StreamCore, operation: str, *, wait: bool) -> bool:
        """Receive once and big, into ``core.inbox``.

        A signal handler runs only where the interpreter calls or loops back. There is no such place between the end of
        the system call, which ``for`` makes, and the store: nothing that the kernel gave can be lost.

        Args:
            owner: the socket.
            core: where to.
            operation: the call, in words.
            wait: let the kernel wait until something is there.

        Returns:
            False if nothing is there, and nothing waited.
        """
        receive = (core.recv_size, (self.wait_all if core.direct is ALL else 0) if wait else DONT_WAIT)
        if receive != self._receive_as:
            self.receive = map(self.source.recv, *map(itertools.repeat, receive))
            self._receive_as = receive
        try:
            for core.inbox in self.receive:
                break
        except BlockingIOError:
            return False
        except OSError as error:
            if not self.is_the_systems(error):
                raise
            core.inbox = error
            raise_if_closed(owner, operation)
            annotated(error, operation, owner)
        if not core.inbox:
            raise_if_closed(owner, operation)  # then it was `close` that woke us
        return True

    def receive_now(self, owner: BaseSocket, operation: str) -> bool:
        """Receive once without waiting, after a request of the core has set how much; False if nothing has arrived."""
        if not self.fill(owner, self.fd.cores[0], operation, wait=False):
            return False
        self.fd.cores[0].accept_inbox()
        self.fd.cores[0].done()
        return True

    def is_the_systems(self, error: OSError) -> bool:
        """Whether a system call has failed, and not a signal handler raised an ``OSError`` (``TimeoutError`` is one).

        The handler's is not the end of the stream. Its traceback goes on to the frame of the handler, where that of a
        system call ends at ours; but for a socket whose methods are not of C, of which the number is all that tells.
        """
        if error.errno is None:
            return False
        trace = error.__traceback__
        if (
            trace is not None
            and trace.tb_next is not None
            and trace.tb_next.tb_frame.f_code is _RECV_OF_PASSED
        ):
            trace = trace.tb_next  # a Unix stream receives in a function of ours
        if trace is None or trace.tb_next is None:
            return True
        return getattr(type(self.fd.sock), "recv", None) is not getattr(socket.SocketType, "recv", None)

    def wait_for_input(self, operation: str, deadline: CallDeadline | None) -> None:
        """Wait until there is something. The read is tried first, always: that may cost less."""
        if self._readable is None:
            self._readable = Readiness(self.fd.sock.fileno())
        if not self._readable.wait(deadline):
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds)

    # Sending. All but `acquire_permit`, `send_output` and `handshake` is for the thread that holds the write lock.

    def acquire_permit(self, owner: BaseSocket, operation: str, deadline: CallDeadline | None) -> Permit:
        """Wait for the write lock."""
        return self.write_lock.try_acquire() or self.queue_to_write(owner, operation, deadline)

    def queue_to_write(self, owner: BaseSocket, operation: str, deadline: CallDeadline | None) -> Permit:
        """Wait for the write lock where it is not free."""
        if not self.fd.cores:
            refuse(owner, operation)
        if self.quiet_epoch is not process.epoch:
            self.arrive(owner)
        permit = self.write_lock.acquire(deadline, owner, operation)
        if permit is None:
            raise_if_closed(owner, operation)
            if deadline is None:
                refuse(owner, operation)
            raise SocketTimeout(operation, deadline.seconds, 0)
        return permit

    def release_permit(self, owner: BaseSocket) -> None:
        """Release the write lock, and send what a read has made meanwhile."""
        if self.engine is not None:
            self.payload_sent = self.engine.accepted  # also after an exception, before the bytes were counted
        self._release(owner)
        self.send_output(owner)

    def _release(self, owner: BaseSocket) -> None:
        self.write_lock.release()
        if self.quiet_epoch is not process.epoch:
            self.leave(owner)

    def waits_in_kernel(self, deadline: CallDeadline | None) -> bool:
        """Whether a send may wait inside the system call."""
        return deadline is None and self.kernel_waits

    def count_sent(self, sent: int) -> int:
        """Count how much of a message was sent before an exception, and return it.

        A signal handler may have interrupted the core after it took bytes, and before ``sent`` counted them.
        """
        if self.engine is not None:
            sent = self.engine.accepted - self.payload_sent
        self.payload_sent += sent
        return sent

    def send_once(
        self, operation: str, data: bytes | memoryview, deadline: CallDeadline | None, sent: int | None
    ) -> int:
        """Make one send, as soon as there is room for something; return how many bytes it took."""
        while True:
            try:
                return self.sender.send(data, NOW)
            except BlockingIOError:
                self.wait_for_room(operation, deadline, sent)

    def send_more(self, payload: bytes | memoryview, sent: int, deadline: CallDeadline | None) -> int:
        """Wait for room, and send the next piece of a message; return how many bytes it has."""
        self.flush("send", deadline, sent)
        if sent == len(payload):
            self.fd.cores[0].message_incomplete = False
            return 0
        return self.send_once("send", memoryview(payload)[sent:] if sent else payload, deadline, sent)

    def finish_message(
        self, engine: TlsEngine, payload: bytes | memoryview, sent: int, deadline: CallDeadline | None
    ) -> int:
        """Send the rest of a message over TLS, and all of its ciphertext; return how many bytes it has."""
        core = self.fd.cores
        while sent != len(payload) or core[0].unsent:
            sent += self.send_more(payload, sent, deadline)
        self.payload_sent = engine.accepted
        return sent

    def send_some(self, owner: BaseSocket, payload: bytes | memoryview, deadline: CallDeadline | None) -> int:
        """Send what there is room for, in one send; ``last_bytes_sent`` is set as soon as it is known."""
        owner.last_bytes_sent = 0  # a thread that sent meanwhile may have set it
        self.flush("send_some", deadline, 0)
        if not payload:
            return 0
        if self.fd.cores[0].seals:
            self.wait_for_room("send_some", deadline)  # a timeout is to have sent nothing
        owner.last_bytes_sent = sent = self.send_once("send_some", payload, deadline, 0)
        if self.engine is None:
            self.payload_sent += sent
        # A whole record, or the peer waits for its rest while we wait for its answer.
        with contextlib.suppress(SocketTimeout):  # the next send takes the rest along
            self.flush("send_some", deadline)
        self.fd.cores[0].message_incomplete = False
        return sent

    def send_fds(
        self,
        owner: BaseSocket,
        payload: bytes | memoryview,
        ancillary: Ancillary,
        deadline: CallDeadline | None,
    ) -> None:
        """Send descriptors with the first byte of a message, and then the rest; ``last_bytes_sent`` is always right."""
        sent = [0]  # not in the socket's attribute: a thread that begins to wait for the lock sets that to 0
        flags = NO_SIGNAL if self.waits_in_kernel(deadline) else NOW
        try:
            while not sent[0]:
                try:
                    for sent[0] in send_first(self.fd.sock, payload, ancillary, flags):
                        break
                except BlockingIOError:
                    self.wait_for_room("send_fds", deadline, 0)
            while sent[0] < len(payload):
                sent[0] += self.send_once("send_fds", memoryview(payload)[sent[0] :], deadline, sent[0])
        finally:
            owner.last_bytes_sent = sent[0]
            self.payload_sent += sent[0]

    def flush(self, operation: str, deadline: CallDeadline | None, sent: int | None = None) -> None:
        """Send the ciphertext that is there, waiting for room."""
        while not self.flush_now(self.fd.cores[0]):
            self.wait_for_room(operation, deadline, sent)

    def flush_now(self, core: StreamCore) -> bool:
        """Send the ciphertext that is there as far as the kernel takes it; return whether that was all."""
        return core.flush(self.fd.sock.send, NOW)

    def wait_for_room(self, operation: str, deadline: CallDeadline | None, sent: int | None = 0) -> None:
        """Wait until the kernel takes something."""
        if self._writable is None:
            self._writable = Readiness(self.fd.sock.fileno(), write=True)
        if not self._writable.wait(deadline):
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds, sent)

    def send_output(self, owner: BaseSocket) -> None:
        """Send what a read has made, unless another thread is sending, which will look again."""
        core = self.core
        while core is not None and core.has_output and (permit := self.write_lock.try_acquire()) is not None:
            try:
                if not self.flush_now(core):
                    return  # the next send takes it along
            except OSError:
                return  # the peer is gone: the next read or send finds out by itself
            finally:
                del permit
                self._release(owner)

    # The handshake.

    def handshake(
        self, owner: BaseSocket, core: TlsCore, operation: str, deadline: CallDeadline | None
    ) -> None:
        """Make the handshake; no other call reads or writes."""
        try:
            while True:
                # Before the first wait, too: an earlier `close` has woken no thread.
                raise_if_closed(owner, operation)
                done = core.handshake()
                self.flush(operation, deadline)
                if done:
                    return
                if self.fill(owner, core, operation, wait=deadline is None and self.kernel_waits):
                    core.accept_inbox()
                    core.done()
                else:
                    self.wait_for_input(operation, deadline)
        except BaseException as error:
            core.fail_handshake(error)
            with contextlib.suppress(OSError):  # the alert, if the peer is still there
                self.flush_now(core)
            if isinstance(error, OSError):
                raise_if_closed(owner, operation)
                annotated(error, operation, owner)
            raise
