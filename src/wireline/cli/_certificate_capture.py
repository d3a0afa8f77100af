"""The certificate of a peer, even if it is refused.

After a failed handshake OpenSSL frees the certificate together with the connection. ``ssl`` can report each message of
the handshake, though, and the certificate is in one of them.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable

from wireline.tls import Certificate

HANDSHAKE = 22
"""Content type of handshake messages (RFC 8446, 5.1)."""

_CERTIFICATE = 11  # RFC 8446, 4: the type of the message


MessageCallback = Callable[[object, str, int, int, int, bytes], None]
"""Called with the connection, "read" or "write", the TLS version, content type, message type, and the message."""


def set_message_callback(context: ssl.SSLContext, callback: MessageCallback | None) -> None:
    """Call ``callback`` for each message of the connections of a context, if this Python can."""
    # An undocumented attribute for debugging, which Python may remove.
    if hasattr(context, "_msg_callback"):
        setattr(context, "_msg_callback", callback)  # noqa: B010 - typeshed does not know it


class PeerCertificateCapture(threading.local):
    """Watches the handshakes of a context. Each thread sees its own handshakes only.

    Attributes:
        certificate: the certificate of the last handshake; None before.
    """

    certificate: Certificate | None = None

    def watch(self, context: ssl.SSLContext) -> None:
        """Watch the handshakes of a context from now on."""
        set_message_callback(context, self.on_message)

    def unwatch(self, context: ssl.SSLContext) -> None:
        """Stop watching: after the handshake it would cost a call for every record."""
        set_message_callback(context, None)

    def on_message(
        self, connection: object, direction: str, version: int, content: int, message: int, data: bytes
    ) -> None:
        """Take one message; ``ssl`` calls this."""
        if direction == "read" and content == HANDSHAKE and message == _CERTIFICATE:
            self.certificate = first_certificate(data, has_context=version >= ssl.TLSVersion.TLSv1_3)


def first_certificate(message: bytes, *, has_context: bool) -> Certificate | None:
    """The first certificate of a message (RFC 8446, 4.4.2; RFC 5246, 7.4.2); None if there is none."""
    # 4 bytes: type and length; in TLS 1.3 a context after a byte with its length; 3 bytes: length of the list.
    start = 4 + (1 + message[4] if has_context and len(message) > 4 else 0) + 3
    size = int.from_bytes(message[start : start + 3])
    return Certificate(message[start + 3 : start + 3 + size]) if size else None
