"""Rounds: every contestant in turn, each in a process of its own on one core, with its load on another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks._process import Cores, FailedError
from benchmarks._rows import Reading
from benchmarks._task import Doer


class Entrant(Protocol):
    """A program that can be measured."""

    @property
    def name(self) -> str: ...

    @property
    def doer(self) -> Doer:
        """Its program and its task."""

    @property
    def every(self) -> int:
        """It takes part in one round out of so many."""

    def missing(self) -> str:
        """The reason why it cannot run here, for example a missing package; empty if it can."""

    def remark(self, scale: float) -> str:
        """A remark on how it is measured here, or empty."""

    def measure(self, scale: float, cores: Cores) -> Reading:
        """Let it do its work once.

        Raises:
            FailedError: it did not do all of it, or something else.
        """


@dataclass
class Results:
    """The results of a run.

    Attributes:
        readings: by contestant, one a round.
        failures: by contestant, why it failed. It does not run again, and has no readings.
        left_out: by contestant, why it did not run at all. It has no readings either.
        remarks: by contestant, on how it was measured.
        doers: by contestant, its program and its task.
    """

    readings: dict[str, list[Reading]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    doers: dict[str, Doer] = field(default_factory=dict)


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
        contestants: in the order in which they run; every other round runs backwards, so that a drift over time favours
            none of them.
        rounds: how many.
        scale: how much of its work each does in a round.
        progress: called before each run with the number of runs done, their total, and the next name.
    """
    cores = Cores.choose()
    results = Results()
    present = [each for each in contestants if not _leave_out(each, results, scale)]
    done, total = 0, sum(math.ceil(rounds / each.every) for each in present)
    for number in range(rounds):
        turn = [each for each in present if number % each.every == 0]
        if (
            number // 2 % 2
        ):  # two rounds in each direction, so that a contestant of every other round gets both
            turn.reverse()
        for each in turn:
            if each.name in results.failures:
                continue
            progress(done, total, each.name)
            done += 1
            try:
                results.readings[each.name].append(each.measure(scale, cores))
            except FailedError as error:
                results.failures[each.name] = str(error)
                del results.readings[each.name]
    return results


def _leave_out(contestant: Entrant, results: Results, scale: float) -> bool:
    """Prepare the results for a contestant; true if it cannot run here."""
    results.doers[contestant.name] = contestant.doer
    if reason := contestant.missing():
        results.left_out[contestant.name] = reason
        return True
    results.readings[contestant.name] = []
    if remark := contestant.remark(scale):
        results.remarks[contestant.name] = remark
    return False
