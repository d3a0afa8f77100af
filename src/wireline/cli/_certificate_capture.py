"""The certificates of a peer, even if they are refused.

After a failed handshake ``ssl`` does not return them. It can report each message of the handshake, though: they are in
one, and with it is the connection, which has the chain that OpenSSL built of them before it refused it.
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
        sent: the certificates of the last handshake, in the order of the peer.
    """

    sent: tuple[Certificate, ...] = ()
    _connection: object = None

    def watch(self, context: ssl.SSLContext) -> None:
        """Watch the handshakes of a context from now on."""
        set_message_callback(context, self.on_message)

    def unwatch(self, context: ssl.SSLContext) -> None:
        """Stop watching: after the handshake it would cost a call for every record."""
        set_message_callback(context, None)

    def reset(self) -> None:
        """Forget the last handshake, and let its connection be freed."""
        self.sent, self._connection = (), None

    def on_message(
        self, connection: object, direction: str, version: int, content: int, message: int, data: bytes
    ) -> None:
        """Take one message; ``ssl`` calls this."""
        if direction == "read" and content == HANDSHAKE and message == _CERTIFICATE:
            self._connection = connection
            self.sent = certificates_in(data, has_context=version >= ssl.TLSVersion.TLSv1_3)

    def chain(self) -> tuple[Certificate, ...]:
        """The chain that OpenSSL built in the last handshake, the peer's certificate first; empty if unknown."""
        connection = self._connection
        return (
            tuple(map(Certificate, built_chain(connection))) if isinstance(connection, ssl.SSLObject) else ()
        )


def certificates_in(message: bytes, *, has_context: bool) -> tuple[Certificate, ...]:
    """The certificates of a message (RFC 8446, 4.4.2; RFC 5246, 7.4.2), which OpenSSL has not checked yet."""
    # 4 bytes: type and length; in TLS 1.3 a context after a byte with its length; 3 bytes: length of the list.
    start = 4 + (1 + message[4] if has_context and len(message) > 4 else 0) + 3
    found = []
    while size := int.from_bytes(message[start : start + 3]):
        found.append(Certificate(message[start + 3 : start + 3 + size]))
        start += 3 + size
        if has_context:  # extensions of this certificate
            start += 2 + int.from_bytes(message[start : start + 2])
    return tuple(found)


def built_chain(connection: ssl.SSLObject) -> list[bytes]:
    """The chain that OpenSSL built of what was sent and what is trusted here, as DER, also if it refuses that chain."""
    # Public since 3.13, and private with the same meaning since 3.10.
    public = getattr(connection, "get_verified_chain", None)
    if public is not None:
        return list(public())
    return [each.public_bytes(_DER) for each in connection._sslobj.get_verified_chain() or ()]  # type: ignore[attr-defined]


_DER = 2  # `_ssl.ENCODING_DER`
