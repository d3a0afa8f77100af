"""A stream inside TLS, in the blocking flavour: who sends the ciphertext, and who makes the handshake.

Ciphertext is sent by whoever has the turn to write, in the order in which it was made. A read can make some too (the
answer to a key update, an alert). The reader never waits for the turn: it sends if nobody has it, and who has it looks
again after giving it back.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, cast

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.stream import StreamCore
from wireline.errors import SocketTimeout
from wireline.net._guard import GuardedSocket
from wireline.net._poll import start_deadline
from wireline.options import DONT_WAIT, NO_SIGNAL, SocketFlag

if TYPE_CHECKING:
    from wireline._core.locked_tls import SharedTlsCore
    from wireline._core.tls import TlsCore

__all__ = ["SecuredSocket"]


class SecuredSocket(GuardedSocket):
    """The part of a socket that speaks TLS."""

    last_bytes_sent: int

    def _take_core(self, core: StreamCore) -> None:
        super()._take_core(core)
        if self._secure is not None:
            self._expect_signals(cast("SharedTlsCore", self._secure))

    @staticmethod
    def _expect_signals(secure: SharedTlsCore) -> None:
        secure.thread = threading.get_ident
        secure.handles_signals = threading.main_thread().ident or -1

    def _inherit(self) -> None:
        super()._inherit()
        if self._secure is not None:
            self._secure.renew_lock()
            self._expect_signals(cast("SharedTlsCore", self._secure))

    # The handshake.

    def _upgrade(self, secure: TlsCore, timeout: float | None, leftover: str) -> None:
        """Go over to TLS: ``SslContext.wrap_connected_socket``."""
        deadline = start_deadline(check_timeout(timeout))
        self._upgrade_by(secure, deadline, "wrap_connected_socket", leftover)

    def _upgrade_by(
        self, secure: TlsCore, deadline: Deadline | None, operation: str, leftover: str = "refuse"
    ) -> None:
        held = self._hold(operation)
        assert self._core is not None
        try:
            self._begin_upgrade(secure, self._core, leftover)
            self._shake_hands(secure, operation, deadline)
        finally:
            del held
            self._published()

    def _shake_hands(self, secure: TlsCore, operation: str, deadline: Deadline | None) -> None:
        """Make the handshake; nobody else reads or writes."""
        try:
            while True:
                # Before the first wait, too: a `close` that came earlier has woken nobody.
                self._raise_if_closed(operation)
                done = secure.handshake()
                self._flush(secure, operation, deadline)
                if done:
                    return
                if self._fill(secure, operation, wait=deadline is None and self._kernel_waits):
                    secure.take_in()
                    secure.done()
                else:
                    self._wait_for_input(operation, deadline)
        except BaseException as error:
            secure.abandon(error)
            with contextlib.suppress(OSError):  # the alert, if the peer is still there to hear it
                self._flush_now(secure)
            if isinstance(error, OSError):
                self._raise_if_closed(operation)
                self._annotated(error, operation)
            raise

    # Sending. All but `_send_output` is for whoever has the turn.

    def _flush(
        self, secure: TlsCore, operation: str, deadline: Deadline | None, sent: int | None = None
    ) -> None:
        """Send the ciphertext that is there, waiting for room."""
        while secure.unsent():
            try:
                secure.push(self._sock.send, DONT_WAIT | NO_SIGNAL)
            except BlockingIOError:
                self._wait_for_room(operation, deadline, sent)

    def _send_output(self) -> None:
        """Send what a read has made, unless another thread is sending, which will look again."""
        secure = self._secure
        while (
            secure is not None and secure.has_output and (permit := self._writing.try_acquire()) is not None
        ):
            try:
                if not self._flush_now(secure):
                    return  # the next send takes it along
            except OSError:
                return  # the peer is gone: the next read or send finds out by itself
            finally:
                del permit
                super()._release_permit()

    def _release_permit(self) -> None:
        super()._release_permit()
        self._send_output()

    def _send_secure(
        self, secure: TlsCore, payload: bytes | memoryview, flags: SocketFlag, deadline: Deadline | None
    ) -> None:
        sent, before = 0, secure.engine.accepted
        try:
            if secure.rest:
                self._flush(secure, "send", deadline, 0)  # what is left of a record that was begun
            for piece in (payload,) if 0 < len(payload) <= secure.slice_size else secure.slices(payload):
                gone = self._seal_and_send(secure, piece)
                sent += len(piece)
                if not gone:
                    self._flush(secure, "send", deadline, sent)
            secure.midway = False
        except SocketTimeout:
            raise
        except OSError as error:
            if self._is_real(error, flags, "send"):
                raise
        finally:
            self.last_bytes_sent = secure.engine.accepted - before

    def _send_a_slice(self, secure: TlsCore, payload: bytes | memoryview, deadline: Deadline | None) -> int:
        self._flush(secure, "send_some", deadline, 0)
        self._wait_for_room("send_some", deadline)  # what is encrypted is as good as sent
        if not payload:
            return 0
        piece = payload if len(payload) <= secure.slice_size else memoryview(payload)[: secure.slice_size]
        secure.encrypt(piece)
        # All of it, or the peer waits for the rest of a record while we wait for its answer.
        with contextlib.suppress(SocketTimeout):  # the next send takes the rest along
            self._flush(secure, "send_some", deadline)
        return len(piece)

    def _say_goodbye(self, secure: TlsCore, deadline: Deadline | None) -> None:
        self._flush(secure, "shutdown_write", deadline)
        secure.close_notify()
        self._flush(secure, "shutdown_write", deadline)
