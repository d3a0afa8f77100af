"""``--dump``: what a relay passes on, on standard error.

Every line has the number of its connection and its direction, because the lines of connections alternate. A line is
written by one system call, of no more bytes than a pipe takes at once, so no other line gets into it, and no lock is
needed. If the reader of standard error is slow, the call waits, and the relay with it: nothing is kept in memory.
"""

from __future__ import annotations

import contextlib
import re
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from wireline.cli._outcome import Failure
from wireline.cli._printable import sanitize_for_terminal
from wireline.cli._stdio import Output

if TYPE_CHECKING:
    from wireline.net import Socket

Tap: TypeAlias = "Callable[[Socket, bytes], None]"
"""Shows what a socket is about to get; b"" is the end."""

_BLOCK = getattr(select, "PIPE_BUF", 512)
"""The most bytes that are written at once."""

_HEX_ROW = 16
"""Bytes in a line of hexadecimal digits: with 80 columns it is not wrapped."""

_MAX_PREFIX = 100
"""Characters before the text of a line, at most."""

# The longest text that fits a block if each of its bytes is written as `\xNN`.
_TEXT_LINE = re.compile(rb"[^\n]{1,%d}\n?|\n" % ((_BLOCK - _MAX_PREFIX) // 4))

_ASCII = bytes(byte if 32 <= byte < 127 else ord(".") for byte in range(256))


class Dump:
    """The dump of all connections."""

    def __init__(self, form: str) -> None:
        """Begin.

        Args:
            form: ``hex`` or ``text``.
        """
        self._rows = _hex_rows if form == "hex" else _text_rows
        self._output = Output(2)
        self._encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._reader_gone = False

    @contextlib.contextmanager
    def connection(self, number: int, client: str, target: str, server: Socket) -> Iterator[Tap]:
        """Show the begin and the end of a connection, and in the block what the result is called with."""
        moved = {">": 0, "<": 0}
        ended = set()

        def show(sink: Socket, data: bytes) -> None:
            arrow = ">" if sink is server else "<"
            if data:
                self._write(self._rows(f"#{number} {arrow}", moved[arrow], data))
                moved[arrow] += len(data)
            else:
                # No arrow in front, as every line of data has: a peer cannot send what looks like its end.
                self._write([f"{_now()} #{number} end {arrow} after {moved[arrow]} bytes"])
                ended.add(arrow)

        names = (sanitize_for_terminal(name, _MAX_PREFIX) for name in (client, target))
        self._write([f"{_now()} #{number} {' > '.join(names)}"])
        try:
            yield show
        finally:
            self._write([f"{_now()} #{number} {'closed' if len(ended) == 2 else 'reset'}"])

    def _write(self, lines: Iterable[str]) -> None:
        if self._reader_gone:
            return
        block = b""
        try:
            for line in lines:
                encoded = f"{line}\n".encode(self._encoding, "backslashreplace")
                if len(block) + len(encoded) > _BLOCK:
                    self._output.write(block)
                    block = b""
                block += encoded
            self._output.write(block)
        except Failure as failure:
            # The relay goes on. A full disk may have space again; a pipe without a reader never gets one.
            self._reader_gone = isinstance(failure.cause, BrokenPipeError)


def _now() -> str:
    return f"{datetime.now():%H:%M:%S.%f}"


def _hex_rows(prefix: str, offset: int, data: bytes) -> Iterator[str]:
    yield f"{_now()} {prefix} {len(data)} bytes"
    for start in range(0, len(data), _HEX_ROW):
        row = data[start : start + _HEX_ROW]
        yield f"{prefix} {offset + start:06x}  {row.hex(' '):47}  {row.translate(_ASCII).decode('ascii')}"


def _text_rows(prefix: str, offset: int, data: bytes) -> Iterator[str]:
    now = _now()
    for line in _TEXT_LINE.finditer(data):
        yield f"{now} {prefix} {_escaped(line[0])}"


def _escaped(data: bytes) -> str:
    r"""Text in UTF-8; each byte of anything else, and of characters that are not printable, becomes ``\xNN``."""
    return data.decode("utf-8", "surrogateescape").translate(_ESCAPES)


def _escape(code: int) -> str:
    character = chr(code)
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


class _Escapes(dict[int, str]):
    """A table for ``str.translate``."""

    def __missing__(self, code: int) -> str:
        return _escape(code)


# The table has all characters of one byte, and the surrogates that stand for bytes which are not UTF-8.
_ESCAPES = _Escapes((code, _escape(code)) for code in (*range(0x80), *range(0xDC80, 0xDD00)))
_ESCAPES.update({ord("\\"): r"\\", ord("\n"): r"\n", ord("\r"): r"\r", ord("\t"): r"\t"})
