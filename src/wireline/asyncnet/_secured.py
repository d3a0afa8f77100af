"""A stream inside TLS, in the async flavour: who sends the ciphertext, and who makes the handshake.

Ciphertext is sent by whoever has the turn to write, in the order in which it was made. A read can make some too (the
answer to a key update, an alert). The reader never waits for the turn: it sends if nobody has it, and who has it looks
again after giving it back.
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
from wireline.options import SocketFlag

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

    async def _wait_writable(self, operation: str, deadline: Deadline | None) -> None:
        raise NotImplementedError

    # The handshake.

    async def _upgrade(self, secure: TlsCore, timeout: float | None, leftover: str) -> None:
        """Go over to TLS: ``SslContext.wrap_connected_async``."""
        deadline = self._deadline(check_timeout(timeout))
        await self._upgrade_by(secure, deadline, "wrap_connected_async", leftover)

    async def _upgrade_by(
        self, secure: TlsCore, deadline: Deadline | None, operation: str, leftover: str = "refuse"
    ) -> None:
        self._hold(operation)
        assert self._core is not None
        try:
            self._begin_upgrade(secure, self._core, leftover)
            await self._shake_hands(secure, operation, deadline)
        finally:
            self._published()

    async def _shake_hands(self, secure: TlsCore, operation: str, deadline: Deadline | None) -> None:
        """Make the handshake; nobody else reads or writes."""
        try:
            while True:
                done = secure.handshake()
                await self._flush(secure, operation, deadline)
                if done:
                    return
                await self._news(secure, operation, deadline)
        except BaseException as error:
            secure.abandon(error)
            with contextlib.suppress(OSError):  # the alert, if the peer is still there to hear it
                self._flush_now(secure)
            if isinstance(error, OSError):
                self._raise_if_closed(operation)
                error.add_note(f"during {operation} on {self!r}")
            raise

    async def _news(self, secure: TlsCore, operation: str, deadline: Deadline | None) -> None:
        """Wait until the handshake can go on."""
        port = self._enter()
        if port.budget <= 0:
            await port.checkpoint()  # not in the wait below, where the core rests as if it were for anyone
            self._raise_if_closed(operation)
        seconds = None if deadline is None else deadline.remaining(self._enter().time())
        self._resting[:] = [secure]  # for as long as it takes to begin to wait
        try:
            await self._wait_for(cast("Callable[[StreamCore], bytes | None]", type(secure).news), seconds)
        except SocketTimeout:
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds) from None
        finally:
            self._resting.clear()
        self._raise_if_closed(operation)

    # Sending. All but `_send_output` is for whoever has the turn.

    async def _flush(
        self, secure: TlsCore, operation: str, deadline: Deadline | None, sent: int | None = None
    ) -> None:
        """Send the ciphertext that is there, waiting for room."""
        while secure.has_output and not self._flush_now(secure):
            job = Send(self._sock, secure.unsent(), 0)
            secure.lent = True
            try:
                await self._send_remaining(operation, job, deadline)
            except SocketTimeout as error:
                raise SocketTimeout(operation, error.seconds, sent) from None
            finally:
                secure.sent(job.sent)
                secure.lent = False
                job.release()

    def _send_output(self) -> None:
        """Send what a read has made, unless somebody else is sending, who will look again."""
        secure = self._secure
        if (
            secure is not None
            and secure.has_output
            and not self._fd.write_lock.locked
            and not self._closing.locked()
        ):
            with contextlib.suppress(OSError):  # the peer is gone: the next read or send finds out by itself
                self._flush_now(secure)

    def _release_write_lock(self) -> None:
        self._fd.write_lock.release()
        self._send_output()

    async def _send_secure(
        self,
        operation: str,
        secure: TlsCore,
        payload: bytes | memoryview,
        flags: SocketFlag,
        deadline: Deadline | None,
        *,
        sealed: bool,
    ) -> None:
        """Send a message, or what one attempt has left of one that is ``sealed``, and give the turn back."""
        sent = len(payload) if sealed else 0
        before = secure.engine.accepted - sent
        try:
            if secure.rest:
                await self._flush(
                    secure, operation, deadline, sent
                )  # what is left of a record that was begun
            for piece in () if sealed else secure.slices(payload):
                if self._write_in_flight():
                    secure.midway = True
                    secure.encrypt(piece)
                    gone = False
                else:
                    gone = self._seal_and_send(secure, piece)
                sent += len(piece)
                if not gone:
                    await self._flush(secure, operation, deadline, sent)
            secure.midway = False
        except SocketTimeout:
            raise
        except OSError as error:
            if self._is_real(error, flags, operation):
                raise
        else:
            return
        finally:
            self.last_bytes_sent = secure.engine.accepted - before
            lock = self._fd.write_lock
            if lock.queue:
                lock.release()
            else:
                lock.locked = lock.closed
            if secure.rest or secure.outgoing.pending:  # `has_output`, two calls less
                self._send_output()
        await self._fd.port.checkpoint()  # it could not deliver (FA23)

    async def _send_a_slice(
        self, secure: TlsCore, payload: bytes | memoryview, deadline: Deadline | None
    ) -> int:
        await self._flush(secure, "send_some", deadline, 0)
        await self._wait_writable("send_some", deadline)  # what is encrypted is as good as sent
        for piece in secure.slices(payload):
            secure.encrypt(piece)
            self.last_bytes_sent = len(piece)
            # All of it, or the peer waits for the rest of a record while we wait for its answer.
            with contextlib.suppress(SocketTimeout):  # the next who sends takes the rest along
                await self._flush(secure, "send_some", deadline)
            return len(piece)
        return 0

    async def _say_goodbye(self, secure: TlsCore, deadline: Deadline | None) -> None:
        await self._flush(secure, "shutdown_write", deadline)
        secure.close_notify()
        await self._flush(secure, "shutdown_write", deadline)
