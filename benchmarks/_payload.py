"""The bytes that are sent, the same in every process: pieces that differ, so that a wrong order is seen too."""

from __future__ import annotations

import enum
import functools
import itertools
import random
import struct
from collections.abc import Iterator
from pathlib import Path

from benchmarks._scratch import write

MESSAGE_SIZE = 64
LINES_PER_PIECE = 256
FRAME_SIZE = 100
HEADER = struct.Struct("!BI")
"""Of a frame: a kind, and the size of the payload."""
BLOCK_SIZE = 64 * 1024

# The pieces repeat after a prime, so that the period fits no buffer. Few blocks, so that comparing with them leaves the
# contestant's data in the processor's cache.
_DIFFERENT_MESSAGES = 1009
_DIFFERENT_BLOCKS = 5


class Payload(enum.Enum):
    """The kind of a piece."""

    MESSAGE = "64-byte message"
    LINES = "256 lines of 64 bytes"
    BLOCK = "64 KiB block"
    FRAMES = "256 frames of 100 bytes"
    COUNTED = "256 lines, each with a body, of 100 bytes together"

    @property
    def messages(self) -> int:
        """Messages in a piece: the unit of rates and costs."""
        return 1 if self in (Payload.MESSAGE, Payload.BLOCK) else LINES_PER_PIECE

    @property
    def size(self) -> int:
        """Bytes in a piece."""
        if self is Payload.BLOCK:
            return BLOCK_SIZE
        return (MESSAGE_SIZE if self in (Payload.MESSAGE, Payload.LINES) else FRAME_SIZE) * self.messages

    def period(self) -> list[bytes]:
        """The pieces, which then repeat."""
        source = random.Random(7)
        if self is Payload.MESSAGE:
            return [source.randbytes(MESSAGE_SIZE) for _ in range(_DIFFERENT_MESSAGES)]
        if self is Payload.BLOCK:
            return [source.randbytes(BLOCK_SIZE) for _ in range(_DIFFERENT_BLOCKS)]
        make = {Payload.LINES: _line, Payload.FRAMES: _frame, Payload.COUNTED: _counted}[self]
        messages = (make(number, source) for number in itertools.count())
        return [b"".join(itertools.islice(messages, LINES_PER_PIECE)) for _ in range(_DIFFERENT_BLOCKS)]

    def pieces(self) -> Iterator[bytes]:
        """One piece after the other, for ever."""
        return itertools.cycle(self.period())


@functools.cache
def file_of(payload: Payload) -> Path:
    """A file with the pieces, one period of them, for programs that are not in Python."""
    return write(f"{payload.name}.bin", b"".join(payload.period()))


def _line(number: int, source: random.Random) -> bytes:
    text = f"{number} {source.randbytes(MESSAGE_SIZE).hex()}"
    return text[: MESSAGE_SIZE - 1].encode() + b"\n"


def _frame(number: int, source: random.Random) -> bytes:
    payload = source.randbytes(FRAME_SIZE - HEADER.size)
    return HEADER.pack(number % 256, len(payload)) + payload


def _counted(number: int, source: random.Random) -> bytes:
    body = source.randbytes(FRAME_SIZE - len(b"$95\r\n"))
    return b"$%d\r\n%b" % (len(body), body)
