"""A TLS core for a socket on which one thread may read while another writes.

OpenSSL does not allow both at one time (openssl#20446), so whoever calls it holds a lock: for as long as it computes,
never for as long as the network takes. The requests need none: what they answer from is the reader's alone.

What a read has made is sent after the lock was given back: to send is to take other locks, of the socket's.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from wireline._core.tls import TlsCore
from wireline._core.tls_engine import TlsEngine

__all__ = ["SharedTlsCore"]

T = TypeVar("T")


class SharedTlsCore(TlsCore):
    """A ``TlsCore`` that a reader and the writer whose turn it is may use at one time."""

    __slots__ = ("_lock", "_unattended", "handles_signals", "thread")

    shared = True

    def __init__(
        self, engine: TlsEngine, lock: AbstractContextManager[object], *, buffered: bool = True
    ) -> None:
        """Prepare.

        Args:
            engine: the TLS connection.
            lock: its holder must be able to take it again.
            buffered: as of any stream.
        """
        super().__init__(engine, buffered=buffered)
        self._lock = lock
        self._unattended = False
        # How to ask for the number of the running thread, and that of the thread that runs signal handlers.
        self.thread: Callable[[], int] = int
        self.handles_signals = -1

    def renew_lock(self) -> None:
        """In a forked child: a thread of the parent may have held the lock, and is not here to release it."""
        self._lock = type(self._lock)()

    def _attend(self) -> None:
        self._unattended = True

    def _attend_now(self) -> None:
        self._unattended = False
        super()._attend()

    def ask(self, question: Callable[[ssl.SSLObject], T]) -> T:
        with self._lock:
            return super().ask(question)

    # What a reader calls, or whoever makes the handshake.

    def handshake(self) -> bool:
        with self._lock:
            done = super().handshake()
        if self._unattended:
            self._attend_now()
        return done

    def feed(self, data: bytes) -> None:
        with self._lock:
            super().feed(data)
            # An exception of a signal handler can come until the end of this, and then the same data is fed again.
            self.engine.due = data
        if self._unattended:
            self._attend_now()
        self.engine.due = b""

    def feed_some(self, data: bytes, most: int) -> bytes | None:
        with self._lock:
            answer = super().feed_some(data, most)
            engine = self.engine
            engine.due, engine.plaintext = data, answer or b""  # likewise
        if self._unattended:
            self._attend_now()
        engine.due = engine.plaintext = b""
        return answer

    def take_in(self, most: int = 0) -> bytes | None:
        self.engine.careful = self.thread() == self.handles_signals
        with self._lock:
            answer = super().take_in(most)
        if self._unattended:
            self._attend_now()
        return answer

    def recover(self) -> None:
        self.engine.careful = self.thread() == self.handles_signals
        with self._lock:
            super().recover()
        if self._unattended:
            self._attend_now()

    def fail(self, error: OSError) -> None:
        with self._lock:
            super().fail(error)
        if self._unattended:
            self._attend_now()

    # What is for whoever has the turn to write.

    def encrypt(self, data: bytes | memoryview) -> None:
        with self._lock:
            super().encrypt(data)

    def unsent(self) -> bytes | memoryview:
        with self._lock:
            return super().unsent()

    def seal(self, data: bytes | memoryview) -> bytes | memoryview:
        with self._lock:
            return super().seal(data)

    def close_notify(self) -> None:
        with self._lock:
            super().close_notify()

    def farewell(self) -> bytes:
        with self._lock:
            return super().farewell()
