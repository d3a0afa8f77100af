"""Rounds: every contestant in turn, each in a process of its own on one core, with its load on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks._process import Cores, FailedError
from benchmarks._rows import Reading


class Entrant(Protocol):
    """Who can be measured."""

    @property
    def name(self) -> str: ...

    def missing(self) -> str:
        """What keeps it from running here, for example what is not installed; empty if nothing does."""

    def remark(self, scale: float) -> str:
        """What is to be said about how it is measured here; empty if nothing is."""

    def measure(self, scale: float, cores: Cores) -> Reading:
        """Let it do its work once.

        Raises:
            FailedError: it did not do all of it, or something else.
        """


@dataclass
class Results:
    """What a run found.

    Attributes:
        readings: by contestant, one a round.
        failures: by contestant, why it failed. It is not asked again, and has no readings.
        left_out: by contestant, why it was not asked at all. It has no readings either.
        remarks: by contestant, what is to be said about how it was measured.
    """

    readings: dict[str, list[Reading]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


def _silent(done: int, total: int, name: str) -> None:
    pass


def run(
    contestants: Sequence[Entrant],
    rounds: int,
    scale: float,
    progress: Callable[[int, int, str], None] = _silent,
) -> Results:
    """Let all contestants run in every round.

    Args:
        contestants: in the order in which they run; every other round goes backwards, so that what only grows or
            shrinks with time favours nobody.
        rounds: how many.
        scale: how much of its work each does in a round.
        progress: told before each run how many are done, of how many, and who is next.
    """
    cores = Cores.choose()
    results = Results()
    present = [each for each in contestants if not _leave_out(each, results, scale)]
    for number in range(rounds):
        turn = list(present if number % 2 == 0 else reversed(present))
        for position, each in enumerate(turn):
            if each.name in results.failures:
                continue
            progress(number * len(turn) + position, rounds * len(turn), each.name)
            try:
                results.readings[each.name].append(each.measure(scale, cores))
            except FailedError as error:
                results.failures[each.name] = str(error)
                del results.readings[each.name]
    return results


def _leave_out(contestant: Entrant, results: Results, scale: float) -> bool:
    """Prepare the results for a contestant; true if it cannot run here."""
    if reason := contestant.missing():
        results.left_out[contestant.name] = reason
        return True
    results.readings[contestant.name] = []
    if remark := contestant.remark(scale):
        results.remarks[contestant.name] = remark
    return False
