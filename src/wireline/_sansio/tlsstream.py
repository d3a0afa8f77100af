"""A stream inside TLS: what ``StreamCore`` is to the wire, with an engine in between.

Requests are answered as ever, from the buffer, which holds plaintext. What is fed is ciphertext, and all of it is
decrypted at once: it is no more than one read of the kernel. So there is one place where received data can wait.

Two threads may be at work at one time, a reader and the writer whose turn it is. Then the core is ``share``d, and who
needs the engine holds a lock for as long as OpenSSL computes. Tasks of one loop need none, for none of them is at work
while another is. The ciphertext that is to be sent belongs to whoever has the turn to write.
A read can make some, too (the answer to a key update, an alert). ``attend`` then sends it if nobody has the turn; who
has it looks again after giving it back.

Who stops in the midst of a message is not to say goodbye as if it were done: ``midway`` is what ``farewell`` looks at.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import ClassVar, ParamSpec, TypeVar

from wireline._sansio.stream import StreamCore
from wireline._sansio.tlsengine import RECORD_ON_WIRE, TlsEngine, TruncatedError
from wireline.errors import fresh_copy
from wireline.options import BUFFER_SIZE, SAFE_DISCONN, is_disconnection_error

__all__ = ["SLICE", "TlsCore"]

T = TypeVar("T")
P = ParamSpec("P")

SLICE = 64 * 1024
"""Bytes to encrypt and send at once: 4 KiB made bulk three times slower, 1 MiB is no faster."""

# Bytes to ask the network for, four whole records: they give 64 KiB. A short message costs no more than if less were
# asked for.
_GULP = 4 * (16 * 1024 + 22)

# The most to ask for. A bulk stream that is read by 64 KiB takes 51 us of CPU time for each of these where 64 KiB come
# from the kernel at once, 42 with 256, 37 with 512 and 34 with 1024: fewer system calls and turns of the loop, and the
# kernel opens the window less often. Decrypting 512 KiB is 0.15 ms in which the loop does nothing else.
_FLOOD = 8 * _GULP


class TlsCore(StreamCore):
    """Ciphertext in, answers out; plaintext in, ciphertext out.

    Attributes:
        engine: the TLS connection; call it through this object, which holds the lock.
        outgoing: where the engine leaves ciphertext that is to be sent, besides ``rest``.
        attend: is called when a read has made output, to send it if nobody else is sending.
        midway: a send has begun to send a message and not come to its end. Set by whoever sends.
        rest: what is left to send of the ciphertext that was taken last.
        lent: ``unsent`` is being sent in this moment, and nobody can know how much of it is gone. Set by whoever sends.
    """

    __slots__ = (
        "_came",
        "_cause",
        "_cut",
        "_lock",
        "_news",
        "attend",
        "engine",
        "lent",
        "midway",
        "outgoing",
        "rest",
    )

    plain = False
    slice_size: ClassVar[int] = SLICE

    def __init__(self, engine: TlsEngine, *, buffered: bool = True) -> None:
        super().__init__(buffered=buffered)
        self.engine = engine
        self.outgoing = engine.outgoing
        self.want = _GULP
        self._lock: AbstractContextManager[object] | None = None
        self._came = 0  # bytes of ciphertext, the last time
        self.rest: bytes | memoryview = b""
        self._news = self._cut = False
        self.lent = self.midway = False
        self._cause: OSError | None = None
        self.attend: Callable[[], object] | None = None

    def share(self, lock: AbstractContextManager[object]) -> None:
        """Let several threads use this from now on. Without it a message costs 0.3 us less, of 10."""
        self._lock = lock

    def _alone(self, call: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
        """Call OpenSSL, while no other thread does."""
        if self._lock is None:
            return call(*args, **keywords)
        with self._lock:
            return call(*args, **keywords)

    def ask(self, question: Callable[[ssl.SSLObject], T]) -> T:
        """Put a question to the connection, while nobody else uses it."""
        return self._alone(question, self.engine.obj)

    # The handshake: `handshake`, send the output, wait for `news`, and again.

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is done. There may be output after each step, failed or not.

        Application data that came with its last packet is kept for the first read (T7).

        Raises:
            ssl.SSLError: it failed, as every later use of the connection will.
        """
        try:
            done = self._alone(self.engine.handshake, at_end=self._cut)
        except ssl.SSLError as error:
            if isinstance(error, TruncatedError):
                error.__cause__ = self._cause
            super().fail(
                fresh_copy(error)
            )  # the frames of the one that is raised would keep the socket alive
            raise
        if done:
            self._decrypt(b"", at_end=self._cut)
        return done

    def news(self) -> bytes | None:
        """A request: whether something was fed since the last time, for the next step of the handshake."""
        if not self._news:
            self._not_yet(1)
            return None
        self._news = False
        return b"news"

    def abandon(self, error: BaseException) -> None:
        """The handshake was not finished: nothing may be read or sent any more, least of all in clear."""
        if not self.engine.established:
            super().fail(self.engine.abandon(error))

    # Receiving.

    def feed(self, data: bytes) -> None:
        """Take what the network gave; ``b""`` is the end of the TCP stream, which must not come unannounced."""
        engine = self.engine
        if not engine.established:
            self._news = True
            self._cut = self._cut or not data
            engine.feed_handshake(data)
            return
        self._came = len(data)
        if self._came > RECORD_ON_WIRE:
            self._buffer.feed_pieces(self._alone(engine.open_all, data))
        elif plaintext := self._alone(engine.open, data):
            self._buffer.feed(plaintext)
        if not data or engine.ended or engine.error is not None or self.outgoing.pending:
            self._decrypt(b"", at_end=not data)

    def feed_some(self, data: bytes, most: int) -> bytes | None:
        # Where every message comes by: into the buffer, the question again, and out of it are five calls more.
        if len(data) > RECORD_ON_WIRE:
            self.feed(data)
            return None
        engine = self.engine
        self._came = len(data)
        self.want = _GULP
        plaintext = engine.open(data) if self._lock is None else self._alone(engine.open, data)
        if engine.ended or engine.error is not None or self.outgoing.pending:
            # What comes with an end, an error or an answer goes through the buffer, so that it is told in order.
            if plaintext:
                self._buffer.feed(plaintext)
            self._decrypt(b"")
        elif len(plaintext) <= most:
            return plaintext or None
        else:
            self._buffer.feed(plaintext)
        return None

    def fail(self, error: OSError) -> None:
        """Take the error that ended the TCP stream: a cut, whatever it is called, unless the peer had said goodbye."""
        if not self.engine.established:
            self._news = self._cut = True
            self._cause = error.with_traceback(None)
        elif is_disconnection_error(SAFE_DISCONN, error):
            self._decrypt(b"", at_end=True, cause=error.with_traceback(None))
        else:
            super().fail(error)

    def _decrypt(self, data: bytes, *, at_end: bool = False, cause: OSError | None = None) -> None:
        pieces: list[bytes] = []
        failure: ssl.SSLError | None = None
        try:
            self._alone(self.engine.feed, data, pieces.append, at_end=at_end)
        except ssl.SSLError as error:
            failure = error
        if pieces:
            self._buffer.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if failure is not None:
            if isinstance(failure, TruncatedError):
                failure.__cause__ = cause
            super().fail(failure)
        elif self.engine.ended:
            super().feed(b"")
        if self.engine.has_output and self.attend is not None:
            self.attend()

    def _not_yet(self, amount: int, *, all_needed: bool = False) -> None:
        self.want_whole = False
        # Twice what came the last time, for who wants much: what is little is not to cost a large block of memory.
        self.want = _GULP if amount < BUFFER_SIZE else max(_GULP, min(2 * self._came, _FLOOD))

    # Sending. All but `has_output` is for whoever has the turn to write.

    @property
    def has_output(self) -> bool:
        """Whether there is ciphertext to send."""
        return bool(self.rest or self.engine.has_output)

    @staticmethod
    def slices(payload: bytes | memoryview) -> Iterable[bytes | memoryview]:
        """The pieces in which ``payload`` is encrypted and sent."""
        if len(payload) <= SLICE:
            return (payload,) if payload else ()
        view = memoryview(payload)
        return (view[start : start + SLICE] for start in range(0, len(view), SLICE))

    def encrypt(self, data: bytes | memoryview) -> None:
        """Turn plaintext into output, ``SLICE`` bytes at once at most.

        Raises:
            ssl.SSLError: the connection has failed, or is shut for writing.
        """
        self._alone(self.engine.encrypt, data)

    def unsent(self) -> bytes | memoryview:
        """The ciphertext to send next, the rest of a record that was begun first; ``b""`` if there is none."""
        if not self.rest:
            self.rest = self._alone(self.engine.output)
        return self.rest

    def seal(self, data: bytes | memoryview) -> bytes | memoryview:
        """What ``encrypt`` and then ``unsent`` come to: this is where every message comes by.

        Raises:
            ssl.SSLError: as ``encrypt`` does.
        """
        if self.rest:
            self.encrypt(data)
        else:
            seal = self.engine.seal
            self.rest = seal(data) if self._lock is None else self._alone(seal, data)
        return self.rest

    def sent(self, count: int) -> bool:
        """So many bytes of ``unsent`` went out; whether that was all of them."""
        if count < len(self.rest):
            self.rest = memoryview(self.rest)[count:]
            return False
        self.rest = b""
        return True

    def close_notify(self) -> None:
        """Put the end of what we send into the output."""
        self._alone(self.engine.close_notify)

    def farewell(self) -> bytes:
        """The last bytes to send: what is left of a record, and ``close_notify`` unless we stopped ``midway``."""
        if self.lent:
            return b""
        if not self.midway:
            self.close_notify()
        return bytes(self.rest) + self._alone(self.engine.output)
