"""Removing ``close_notify`` from TLS ciphertext that we cannot decrypt: ``drop_tls_close`` of a relay.

The type and length of a TLS record are in clear. In TLS 1.2 an alert has its own type. In TLS 1.3 it looks like two
bytes of data, and two bytes of data look like an alert; but nothing follows a ``close_notify``. So such a record is
held back until the next record, the end of the stream, or ``HOLD_TIME``, because the peer may be waiting for the data.
"""

from __future__ import annotations

__all__ = ["HOLD_TIME", "CloseNotifyFilter"]

HOLD_TIME = 0.25
"""Seconds to hold back a record that may be data. A guess: the end follows a ``close_notify`` at once."""

# RFC 8446, 5.1: bytes of a record's header, content types, and the major version.
_HEADER = 5
_ALERT, _DATA = 21, 23
_TYPES = range(20, 25)
_MAJOR = 3
# Bytes of an alert in clear; a longer one is encrypted.
_PLAIN_ALERT = 2
# Bytes, RFC 8446, 5.2: alert level and description, content type, and tag (16 bytes, or 8 with CCM_8).
_HIDDEN_ALERTS = (2 + 1 + 16, 2 + 1 + 8)


class CloseNotifyFilter:
    """Passes records through, and drops the last one if it is an alert."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self._held = bytearray()
        self._holding = False
        self._certain = False
        self._foreign = False

    def feed(self, data: bytes) -> bytes:
        """Take received bytes; return the bytes to pass on."""
        if self._foreign:
            return data
        out = bytearray()
        view = memoryview(data)
        while view:
            if not self._left:
                size = _HEADER - len(self._header)
                self._header += view[:size]
                view = view[size:]
                if len(self._header) < _HEADER:
                    break
                if not self._begin(out):
                    return bytes(out) + bytes(view)
            piece = view[: self._left]
            (self._held if self._holding else out).extend(piece)
            self._left -= len(piece)
            view = view[len(piece) :]
        return bytes(out)

    def _begin(self, out: bytearray) -> bool:
        """Begin a record whose header is complete; False if this is not TLS."""
        out += self._held
        self._held.clear()
        kind, major, size = self._header[0], self._header[1], int.from_bytes(self._header[3:5])
        self._foreign = kind not in _TYPES or major != _MAJOR
        self._certain = kind == _ALERT and size > _PLAIN_ALERT
        self._holding = not self._foreign and (self._certain or (kind == _DATA and size in _HIDDEN_ALERTS))
        (self._held if self._holding else out).extend(self._header)
        self._header.clear()
        self._left = size
        return not self._foreign

    @property
    def may_be_data(self) -> bool:
        """Whether a record is held back that may be data, for which the peer may be waiting."""
        return bool(self._held) and not self._certain

    def release(self) -> bytes:
        """Return the record that is held back, as data."""
        held = bytes(self._held)
        self._held.clear()
        self._holding = False
        return held

    def end(self) -> bytes:
        """Return the bytes to pass on at the end: an incomplete header, but no alert."""
        return b"" if self._holding else bytes(self._header)
