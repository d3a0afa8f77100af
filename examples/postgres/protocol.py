"""The messages of PostgreSQL's protocol 3.0: values to bytes, and bytes to values. Nothing here waits.

Both flavours use this file as it is, so that they raise the same errors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from wireline.tls import SslContext

HEADER = "!cI"
"""Of a message: its kind, and its length with these four bytes of the length."""
LENGTH_ADJUST = -4
_unpack_header = struct.Struct(HEADER).unpack_from

PROTOCOL_3_0 = 3 << 16
SSL_REQUEST = struct.pack("!II", 8, 80877103)
CANCEL = struct.pack("!II", 16, 80877102)
"""The first half of a cancel request; the key of the session is the second."""

FATAL = ("FATAL", "PANIC")
"""Severities after which the server closes the connection."""


@dataclass(frozen=True)
class Config:
    """How to connect.

    Attributes:
        tls: encrypts the connection; None means plaintext.
    """

    host: str
    port: int = 5432
    user: str = "postgres"
    password: str = field(default="", repr=False)
    database: str = "postgres"
    tls: SslContext | None = None


class Result(NamedTuple):
    """The result of a statement. Values are in PostgreSQL's text form, NULL is None."""

    tag: str
    """What was done, such as ``INSERT 0 1``; empty if the statement was."""
    columns: tuple[str, ...]
    rows: list[tuple[str | None, ...]]


class ProtocolError(Exception):
    """The server sent something that the protocol does not allow, or that this client refuses."""


class PostgresError(Exception):
    """An error that the server reported, or a notice.

    Attributes:
        fields: all that it said, by the letters of the protocol: ``M`` is the message, ``D`` the detail, ``H`` a hint.
        sqlstate: the code of the error, five characters; stable, unlike the message.
        severity: ``ERROR``, ``FATAL``, ``NOTICE`` and so on, never translated.
    """

    def __init__(self, payload: bytes) -> None:
        texts = payload.decode(errors="replace").split("\0")
        self.fields = {text[0]: text[1:] for text in texts if text}
        self.sqlstate = self.fields.get("C", "")
        self.severity = self.fields.get("V", self.fields.get("S", ""))
        super().__init__(f"{self.severity} {self.sqlstate}: {self.fields.get('M', '')}")


# To the server.


def message(kind: bytes, *parts: bytes) -> bytes:
    """A message, whose length counts itself and not the kind."""
    body = b"".join(parts)
    return kind + (len(body) + 4).to_bytes(4) + body


def string(text: str) -> bytes:
    """A string, which ends with a zero."""
    data = text.encode()
    if b"\0" in data:
        # The rest would be read as the next field of the message: an injection.
        raise ValueError("a string for PostgreSQL must not contain a zero character")
    return data + b"\0"


def start_up(config: Config) -> bytes:
    """The first message, which has no kind."""
    pairs = {"user": config.user, "database": config.database, "client_encoding": "UTF8"}
    body = b"".join(string(text) for pair in pairs.items() for text in pair)
    return message(b"", struct.pack("!I", PROTOCOL_3_0), body, b"\0")


def simple_query(sql: str) -> bytes:
    """Any number of statements, without parameters."""
    return message(b"Q", string(sql))


SYNC = message(b"S")
TERMINATE = message(b"X")
COPY_DONE = message(b"c")
_DESCRIBE_PORTAL = message(b"D", b"P\0")
_EXECUTE_ALL = message(b"E", b"\0", bytes(4))


def extended_query(sql: str, parameters: Sequence[object]) -> bytes:
    """One statement with its parameters, which are never a part of its text: all steps at once, with their Sync."""
    values = [_parameter(value) for value in parameters]
    parse = message(b"P", b"\0", string(sql), bytes(2))
    # Unnamed portal and statement; no formats are given, so everything is text in both directions.
    bind = message(b"B", bytes(4), len(values).to_bytes(2), *values, bytes(2))
    return parse + bind + _DESCRIBE_PORTAL + _EXECUTE_ALL + SYNC


def _parameter(value: object) -> bytes:
    if value is None:
        return struct.pack("!i", -1)
    text = f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
    data = text.encode()
    return len(data).to_bytes(4) + data


def copy_data(data: bytes) -> bytes:
    """A piece of a COPY, which need not end with a row."""
    return message(b"d", data)


def copy_fail(reason: str) -> bytes:
    """The end of a COPY that is to do nothing."""
    return message(b"f", string(reason))


# From the server. A slice beyond the end is short and no error, so one comparison at the end checks all lengths.


def read_columns(payload: bytes) -> tuple[str, ...]:
    """The names of the columns in a row description, each followed by 18 bytes about its type."""
    names, at = [], 2
    for _ in range(int.from_bytes(payload[:2])):
        end = payload.find(b"\0", at)
        names.append(payload[at:end].decode(errors="replace"))
        at = end + 19
    _check_length(payload, at)
    return tuple(names)


def read_row(payload: bytes) -> tuple[str | None, ...]:
    """The values of a row."""
    values: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(payload[:2])):
        size = int.from_bytes(payload[at : at + 4], signed=True)
        at += 4
        if size < 0:
            values.append(None)
        else:
            values.append(payload[at : at + size].decode())
            at += size
    _check_length(payload, at)
    return tuple(values)


def split_rows(data: bytes) -> tuple[list[bytes], int]:
    """The rows of a COPY in the whole messages at the beginning of ``data``, and where these messages end."""
    rows: list[bytes] = []
    at, size_of_data = 0, len(data)
    while at + 5 <= size_of_data:
        kind, size = _unpack_header(data, at)
        end = at + 1 + size
        if kind != b"d" or size < 4 or end > size_of_data:
            break
        rows.append(data[at + 5 : end])
        at = end
    return rows, at


def read_strings(payload: bytes) -> Iterable[str]:
    """Strings one after the other."""
    return payload.decode(errors="replace").removesuffix("\0").split("\0")


def _check_length(payload: bytes, end: int) -> None:
    if end != len(payload):
        raise ProtocolError(
            f"the parts of a message have {end} bytes together, and the message {len(payload)}"
        )
