"""One TLS connection over two memory BIOs: ciphertext in, plaintext out, and the other way round.

Never ``ssl.SSLSocket``: one thread that reads and one that writes the same one break it, as OpenSSL's maintainers
say plainly (openssl#20446; it loses 7 to 15 of 100 connections). Here OpenSSL only ever sees memory, and whoever owns
the engine keeps threads apart for as long as a call takes, which is never as long as the network takes.

What the end of the TCP stream means is decided here and not by OpenSSL, whose answer differs from release to release
(3.11.0 to 3.11.2 take a cut connection for a clean end): it is ``TruncatedError`` unless ``close_notify`` came first.

After a fatal error nothing more is asked of OpenSSL; the error is raised again.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from wireline.errors import WirelineError, fresh_copy

if TYPE_CHECKING:
    from wireline.tls import Certificate, TlsInfo

__all__ = ["RECORD_ON_WIRE", "Policy", "TlsEngine", "TruncatedError"]

# A read gives one record at most, and that is its size (RFC 8446, 5.1).
_RECORD = 16 * 1024

# The same record in TLS 1.3, encrypted. In pieces of this size bulk is not cut in the midst of records: to be told that
# one is not there whole yet costs a tenth of decrypting it.
RECORD_ON_WIRE = _RECORD + 22

# Bytes to encrypt at once. A memory BIO never gives back the memory that it needed once. Encrypting 64 KiB in portions
# of 16, 32 and 64 KiB takes 19.8, 18.7 and 17.0 us, and of a connection that has sent and received as much there are
# 72, 94 and 138 kB for its life.
_PORTION = 32 * 1024


class TruncatedError(WirelineError, ssl.SSLError):
    """The peer went away without ``close_notify``: what was received may be only a part of what was sent."""

    # What OpenSSL calls it; `ssl.SSLError` has these only where OpenSSL itself raised it.
    library = "SSL"
    reason = "UNEXPECTED_EOF_WHILE_READING"

    def __init__(self, message: str = "the peer went away without close_notify") -> None:
        super().__init__(ssl.SSL_ERROR_EOF, message)


class Policy(Protocol):
    """What is decided about one connection, above the engine."""

    @property
    def ragged_eof(self) -> bool:
        """Whether the end of the TCP stream is an end of the TLS stream as well, knowingly."""
        raise NotImplementedError

    def prepare(self, obj: ssl.SSLObject) -> None:
        """Do what has to be done to a connection before its handshake."""

    def check(self, obj: ssl.SSLObject) -> None:
        """Look at a finished handshake, before anything is handed out; raise ``ssl.SSLError`` to refuse the peer."""

    def explain(self, error: ssl.SSLError) -> ssl.SSLError:
        """Say more about a handshake that failed: the same error, or a better one."""
        raise NotImplementedError

    def remember(self, obj: ssl.SSLObject) -> None:
        """The peer has sent application data: its session is complete and may be kept."""

    # What the sockets' properties of the same meaning return.

    def certificates(self, obj: ssl.SSLObject) -> list[Certificate]: ...
    def psk_identity(self, obj: ssl.SSLObject) -> str: ...
    def info(self, obj: ssl.SSLObject) -> TlsInfo: ...
    def pointer(self, obj: ssl.SSLObject) -> int: ...


class TlsEngine:
    """One TLS connection.

    Attributes:
        obj: the ``ssl.SSLObject``.
        policy: what was decided about this connection.
        established: the handshake is done, and the peer was not refused.
        ended: the peer has sent its ``close_notify``.
        error: what ended the connection for good; nothing more is asked of OpenSSL.
        outgoing: where ciphertext waits to be sent; ``output`` takes it.
    """

    __slots__ = (
        "_close_sent",
        "_incoming",
        "_read",
        "_ready",
        "_remembered",
        "_write",
        "ended",
        "error",
        "established",
        "obj",
        "outgoing",
        "policy",
    )

    def __init__(
        self, obj: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, policy: Policy
    ) -> None:
        self.obj = obj
        self.policy = policy
        self.established = False
        self.ended = False
        self._incoming = incoming
        self.outgoing = outgoing
        # What `SSLObject` only passes on to: one Python call less for each record.
        inner = getattr(obj, "_sslobj", obj)
        self._read: Callable[[int], bytes] = inner.read
        self._write: Callable[[bytes | memoryview], int] = inner.write
        self.error: ssl.SSLError | None = None
        self._close_sent = False
        self._ready: list[bytes] = []
        self._remembered = False
        policy.prepare(obj)

    @property
    def has_output(self) -> bool:
        """Whether there is ciphertext to send."""
        return self.outgoing.pending > 0 or bool(self._ready)

    def output(self) -> bytes:
        """Take the ciphertext that is to be sent."""
        if not self._ready:
            return self.outgoing.read()
        ready = [*self._ready, self.outgoing.read()]
        self._ready.clear()
        return b"".join(ready)

    def feed_handshake(self, data: bytes) -> None:
        """Take ciphertext while the handshake is not done."""
        self._incoming.write(data)

    def handshake(self, *, at_end: bool = False) -> bool:
        """Go on with the handshake; True when it is done. ``has_output`` may be true after each step.

        Args:
            at_end: the TCP stream has ended.

        Raises:
            ssl.SSLError: it failed, or the policy refuses the peer. The output is the alert that says so.
        """
        if self.error is not None:
            raise fresh_copy(self.error)
        try:
            self.obj.do_handshake()
        except ssl.SSLWantReadError:
            if at_end:
                raise self._failed(TruncatedError("the peer went away during the handshake")) from None
            return False
        except ssl.SSLError as error:
            failure = self._failed(self.policy.explain(error))
            raise failure from failure.__cause__
        try:
            self.policy.check(self.obj)
        except ssl.SSLError as error:
            self._failed(error)
            raise
        self.established = True
        return True

    def feed(self, data: bytes, take: Callable[[bytes], object], *, at_end: bool = False) -> None:
        """Decrypt.

        Args:
            data: what the network gave.
            take: is called with what was decrypted, if anything was, before an error is raised.
            at_end: the TCP stream ends after this.

        Raises:
            TruncatedError: the TCP stream ended and nobody had said that it would.
            ssl.SSLError: the ciphertext is no good, or the peer sent an alert.
        """
        if self.error is None:
            for plaintext in self.open_all(data):
                take(plaintext)
        if self.error is not None:
            raise fresh_copy(self.error)
        if at_end and not self.ended:
            if not self.policy.ragged_eof:
                raise TruncatedError  # of reading: writing may still work, or fails by itself
            self.ended = True

    def open(self, data: bytes) -> bytes:
        """Decrypt, and raise nothing: ``ended`` and ``error`` say what came after the data.

        It is folded for the common case, one record, whole: this is where every message comes by.
        """
        if len(data) > RECORD_ON_WIRE or self.ended or self.error is not None or not self._remembered:
            return b"".join(self.open_all(data))
        incoming = self._incoming
        incoming.write(data)
        try:
            piece = self._read(_RECORD)
        except ssl.SSLError as error:
            self._stopped(error)
            return b""
        if piece and not incoming.pending:
            return piece
        self.ended = not piece
        return b"".join([piece, *self.open_all(b"")])

    def open_all(self, data: bytes) -> list[bytes]:
        """Decrypt like ``open``, what may be many records; what was in each of them."""
        pieces: list[bytes] = []
        incoming, read = self._incoming, self._read
        view = memoryview(data)
        for start in range(0, len(view) or 1, RECORD_ON_WIRE):
            if self.ended or self.error is not None:
                break  # nobody will ever take what comes now, and it must not pile up
            incoming.write(view[start : start + RECORD_ON_WIRE])
            try:
                # Looked at first: to be told that there is no record costs as much as a small record.
                while incoming.pending:
                    if not (piece := read(_RECORD)):
                        self.ended = True
                        break
                    pieces.append(piece)
            except ssl.SSLError as error:
                self._stopped(error)
        if pieces and not self._remembered:
            # TLS 1.3 sends the tickets after the handshake, with or before the first data.
            self._remembered = True
            self.policy.remember(self.obj)
        return pieces

    def _stopped(self, error: ssl.SSLError) -> None:
        """A read did not give anything."""
        if isinstance(error, ssl.SSLZeroReturnError):
            self.ended = True  # the peer's close_notify, after ours
        elif not isinstance(error, ssl.SSLWantReadError):  # the record is not there whole yet
            self._failed(error)

    def encrypt(self, data: bytes | memoryview) -> None:
        """Turn plaintext into output; it is as much memory until it is taken, and 64 KiB at once is a good measure.

        Raises:
            ssl.SSLError: the connection has failed before.
            BrokenPipeError: ``close_notify`` was sent.
        """
        if self.error is not None:
            raise fresh_copy(self.error)
        if self._close_sent:
            raise BrokenPipeError(errno.EPIPE, "the TLS connection was shut for writing")
        try:
            if len(data) > _PORTION:
                self._encrypt_in_portions(memoryview(data))
            elif data:
                self._write(data)
        except ssl.SSLError as error:
            raise self._failed(error) from error.__cause__

    def seal(self, data: bytes | memoryview) -> bytes:
        """What ``encrypt`` and then ``output`` come to, folded for what fits into one portion.

        Raises:
            ssl.SSLError, BrokenPipeError: as ``encrypt`` does.
        """
        if self.error is not None or self._close_sent or len(data) > 2 * _PORTION:
            self.encrypt(data)
            return self.output()
        try:
            if len(data) <= _PORTION:
                self._write(data)
                return self.outgoing.read()
            view = memoryview(data)
            self._write(view[:_PORTION])
            begin = self.outgoing.read()
            self._write(view[_PORTION:])
            return begin + self.outgoing.read()
        except ssl.SSLError as error:
            raise self._failed(error) from error.__cause__

    def _encrypt_in_portions(self, data: memoryview) -> None:
        for start in range(0, len(data), _PORTION):
            if start:
                self._ready.append(self.outgoing.read())
            self._write(data[start : start + _PORTION])

    def close_notify(self) -> None:
        """Say that nothing more will be sent. Reading goes on. Twice, or after an error, is fine and does nothing."""
        if self._close_sent or self.error is not None or not self.established:
            return
        self._close_sent = True
        try:
            self.obj.unwrap()
        except ssl.SSLWantReadError:
            pass  # the peer has not said so yet, and need not
        except ssl.SSLError as error:
            self._failed(error)  # of reading: our own is in the output by now

    def abandon(self, cause: BaseException) -> ssl.SSLError:
        """End a handshake that nobody will go on with; return the error that every later use gets."""
        if self.error is None:
            self._failed(ssl.SSLError(ssl.SSL_ERROR_SSL, f"the TLS handshake was not finished: {cause}"))
        assert self.error is not None
        return self.error

    def _failed(self, error: ssl.SSLError) -> ssl.SSLError:
        """Remember the error that ended the connection: OpenSSL is not to be asked again after one."""
        self.error = fresh_copy(error)
        return error
