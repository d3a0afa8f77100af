"""Decrypted records, one by one, where a signal handler may raise an exception inside of OpenSSL's own call.

``SSLObject.read`` runs signal handlers *after* OpenSSL has decrypted, and drops the plaintext when one raises. Only the
main thread runs them, and only there this reader is used. It reads a record in two steps into memory that it keeps:

1. One byte. ``pending`` is then the number of the others. If an exception was raised in place of a result, a number
   above 0, or a byte that is not ``_mark`` any more, shows that a record was opened.
2. The others, which OpenSSL gives all at once; ``pending`` is 0 when it has.

After an exception in the first step, a record of one byte that equals ``_mark`` looks like one without data (a key
update, a session ticket) and like a part of one. If as few bytes of ciphertext were taken as such a record has, its
data counts as lost, and the connection fails.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

__all__ = ["RecordReader", "lost"]

# Bytes of a record that has one byte of data: header, byte and tag (TLS 1.3), to header, IV, MAC and padding (TLS 1.2).
_SMALLEST, _LARGEST_OF_ONE_BYTE = 22, 96


ReadInto = Callable[[int, bytearray | memoryview], int]
"""``SSLObject.read`` with a buffer: it takes how many bytes are wanted, and returns how many there were."""


class _Incoming(Protocol):
    @property
    def pending(self) -> int: ...


class RecordReader:
    """Gives the plaintext of the next record (``open``)."""

    __slots__ = ("_before", "_body", "_first", "_incoming", "_mark", "_pending", "_read")

    def __init__(self, read: ReadInto, pending: Callable[[], int], incoming: _Incoming) -> None:
        """Prepare.

        Args:
            read: that of the ``ssl.SSLObject``.
            pending: likewise.
            incoming: where it takes ciphertext from.
        """
        self._read = read
        self._pending = pending
        self._incoming = incoming
        self._mark = id(self) >> 4 & 0xFF  # any value that a peer cannot know
        self._first = bytearray(1)
        self._body: bytearray | None = None  # of a record whose first byte was read
        self._before = -1  # what `incoming` had before a first step whose end is not noted; -1: there is none

    def open(self) -> bytes:
        """Decrypt a record; ``b""`` at the end. It raises what ``SSLObject.read`` raises.

        From the last step here to the caller's variable there is no place for a signal handler.
        """
        if self._before >= 0:
            self._find_out()
        if self._body is not None:
            return self._finish(self._body)
        self._before = self._incoming.pending
        first = self._first
        first[0] = self._mark
        try:
            count = self._read(1, first)
        except ssl.SSLError:
            self._before = -1
            raise
        if not count:
            self._before = -1
            return b""
        rest = self._pending()
        body = bytearray(rest)
        self._body = body
        self._before = -1
        if rest:
            self._read(rest, body)
        plaintext = bytes(first) + body
        self._body = None
        return plaintext

    def _finish(self, body: bytearray) -> bytes:
        """Make the second step of a record, unless it was made."""
        if self._pending():
            self._read(len(body), body)
        plaintext = bytes(self._first) + body
        self._body = None
        return plaintext

    def _find_out(self) -> None:
        """Find out whether a first step that an exception has ended opened a record."""
        if self._body is not None:
            self._before = -1
        elif (rest := self._pending()) or self._first[0] != self._mark:
            body = bytearray(rest)
            self._body = body
            self._before = -1
        else:
            taken = self._before - self._incoming.pending
            self._before = -1
            if _SMALLEST <= taken <= _LARGEST_OF_ONE_BYTE:
                raise lost()


def lost() -> ssl.SSLError:
    """Return the error of a connection whose plaintext was dropped."""
    words = "a signal handler raised an exception while OpenSSL decrypted, and the decrypted data is lost"
    return ssl.SSLError(ssl.SSL_ERROR_SSL, words)
