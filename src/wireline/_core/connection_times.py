"""The time limits of a server's connections: which connection to look at next, and which is over which limit.

Theory of operation. Nothing is done for a message. Each connection is in the bucket of the tick at which it is to be
looked at next: a wheel of buckets, so that a connection is added and removed at constant cost. A look compares the byte
counts of the connection with those of the last look. The idle time is looked at four times in its length, so a
connection is found idle after at most a quarter more.

The rate counts only while the client owes the rest of a line, a frame or a block: a read waits, and has bytes that are
not enough. As long as the handler takes nothing, this is one and the same read, and its rate is the bytes received in
the window. Waiting between two messages is no low rate, and neither is a handler that is busy.

The core reads no clock. It is not for several threads at once.
"""

from __future__ import annotations

import enum
import heapq
import math
from typing import NamedTuple

from wireline._core.connection_counts import Connection

__all__ = ["ConnectionTimes", "Progress", "TimeLimit", "TimeLimits"]

RATE_WINDOW = 5.0
"""Seconds over which the rate is averaged."""

BATCH = 128
"""The most connections to look at in a row, before an event loop gets its turn. A guess: to close all takes 5 ms."""

# Looks in one idle time, or one window. A guess: a quarter more is near enough, and costs four looks.
_LOOKS = 4

# Ticks in the shortest limit, and the longest tick in seconds. Guesses: the more ticks, the more wake-ups.
_TICKS_IN_LIMIT = 16
_LONGEST_TICK = 0.25


class TimeLimit(enum.Enum):
    """A limit that a connection has exceeded."""

    FIRST_BYTE = "first_byte_timeout"
    IDLE = "idle_timeout"
    LIFETIME = "lifetime"
    RATE = "min_rate"


class TimeLimits(NamedTuple):
    """The limits of one server; None for no limit.

    Attributes:
        first_byte: seconds from the start of the handler to the first byte of the client.
        idle: seconds in which a call waits, and no byte moves in either direction.
        lifetime: seconds from the accept.
        min_rate: bytes a second of an incomplete message.
    """

    first_byte: float | None = None
    idle: float | None = None
    lifetime: float | None = None
    min_rate: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self != TimeLimits()


class Progress(NamedTuple):
    """What a look at a connection finds.

    Attributes:
        received: bytes that the client has sent.
        sent: a number that changes when the client takes bytes.
        waiting: a call of the handler waits for the client.
        reading: that call is a read, and has bytes that are not enough.
        taken: bytes that the handler has taken.
    """

    received: int
    sent: int
    waiting: bool
    reading: bool
    taken: int


class ConnectionTimes:
    """When to look at each connection of a server."""

    def __init__(self, limits: TimeLimits) -> None:
        self.limits = limits
        shortest = min((each for each in limits[:3] if each is not None), default=math.inf)
        if limits.min_rate is not None:
            shortest = min(shortest, RATE_WINDOW)
        self._tick = min(shortest / _TICKS_IN_LIMIT, _LONGEST_TICK)
        self._buckets: dict[int, dict[Connection, None]] = {}
        self._ticks: list[int] = []  # a heap of the keys

    def start(self, connection: Connection, now: float) -> bool:
        """Begin with a connection whose handler starts; return whether it is to be looked at before all others."""
        connection.started_at = connection.active_at = now
        before = self._ticks[0] if self._ticks else None
        self._schedule(connection, now)
        return bool(self._ticks) and self._ticks[0] != before

    def remove(self, connection: Connection) -> None:
        """Look at it no more. A second call, or one for a connection that was never started, has no effect."""
        tick, connection.tick = connection.tick, None
        bucket = None if tick is None else self._buckets.get(tick)
        if bucket is not None:
            bucket.pop(connection, None)

    def next_look(self) -> float | None:
        """Return the time of the next look; None if there is no connection."""
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]
        return self._ticks[0] * self._tick if self._ticks else None

    def due(self, now: float) -> list[Connection]:
        """Return connections to look at now, ``BATCH`` at most. Each is then given to ``look``, or forgotten."""
        found: list[Connection] = []
        while (at := self.next_look()) is not None and at <= now and len(found) < BATCH:
            connection, _ = self._buckets[self._ticks[0]].popitem()
            connection.tick = None
            found.append(connection)
        return found

    def look(self, connection: Connection, progress: Progress, now: float) -> TimeLimit | None:
        """Return the limit that a connection exceeds; else schedule its next look."""
        limits = self.limits
        if limits.lifetime is not None and now >= connection.accepted_at + limits.lifetime:
            return TimeLimit.LIFETIME
        if self._is_silent(connection, progress, now):
            return TimeLimit.FIRST_BYTE
        if self._is_idle(connection, progress, now):
            return TimeLimit.IDLE
        if self._is_slow(connection, progress, now):
            return TimeLimit.RATE
        self._schedule(connection, now)
        return None

    def _is_silent(self, connection: Connection, progress: Progress, now: float) -> bool:
        first_byte = self.limits.first_byte
        return first_byte is not None and not progress.received and now >= connection.started_at + first_byte

    def _is_idle(self, connection: Connection, progress: Progress, now: float) -> bool:
        moved = progress.received, progress.sent
        if moved != connection.moved or not progress.waiting:
            connection.moved, connection.active_at = moved, now
            return False
        return self.limits.idle is not None and now >= connection.active_at + self.limits.idle

    def _is_slow(self, connection: Connection, progress: Progress, now: float) -> bool:
        if self.limits.min_rate is None:
            return False
        if not progress.reading:
            connection.taken = None
            return False
        if connection.taken != progress.taken:  # another message than at the last look
            connection.taken = progress.taken
            connection.measured_from = now, progress.received
            return False
        since, received = connection.measured_from
        seconds = now - since
        if seconds < RATE_WINDOW:
            return False
        connection.measured_from = now, progress.received
        return (progress.received - received) / seconds < self.limits.min_rate

    def _schedule(self, connection: Connection, now: float) -> None:
        limits = self.limits
        at = math.inf
        if limits.lifetime is not None:
            at = connection.accepted_at + limits.lifetime
        if limits.first_byte is not None and now < connection.started_at + limits.first_byte:
            at = min(at, connection.started_at + limits.first_byte)
        if limits.idle is not None:
            at = min(at, connection.active_at + limits.idle, now + limits.idle / _LOOKS)
        if limits.min_rate is not None:
            at = min(at, now + RATE_WINDOW / _LOOKS)
        if at == math.inf:  # it has sent its first byte, and there is no other limit
            return
        # Up, so that no limit is found a moment before it is exceeded; and never into a tick that is over.
        tick = max(math.ceil(at / self._tick), math.floor(now / self._tick) + 1)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
        bucket[connection] = None
        connection.tick = tick
