"""The bytes that are sent, the same in every process: pieces that differ, so that a wrong order is seen too."""

from __future__ import annotations

import enum
import functools
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks._scratch import write

MESSAGE_SIZE = 64
LINES_PER_PIECE = 256
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

    @property
    def messages(self) -> int:
        """Messages in a piece: the unit of rates and costs."""
        return LINES_PER_PIECE if self is Payload.LINES else 1

    @property
    def size(self) -> int:
        """Bytes in a piece."""
        return BLOCK_SIZE if self is Payload.BLOCK else MESSAGE_SIZE * self.messages

    def period(self) -> list[bytes]:
        """The pieces, which then repeat."""
        source = random.Random(7)
        if self is Payload.MESSAGE:
            return [source.randbytes(MESSAGE_SIZE) for _ in range(_DIFFERENT_MESSAGES)]
        if self is Payload.BLOCK:
            return [source.randbytes(BLOCK_SIZE) for _ in range(_DIFFERENT_BLOCKS)]
        lines = (_line(number, source) for number in itertools.count())
        return [b"".join(itertools.islice(lines, LINES_PER_PIECE)) for _ in range(_DIFFERENT_BLOCKS)]

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
