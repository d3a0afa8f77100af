"""A TLS core for a socket on which one thread may read while another writes.

OpenSSL does not allow both at the same time (openssl#20446), so a lock is held while OpenSSL computes, and never while
a thread waits for the network. The requests need no lock: only the reader uses the buffer.

Output that a read has made is sent after the lock was released: a send takes other locks, those of the socket.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from wireline._core.stream import Sender
from wireline._core.tls import SEND_CHUNK, TlsCore
from wireline._core.tls_engine import TlsEngine
from wireline.options import DONT_WAIT, NO_SIGNAL

__all__ = ["LockedTlsCore", "LockedTlsSender"]

T = TypeVar("T")

_NOW = DONT_WAIT | NO_SIGNAL


class LockedTlsCore(TlsCore):
    """A ``TlsCore`` that a reader and the holder of the write lock may use at the same time."""

    __slots__ = ("_lock", "_output_pending", "signal_thread", "thread")

    thread_safe = True
    sender_references = 2

    def __init__(
        self, engine: TlsEngine, lock: AbstractContextManager[object], *, buffered: bool = True
    ) -> None:
        """Prepare.

        Args:
            engine: the TLS connection.
            lock: a re-entrant one.
            buffered: as of any stream.
        """
        super().__init__(engine, buffered=buffered)
        self._lock = lock
        self._output_pending = False
        # Gives the number of the running thread; and the number of the thread that runs signal handlers.
        self.thread: Callable[[], int] = int
        self.signal_thread = -1

    def renew_lock(self) -> None:
        """In a forked child: a thread of the parent may have held the lock, and is not here to release it."""
        self._lock = type(self._lock)()

    def enter_layer(self, outer: TlsCore) -> None:
        assert isinstance(outer, LockedTlsCore)
        # The same one: a thread may be about to ask the outer core for something.
        self._lock = outer._lock
        with self._lock:
            super().enter_layer(outer)

    def sender(self, sock: Sender) -> Sender:
        return LockedTlsSender(self, sock)

    def _notify_output(self) -> None:
        self._output_pending = True

    def _flush_notification(self) -> None:
        self._output_pending = False
        super()._notify_output()

    def with_ssl_object(self, call: Callable[[ssl.SSLObject], T]) -> T:
        with self._lock:
            return super().with_ssl_object(call)

    # For the reader, and for the call that makes the handshake.

    def handshake(self) -> bool:
        with self._lock:
            done = super().handshake()
        if self._output_pending:
            self._flush_notification()
        return done

    def feed(self, data: bytes) -> None:
        with self._lock:
            super().feed(data)
            # Until the end of this a signal handler can raise an exception, and then the same data is fed again.
            self.engine.due = data
        if self._output_pending:
            self._flush_notification()
        self.engine.due = b""

    def feed_some(self, data: bytes, most: int) -> bytes | None:
        with self._lock:
            answer = super().feed_some(data, most)
            engine = self.engine
            engine.due, engine.plaintext = data, answer or b""  # likewise
        if self._output_pending:
            self._flush_notification()
        engine.due = engine.plaintext = b""
        return answer

    def accept_inbox(self) -> bytes | None:
        self.engine.careful = self.thread() == self.signal_thread
        with self._lock:
            answer = super().accept_inbox()
        if self._output_pending:
            self._flush_notification()
        return answer

    def recover(self) -> None:
        self.engine.careful = self.thread() == self.signal_thread
        with self._lock:
            super().recover()
        if self._output_pending:
            self._flush_notification()

    def fail(self, error: OSError) -> None:
        with self._lock:
            super().fail(error)
        if self._output_pending:
            self._flush_notification()

    # For the call that holds the write lock.

    def encrypt(self, data: bytes | memoryview) -> None:
        with self._lock:
            super().encrypt(data)

    def pending_output(self) -> bytes | memoryview:
        with self._lock:
            return super().pending_output()

    def seal(self, data: bytes | memoryview) -> bytes | memoryview:
        with self._lock:
            return super().seal(data)

    def close_notify(self) -> None:
        with self._lock:
            super().close_notify()

    def final_bytes(self) -> bytes:
        with self._lock:
            return super().final_bytes()


class LockedTlsSender:
    """A ``TlsSender`` that an exception of a signal handler may interrupt: nothing is sent twice or left out."""

    __slots__ = ("_attempts", "_core")

    def __init__(self, core: LockedTlsCore, sock: Sender) -> None:
        self._core = core
        outputs = map(getattr, itertools.repeat(core), itertools.repeat("unsent"))
        # Each step is one attempt to send `unsent`, and gives how much is gone.
        self._attempts = map(sock.send, outputs, itertools.repeat(_NOW))

    def send(self, data: bytes | memoryview, flags: int) -> int:
        """Do what ``TlsSender.send`` does; it never waits, whatever ``flags`` say."""
        core = self._core
        if core.unsent:
            return 0
        size = whole = len(data)
        if size > SEND_CHUNK:
            size = SEND_CHUNK
            data = memoryview(data)[:size]
        core.message_incomplete = True
        sealed = core.seal(data)
        try:
            for core.gone in self._attempts:  # stored before a signal handler can run, see `TlsCore.gone`
                break
        except BlockingIOError:
            return size
        except OSError:
            core.engine.accepted -= size  # it is not sent, and never will be
            raise
        if core.gone != len(sealed):
            core.sent(core.gone)
            return size
        # All of these: no signal handler can run in between.
        core.wire_sent += core.gone
        core.unsent = b""
        core.gone = 0
        if size == whole:
            core.message_incomplete = False
        return size

    def shutdown(self, how: int) -> None:
        """Put ``close_notify`` into the output. ``how`` is ``SHUT_WR``."""
        self._core.close_notify()
