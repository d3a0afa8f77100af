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

__all__ = ["PORTION", "RECORD", "RECORD_ON_WIRE", "Policy", "TlsEngine", "TruncatedError"]

# A read gives one record at most, and that is its size (RFC 8446, 5.1).
RECORD = 16 * 1024

# The same record in TLS 1.3, encrypted. In pieces of this size bulk is not cut in the midst of records: to be told that
# one is not there whole yet costs a tenth of decrypting it.
RECORD_ON_WIRE = RECORD + 22

# Bytes to encrypt at once. A memory BIO never gives back the memory that it needed once. Encrypting 64 KiB in portions
# of 16, 32 and 64 KiB takes 19.8, 18.7 and 17.0 us, and of a connection that has sent and received as much there are
# 72, 94 and 138 kB for its life.
PORTION = 32 * 1024


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

    A message is mostly one call of OpenSSL, and where every message comes by (``TlsCore``) it is made without asking
    here: ``at_ease`` and ``may_write`` say when that is possible. What it gives besides data is told to ``end``,
    ``stopped`` or ``failed``.

    Attributes:
        at_ease: the handshake is done, data has come before, and nothing has ended.
        may_write: nothing has failed, and ``close_notify`` was not sent.
        read, write: OpenSSL's.
        incoming: where ciphertext is put that is to be read.
        obj: the ``ssl.SSLObject``.
        policy: what was decided about this connection.
        established: the handshake is done, and the peer was not refused.
        ended: the peer has sent its ``close_notify``.
        error: what ended the connection for good; nothing more is asked of OpenSSL.
        outgoing: where ciphertext waits to be sent; ``output`` takes it.
    """

    __slots__ = (
        "_ready",
        "_remembered",
        "at_ease",
        "ended",
        "error",
        "established",
        "incoming",
        "may_write",
        "obj",
        "outgoing",
        "policy",
        "read",
        "write",
    )

    def __init__(
        self, obj: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, policy: Policy
    ) -> None:
        self.obj = obj
        self.policy = policy
        self.established = False
        self.ended = False
        self.incoming = incoming
        self.outgoing = outgoing
        # What `SSLObject` only passes on to: one Python call less for each record.
        inner = getattr(obj, "_sslobj", obj)
        self.read: Callable[[int], bytes] = inner.read
        self.write: Callable[[bytes | memoryview], int] = inner.write
        self.error: ssl.SSLError | None = None
        self.at_ease = False
        self.may_write = True
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
        self.incoming.write(data)

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
                raise self.failed(TruncatedError("the peer went away during the handshake")) from None
            return False
        except ssl.SSLError as error:
            failure = self.failed(self.policy.explain(error))
            raise failure from failure.__cause__
        try:
            self.policy.check(self.obj)
        except ssl.SSLError as error:
            self.failed(error)
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
            self.end()

    def open_all(self, data: bytes) -> list[bytes]:
        """Decrypt, and raise nothing: ``ended`` and ``error`` say what came after what was in each record."""
        pieces: list[bytes] = []
        incoming, read = self.incoming, self.read
        view = memoryview(data)
        for start in range(0, len(view) or 1, RECORD_ON_WIRE):
            if self.ended or self.error is not None:
                break  # nobody will ever take what comes now, and it must not pile up
            incoming.write(view[start : start + RECORD_ON_WIRE])
            try:
                # Looked at first: to be told that there is no record costs as much as a small record.
                while incoming.pending:
                    if not (piece := read(RECORD)):
                        self.end()
                        break
                    pieces.append(piece)
            except ssl.SSLError as error:
                self.stopped(error)
        if pieces and not self._remembered:
            # TLS 1.3 sends the tickets after the handshake, with or before the first data.
            self._remembered = True
            self.at_ease = not self.ended and self.error is None
            self.policy.remember(self.obj)
        return pieces

    def stopped(self, error: ssl.SSLError) -> None:
        """A read raised an error."""
        if isinstance(error, ssl.SSLZeroReturnError):
            self.end()  # the peer's close_notify, after ours
        elif not isinstance(error, ssl.SSLWantReadError):  # the record is not there whole yet
            self.failed(error)

    def end(self) -> None:
        """A read gave the end: the peer has sent its ``close_notify``."""
        self.ended = True
        self.at_ease = False

    def encrypt(self, data: bytes | memoryview) -> None:
        """Turn plaintext into output; it is as much memory until it is taken, and 64 KiB at once is a good measure.

        Raises:
            ssl.SSLError: the connection has failed before.
            BrokenPipeError: ``close_notify`` was sent.
        """
        if self.error is not None:
            raise fresh_copy(self.error)
        if not self.may_write:
            raise BrokenPipeError(errno.EPIPE, "the TLS connection was shut for writing")
        try:
            if len(data) > PORTION:
                self._encrypt_in_portions(memoryview(data))
            elif data:
                self.write(data)
        except ssl.SSLError as error:
            raise self.failed(error) from error.__cause__

    def _encrypt_in_portions(self, data: memoryview) -> None:
        for start in range(0, len(data), PORTION):
            if start:
                self._ready.append(self.outgoing.read())
            self.write(data[start : start + PORTION])

    def close_notify(self) -> None:
        """Say that nothing more will be sent. Reading goes on. Twice, or after an error, is fine and does nothing."""
        if not self.may_write or not self.established:
            return
        self.may_write = False
        try:
            self.obj.unwrap()
        except ssl.SSLWantReadError:
            pass  # the peer has not said so yet, and need not
        except ssl.SSLError as error:
            self.failed(error)  # of reading: our own is in the output by now

    def abandon(self, cause: BaseException) -> ssl.SSLError:
        """End a handshake that nobody will go on with; return the error that every later use gets."""
        if self.error is None:
            self.failed(ssl.SSLError(ssl.SSL_ERROR_SSL, f"the TLS handshake was not finished: {cause}"))
        assert self.error is not None
        return self.error

    def failed(self, error: ssl.SSLError) -> ssl.SSLError:
        """Remember the error that ended the connection: OpenSSL is not to be asked again after one."""
        self.error = fresh_copy(error)
        self.at_ease = self.may_write = False
        return error
