"""Happy eyeballs (RFC 8305) as a pure schedule: which address to try next, and when.

Theory of operation
-------------------

A name has many addresses, and any of them may be dead without saying so. ``interleave`` puts them in the
order in which they are worth trying; ``Race`` says when. It opens nothing and reads no clock, so one
schedule drives both flavours and is tested in no time. A driver looks like this::

    race = Race(interleave(getaddrinfo(...)))
    while not race.over:
        while (index := race.start_due(now())) is not None:
            begin to connect race.candidates[index]
            (could it not even begin: race.failed(index, error, now()))
        wait until race.next_start(now()), or an attempt that runs is ready, or the deadline
        an attempt connected:    if race.won(index): close the others and return it, else close it
        an attempt failed:       race.failed(index, error, now()), then close it
        the deadline passed:     race.give_up(error, now()), then close them all
    raise DialError(name, race.attempts)

Invariants:

1. Candidates start in the given order, each once at most.
2. The first starts at once; each further one ``delay`` seconds after the one before it, or at once when an
   attempt has failed since. Failures do not add up: however many there were, the next one starts alone.
3. One attempt wins at most; a later one is reported to have lost. A report about an attempt that has ended changes
   nothing, so a driver need not remember its reports.
4. After a victory or ``give_up`` nothing starts any more.

Rejected: waiting out the delay after a failure, which costs 250 ms for each address that refuses at once; and
a thread or task for each address, which leaves the schedule to the scheduler, where no test can reach it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain, zip_longest

from wireline.errors import SockAddr

__all__ = ["ATTEMPT_DELAY", "AddrInfo", "Race", "interleave"]

AddrInfo = tuple[int, int, int, str, SockAddr]
"""What ``getaddrinfo`` gives: family, type, protocol, canonical name, socket address."""

ATTEMPT_DELAY = 0.25
"""Seconds between two attempts. RFC 8305 section 5 recommends it."""

# Seconds. No implementation may go below that, says the same section.
_SHORTEST_DELAY = 0.01


def interleave(addresses: Iterable[AddrInfo]) -> list[AddrInfo]:
    """Alternate the families, beginning with that of the first address (RFC 8305 section 4).

    Within a family the resolver's order is kept, for it is the one of RFC 6724. A socket address that comes
    twice is tried once.
    """
    unique: dict[SockAddr, AddrInfo] = {}
    for info in addresses:
        unique.setdefault(info[4], info)
    families: dict[int, list[AddrInfo]] = {}
    for info in unique.values():
        families.setdefault(info[0], []).append(info)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [info for info in turns if info is not None]


class _Attempt:
    """One address being tried: when it began, and how it failed, if it did."""

    __slots__ = ("ended", "error", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.ended = started
        self.error: OSError | None = None


class Race:
    """The schedule of one dial. Times are seconds on any clock that does not go back.

    Attributes:
        candidates: the addresses in the order in which they start; an attempt is named by its index here.
        winner: the index of the attempt that won, or None.
    """

    __slots__ = ("_attempts", "_delay", "_due", "_given_up", "candidates", "winner")

    def __init__(self, candidates: Iterable[AddrInfo], delay: float = ATTEMPT_DELAY) -> None:
        """Make the schedule.

        Args:
            candidates: the addresses, interleaved already.
            delay: seconds from one attempt to the next, at least 0.01.

        Raises:
            ValueError: the delay is too short, or no finite number.
        """
        if not (math.isfinite(delay) and delay >= _SHORTEST_DELAY):
            raise ValueError(f"the delay between attempts is at least {_SHORTEST_DELAY} s, got {delay}")
        self.candidates = tuple(candidates)
        self.winner: int | None = None
        self._delay = delay
        self._due = -math.inf
        self._attempts: list[_Attempt] = []
        self._given_up = False

    def start_due(self, now: float) -> int | None:
        """Return the index of the attempt to start now, which counts as started, or None."""
        due = self.next_start(now)
        if due is None or due > now:
            return None
        self._attempts.append(_Attempt(now))
        self._due = now + self._delay
        return len(self._attempts) - 1

    def next_start(self, now: float) -> float | None:
        """Return when the next attempt is due, which is ``now`` at the earliest, or None if none is left."""
        if self.winner is not None or self._given_up or len(self._attempts) == len(self.candidates):
            return None
        return max(self._due, now)

    def failed(self, index: int, error: OSError, now: float) -> None:
        """Note that an attempt failed: the next one is due at once.

        Raises:
            IndexError: this attempt was never started.
        """
        attempt = self._attempts[index]
        if attempt.error is None and index != self.winner:
            # A deadline may lie before the start of an attempt that was begun a moment too late.
            attempt.error, attempt.ended = error, max(now, attempt.started)
            self._due = -math.inf

    def won(self, index: int) -> bool:
        """Note that an attempt is connected.

        Returns:
            True if it is the winner; False if it lost, because another one won or the race was given up.

        Raises:
            IndexError: this attempt was never started.
        """
        if self._attempts[index].error is None and self.winner is None:
            self.winner = index
        return self.winner == index

    def give_up(self, error: OSError, now: float) -> None:
        """End the race at the deadline: what still runs fails with ``error``, nothing more starts."""
        self._given_up = True
        for index in range(len(self._attempts)):
            self.failed(index, error, now)

    @property
    def over(self) -> bool:
        """Whether the race is lost: no attempt has won, every one failed, and there is no more to start."""
        exhausted = self._given_up or len(self._attempts) == len(self.candidates)
        return exhausted and self.winner is None and all(attempt.error for attempt in self._attempts)

    @property
    def attempts(self) -> tuple[tuple[SockAddr, OSError, float], ...]:
        """What ``DialError`` reports: socket address, error and seconds of each attempt that failed.

        They are in the order in which they were started. After ``give_up`` none is missing.
        """
        return tuple(
            (info[4], attempt.error, attempt.ended - attempt.started)
            for info, attempt in zip(self.candidates, self._attempts, strict=False)
            if attempt.error is not None
        )
