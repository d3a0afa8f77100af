"""A stream inside TLS: what ``StreamCore`` is to the wire, with an engine in between.

Requests are answered as ever, from the buffer, which holds plaintext. What is fed is ciphertext, and all of it is
decrypted at once: it is no more than one read of the kernel. So there is one place where received data can wait.

The ciphertext that is to be sent belongs to whoever has the turn to write. A read can make some, too (the answer to a
key update, an alert). ``attend`` then sends it if nobody has the turn; who has it looks again after giving it back.

Nothing here minds threads: the tasks of one loop are never at work at one time. ``locked_tls`` adds what threads need.

Who stops in the midst of a message is not to say goodbye as if it were done: ``midway`` is what ``farewell`` looks at.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import ClassVar, TypeVar

from wireline._core.buffer import fed
from wireline._core.stream import NOTHING, StreamCore
from wireline._core.tls_engine import PORTION, RECORD, RECORD_ON_WIRE, TlsEngine, TruncatedError
from wireline.errors import copy_for_reraise
from wireline.options import BUFFER_SIZE, SAFE_DISCONN, is_disconnection_error

__all__ = ["SLICE", "TlsCore"]

T = TypeVar("T")

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
        engine: the TLS connection. Sockets call it through this object, which may be one that holds a lock meanwhile.
        outgoing: where the engine leaves ciphertext that is to be sent, besides ``rest``.
        attend: is called when a read has made output, to send it if nobody else is sending.
        midway: a send has begun to send a message and not come to its end. Set by whoever sends.
        rest: what is left to send of the ciphertext that was taken last.
        gone: bytes at the front of ``rest`` that the system has taken, and that are not cut off yet. It is set by
            ``for core.gone in map(send, ...): break``, which stores the number before a signal handler can raise an
            exception: the next send finds it here, and sends nothing twice.
        lent: ``unsent`` is being sent in this moment, and nobody can know how much of it is gone. Set by whoever sends.
    """

    __slots__ = (
        "_came",
        "_cause",
        "_cut",
        "_news",
        "_opened",
        "attend",
        "engine",
        "gone",
        "lent",
        "midway",
        "outgoing",
        "rest",
    )

    plain = False
    shared: ClassVar[bool] = False
    """Whether several threads may use it."""
    slice_size: ClassVar[int] = SLICE

    def __init__(self, engine: TlsEngine, *, buffered: bool = True) -> None:
        super().__init__(buffered=buffered)
        self.engine = engine
        self.outgoing = engine.outgoing
        self.want = _GULP
        self._came = 0  # bytes of ciphertext, the last time
        self.rest: bytes | memoryview = b""
        self.gone = 0
        self._news = self._cut = False
        self._opened: bytes | None = (
            None  # what `inbox` is, if it is the answer of a request and not ciphertext
        )
        self.lent = self.midway = False
        self._cause: OSError | None = None
        self.attend: Callable[[], object] | None = None

    def ask(self, question: Callable[[ssl.SSLObject], T]) -> T:
        """Put a question to the connection."""
        return question(self.engine.obj)

    # The handshake: `handshake`, send the output, wait for `news`, and again.

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is done. There may be output after each step, failed or not.

        Application data that came with its last packet is kept for the first read (T7).

        Raises:
            ssl.SSLError: it failed, as every later use of the connection will.
        """
        try:
            done = self.engine.handshake(at_end=self._cut)
        except ssl.SSLError as error:
            if isinstance(error, TruncatedError):
                error.__cause__ = self._cause
            # A copy: the frames of the one that is raised would keep the socket alive.
            super().fail(copy_for_reraise(error))
            raise
        if done:
            self._decrypt(at_end=self._cut)
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
        """Take what the network gave; ``b""`` is the end of the TCP stream, which must not come unannounced.

        When an exception of a signal handler has ended this or ``feed_some``, the same object is to be fed again.
        """
        engine = self.engine
        if not engine.established:
            self._news = True
            self._cut = self._cut or not data
            engine.feed_handshake(data)
            return
        if 0 < len(data) <= RECORD_ON_WIRE:
            # This one, and not what a class below makes of it: it is part of what we do.
            plaintext = TlsCore.feed_some(self, data, RECORD)
            if plaintext:
                engine.due, engine.plaintext = data, plaintext  # until the buffer has it
                self._buffer.feed(plaintext)
        else:
            self._take_in(data, at_end=not data)
        engine.due = engine.plaintext = b""

    def feed_some(self, data: bytes, most: int) -> bytes | None:
        # Where every message comes by. Mostly it is one record, and just that is done here.
        engine = self.engine
        size = len(data)
        if engine.due or not engine.at_ease or size > RECORD_ON_WIRE:
            self._take_in(data)
            engine.due = b""
            return None
        self._came = 0
        self.want = _GULP
        incoming, opened = engine.incoming, engine.opened
        # As in `open_all`: an exception can only come when all of it is done.
        engine.given = size
        engine.due = data
        incoming.write(data)
        engine.plaintext = None
        try:
            if engine.careful:
                engine.plaintext = engine.records.open()
            else:
                for engine.plaintext in opened:  # that keeps it, see the engine
                    break
        except ssl.SSLError as error:
            engine.plaintext = b""
            engine.stopped(error)
        else:
            plaintext = engine.plaintext
            if not plaintext:
                engine.end()
            elif len(plaintext) <= most and not incoming.pending and not self.outgoing.pending:
                # No exception can come from here to the caller's next call.
                engine.due = engine.plaintext = b""
                return plaintext
        self._take_in(data)
        engine.due = b""
        return None

    def _take_in(self, data: bytes, *, at_end: bool = False) -> None:
        """Decrypt into the buffer, and see to what comes along: an end, an error, or something to answer."""
        self.at_rest = False
        self._came = len(data)
        engine = self.engine
        engine.open_all(data)
        if self.inbox is not None:
            # Both, for no exception can come in between: until here it is done again with the same object.
            engine.due = b""
            self.inbox = None
        self._hand_on()
        if at_end or engine.ended or engine.error is not None or self.outgoing.pending:
            self._decrypt(at_end=at_end)

    def _hand_on(self) -> None:
        """Give the buffer what was decrypted."""
        engine = self.engine
        pieces = engine.decrypted
        if not pieces:
            return
        if self.undo is None:
            self._buffer.feed_pieces(pieces)
        elif fed(self.undo) is not pieces:
            self._buffer.feed_pieces(list(pieces))
            self.undo = self._buffer.state(pieces)  # from here on it is clear that it has them
        engine.decrypted = []

    # For calls that may be interrupted: decrypting cannot be undone, so it is noted how far it came.

    def take_in(self, most: int = 0) -> bytes | None:
        data = self.inbox
        engine = self.engine
        if self.undo is None:
            self.undo = NOTHING  # else it was noted before the request
        if type(data) is bytes and data and engine.at_ease:
            answer = TlsCore.feed_some(self, data, most or RECORD)
            if answer is not None:
                # It takes the place of the ciphertext, and no exception can come in between.
                self._opened = self.inbox = answer
                if most:
                    self.at_rest = self.buffered
                    return answer
        self._feed_inbox()
        return None

    def _feed_inbox(self) -> None:
        data = self.inbox
        if type(data) is bytes and data is not self._opened:
            if self.engine.established:
                self._take_in(data, at_end=not data)
            else:
                self.feed(data)
                self.inbox = None
        else:
            if isinstance(data, OSError):
                self.fail(data)
            elif data is not None:
                self.at_rest = False
                self._buffer.feed(data)
            self._taken_in()
        self._opened = None

    def recover(self) -> None:
        self._go_back()
        self._hand_on()
        if self.engine.ended or self.engine.error is not None:
            self._decrypt()
        self.done()

    def fail(self, error: OSError) -> None:
        """Take the error that ended the TCP stream: a cut, whatever it is called, unless the peer had said goodbye."""
        if not self.engine.established:
            self._news = self._cut = True
            self._cause = error.with_traceback(None)
        elif is_disconnection_error(SAFE_DISCONN, error):
            self._decrypt(at_end=True, cause=error.with_traceback(None))
        else:
            super().fail(error)

    def _decrypt(self, *, at_end: bool = False, cause: OSError | None = None) -> None:
        self.at_rest = False
        engine = self.engine
        failure: ssl.SSLError | None = None
        if engine.error is None:
            engine.open_all(b"")
            engine.due = b""
            self._hand_on()
        try:
            engine.conclude(at_end=at_end)
        except ssl.SSLError as error:
            failure = error
        if failure is not None:
            if isinstance(failure, TruncatedError):
                failure.__cause__ = cause or self.broken
            super().fail(failure)
        elif self.engine.ended:
            # Not by `feed(b"")`, which asks for a reset that a send has found: the peer had said goodbye before that,
            # and a reset after it takes nothing away from a reader.
            self.at_rest = False
            self._ended = True
        if self.engine.has_output:
            self._attend()

    def _attend(self) -> None:
        if self.attend is not None:
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
        self.engine.encrypt(data)

    def unsent(self) -> bytes | memoryview:
        """The ciphertext to send next, the rest of a record that was begun first; ``b""`` if there is none."""
        if self.gone:
            self._cut_off()
        if not self.rest:
            engine = self.engine
            if not engine.ready:
                for self.rest in engine.outputs:  # that keeps it, see the engine
                    break
            elif engine.has_output:
                engine.gather()
                joined = b"".join(engine.ready)
                self.rest = joined
                engine.ready, engine.holding = [], False
        return self.rest

    def seal(self, data: bytes | memoryview) -> bytes | memoryview:
        """What ``encrypt`` and then ``unsent`` come to: this is where every message comes by.

        Raises:
            ssl.SSLError: as ``encrypt`` does.
        """
        engine = self.engine
        size = len(data)
        if self.rest or engine.ready or not engine.may_write or size > PORTION:
            self.encrypt(data)
            return self.unsent()
        accepted = engine.accepted + size
        try:
            engine.accepted = accepted
            engine.write(data)
        except ssl.SSLError as error:
            engine.accepted = accepted - size
            raise engine.failed(error) from error.__cause__
        for self.rest in engine.outputs:  # that keeps it, see the engine
            break
        return self.rest

    def push(self, send: Callable[[bytes | memoryview, int], int], flags: int) -> bool:
        """Make one attempt to send ``unsent``; whether all of that is gone.

        Args:
            send: the socket's; it raises ``BlockingIOError`` where there is no room.
            flags: for it.
        """
        data = self.unsent()
        for self.gone in map(send, (data,), (flags,)):  # that keeps it
            break
        self._cut_off()
        return not self.rest

    def sent(self, count: int) -> bool:
        """So many bytes of ``unsent`` went out; whether that was all of them."""
        self.gone = count
        self._cut_off()
        return not self.rest

    def _cut_off(self) -> None:
        """Take from ``rest`` what is gone."""
        left = memoryview(self.rest)[self.gone :] if self.gone < len(self.rest) else b""
        # Both, for no exception can come in between.
        self.rest = left
        self.gone = 0

    def close_notify(self) -> None:
        """Put the end of what we send into the output."""
        self.engine.close_notify()

    def farewell(self) -> bytes:
        """The last bytes to send: what is left of a record, and ``close_notify`` unless we stopped ``midway``."""
        if self.lent:
            return b""
        if not self.midway:
            self.close_notify()
        if self.gone:
            self._cut_off()
        return bytes(self.rest) + self.engine.output()
