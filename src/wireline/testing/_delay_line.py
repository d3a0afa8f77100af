"""One direction through a bad network, as a pure schedule: bytes go in when they come, and out when it is time.

It is given "now" and never reads a clock, so that it can be tested without waiting.
"""

from __future__ import annotations

import enum
import math
import random
from collections import deque

from wireline.testing._faults import Faults

__all__ = ["CAPACITY", "DelayLine", "Ending"]

CAPACITY = 1 << 20
"""Bytes that may be under way in one direction. What comes on top of it is not read, and so holds the sender back."""

PAUSE = 0.001
"""Seconds between two pieces of ``chunk``. A guess: who waits for the first one has woken up when the second comes."""

_PIECES_PER_SECOND = 20
"""How smoothly ``rate`` flows: a piece has at most a twentieth of what goes in a second."""


class Ending(enum.Enum):
    """What becomes of the stream once a number of bytes has gone through."""

    RESET = enum.auto()
    TRUNCATE = enum.auto()


class DelayLine:
    """What is under way, and when it arrives."""

    def __init__(self, faults: Faults, seed: str) -> None:
        """Begin with nothing under way.

        Args:
            faults: what is wrong.
            seed: makes the random numbers of this direction of this connection.
        """
        self._delay = faults.delay
        self._jitter = faults.jitter
        self._rate = faults.rate
        self._pause = PAUSE if faults.chunk else 0.0
        self._random = random.Random(f"{faults.seed}/{seed}")
        per_piece = max(1, faults.rate // _PIECES_PER_SECOND) if faults.rate else CAPACITY
        self._max_piece = min(per_piece, faults.chunk or CAPACITY)
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._in_flight = 0
        self._free_at = -math.inf
        self._limit, self._end = _limit(faults)
        self._accepted = 0

    @property
    def has_capacity(self) -> bool:
        """Whether more may be put in."""
        return self._in_flight < CAPACITY

    @property
    def is_empty(self) -> bool:
        """Whether everything that was put in has come out."""
        return not self._pieces

    @property
    def ending(self) -> Ending | None:
        """What happens after the bytes that are under way; None: they are not the last ones."""
        return self._end if self._accepted >= self._limit else None

    def put(self, data: bytes, now: float) -> None:
        """Put bytes in. Those beyond the limit are lost."""
        room = self._limit - self._accepted
        view = memoryview(data)[: len(data) if room >= len(data) else int(room)]
        self._accepted += len(view)
        for start in range(0, len(view), self._max_piece):
            self._put_piece(bytes(view[start : start + self._max_piece]), now)

    def _put_piece(self, piece: bytes, now: float) -> None:
        arrival = now + self._delay + (self._random.random() * self._jitter if self._jitter else 0.0)
        due = max(arrival, self._free_at) + (len(piece) / self._rate if self._rate else 0.0)
        self._free_at = due + self._pause
        self._pieces.append((due, piece))
        self._in_flight += len(piece)

    def take(self, now: float) -> bytes | None:
        """Take the next piece out; None: it is not there yet."""
        if not self._pieces or self._pieces[0][0] > now:
            return None
        piece = self._pieces.popleft()[1]
        self._in_flight -= len(piece)
        # Who was late is not made up for: pieces that were sent in one go would arrive in one.
        if self._pause and self._pieces:
            due, following = self._pieces[0]
            self._pieces[0] = max(due, now + self._pause), following
        return piece

    def seconds_to_wait(self, now: float) -> float | None:
        """Seconds until the next piece is there; None if none is under way."""
        return max(0.0, self._pieces[0][0] - now) if self._pieces else None


def _limit(faults: Faults) -> tuple[float, Ending | None]:
    """After how many bytes it is over, and how."""
    reset = math.inf if faults.reset_after is None else faults.reset_after
    truncated = math.inf if faults.truncate_after is None else faults.truncate_after
    if reset <= truncated:
        return reset, Ending.RESET if reset < math.inf else None
    return truncated, Ending.TRUNCATE
