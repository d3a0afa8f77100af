"""The dialogues of protocols that have binary messages."""

from __future__ import annotations

from wireline.cli.starttls._dialogue import Dialogue, require_agreement, require_offer, require_protocol


def postgres(server: Dialogue) -> None:
    """PostgreSQL's manual, chapter "Message Flow", "SSL Session Encryption"."""
    # The length, 8, and the number 80877103 where other messages have the version of the protocol.
    server.send((8).to_bytes(4) + (80877103).to_bytes(4))
    answer = server.read_exactly(1).decode("ascii", "backslashreplace")
    require_offer(answer != "N", answer, "has TLS switched off")
    require_protocol(answer == "S", "does not answer as a PostgreSQL server", answer)


# ----------------------------------------------------------------------------------------------------------- MySQL

_VERSION = 10
"""The protocol version of all servers since MySQL 3.21."""

_ERROR = 0xFF
_CLIENT_SSL = 1 << 11
_CAPABILITIES = _CLIENT_SSL | 1 << 9 | 1 << 15 | 1 << 19  # protocol 4.1, its authentication, and its plugins
_MAX_PACKET = 1 << 24
_UTF8 = 33


def mysql(server: Dialogue) -> None:
    """MySQL's "Client/Server Protocol", "Connection Phase": HandshakeV10 of the server, SSLRequest of the client."""
    head = server.read_exactly(4)
    greeting = server.read_exactly(int.from_bytes(head[:3], "little"))
    if greeting[:1] == bytes([_ERROR]):
        number, words = (
            int.from_bytes(greeting[1:3], "little"),
            greeting[3:].decode("utf-8", "backslashreplace"),
        )
        require_agreement(False, f"refuses the connection with error {number}", words)
    version, nul, rest = greeting[1:].partition(b"\0")
    # Before the capabilities: the number of the thread (4), a part of the challenge (8), a filler (1).
    is_mysql = greeting[:1] == bytes([_VERSION]) and head[3] == 0 and nul and len(rest) >= 15
    require_protocol(
        bool(is_mysql), "does not greet as a MySQL server", greeting.decode("ascii", "backslashreplace")
    )
    has_tls = bool(int.from_bytes(rest[13:15], "little") & _CLIENT_SSL)
    require_offer(has_tls, version.decode("ascii", "backslashreplace"), "has TLS switched off")
    body = _CAPABILITIES.to_bytes(4, "little") + _MAX_PACKET.to_bytes(4, "little") + bytes([_UTF8])
    body += bytes(23)
    server.send(len(body).to_bytes(3, "little") + b"\x01" + body)


# ------------------------------------------------------------------------------------------------------------ LDAP

_START_TLS = b"1.3.6.1.4.1.1466.20037"
_SEQUENCE, _INTEGER, _OCTETS, _ENUMERATED = 0x30, 0x02, 0x04, 0x0A
_REQUEST, _RESPONSE, _REQUEST_NAME = 0x77, 0x78, 0x80  # [APPLICATION 23], [APPLICATION 24], [0]

# RFC 4511, appendix A, and 4.14.2.
_RESULTS = {
    0: "success",
    1: "operationsError, TLS is on already or another operation is not finished",
    2: "protocolError, it has no TLS",
    10: "referral to another server",
    52: "unavailable, it cannot use TLS now",
    53: "unwillingToPerform",
}


def ldap(server: Dialogue) -> None:
    """RFC 4511, 4.14: the extended operation StartTLS."""
    request = _element(_REQUEST, _element(_REQUEST_NAME, _START_TLS))
    server.send(_element(_SEQUENCE, _element(_INTEGER, b"\x01") + request))
    message = _read_element(server, _SEQUENCE)
    number, rest = _take(message, _INTEGER)
    response, _ = _take(rest, _RESPONSE)
    code, rest = _take(response, _ENUMERATED)
    is_ldap = number in (b"\0", b"\x01") and len(code) in range(1, 5)
    require_protocol(is_ldap, _NOT_LDAP, _hexadecimal(message))
    result = int.from_bytes(code)
    _, rest = _take(rest, _OCTETS)  # the name of an object
    words, _ = _take(rest, _OCTETS)
    # The number 0 is that of a notice of disconnection (4.4.1).
    is_answer = number == b"\x01"
    problem = "refuses StartTLS" if is_answer else "ends the connection"
    text = words.decode("utf-8", "backslashreplace")
    require_agreement(is_answer and not result, f"{problem} (result {_RESULTS.get(result, result)})", text)


_NOT_LDAP = "does not answer as an LDAP server"


def _element(tag: int, content: bytes) -> bytes:
    assert len(content) < 128  # the short form of a length
    return bytes([tag, len(content)]) + content


def _read_element(server: Dialogue, tag: int) -> bytes:
    """Read one element of BER (X.690, 8.1), and return its content; LDAP has definite lengths only (RFC 4511, 5.1)."""
    head = server.read_exactly(2)
    require_protocol(head[0] == tag, _NOT_LDAP, _hexadecimal(head))
    size = head[1]
    if size & 0x80:
        require_protocol(1 <= size & 0x7F <= 4, _NOT_LDAP, _hexadecimal(head))
        size = int.from_bytes(server.read_exactly(size & 0x7F))
    return server.read_exactly(size)


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first element, ``b""`` if it has another tag or is cut off; and what follows it."""
    if len(data) < 2 or data[0] != tag:
        return b"", data
    start, size = 2, data[1]
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start])
    if start + size > len(data):
        return b"", data
    return data[start : start + size], data[start + size :]


def _hexadecimal(data: bytes) -> str:
    return data[:32].hex(" ")
