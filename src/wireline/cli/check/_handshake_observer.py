"""Details of a handshake that ``ssl`` does not report: the key exchange, and the certificates that were sent.

``ssl`` can report each message of the handshake. Two of them name the group of the key exchange: the ServerHello of TLS
1.3 (RFC 8446, 4.2.8) and the ServerKeyExchange of TLS 1.2 (RFC 8422, 5.4).
"""

from __future__ import annotations

import ssl

from wireline.cli._certificate_capture import HANDSHAKE, PeerCertificateCapture, set_message_callback
from wireline.tls import Certificate

_SERVER_HELLO = 2  # RFC 8446, 4: types of messages
_SERVER_KEY_EXCHANGE = 12
_KEY_SHARE = 51  # RFC 8446, 4.2: an extension
_NAMED_CURVE = 3  # RFC 8422, 5.4

# IANA, "TLS Supported Groups".
_GROUPS = {
    0x0017: "P-256",
    0x0018: "P-384",
    0x0019: "P-521",
    0x001D: "X25519",
    0x001E: "X448",
    0x0100: "ffdhe2048",
    0x0101: "ffdhe3072",
    0x0102: "ffdhe4096",
    0x0103: "ffdhe6144",
    0x0104: "ffdhe8192",
    0x11EB: "P-256 and ML-KEM-768",
    0x11EC: "X25519 and ML-KEM-768",
    0x11ED: "P-384 and ML-KEM-1024",
}


class HandshakeObserver:
    """Watches the handshakes of a context, one at a time."""

    def __init__(self) -> None:
        self._capture = PeerCertificateCapture()
        self._server_hello = b""
        self._server_key_exchange = b""

    @property
    def sent(self) -> tuple[Certificate, ...]:
        """The certificates that the server sent, its own first."""
        return self._capture.sent

    def watch(self, context: ssl.SSLContext) -> None:
        """Watch the handshakes of a context from now on."""
        set_message_callback(context, self.on_message)

    def reset(self) -> None:
        """Forget the last handshake, before the next one."""
        self._capture.reset()
        self._server_hello = self._server_key_exchange = b""

    def key_exchange(self, cipher: str) -> str:
        """The key exchange of the last handshake, ``""`` if it is not known.

        Args:
            cipher: OpenSSL's name of the suite; in TLS 1.2 its first part is the method, unless that is RSA.
        """
        if cipher.startswith("TLS_"):
            return _group_name(_key_share(self._server_hello))
        if cipher.startswith("ECDHE-"):
            curve = self._server_key_exchange
            return _group_name(curve[1:3]) if curve[:1] == bytes([_NAMED_CURVE]) else "ECDHE"
        if cipher.startswith("DHE-"):
            bits = 8 * int.from_bytes(self._server_key_exchange[:2])
            return f"DHE with {bits} bits" if bits else "DHE"
        return ""

    def on_message(
        self, connection: object, direction: str, version: int, content: int, message: int, data: bytes
    ) -> None:
        """Take one message; ``ssl`` calls this."""
        self._capture.on_message(connection, direction, version, content, message, data)
        if direction != "read" or content != HANDSHAKE:
            return
        body = data[4:]  # after type and length
        if message == _SERVER_HELLO:
            self._server_hello = body
        elif message == _SERVER_KEY_EXCHANGE:
            self._server_key_exchange = body


def _group_name(number: bytes) -> str:
    if len(number) != 2:
        return ""
    code = int.from_bytes(number)
    return _GROUPS.get(code, f"group 0x{code:04x}")


def _key_share(server_hello: bytes) -> bytes:
    """The number of the group in a ServerHello (RFC 8446, 4.1.3); ``b""`` if there is none."""
    # Version (2), random (32), session id after a byte with its length, suite (2), compression (1), length (2).
    at = 34 + 1 + (server_hello[34] if len(server_hello) > 34 else 0) + 2 + 1 + 2
    while at + 4 <= len(server_hello):
        kind = int.from_bytes(server_hello[at : at + 2])
        size = int.from_bytes(server_hello[at + 2 : at + 4])
        if kind == _KEY_SHARE:
            return server_hello[at + 4 : at + 6]
        at += 4 + size
    return b""
