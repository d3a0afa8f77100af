"""One TLS connection over two memory BIOs: ciphertext in, plaintext out, and the other way round.

Never ``ssl.SSLSocket``: one thread that reads and one that writes break it, as OpenSSL's maintainers say
(openssl#20446; it loses 7 to 15 of 100 connections). Here OpenSSL only sees memory, and the owner of the engine lets
one thread call it at a time. No call waits for the network.

What the end of the TCP stream means is decided here and not by OpenSSL, whose answer differs from release to release
(3.11.0 to 3.11.2 take a truncated connection for a clean end): it is ``TruncatedError`` unless ``close_notify`` arrived
before it.

After a fatal error nothing more is asked of OpenSSL; the error is raised again.

A signal handler may raise an exception anywhere in these methods: CPython (3.11 to 3.13) runs handlers after
calls, at the entry of functions and at jumps backwards. At such a moment no bytes are in a local variable alone:
``for self.slot in iterator: break`` makes a call and stores its result with no such moment in between, and each step is
noted directly before the call that does it. The next call of ``decrypt_all`` or ``encrypt`` continues from there. One
moment needs more: ``SSLObject.read`` runs handlers after it has decrypted, and drops the plaintext when one raises. In
the main thread, which alone runs handlers, a ``RecordReader`` loses nothing (``careful``); elsewhere the next call
detects the loss, and the connection fails with an error.
"""

from __future__ import annotations

import errno
import itertools
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, cast

from wireline._core.tls_records import ReadInto, RecordReader, lost
from wireline.errors import WirelineError, copy_for_reraise

if TYPE_CHECKING:
    from wireline.tls import Certificate, TlsInfo

__all__ = [
    "MAX_CIPHERTEXT_RECORD",
    "MAX_PLAINTEXT_PER_WRITE",
    "RECORD",
    "Policy",
    "TlsEngine",
    "TruncatedError",
]

# A read gives one record at most, and that is its size (RFC 8446, 5.1).
RECORD = 16 * 1024

# The same record in TLS 1.3, encrypted. Pieces of this size do not cut the records of bulk: an attempt to decrypt a
# part of a record costs a tenth of decrypting it.
MAX_CIPHERTEXT_RECORD = RECORD + 22

# Bytes to encrypt at once. A memory BIO never gives back the memory that it needed once. Encrypting 64 KiB in portions
# of 16, 32 and 64 KiB takes 19.8, 18.7 and 17.0 us, and of a connection that has sent and received as much there are
# 72, 94 and 138 kB for its life.
MAX_PLAINTEXT_PER_WRITE = 32 * 1024

# The limit in bytes on unsent output when a read adds to it. A peer that asks for answers (key updates) and reads none
# makes the connection fail at this size instead of using memory without bound. The largest slice of a message that is
# being sent takes half of it; the other half holds the answers to more than 2,000 key updates.
MOST_UNSENT = 128 * 1024

_ALL = (-1,)  # what a memory BIO is asked for
_HEADER = 5  # bytes of a record, and the length at their end (RFC 8446, 5.1)
_LENGTH_AT = 3


class TruncatedError(WirelineError, ssl.SSLError):
    """The peer went away without ``close_notify``: what was received may be only a part of what was sent."""

    # What OpenSSL calls it; `ssl.SSLError` has these only where OpenSSL itself raised it.
    library = "SSL"
    reason = "UNEXPECTED_EOF_WHILE_READING"

    def __init__(self, message: str = "the peer went away without close_notify") -> None:
        super().__init__(ssl.SSL_ERROR_EOF, message)


class Incoming(Protocol):
    """Where ciphertext is put that was received: a ``ssl.MemoryBIO``, or another engine."""

    @property
    def pending(self) -> int: ...
    def write(self, data: bytes | memoryview, /) -> int: ...


class Outgoing(Protocol):
    """Where ciphertext is taken from that is to be sent: likewise."""

    @property
    def pending(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...


class Policy(Protocol):
    """What is decided about one connection, above the engine."""

    @property
    def ragged_eof(self) -> bool:
        """Whether the end of the TCP stream is an end of the TLS stream as well, knowingly."""
        ...

    def check(self, obj: ssl.SSLObject) -> None:
        """Look at a finished handshake, before anything is handed out; raise ``ssl.SSLError`` to refuse the peer."""

    def annotate_error(self, error: ssl.SSLError) -> ssl.SSLError:
        """Say more about a handshake that failed: the same error, or a better one."""
        ...

    def wants_every_ticket(self, obj: ssl.SSLObject) -> bool:
        """Whether ``store_session`` is to be called after each session ticket, and not once with the first data."""
        ...

    def store_session(self, obj: ssl.SSLObject) -> None:
        """The peer has sent a ticket or application data: its session is complete and may be kept.

        The call is made inside a read, with received data at hand: it must not raise an ``Exception``.
        """

    # What the sockets' properties of the same meaning return.

    def certificates(self, obj: ssl.SSLObject) -> list[Certificate]: ...
    def sent_certificates(self, obj: ssl.SSLObject) -> list[Certificate]: ...
    def psk_identity(self, obj: ssl.SSLObject) -> str: ...
    def info(self, obj: ssl.SSLObject) -> TlsInfo: ...
    def pointer(self, obj: ssl.SSLObject) -> int: ...


class TlsEngine:
    """One TLS connection.

    A message is mostly one call of OpenSSL, and ``TlsCore`` makes it without a method of the engine: ``fast_path_ok``
    and ``may_write`` say when that is possible. It reports anything but data to ``end``, ``on_read_error`` or
    ``set_fatal_error``.

    Attributes:
        fast_path_ok: the handshake is done, data has arrived before, and nothing has ended.
        may_write: nothing has failed, and ``close_notify`` was not sent.
        read, write: OpenSSL's.
        opened: gives the plaintext of the next record, without end: what ``read`` gives.
        careful: a signal handler may raise an exception in ``opened``; ``records.open`` then loses nothing.
        incoming: where ciphertext is put that is to be read.
        due, given: what is being fed, and how many bytes of it ``incoming`` has got. ``due`` is emptied at the very end
            of feeding; when it is found with something, an exception has ended the call before.
        plaintext: the record that ``opened`` gave last, until it is in ``decrypted``; None during the call of OpenSSL.
        decrypted: the plaintext of records, for the caller of ``decrypt_all`` to take away.
        accepted: bytes of plaintext that were made into records, since the beginning.
        wire_received: bytes of ciphertext that were fed, since the beginning.
        obj: the ``ssl.SSLObject``.
        policy: what was decided about this connection.
        established: the handshake is done, and the peer was not refused.
        ended: the peer has sent its ``close_notify``.
        error: what ended the connection for good; nothing more is asked of OpenSSL.
        over: nothing more can be decrypted: ``conclude`` says why.
        outgoing: where ciphertext waits to be sent; ``take_output`` takes it.
        outputs: gives what is in ``outgoing``, without end.
        record_wise: no more than the rest of a record is received at once, see ``record_rest``.
        ready: ciphertext to send before the content of ``outgoing``.
        holding: ``ready`` is to wait for more to send.
    """

    __slots__ = (
        "_collecting",
        "_head",
        "_missing",
        "_remembered",
        "accepted",
        "careful",
        "decrypted",
        "due",
        "ended",
        "error",
        "established",
        "fast_path_ok",
        "given",
        "holding",
        "incoming",
        "may_write",
        "obj",
        "opened",
        "outgoing",
        "outputs",
        "over",
        "plaintext",
        "policy",
        "read",
        "ready",
        "record_wise",
        "records",
        "wire_received",
        "write",
    )

    def __init__(self, obj: ssl.SSLObject, incoming: Incoming, outgoing: Outgoing, policy: Policy) -> None:
        self.obj = obj
        self.policy = policy
        self.established = False
        self.ended = self.over = False
        self.incoming = incoming
        self.outgoing = outgoing
        # What `SSLObject` only passes on to: one Python call less for each record.
        inner = getattr(obj, "_sslobj", obj)
        self.read: Callable[[int], bytes] = inner.read
        self.write: Callable[[bytes | memoryview], int] = inner.write
        self.error: ssl.SSLError | None = None
        self.fast_path_ok = False
        self.may_write = True
        self.record_wise = False
        self.due = b""
        self.given = 0
        self.opened: Iterator[bytes] = map(self.read, itertools.repeat(RECORD))
        self.careful = False
        self.records = RecordReader(cast("ReadInto", inner.read), inner.pending, incoming)
        self.plaintext: bytes | None = b""
        self.decrypted: list[bytes] = []
        self.accepted = self.wire_received = 0
        self.outputs: Iterator[bytes] = map(outgoing.read, itertools.repeat(-1))
        self.ready: list[bytes] = []
        self.holding = False
        self._remembered = self._collecting = False
        # Of the record that is being received, while there is a need to know: of its header, if that is not whole yet,
        # what is there; else how many bytes are missing.
        self._head = b""
        self._missing = 0

    @property
    def has_output(self) -> bool:
        """Whether there is ciphertext to send."""
        return self.outgoing.pending > 0 or (bool(self.ready) and not self.holding)

    def take_output(self) -> bytes:
        """Take the ciphertext that is to be sent."""
        if not self.has_output:
            return b""
        self.gather()
        joined = b"".join(self.ready)
        self.ready, self.holding = [], False
        return joined

    def gather(self) -> None:
        """Move what is in ``outgoing`` to the end of ``ready``."""
        self.ready.extend(map(self.outgoing.read, _ALL))

    def feed_handshake(self, data: bytes) -> None:
        """Take ciphertext while the handshake is not done."""
        self.wire_received += len(data)
        view, start = memoryview(data), 0
        while start < len(view):
            start, self._head, self._missing = self._end_of_record(view, start)
        self.incoming.write(data)

    @property
    def record_rest(self) -> int:
        """How many bytes to receive for the record that has begun, or for a next one: first those of its header."""
        return self._missing or _HEADER - len(self._head)

    def handshake(self, *, at_end: bool = False) -> bool:
        """Go on with the handshake; True when it is done. ``has_output`` may be true after each step.

        Args:
            at_end: the TCP stream has ended.

        Raises:
            ssl.SSLError: it failed, or the policy refuses the peer. The output is the alert that says so.
        """
        if self.error is not None:
            raise copy_for_reraise(self.error)
        sent_before = not self.outgoing.pending
        try:
            self.obj.do_handshake()
        except ssl.SSLWantReadError:
            if at_end:
                raise self.set_fatal_error(
                    TruncatedError("the peer went away during the handshake")
                ) from None
            return False
        except ssl.SSLError as error:
            failure = self.set_fatal_error(self.policy.annotate_error(error))
            try:
                raise failure from failure.__cause__
            finally:
                del failure  # its traceback keeps this frame, and those of the socket
        except Exception as error:  # of a callback that OpenSSL made, and that `ssl` kept: a key log, a trace
            raise self.set_fatal_error(_broken_off(error)) from error
        try:
            self.policy.check(self.obj)
            if self.obj.server_side and sent_before:
                self._hold_tickets()
            self._collecting = not self.incoming.pending and self.policy.wants_every_ticket(self.obj)
        except ssl.SSLError as error:
            self.set_fatal_error(error)
            raise
        except Exception as error:  # a certificate that `ssl` does not get along with
            raise self.set_fatal_error(_broken_off(error)) from error
        self.established = True
        return True

    def _hold_tickets(self) -> None:
        """Keep the session tickets of a TLS 1.3 server until its first write.

        They are the only output of the last step of its handshake. A client that only writes and closes does not read
        them: unread in its kernel they turn its close into a reset, which throws away the end of its data.
        """
        if self.obj.version() == "TLSv1.3" and self.outgoing.pending:
            self.gather()
            self.holding = True

    def feed(self, data: bytes, take: Callable[[bytes], object], *, at_end: bool = False) -> None:
        """Decrypt.

        Args:
            data: what the network gave.
            take: is called with what was decrypted, if anything was, before an error is raised.
            at_end: the TCP stream ends after this.

        Raises:
            TruncatedError: the TCP stream ended without ``close_notify``.
            ssl.SSLError: the ciphertext is no good, or the peer sent an alert.
        """
        if self.error is None:
            self.decrypt_all(data)
            for plaintext in self.decrypted:
                take(plaintext)
            self.decrypted.clear()
            self.due = b""
        self.conclude(at_end=at_end)

    def conclude(self, *, at_end: bool = False) -> None:
        """Raise the error that follows everything that was decrypted, as ``feed`` does."""
        if self.error is not None:
            raise copy_for_reraise(self.error)
        if at_end and not self.ended:
            if not self.policy.ragged_eof:
                raise TruncatedError  # of reading: writing may still work, or fails by itself
            self.end()

    def decrypt_all(self, data: bytes) -> None:
        """Decrypt into ``decrypted``, and raise nothing: ``over`` says whether an end or an error followed.

        If an exception of a signal handler has ended the feeding, the next call goes on, with the same object again, or
        with none. ``data`` is ``due`` afterwards.
        """
        due, view, size = self.due, memoryview(data), len(data)
        if due or not data:
            self._open(memoryview(due), self.given)
            if due is data or not data:
                return
        self.given = 0
        self.due = data
        self.wire_received += size
        self._open(view, 0)

    def _open(self, view: memoryview, start: int) -> None:
        size = len(view)
        self._drain()
        if not self._remembered:
            self._look_for_a_session(whole=False)
        while (
            start < size and not self.ended and self.error is None
        ):  # else it would pile up, for no read takes it
            if self._collecting or self.record_wise:
                end, head, missing = self._end_of_record(view, start)
            else:
                end, head, missing = start + MAX_CIPHERTEXT_RECORD, b"", 0
            start, piece = end, view[start:end]
            # A signal handler can only raise an exception after the last of these.
            self._head = head
            self._missing = missing
            self.given = end
            self.incoming.write(piece)
            self._drain()
            if not self._remembered:
                self._look_for_a_session(whole=not (self._head or self._missing))

    def _drain(self) -> None:
        """Decrypt what ``incoming`` has."""
        incoming, decrypted, opened = self.incoming, self.decrypted, self.opened
        if self.plaintext is None and self.careful:
            self.plaintext = b""  # the reader has it, if there was something
        elif self.plaintext is None:
            self.set_fatal_error(lost())
            self.plaintext = b""
        elif self.plaintext:
            if not decrypted or decrypted[-1] is not self.plaintext:
                decrypted.append(self.plaintext)
            self.plaintext = b""
        try:
            # `pending` first: an attempt to decrypt nothing costs as much as a small record.
            while incoming.pending and self.error is None:
                self.plaintext = None
                if self.careful:
                    self.plaintext = self.records.open()
                else:
                    for self.plaintext in opened:  # see the top of this file
                        break
                if not (piece := self.plaintext):
                    self.end()
                    break
                decrypted.append(piece)
                self.plaintext = b""
        except ssl.SSLError as error:
            self.plaintext = b""
            self.on_read_error(error)
        if self.outgoing.pending > MOST_UNSENT and self.error is None:
            self.set_fatal_error(_too_much())

    def _look_for_a_session(self, *, whole: bool) -> None:
        """Have a session stored, until data has arrived.

        TLS 1.3 sends the tickets after the handshake, with or before the first data, and OpenSSL remembers the last
        one that it saw. While they are collected it gets one record at a time, and a whole one that gives no data has
        been a ticket.

        Args:
            whole: ``incoming`` got a record up to its end.
        """
        if self.decrypted:
            self._remembered = True
            self.fast_path_ok = not self.ended and self.error is None and not self.record_wise
            if not self._collecting:
                self.policy.store_session(self.obj)
            self._collecting = False
        elif whole and self._collecting and not self.ended and self.error is None:
            self.policy.store_session(self.obj)
            self._collecting = self.policy.wants_every_ticket(self.obj)

    def collect_no_tickets(self) -> None:
        """Have one session stored, with the first data: records do not arrive one by one."""
        self._collecting = False

    def _end_of_record(self, view: memoryview, start: int) -> tuple[int, bytes, int]:
        """Find the end of the record that goes on at ``start``.

        Returns:
            The end, or that of ``view`` if it is before; and what ``_head`` and ``_missing`` are from there on.
        """
        head, missing = self._head, self._missing
        if not missing:
            end = start + _HEADER - len(head)
            head += bytes(view[start:end])
            if len(head) < _HEADER:
                return len(view), head, 0
            start, missing, head = end, int.from_bytes(head[_LENGTH_AT:], "big"), b""
        end = min(start + missing, len(view))
        return end, head, missing - (end - start)

    def on_read_error(self, error: ssl.SSLError) -> None:
        """A read raised an error."""
        if isinstance(error, ssl.SSLZeroReturnError):
            self.end()  # the peer's close_notify, after ours
        elif not isinstance(error, ssl.SSLWantReadError):  # the record is not there whole yet
            self.set_fatal_error(error)

    def end(self) -> None:
        """A read gave the end: the peer has sent its ``close_notify``."""
        self.ended = self.over = True
        self.fast_path_ok = False

    def encrypt(self, data: bytes | memoryview) -> None:
        """Turn plaintext into output; it is as much memory until it is taken, and 64 KiB at once is a good measure.

        Raises:
            ssl.SSLError: the connection has failed before.
            BrokenPipeError: ``close_notify`` was sent.
        """
        if self.error is not None:
            raise copy_for_reraise(self.error)
        if not self.may_write:
            raise BrokenPipeError(errno.EPIPE, "the TLS connection was shut for writing")
        if not data:
            return
        self.holding = False
        if len(data) <= MAX_PLAINTEXT_PER_WRITE:
            self._encrypt(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), MAX_PLAINTEXT_PER_WRITE):
            if start:
                self.gather()
            self._encrypt(view[start : start + MAX_PLAINTEXT_PER_WRITE])

    def _encrypt(self, data: bytes | memoryview) -> None:
        accepted = self.accepted + len(data)
        try:
            # Before the write: a signal handler can only raise an exception after it.
            self.accepted = accepted
            self.write(data)
        except ssl.SSLError as error:
            self.accepted = accepted - len(data)
            raise self.set_fatal_error(error) from error.__cause__

    def close_notify(self) -> None:
        """Put ``close_notify`` into the output. Reading goes on. A second call, or one after an error, does nothing."""
        if not self.may_write or not self.established:
            return
        self.may_write = False
        try:
            self.obj.unwrap()
        except ssl.SSLWantReadError:
            pass  # the peer has not said so yet, and need not
        except ssl.SSLError as error:
            self.set_fatal_error(error)  # of reading: our own is in the output by now

    def finish(self, *, whole: bool) -> None:
        """Put the last thing that this connection sends into the output.

        Args:
            whole: all of the data was sent, and ``close_notify`` may say so.
        """
        if whole:
            self.close_notify()

    def fail_handshake(self, cause: BaseException) -> ssl.SSLError:
        """Give up a handshake; return the error that every later use raises."""
        if self.error is None:
            self.set_fatal_error(
                ssl.SSLError(ssl.SSL_ERROR_SSL, f"the TLS handshake was not finished: {cause}")
            )
        assert self.error is not None
        return self.error

    def set_fatal_error(self, error: ssl.SSLError) -> ssl.SSLError:
        """Remember the error that ended the connection: OpenSSL is not to be asked again after one."""
        self.error = copy_for_reraise(error)
        self.over = True
        self.fast_path_ok = self.may_write = False
        return error


def _broken_off(error: Exception) -> ssl.SSLError:
    return ssl.SSLError(ssl.SSL_ERROR_SSL, f"the TLS handshake failed: {error!r}")


def _too_much() -> ssl.SSLError:
    words = f"the peer asks for answers and takes none: more than {MOST_UNSENT} bytes wait to be sent"
    return ssl.SSLError(ssl.SSL_ERROR_SSL, words)
