"""Taking the last word out of a TLS connection that one cannot read: ``drop_tls_close`` for a relay of ciphertext.

Records of TLS have a type and a length in clear. In TLS 1.2 an alert shows by its type. In TLS 1.3 it looks like data
of two bytes, and two bytes of data look like an alert; what tells them apart is that nothing follows the last one. So
such a record is held back until the next one comes, or the end, or, as somebody may be waiting for it, a moment.
"""

from __future__ import annotations

__all__ = ["HOLD_TIME", "CloseNotifyFilter"]

HOLD_TIME = 0.25
"""Seconds that a record which may be data is held back. A guess: the end follows a ``close_notify`` at once."""

_HEADER = 5
_ALERT, _DATA = 21, 23
_TYPES = range(20, 25)
_MAJOR = 3
_PLAIN_ALERT = 2
# RFC 8446, 5.2: level and description, the type, and the tag, which has 16 bytes, or 8 with CCM_8.
_HIDDEN_ALERTS = (2 + 1 + 16, 2 + 1 + 8)


class CloseNotifyFilter:
    """Passes records on, and keeps the last one if it is an alert."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self._held = bytearray()
        self._holding = False
        self._certain = False
        self._foreign = False

    def feed(self, data: bytes) -> bytes:
        """Take what comes, and return what may go on."""
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
        """Begin the record of the header that is complete; False: this is no TLS."""
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
        """Whether something is held back that somebody may be waiting for."""
        return bool(self._held) and not self._certain

    def release(self) -> bytes:
        """Return what is held back: it was data after all."""
        held = bytes(self._held)
        self._held.clear()
        self._holding = False
        return held

    def end(self) -> bytes:
        """Return what goes on at the end: the beginning of a record that was cut off, but no last word."""
        return b"" if self._holding else bytes(self._header)
