"""How a stream waits: for the result of a request, for an operation, and to write; and how often it yields.

A call that need not wait still lets the other tasks run once in ``BUDGET`` operations (``_poller``). A read does so
before it asks the core: a cancellation there finds nothing consumed. A send does so when it has the write lock and has
sent nothing, so that it keeps its place among the writers. A send that cannot deliver, because the peer is gone, does
so every time: otherwise ``while True: await sock.send(data)`` would stop all other tasks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar, TypeVarTuple, cast

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.stream import StreamCore
from wireline._os.descriptor import has_room
from wireline.asyncnet._attached import AttachedStream
from wireline.asyncnet._operations import NOW, Read, Send, WeakAnnotator, Writable
from wireline.errors import BusyError, SocketTimeout
from wireline.options import DONT_WAIT

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["WaitingStream"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class WaitingStream(AttachedStream):
    """The part of a stream that asks the core, and waits while it has no result."""

    # For bytes.

    def _ask(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> bytes | None:
        """Make one request of the core; None if it has no result yet, or if the budget is spent."""
        if timeout is not None:
            check_timeout(timeout)
        port = self._fd.port
        if port.loop is not port.running_loop():
            port = self._enter()
        resting = self._resting  # `close` leaves another one, but this one as it is
        if not resting:
            self._raise_not_readable(request.__name__)
        left = port.budget
        if left <= 0:
            return None  # and `_wait_for` yields before it asks the core
        port.budget = left - 1
        return request(resting[0], *args)

    def _wait_for(
        self,
        request: Callable[[StreamCore, *Ts], bytes | None],
        timeout: float | None,
        *args: *Ts,
    ) -> Awaitable[bytes]:
        """Return what to await until the core has a result.

        Args:
            request: a method of the core, which has just returned None.
            timeout: seconds to wait.
            args: its arguments.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self._fd.port.budget <= 0:
            return self._yield_then_read(request, timeout, *args)
        if timeout == 0:
            return self._read_nowait(request, *args)
        resting = self._resting
        if not resting:
            self._raise_not_readable(request.__name__)  # closed in this moment
        waiter = self._fd.read_waiter
        if waiter is None or waiter.closed:
            if self._enter().completions is not None:
                return self._read_portably(request, timeout, *args)
            waiter = self._fd.open_read_waiter(resting, WeakAnnotator(self))
        return waiter.wait(request, args, timeout)

    async def _yield_then_read(
        self,
        request: Callable[[StreamCore, *Ts], bytes | None],
        timeout: float | None,
        *args: *Ts,
    ) -> bytes:
        """Let the other tasks run, and then begin: with the request, which may not have been made yet."""
        await self._fd.port.checkpoint()
        answer = self._ask(request, timeout, *args)
        if answer is None:
            answer = await self._wait_for(request, timeout, *args)
        return answer

    async def _read_portably(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> bytes:
        queue = self._read_queue()
        core = self._resting.pop()
        try:
            read = Read(self._sock, core, WeakAnnotator(self), request, args)
            return await queue.wait(read, request.__name__, self._deadline(timeout))
        finally:
            if not self._closing.locked():
                self._resting.append(core)

    async def _read_nowait(self, request: Callable[[StreamCore, *Ts], bytes | None], *args: *Ts) -> bytes:
        """Answer from what the kernel has, and do not wait for more (R4)."""
        if self._fd.read_queue is not None:
            await self._fd.read_queue.drain_orphan()
        answer = self._feed_available(request, *args)
        if answer is None:
            raise SocketTimeout(request.__name__, 0)
        return answer

    def _feed_available(self, request: Callable[[StreamCore, *Ts], bytes | None], *args: *Ts) -> bytes | None:
        """Feed the core all that the kernel has, until it can answer; None if it cannot."""
        resting = self._resting
        if not resting:
            self._raise_not_readable(request.__name__)  # closed, or read by another task, in this moment
        core = resting[0]
        while (answer := request(core, *args)) is None:
            queue = self._fd.read_queue
            orphan = None if queue is None else queue.take_orphan()
            if orphan is None and queue is not None and queue.in_flight:
                return None  # the bytes may be in an operation of the loop already
            try:
                core.feed(
                    self._sock.recv(core.recv_size, DONT_WAIT)
                    if orphan is None
                    else cast(bytes, orphan.result())
                )
            except BlockingIOError:
                return None
            except OSError as error:
                self._raise_if_closed(request.__name__)
                core.fail(self._annotated(error, request.__name__))
        return answer

    def _raise_not_readable(self, operation: str) -> NoReturn:
        if self._core is None:
            self._refuse(operation)
        self._open_sock(operation)
        raise BusyError(f"{operation}: another task is reading this socket")

    # To write.

    async def _acquire_write_lock(self, operation: str, deadline: Deadline | None) -> None:
        lock = self._fd.write_lock
        if self._core is None or self._closing.locked():
            self._refuse(operation)
        if not lock.locked:
            lock.locked = True
            return
        if not await lock.acquire(self._enter(), None if deadline is None else deadline.at):
            self._raise_if_closed(operation)
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds, 0)

    def _write_in_flight(self) -> bool:
        """Whether an operation, started for a send that was given up, is still running."""
        return self._fd.write_queue is not None and self._fd.write_queue.in_flight

    async def _send_remaining(self, operation: str, send: Send, deadline: Deadline | None) -> None:
        """Wait until all is sent, or for ``once`` something."""
        try:
            await self._write_queue().wait(send, operation, deadline)
        except SocketTimeout as error:
            raise SocketTimeout(operation, error.seconds, send.sent) from None

    async def _send_once(self, operation: str, payload: bytes | memoryview, deadline: Deadline | None) -> int:
        if self._write_in_flight():
            await self._send_remaining(operation, Send(self._sock, b"", 0), deadline)
        with contextlib.suppress(BlockingIOError):
            return self._sender.send(payload, NOW)
        send = Send(self._sock, payload, 0, once=True)
        try:
            if self._enter().completions is not None:
                # A started operation of the loop cannot be taken back, and a send that is given up has sent nothing.
                await self._fd.retry_with_backoff(send, operation, deadline)
            else:
                await self._send_remaining(operation, send, deadline)
            return send.sent
        finally:
            send.release()

    async def _wait_writable(self, operation: str, deadline: Deadline | None) -> None:
        if not has_room(self._sock):
            writable = Writable(self._sock)
            try:
                if self._enter().completions is not None:
                    await self._fd.retry_with_backoff(writable, operation, deadline)
                else:
                    await self._write_queue().wait(writable, operation, deadline)
            except SocketTimeout as error:
                raise SocketTimeout(operation, error.seconds, 0) from None

    async def _flush(
        self, core: StreamCore, operation: str, deadline: Deadline | None, sent: int | None = None
    ) -> None:
        """Send the ciphertext that is there, waiting for room."""
        while core.has_output and not self._flush_now(core):
            job = Send(self._sock, core.pending_output(), 0)
            core.send_in_flight = True
            try:
                await self._send_remaining(operation, job, deadline)
            except SocketTimeout as error:
                raise SocketTimeout(operation, error.seconds, sent) from None
            finally:
                core.sent(job.sent)
                core.send_in_flight = False
                job.release()

    # The handshake.

    async def _upgrade(self, tls_core: TlsCore, timeout: float | None, leftover: str) -> None:
        """Go over to TLS: ``SslContext.wrap_connected_async``."""
        deadline = self._deadline(check_timeout(timeout))
        await self._upgrade_by(tls_core, deadline, "wrap_connected_async", leftover)

    async def _upgrade_by(
        self, tls_core: TlsCore, deadline: Deadline | None, operation: str, leftover: str = "refuse"
    ) -> None:
        self._hold(operation)
        assert self._core is not None
        try:
            self._begin_upgrade(tls_core, self._core, leftover)
            await self._shake_hands(tls_core, operation, deadline)
        finally:
            self._published()

    async def _shake_hands(self, tls_core: TlsCore, operation: str, deadline: Deadline | None) -> None:
        """Make the handshake; nobody else reads or writes."""
        try:
            while True:
                done = tls_core.handshake()
                await self._flush(tls_core, operation, deadline)
                if done:
                    return
                await self._wait_for_handshake_input(tls_core, operation, deadline)
        except BaseException as error:
            tls_core.fail_handshake(error)
            with contextlib.suppress(OSError):  # the alert, if the peer is still there to hear it
                self._flush_now(tls_core)
            if isinstance(error, OSError):
                self._raise_if_closed(operation)
                error.add_note(f"during {operation} on {self!r}")
            raise

    async def _wait_for_handshake_input(
        self, tls_core: TlsCore, operation: str, deadline: Deadline | None
    ) -> None:
        """Wait until the handshake can go on."""
        port = self._enter()
        if port.budget <= 0:
            await port.checkpoint()  # not in the wait below, where the core rests as if it were for anyone
            self._raise_if_closed(operation)
        seconds = None if deadline is None else deadline.remaining(self._enter().time())
        self._resting[:] = [tls_core]  # for as long as it takes to begin to wait
        try:
            request = cast("Callable[[StreamCore], bytes | None]", type(tls_core).handshake_input)
            await self._wait_for(request, seconds)
        except SocketTimeout:
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds) from None
        finally:
            self._resting.clear()
        self._raise_if_closed(operation)
