"""One connection, and a contestant that holds the clock itself: what it is to do, and how it is measured."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from benchmarks._payload import Payload
from benchmarks._process import Cores, FailedError, Process
from benchmarks._rows import Reading


@dataclass(frozen=True)
class Work:
    """What is to be done, the same for all its contestants."""

    payload: Payload
    load: str | None
    """The role in ``_load``; None if there is no other end."""
    pieces: int
    """How many are measured in a round: as many as take about half a second. The rounds are many rather than long,
    for what disturbs a machine often lasts longer than that."""
    warm_up: int

    def scaled(self, factor: float) -> Work:
        """The same work, more or less of it."""
        return Work(
            self.payload, self.load, max(1, round(self.pieces * factor)), max(1, round(self.warm_up * factor))
        )


@dataclass(frozen=True)
class Contestant:
    """A program that can do a work."""

    name: str
    work: Work
    function: str
    """``module:function``, see ``_contestant``."""

    def missing(self) -> str:
        return ""

    def remark(self, scale: float) -> str:
        return ""

    def command(self, work: Work) -> list[str]:
        """How to start it."""
        program = [sys.executable, "-m", "benchmarks._contestant", self.function]
        return [*program, work.payload.name, str(work.pieces), str(work.warm_up)]

    def measure(self, scale: float, cores: Cores) -> Reading:
        work = self.work.scaled(scale)
        with Process(self.command(work), cores.contestant) as program:
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
    port = str(int(program.read()["port"]))
    with Process([sys.executable, "-m", "benchmarks._load", *words, port], cores.load) as load:
        try:
            return load.read()["checked"]
        except FailedError as error:
            # The one who saw it first may be either: a contestant that fails is gone, and its load sees that.
            own = program.complaint()
            raise FailedError(f"{own}; its load: {error}" if own else str(error)) from None
