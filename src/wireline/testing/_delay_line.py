"""One direction through a bad network, as a pure schedule: received bytes go in, and come out when they are due.

The caller passes the time, so tests need not wait.
"""

from __future__ import annotations

import enum
import math
import random
from collections import deque

from wireline.testing._faults import Faults

__all__ = ["CAPACITY", "DelayLine", "Ending"]

CAPACITY = 1 << 20
"""The most bytes in flight in one direction. Beyond that nothing is read, so the sender has to wait."""

PAUSE = 0.001
"""Seconds between two pieces of ``chunk``. A guess: enough for a reader to wake up for each piece."""

_PIECES_PER_SECOND = 20
"""With ``rate`` a piece has at most the bytes of 1/20 second. A guess."""


class Ending(enum.Enum):
    """How a fault ends the stream after its number of bytes."""

    RESET = enum.auto()
    TRUNCATE = enum.auto()


class DelayLine:
    """The pieces in flight, and when each is due."""

    def __init__(self, faults: Faults, seed: str) -> None:
        """Begin with nothing in flight.

        Args:
            faults: of the network.
            seed: of the random numbers of this direction of this connection, with the seed of ``faults``.
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
        """Whether nothing is in flight."""
        return not self._pieces

    @property
    def ending(self) -> Ending | None:
        """How the stream ends after the bytes in flight; None if it goes on."""
        return self._end if self._accepted >= self._limit else None

    def put(self, data: bytes, now: float) -> None:
        """Put bytes in. Bytes beyond the limit of ``reset_after`` or ``truncate_after`` are lost."""
        left = self._limit - self._accepted
        view = memoryview(data)[: len(data) if left >= len(data) else int(left)]
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
        """Take the next piece out; None if none is due."""
        if not self._pieces or self._pieces[0][0] > now:
            return None
        piece = self._pieces.popleft()[1]
        self._in_flight -= len(piece)
        # If the caller is late, delay the next piece, too: pieces sent together would arrive together.
        if self._pause and self._pieces:
            due, following = self._pieces[0]
            self._pieces[0] = max(due, now + self._pause), following
        return piece

    def seconds_to_wait(self, now: float) -> float | None:
        """Seconds until the next piece is due; None if none is in flight."""
        return max(0.0, self._pieces[0][0] - now) if self._pieces else None


def _limit(faults: Faults) -> tuple[float, Ending | None]:
    """The number of bytes after which the stream ends, and how."""
    reset = math.inf if faults.reset_after is None else faults.reset_after
    truncated = math.inf if faults.truncate_after is None else faults.truncate_after
    if reset <= truncated:
        return reset, Ending.RESET if reset < math.inf else None
    return truncated, Ending.TRUNCATE
