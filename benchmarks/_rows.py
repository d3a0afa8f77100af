"""From readings to results: one value a round, their median, their spread, and the target."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Reading(NamedTuple):
    """The cost of one contestant in one round. Times are in seconds; CPU time is that of its own process."""

    messages: int
    seconds: float
    user: float
    system: float
    memory: int = 0
    """Bytes by which its process grew."""
    load: float = 0.0
    """The part of the time in which its load was at work; 0 where that was not asked."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu(self) -> float:
        """Seconds of CPU time, user and system, a message."""
        return (self.user + self.system) / self.messages


Readings = Mapping[str, Sequence[Reading]]
"""The readings of every contestant, round by round."""


class Outcome(NamedTuple):
    """The result of a row."""

    values: list[float]
    """One a round, in the row's unit."""
    unit: str
    """``x`` or ``ms``."""
    ours: float
    """Seconds of CPU time a message, median."""
    theirs: float | None
    """The same for the other contestant."""
    target: str
    """In words, empty for a row without one."""
    reached: bool | None
    """Whether the median reaches the target; None where there is none."""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)


def _ratios(
    values: list[float],
    ours: Sequence[Reading],
    theirs: Sequence[Reading],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Outcome:
    """The result of a row of ratios, which has one limit at most."""
    target, reached = "", None
    if at_least is not None:
        target, reached = f"at least {at_least:g}x", statistics.median(values) >= at_least
    elif at_most is not None:
        target, reached = f"at most {at_most:g}x", statistics.median(values) <= at_most
    ours_cpu, theirs_cpu = (statistics.median(reading.cpu for reading in side) for side in (ours, theirs))
    return Outcome(values, "x", ours_cpu, theirs_cpu, target, reached)


class Row(Protocol):
    """A line of the table."""

    @property
    def name(self) -> str: ...

    @property
    def against(self) -> str:
        """The contestant to compare with."""

    @property
    def contestants(self) -> tuple[str, ...]:
        """The names of the contestants that must run for it."""

    def outcome(self, readings: Readings) -> Outcome:
        """Compute the row, from as many rounds as there are."""


@dataclass(frozen=True)
class RateRow:
    """Our rate, divided by theirs."""

    name: str
    ours: str
    against: str
    at_least: float | None = None

    @property
    def contestants(self) -> tuple[str, ...]:
        return self.against, self.ours

    def outcome(self, readings: Readings) -> Outcome:
        ours, theirs = readings[self.ours], readings[self.against]
        values = [one.rate / other.rate for one, other in zip(ours, theirs, strict=True)]
        return _ratios(values, ours, theirs, at_least=self.at_least)


@dataclass(frozen=True)
class CpuRow:
    """Our CPU time a message, divided by theirs: for clients, whose rate is that of the server too."""

    name: str
    ours: str
    against: str
    at_most: float | None = None

    @property
    def contestants(self) -> tuple[str, ...]:
        return self.against, self.ours

    def outcome(self, readings: Readings) -> Outcome:
        ours, theirs = readings[self.ours], readings[self.against]
        values = [one.cpu / other.cpu for one, other in zip(ours, theirs, strict=True)]
        return _ratios(values, ours, theirs, at_most=self.at_most)


@dataclass(frozen=True)
class ExtraRow:
    """The CPU time of an extra in ours, divided by that in theirs. Including waits would hide it."""

    name: str
    ours: str
    ours_without: str
    against: str
    against_without: str
    at_most: float

    @property
    def contestants(self) -> tuple[str, ...]:
        return self.against_without, self.against, self.ours_without, self.ours

    def outcome(self, readings: Readings) -> Outcome:
        ours = _extra(readings[self.ours], readings[self.ours_without])
        theirs = _extra(readings[self.against], readings[self.against_without])
        values = [one / other for one, other in zip(ours, theirs, strict=True)]
        return Outcome(
            values,
            "x",
            statistics.median(ours),
            statistics.median(theirs),
            f"at most {self.at_most:g}x",
            # Where theirs cannot be seen to cost anything, too little was measured.
            statistics.median(theirs) > 0 and statistics.median(values) <= self.at_most,
        )


def _extra(with_it: Sequence[Reading], without: Sequence[Reading]) -> list[float]:
    return [one.cpu - other.cpu for one, other in zip(with_it, without, strict=True)]


@dataclass(frozen=True)
class DurationRow:
    """Milliseconds, with a limit on them."""

    name: str
    ours: str
    at_most: float
    against: str = ""

    @property
    def contestants(self) -> tuple[str, ...]:
        return (self.ours,)

    def outcome(self, readings: Readings) -> Outcome:
        values = [1e3 * reading.seconds / reading.messages for reading in readings[self.ours]]
        return Outcome(
            values,
            "ms",
            statistics.median(reading.cpu for reading in readings[self.ours]),
            None,
            f"at most {self.at_most:g} ms",
            statistics.median(values) <= self.at_most,
        )


@dataclass(frozen=True)
class MemoryRow:
    """The memory of one of ours, divided by that of one of theirs."""

    name: str
    ours: str
    against: str
    at_most: float | None = None

    @property
    def contestants(self) -> tuple[str, ...]:
        return self.against, self.ours

    def outcome(self, readings: Readings) -> Outcome:
        ours, theirs = readings[self.ours], readings[self.against]
        values = [_memory(one) / _memory(other) for one, other in zip(ours, theirs, strict=True)]
        return _ratios(values, ours, theirs, at_most=self.at_most)


def _memory(reading: Reading) -> float:
    # A run that is too short may need no new page: it is taken to need one.
    return max(reading.memory, 4096) / reading.messages
