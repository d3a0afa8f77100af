"""The dialogues of protocols that have binary messages."""

from __future__ import annotations

from wireline.cli.starttls._dialogue import Dialogue, require


def postgres(server: Dialogue) -> None:
    """PostgreSQL's manual, chapter "Message Flow", "SSL Session Encryption"."""
    # The length, 8, and the number 80877103 where other messages have the version of the protocol.
    server.send((8).to_bytes(4) + (80877103).to_bytes(4))
    answer = server.read_exactly(1).decode("ascii", "backslashreplace")
    require(answer != "N", "has TLS switched off", answer)
    require(answer == "S", "does not answer as a PostgreSQL server", answer)


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
        number = int.from_bytes(greeting[1:3], "little")
        require(
            False,
            f"refuses the connection with error {number}",
            greeting[3:].decode("utf-8", "backslashreplace"),
        )
    text = greeting.decode("ascii", "backslashreplace")
    version, nul, rest = greeting[1:].partition(b"\0")
    # Before the capabilities: the number of the thread (4), a part of the challenge (8), a filler (1).
    is_mysql = greeting[:1] == bytes([_VERSION]) and head[3] == 0 and nul and len(rest) >= 15
    require(bool(is_mysql), "does not greet as a MySQL server", text)
    capabilities = int.from_bytes(rest[13:15], "little")
    require(
        bool(capabilities & _CLIENT_SSL), "has TLS switched off", version.decode("ascii", "backslashreplace")
    )
    body = (
        _CAPABILITIES.to_bytes(4, "little") + _MAX_PACKET.to_bytes(4, "little") + bytes([_UTF8]) + bytes(23)
    )
    server.send(len(body).to_bytes(3, "little") + b"\x01" + body)


# ------------------------------------------------------------------------------------------------------------ LDAP

_START_TLS = b"1.3.6.1.4.1.1466.20037"
_SEQUENCE, _INTEGER, _OCTETS, _ENUMERATED = 0x30, 0x02, 0x04, 0x0A
_REQUEST, _RESPONSE, _REQUEST_NAME = 0x77, 0x78, 0x80  # [APPLICATION 23], [APPLICATION 24], [0]

# RFC 4511, appendix A, and 4.14.2.
_RESULTS = {
    1: "operationsError: TLS is on already, or another operation is not finished",
    2: "protocolError: it has no TLS",
    10: "referral to another server",
    52: "unavailable: it cannot use TLS now",
    53: "unwillingToPerform",
}


def ldap(server: Dialogue) -> None:
    """RFC 4511, 4.14: the extended operation StartTLS."""
    request = _element(_REQUEST, _element(_REQUEST_NAME, _START_TLS))
    server.send(_element(_SEQUENCE, _element(_INTEGER, b"\x01") + request))
    message = _read_element(server, _SEQUENCE)
    number, rest = _take(message, _INTEGER)
    require(number is not None, _NOT_LDAP, _hexadecimal(message))
    response, _ = _take(rest, _RESPONSE)
    require(response is not None, _NOT_LDAP, _hexadecimal(message))
    code, rest = _take(response or b"", _ENUMERATED)
    require(code is not None, _NOT_LDAP, _hexadecimal(message))
    result = int.from_bytes(code or b"")
    _, rest = _take(rest, _OCTETS)  # the name of an object
    words, _ = _take(rest, _OCTETS)
    text = (words or b"").decode("utf-8", "backslashreplace")
    # The number 0 is that of a notice of disconnection (4.4.1).
    agreed = result == 0 and int.from_bytes(number or b"") == 1
    require(agreed, f"refuses StartTLS with the result {_RESULTS.get(result, result)}", text)


_NOT_LDAP = "does not answer as an LDAP server"


def _element(tag: int, content: bytes) -> bytes:
    assert len(content) < 128  # the short form of a length
    return bytes([tag, len(content)]) + content


def _read_element(server: Dialogue, tag: int) -> bytes:
    """Read one element of BER (X.690, 8.1), and return its content; LDAP has definite lengths only (RFC 4511, 5.1)."""
    head = server.read_exactly(2)
    require(head[0] == tag, _NOT_LDAP, _hexadecimal(head))
    size = head[1]
    if size & 0x80:
        require(1 <= size & 0x7F <= 4, _NOT_LDAP, _hexadecimal(head))
        size = int.from_bytes(server.read_exactly(size & 0x7F))
    return server.read_exactly(size)


def _take(data: bytes, tag: int) -> tuple[bytes | None, bytes]:
    """The content of the first element, None if it has another tag or is cut off; and what follows it."""
    if len(data) < 2 or data[0] != tag:
        return None, data
    start, size = 2, data[1]
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start])
    if start > len(data) or start + size > len(data):
        return None, data
    return data[start : start + size], data[start + size :]


def _hexadecimal(data: bytes) -> str:
    return data[:32].hex(" ")
