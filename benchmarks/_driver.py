"""Rounds: every contestant in turn, each in a process of its own on one core, with its load on another."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks._catalogue import Contestant, Work
from benchmarks._process import FailedError, Process
from benchmarks._rows import Reading


class Cores(NamedTuple):
    """Where the processes run; None lets the operating system choose."""

    contestant: int | None
    load: int | None

    @classmethod
    def choose(cls) -> Cores:
        """One core for the contestant and another for its load, where there are two and they can be chosen."""
        if sys.platform == "linux":
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) > 1:
                return cls(cores[-1], cores[0])
        return cls(None, None)


@dataclass
class Results:
    """What a run found.

    Attributes:
        readings: by contestant, one a round.
        failures: by contestant, why it failed. It is not asked again, and has no readings.
    """

    readings: dict[str, list[Reading]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def _silent(done: int, total: int, name: str) -> None:
    pass


def run(
    contestants: Sequence[Contestant],
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
    results = Results({each.name: [] for each in contestants})
    for number in range(rounds):
        turn = list(contestants if number % 2 == 0 else reversed(contestants))
        for position, each in enumerate(turn):
            if each.name in results.failures:
                continue
            progress(number * len(turn) + position, rounds * len(turn), each.name)
            try:
                results.readings[each.name].append(_measure(each, each.work.scaled(scale), cores))
            except FailedError as error:
                results.failures[each.name] = str(error)
                del results.readings[each.name]
    return results


def _measure(contestant: Contestant, work: Work, cores: Cores) -> Reading:
    """Let one contestant do one work.

    Raises:
        FailedError: it did not do all of it, or something else.
    """
    with Process(contestant.command(work), cores.contestant) as program:
        checked = 0.0
        if work.load is not None:
            checked = _bear_load(program, work, cores)
        spent = program.read()
        failure = program.complaint()
    if failure:
        raise FailedError(failure)
    checked += spent["checked"]
    if checked != work.pieces + work.warm_up:
        raise FailedError(f"{checked:g} pieces were right, of {work.pieces + work.warm_up}")
    return Reading(work.pieces * work.payload.messages, spent["seconds"], spent["user"], spent["system"])


def _bear_load(program: Process, work: Work, cores: Cores) -> float:
    """Run the load against a contestant; return how many pieces it saw to be right."""
    words = [str(work.load), work.payload.name, str(work.pieces), str(work.warm_up)]
    port = str(program.read()["port"])
    with Process([sys.executable, "-m", "benchmarks._load", *words, port], cores.load) as load:
        try:
            return load.read()["checked"]
        except FailedError as error:
            # The one who saw it first may be either: a contestant that fails is gone, and its load sees that.
            own = program.complaint()
            raise FailedError(f"{own}; its load: {error}" if own else str(error)) from None
