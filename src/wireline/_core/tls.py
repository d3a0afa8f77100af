"""A stream inside TLS: a ``StreamCore`` with an engine between it and the wire.

Requests are answered from the buffer, which holds plaintext. Received bytes are ciphertext, and all of them are
decrypted at once: they are no more than one receive. So there is one place where received data can wait. Of an
unbuffered stream one receive is the rest of a record at most, so that records wait in the kernel, where ``select`` sees
them; only what a record has beyond the size that was asked for waits here.

The ciphertext to send belongs to the call that holds the write lock. A read can make some, too (the answer to a key
update, an alert). ``on_output`` then sends it if the lock is free; a call that holds the lock checks for it after
releasing it.

Nothing here is thread-safe: two tasks of one loop never run at the same time. ``locked_tls`` adds what threads need.

A message of which only a part was sent must not be followed by ``close_notify``, which would say that it was whole: so
``final_bytes`` looks at ``message_incomplete``.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import ClassVar, TypeVar

from wireline._core.buffer import fed
from wireline._core.lines import whole_line
from wireline._core.stream import COUNTED, NOTHING, SOME, Direct, Sender, StreamCore
from wireline._core.tls_engine import (
    MAX_CIPHERTEXT_RECORD,
    MAX_PLAINTEXT_PER_WRITE,
    RECORD,
    TlsEngine,
    TruncatedError,
)
from wireline._core.tls_layers import InnerTlsEngine
from wireline.errors import copy_for_reraise
from wireline.options import BUFFER_SIZE, SAFE_DISCONN, is_disconnection_error

__all__ = ["SEND_CHUNK", "TlsCore", "TlsSender"]

T = TypeVar("T")

SEND_CHUNK = 64 * 1024
"""Bytes to encrypt and send at once: 4 KiB made bulk three times slower, 1 MiB is no faster."""

# Bytes to receive at least: four whole records, 64 KiB of plaintext. A short message costs no more than with fewer.
_MIN_RECV = 4 * MAX_CIPHERTEXT_RECORD

# The most to receive. A bulk stream that is read by 64 KiB takes 51 us of CPU time for each of these if one system call
# gives 64 KiB, 42 with 256, 37 with 512 and 34 with 1024: fewer system calls and turns of the loop, and the kernel
# opens the window less often. Decrypting 512 KiB takes 0.15 ms, in which the loop does nothing else.
_MAX_RECV = 8 * _MIN_RECV


class TlsCore(StreamCore):
    """Ciphertext in, answers out; plaintext in, ciphertext out.

    Attributes:
        engine: the TLS connection. Sockets call it through this object, which may hold a lock meanwhile.
        outgoing: the engine's ciphertext to send, besides ``unsent``.
        on_output: is called when a read has made output, to send it if no other call is sending.
        unsent: the part of the last ciphertext that is still to be sent.
        wire_sent: bytes of ciphertext that were sent, since the beginning.
        gone: bytes at the front of ``unsent`` that the system has taken, and that are not cut off yet. It is set by
            ``for core.gone in map(send, ...): break``, which stores the number before a signal handler can raise an
            exception: the next send finds it here, and sends nothing twice.
    """

    __slots__ = (
        "_eof_cause",
        "_eof_seen",
        "_handshake_input",
        "_last_read_size",
        "_opened",
        "engine",
        "gone",
        "on_output",
        "outgoing",
        "unsent",
        "wire_sent",
    )

    is_tls = True
    seals = True
    sender_references = 1
    thread_safe: ClassVar[bool] = False
    """Whether several threads may use it."""

    def __init__(self, engine: TlsEngine, *, buffered: bool = True) -> None:
        super().__init__(buffered=buffered)
        self.engine = engine
        self.outgoing = engine.outgoing
        self.recv_size = _MIN_RECV
        self._last_read_size = 0
        self.unsent: bytes | memoryview = b""
        self.gone = self.wire_sent = 0
        self._handshake_input = self._eof_seen = False
        self._opened: bytes | None = None  # the `inbox`, if it is plaintext by now and not ciphertext
        self._eof_cause: OSError | None = None
        self.on_output: Callable[[], object] | None = None

    def wire_traffic(self, payload_sent: int) -> tuple[int, int]:
        return self.engine.wire_received, self.wire_sent

    def continue_counts(self, core: StreamCore, payload_sent: int) -> None:
        """Continue the counts of the core before this one, whose unread bytes are to be fed to this one."""
        unread = len(core)
        wire_received, self.wire_sent = core.wire_traffic(payload_sent)
        # Some of the unread bytes may have been put back, and were never received.
        self.buffer.received = max(core.buffer.received - unread, 0)
        self.engine.wire_received = max(wire_received - unread, 0)
        self.engine.accepted = payload_sent

    def with_ssl_object(self, call: Callable[[ssl.SSLObject], T]) -> T:
        """Make a call with the ``ssl.SSLObject``."""
        return call(self.engine.obj)

    def enter_layer(self, outer: TlsCore) -> None:
        """Before the handshake: be inside the stream of ``outer``, whose place this core takes."""
        self.engine = InnerTlsEngine(self.engine, outer.engine)
        self.outgoing = self.engine.outgoing
        if outer.gone:
            outer._cut_off()
        self.unsent = outer.unsent

    # The handshake: `handshake`, send the output, wait for `handshake_input`, and again.

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is done. There may be output after each step, failed or not.

        Application data in its last packet is kept for the first read (T7).

        Raises:
            ssl.SSLError: it failed, as every later use of the connection will.
        """
        self.engine.record_wise = not self.buffered
        if not self.buffered:
            self.recv_size = self.engine.record_rest
        try:
            done = self.engine.handshake(at_end=self._eof_seen)
        except ssl.SSLError as error:
            if isinstance(error, TruncatedError):
                error.__cause__ = self._eof_cause
            # A copy: the frames of the one that is raised would keep the socket alive.
            super().fail(copy_for_reraise(error))
            raise
        if done:
            self._decrypt(at_end=self._eof_seen)
        return done

    def handshake_input(self) -> bytes | None:
        """A request: whether something was received since the last time, for the next step of the handshake."""
        if not self._handshake_input:
            self._want(1)
            return None
        self._handshake_input = False
        return b"input"

    def fail_handshake(self, error: BaseException) -> None:
        """Give up a handshake that is not finished: nothing can be read or sent any more, least of all in clear."""
        if not self.engine.established:
            super().fail(self.engine.fail_handshake(error))

    # Receiving.

    def accept(self, data: bytes) -> bytes | None:
        if data and self.engine.established:
            plaintext = self.feed_some(data, self.direct_limit or RECORD)
            if plaintext is not None:
                if 0 < len(plaintext) <= self.direct_limit:
                    answer = plaintext if self.direct is SOME else whole_line(plaintext)
                    if answer is not None:
                        self.buffer.received += len(plaintext)
                        self.fast_recv_ok = self.buffered
                        return answer
                self.fast_recv_ok = False
                self.buffer.feed(plaintext)
        else:
            self.feed(data)
        return None

    def feed(self, data: bytes) -> None:
        """Take received ciphertext; ``b""`` is the end of the TCP stream, before which the peer must announce its end.

        When an exception of a signal handler has ended this or ``feed_some``, the same object is to be fed again.
        """
        engine = self.engine
        if not engine.established:
            self._handshake_input = True
            self._eof_seen = self._eof_seen or not data
            engine.feed_handshake(data)
            return
        self.fast_recv_ok = False
        if 0 < len(data) <= MAX_CIPHERTEXT_RECORD:
            # This method, and not the one of a subclass: that one takes the lock a second time.
            plaintext = TlsCore.feed_some(self, data, RECORD)
            if plaintext:
                engine.due, engine.plaintext = data, plaintext  # until the buffer has it
                self.buffer.feed(plaintext)
        else:
            self._feed_ciphertext(data, at_end=not data)
        engine.due = engine.plaintext = b""

    def feed_some(self, data: bytes, most: int) -> bytes | None:
        """Decrypt; return the plaintext if it is one record of at most ``most`` bytes and nothing else is there.

        Otherwise the plaintext goes into the buffer, and None is returned. Every message passes through here, and
        nearly every one is one record: that case is done here, and the others in ``_feed_ciphertext``.
        """
        engine = self.engine
        size = len(data)
        if engine.due or not engine.fast_path_ok or size > MAX_CIPHERTEXT_RECORD:
            self._feed_ciphertext(data)
            engine.due = b""
            return None
        self._last_read_size = 0
        self.recv_size = _MIN_RECV
        incoming, opened = engine.incoming, engine.opened
        # As in `decrypt_all`: a signal handler can only raise an exception when both are done.
        engine.given = size
        engine.due = data
        engine.wire_received += size
        incoming.write(data)
        engine.plaintext = None
        try:
            if engine.careful:
                engine.plaintext = engine.records.open()
            else:
                for engine.plaintext in opened:  # stored before a signal handler can run, see the engine
                    break
        except ssl.SSLError as error:
            engine.plaintext = b""
            engine.on_read_error(error)
        else:
            plaintext = engine.plaintext
            if not plaintext:
                engine.end()
            elif len(plaintext) <= most and not incoming.pending and not self.outgoing.pending:
                # From here to the caller's next call no signal handler can run.
                engine.due = engine.plaintext = b""
                return plaintext
        self._feed_ciphertext(data)
        engine.due = b""
        return None

    def _feed_ciphertext(self, data: bytes, *, at_end: bool = False) -> None:
        """Decrypt all of it into the buffer, and note an end, an error, or output that it made."""
        self.fast_recv_ok = False
        self._last_read_size = len(data)
        engine = self.engine
        engine.decrypt_all(data)
        if self.inbox is not None:
            # Both: no signal handler can run in between. Until here all is repeated with the same object.
            engine.due = b""
            self.inbox = None
        self._buffer_decrypted()
        if at_end or engine.over or self.outgoing.pending:
            self._decrypt(at_end=at_end)

    def _buffer_decrypted(self) -> None:
        """Move what was decrypted into the buffer."""
        engine = self.engine
        pieces = engine.decrypted
        if not pieces:
            return
        if self.undo is None:
            self.buffer.feed_pieces(pieces)
        elif fed(self.undo) is not pieces:
            self._note_received()
            self.buffer.feed_pieces(list(pieces))
            self.undo = self.buffer.state(pieces)  # from here on it is known that the buffer has them
        engine.decrypted = []

    # For calls that may be interrupted: decryption cannot be undone, so its progress is noted.

    def accept_inbox(self) -> bytes | None:
        data = self.inbox
        if self.undo is None:
            self.undo = NOTHING  # else it was noted before the request
        if type(data) is bytes and data and self.engine.fast_path_ok:
            limit = self.direct_limit
            plaintext = TlsCore.feed_some(self, data, limit or RECORD)
            if plaintext is not None:
                # It takes the place of the ciphertext, and no signal handler can run in between.
                self._opened = self.inbox = plaintext
                if limit:
                    answer = plaintext if self.direct is SOME else whole_line(plaintext)
                    if answer is not None:
                        size = len(plaintext)
                        # Both: no signal handler can run in between.
                        self.buffer.received += size
                        self.undo = COUNTED
                        self.fast_recv_ok = self.buffered
                        return answer
        self._feed_inbox()
        return None

    def _feed_inbox(self) -> None:
        data = self.inbox
        if type(data) is bytes and data is not self._opened:
            if self.engine.established:
                self._feed_ciphertext(data, at_end=not data)
            else:
                self.feed(data)
                self.inbox = None
        else:
            if isinstance(data, OSError):
                self.fail(data)
            elif data is not None:
                self.fast_recv_ok = False
                self._note_received()
                self.buffer.feed(data)
            self._empty_inbox()
        self._opened = None

    def recover(self) -> None:
        self._go_back()
        self._buffer_decrypted()
        if self.engine.over:
            self._decrypt()
        self.done()

    def fail(self, error: OSError) -> None:
        """Take the error that ended the TCP stream: a truncation, unless the peer has sent its ``close_notify``."""
        if not self.engine.established:
            self._handshake_input = self._eof_seen = True
            self._eof_cause = error.with_traceback(None)
        elif is_disconnection_error(SAFE_DISCONN, error):
            self._decrypt(at_end=True, cause=error.with_traceback(None))
        else:
            super().fail(error)

    def _decrypt(self, *, at_end: bool = False, cause: OSError | None = None) -> None:
        self.fast_recv_ok = False
        engine = self.engine
        failure: ssl.SSLError | None = None
        if engine.error is None:
            engine.decrypt_all(b"")
            engine.due = b""
            self._buffer_decrypted()
        try:
            engine.conclude(at_end=at_end)
        except ssl.SSLError as error:
            failure = error
        if failure is not None:
            if isinstance(failure, TruncatedError):
                failure.__cause__ = cause or self.pending_reset
            super().fail(failure)
        elif self.engine.ended:
            # Not by `feed(b"")`, which looks for a reset that a send has found: the peer had sent its end before that,
            # and a reset after it takes nothing away from a reader.
            self.fast_recv_ok = False
            self._ended = True
        if self.engine.has_output:
            self._notify_output()

    def _notify_output(self) -> None:
        if self.on_output is not None:
            self.on_output()

    def _want(self, amount: int, direct: Direct = SOME, limit: int = 0) -> None:
        self.fast_recv_ok = False
        self.direct = direct
        self.direct_limit = limit
        if not self.buffered:
            # `select` does not see what is read ahead.
            self.recv_size = self.engine.record_rest
            return
        # For a large request twice the last read: a small one is not to cost a large block of memory.
        last = self._last_read_size
        self.recv_size = _MIN_RECV if amount < BUFFER_SIZE else max(_MIN_RECV, min(2 * last, _MAX_RECV))

    def _want_all(self, size: int, limit: int) -> None:
        # The kernel cannot wait for all of them: how many bytes they are on the wire is not known.
        self._want(size - self.buffer.size)

    # Sending. All but `has_output` is for the call that holds the write lock.

    def sender(self, sock: Sender) -> Sender:
        return TlsSender(self, sock)

    @property
    def has_output(self) -> bool:  # type: ignore[override] # a property would cost each plain message a call
        """Whether there is ciphertext to send."""
        engine = self.engine
        return bool(self.unsent or self.outgoing.pending or (engine.ready and not engine.holding))

    @property
    def accepted(self) -> int:  # type: ignore[override] # likewise
        """Bytes of plaintext that were encrypted to be sent, since the beginning."""
        return self.engine.accepted

    def encrypt(self, data: bytes | memoryview) -> None:
        """Turn plaintext into output, ``SEND_CHUNK`` bytes at once at most.

        Raises:
            ssl.SSLError: the connection has failed, or is shut for writing.
        """
        self.engine.encrypt(data)

    def pending_output(self) -> bytes | memoryview:
        """Return the ciphertext to send next, the rest of a record that was begun first; ``b""`` if there is none."""
        if self.gone:
            self._cut_off()
        if not self.unsent:
            engine = self.engine
            if not engine.ready:
                for self.unsent in engine.outputs:  # stored before a signal handler can run, see the engine
                    break
            elif engine.has_output:
                engine.gather()
                joined = b"".join(engine.ready)
                self.unsent = joined
                engine.ready, engine.holding = [], False
        return self.unsent

    def seal(self, data: bytes | memoryview) -> bytes | memoryview:
        """Do what ``encrypt`` and then ``pending_output`` do. Every message passes through here.

        Raises:
            ssl.SSLError: as ``encrypt`` does.
        """
        engine = self.engine
        size = len(data)
        if self.unsent or engine.ready or not engine.may_write or size > MAX_PLAINTEXT_PER_WRITE:
            self.encrypt(data)
            return self.pending_output()
        accepted = engine.accepted + size
        try:
            engine.accepted = accepted
            engine.write(data)
        except ssl.SSLError as error:
            engine.accepted = accepted - size
            raise engine.set_fatal_error(error) from error.__cause__
        for self.unsent in engine.outputs:  # stored before a signal handler can run, see the engine
            break
        return self.unsent

    def flush(self, send: Callable[[bytes | memoryview, int], int], flags: int) -> bool:
        try:
            while self.pending_output():
                self.push(send, flags)
        except BlockingIOError:
            return False
        return True

    def push(self, send: Callable[[bytes | memoryview, int], int], flags: int) -> bool:
        data = self.pending_output()
        for self.gone in map(send, (data,), (flags,)):  # stored before a signal handler can run
            break
        self._cut_off()
        return not self.unsent

    def sent(self, count: int) -> bool:
        self.gone = count
        self._cut_off()
        return not self.unsent

    def _cut_off(self) -> None:
        """Remove from ``unsent`` what is gone."""
        left = memoryview(self.unsent)[self.gone :] if self.gone < len(self.unsent) else b""
        # All of these: no signal handler can run in between.
        self.unsent = left
        self.wire_sent += self.gone
        self.gone = 0

    def close_notify(self) -> None:
        """Put the end of the stream that we send into the output."""
        self.engine.close_notify()

    def final_bytes(self) -> bytes:
        """Return the rest of a record, and ``close_notify`` unless a message is incomplete."""
        if self.send_in_flight:
            return b""
        self.engine.finish(whole=not self.message_incomplete)
        if self.gone:
            self._cut_off()
        final = bytes(self.unsent) + self.engine.take_output()
        self.wire_sent += len(final)
        return final


class TlsSender:
    """Sends plaintext like a ``socket.socket``, and encrypts it first."""

    __slots__ = ("_core", "_sock")

    def __init__(self, core: TlsCore, sock: Sender) -> None:
        self._core = core
        self._sock = sock

    def send(self, data: bytes | memoryview, flags: int) -> int:
        """Encrypt at most ``SEND_CHUNK`` bytes and make one attempt to send them.

        Returns:
            How many bytes of ``data`` were encrypted; ``core.unsent`` is what the system has not taken of them. 0 while
            ``core.unsent`` is there from an earlier call: memory would grow with each call.

        Raises:
            OSError: of the system, or ``ssl.SSLError``; none of these bytes count as sent.
        """
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
            gone = self._sock.send(sealed, flags)
        except BlockingIOError:
            return size
        except OSError:
            core.engine.accepted -= size  # it is not sent, and never will be
            raise
        except BaseException:
            # A signal handler raised it in a callback of the loop, perhaps after the kernel took some of the bytes.
            message = "a signal handler raised an exception in a send, which is not finished"
            core.engine.set_fatal_error(ssl.SSLError(ssl.SSL_ERROR_SSL, message))
            raise
        if gone != len(sealed):
            core.sent(gone)
            return size
        core.unsent = b""
        core.wire_sent += gone
        if size == whole:
            core.message_incomplete = False
        return size

    def shutdown(self, how: int) -> None:
        """Put ``close_notify`` into the output. ``how`` is ``SHUT_WR``."""
        self._core.close_notify()
