"""A stream inside TLS, in the async flavour: the handshake, and ciphertext that a read has made.

Ciphertext is sent by the task that holds the write lock, in the order in which it was made. A read can make some too
(the answer to a key update, an alert). The reader never waits for the lock: it sends if the lock is free, and a task
that has held the lock looks again after releasing it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVarTuple, cast

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.stream import StreamCore
from wireline._secure import SecureSocket
from wireline.asyncnet._fd_on_loop import FdOnLoop
from wireline.asyncnet._operations import Send
from wireline.asyncnet._port import Port
from wireline.errors import SocketTimeout

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["SecuredStream"]

Ts = TypeVarTuple("Ts")


class SecuredStream(SecureSocket):
    """The part of a socket that speaks TLS."""

    last_bytes_sent: int

    _fd: FdOnLoop
    _resting: list[StreamCore]

    # What the stream does, in the class below.

    def _enter(self) -> Port:
        raise NotImplementedError

    def _deadline(self, timeout: float | None) -> Deadline | None:
        raise NotImplementedError

    def _wait_for(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> Awaitable[bytes]:
        raise NotImplementedError

    async def _send_remaining(self, operation: str, job: Send, deadline: Deadline | None) -> None:
        raise NotImplementedError

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

    # Sending. All but `_send_output` is for the task that holds the write lock.

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

    def _send_output(self) -> None:
        """Send what a read has made, unless another task is sending, which will look again."""
        core = self._core
        if (
            core is not None
            and core.has_output
            and not self._fd.write_lock.locked
            and not self._closing.locked()
        ):
            with contextlib.suppress(OSError):  # the peer is gone: the next read or send finds out by itself
                self._flush_now(core)

    def _release_write_lock(self) -> None:
        self._fd.write_lock.release()
        self._send_output()
