"""A stream inside TLS, in the blocking flavour: the handshake, and ciphertext that a read has made.

Ciphertext is sent by the thread that holds the write lock, in the order in which it was made. A read can make some too
(the answer to a key update, an alert). The reader never waits for the lock: it sends if the lock is free, and a thread
that has held the lock looks again after releasing it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, cast

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.stream import StreamCore
from wireline.net._guard import GuardedSocket
from wireline.net._poll import start_deadline
from wireline.options import DONT_WAIT, NO_SIGNAL

if TYPE_CHECKING:
    from wireline._core.locked_tls import LockedTlsCore
    from wireline._core.tls import TlsCore

__all__ = ["SecuredSocket"]


class SecuredSocket(GuardedSocket):
    """The part of a socket that speaks TLS."""

    last_bytes_sent: int

    def _take_core(self, core: StreamCore) -> None:
        super()._take_core(core)
        self._expect_signals(self._tls_core)

    @staticmethod
    def _expect_signals(tls_core: TlsCore | None) -> None:
        if tls_core is not None:
            locked = cast("LockedTlsCore", tls_core)
            locked.thread = threading.get_ident
            locked.signal_thread = threading.main_thread().ident or -1

    def _inherit(self) -> None:
        super()._inherit()
        if self._core is not None:
            self._core.renew_lock()
        self._expect_signals(self._tls_core)

    # The handshake.

    def _upgrade(self, tls_core: TlsCore, timeout: float | None, leftover: str) -> None:
        """Go over to TLS: ``SslContext.wrap_connected_socket``."""
        deadline = start_deadline(check_timeout(timeout))
        self._upgrade_by(tls_core, deadline, "wrap_connected_socket", leftover)

    def _upgrade_by(
        self, tls_core: TlsCore, deadline: Deadline | None, operation: str, leftover: str = "refuse"
    ) -> None:
        held = self._hold(operation)
        assert self._core is not None
        try:
            self._begin_upgrade(tls_core, self._core, leftover)
            self._shake_hands(tls_core, operation, deadline)
        finally:
            del held
            self._published()

    def _shake_hands(self, tls_core: TlsCore, operation: str, deadline: Deadline | None) -> None:
        """Make the handshake; nobody else reads or writes."""
        try:
            while True:
                # Before the first wait, too: a `close` that came earlier has woken nobody.
                self._raise_if_closed(operation)
                done = tls_core.handshake()
                self._flush(tls_core, operation, deadline)
                if done:
                    return
                if self._fill(tls_core, operation, wait=deadline is None and self._kernel_waits):
                    assert tls_core.inbox is not None
                    tls_core.accept(tls_core.inbox)
                    tls_core.done()
                else:
                    self._wait_for_input(operation, deadline)
        except BaseException as error:
            tls_core.fail_handshake(error)
            with contextlib.suppress(OSError):  # the alert, if the peer is still there to hear it
                self._flush_now(tls_core)
            if isinstance(error, OSError):
                self._raise_if_closed(operation)
                self._annotated(error, operation)
            raise

    # Sending. All but `_send_output` is for the thread that holds the write lock.

    def _flush(
        self, core: StreamCore, operation: str, deadline: Deadline | None, sent: int | None = None
    ) -> None:
        """Send the ciphertext that is there, waiting for room."""
        while core.pending_output():
            try:
                core.push(self._sock.send, DONT_WAIT | NO_SIGNAL)
            except BlockingIOError:
                self._wait_for_room(operation, deadline, sent)

    def _send_output(self) -> None:
        """Send what a read has made, unless another thread is sending, which will look again."""
        core = self._core
        while core is not None and core.has_output and (permit := self._writing.try_acquire()) is not None:
            try:
                if not self._flush_now(core):
                    return  # the next send takes it along
            except OSError:
                return  # the peer is gone: the next read or send finds out by itself
            finally:
                del permit
                super()._release_permit()

    def _release_permit(self) -> None:
        super()._release_permit()
        self._send_output()
