"""What certificate a peer shows, also if it is refused.

After a handshake that failed, OpenSSL does not tell: it drops the certificate together with the connection. The message
that it came in can be watched while it passes, though.
"""

from __future__ import annotations

import ssl
import threading

from wireline.tls import Certificate

_HANDSHAKE = 22  # RFC 8446, 5.1: the content type
_CERTIFICATE = 11  # RFC 8446, 4: the type of the message


class Witness(threading.local):
    """Watches the handshakes of a context. Each thread sees those that it makes itself.

    Attributes:
        certificate: what was shown last; None before.
    """

    certificate: Certificate | None = None

    def watch(self, context: ssl.SSLContext) -> None:
        """Watch the handshakes of a context from now on."""
        # It is there for debugging and not documented, and Python does not promise to keep it.
        if hasattr(context, "_msg_callback"):
            setattr(context, "_msg_callback", self._saw)  # noqa: B010 - typeshed does not know it

    def leave(self, context: ssl.SSLContext) -> None:
        """Look away: what follows the handshake costs a call for every record."""
        if hasattr(context, "_msg_callback"):
            setattr(context, "_msg_callback", None)  # noqa: B010

    def _saw(
        self, connection: object, direction: str, version: int, content: int, message: int, data: bytes
    ) -> None:
        if direction == "read" and content == _HANDSHAKE and message == _CERTIFICATE:
            self.certificate = _first(data, has_context=version >= ssl.TLSVersion.TLSv1_3)


def _first(message: bytes, *, has_context: bool) -> Certificate | None:
    """The first certificate of a message (RFC 8446, 4.4.2; RFC 5246, 7.4.2); None if there is none."""
    # Four bytes of type and length, in TLS 1.3 a context with its length before it, three bytes of the list's length.
    start = 4 + (1 + message[4] if has_context and len(message) > 4 else 0) + 3
    size = int.from_bytes(message[start : start + 3])
    return Certificate(message[start + 3 : start + 3 + size]) if size else None
