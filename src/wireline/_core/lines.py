"""What a line is (promises R6 to R9).

A line ends at ``\\n`` or ``\\r\\n``; a lone ``\\r`` is data. The terminator is not part of it. Because ``b""`` means
"the peer is done", an empty line is spelled ``b"\\r\\n"``, whichever way it ended; no other line can look like that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wireline._core.buffer import ReceiveBuffer

EMPTY_LINE = b"\r\n"

CARRIAGE_RETURN = 13


class Line(NamedTuple):
    """Where the first line of a buffer ends."""

    size: int
    """Bytes of the line itself."""
    consumed: int
    """Bytes of the line and its terminator."""
    too_long: bool
    """The line is longer than allowed, and this is only its beginning."""


def find_line(buffer: ReceiveBuffer, max_length: int, ended: bool) -> Line | None:
    """Measure the first line of ``buffer``, or return None if more bytes are needed to know.

    Args:
        buffer: what arrived.
        max_length: bytes that a line may have, without its terminator.
        ended: the stream has ended, so an unfinished line stays one.
    """
    newline = buffer.find(b"\n", max_length + 2)
    if newline >= 0:
        size = newline
        if newline and buffer.byte_at(newline - 1) == CARRIAGE_RETURN:
            size -= 1
        if size <= max_length:
            return Line(size, newline + 1, False)
        return Line(max_length, max_length, True)
    have = len(buffer)
    if have <= max_length:
        return None
    # One byte over, and it may be the \r of a terminator whose \n has not arrived.
    if have == max_length + 1 and not ended and buffer.byte_at(max_length) == CARRIAGE_RETURN:
        return None
    return Line(max_length, max_length, True)


def line_at(data: bytes, start: int, newline: int) -> bytes:
    r"""Return the line that begins at ``start`` and ends at the ``\n`` at ``newline``, without its end.

    A ``\r`` directly before the ``\n`` belongs to the end too. An empty line is ``EMPTY_LINE``.
    """
    if newline > start and data[newline - 1] == CARRIAGE_RETURN:
        newline -= 1
    return data[start:newline] or EMPTY_LINE


def whole_line(text: bytes) -> bytes | None:
    r"""Return the line without its end if ``text``, one byte at least, is just one line; else None."""
    if text.find(b"\n") != len(text) - 1:
        return None
    # As `line_at`, without the call: most lines are one receive each.
    return text[: -2 if text.endswith(b"\r\n") else -1] or EMPTY_LINE


def split_lines(text: bytes) -> tuple[list[bytes], int] | None:
    """Split whole lines at once; ``(lines, bytes of one terminator)``, or None where not all
    terminators are alike.

    Args:
        text: lines, each with its terminator.
    """
    # Looking for one byte is nearly free; counting a pair costs as much as splitting at it (56 ns for 64 bytes).
    if b"\r" not in text:
        terminator = 1
        lines = text.split(b"\n")
    else:
        terminator = 2
        lines = text.split(b"\r\n")
        if len(lines) - 1 != text.count(b"\n"):
            return None
    lines.pop()  # what follows the last terminator: nothing
    if b"" in lines:
        lines = [line or EMPTY_LINE for line in lines]
    return lines, terminator
