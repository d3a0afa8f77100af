"""The torture harness: the input of a part, its output, and the list of the parts.

A part is a module beside this one with a function ``run(budget: Budget) -> Iterable[Finding]``. It stops by itself
when ``budget.spent()``, counts its work in ``budget.counts``, and yields a ``Finding`` for everything that broke a
promise. Calls that may hang or crash are made in a child process (``children.py``), so that a fault is a finding and
never the end of the harness. Parts use public names of the library only: so one harness runs on every version of it.

    python -m tests.torture                     every part, with the budget of the continuous integration
    python -m tests.torture syscalls --full     one part, everything it can think of
    python -m tests.torture --markdown          the table of docs/explanation/promises.md
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

NAMES = ("syscalls", "interruptions", "forks", "collector", "exits", "scale", "threads", "hostile")
"""The parts, in the order of the report. One whose module is not there is left out of it."""

SIZES = {"sample": 4.0, "ci": 60.0, "full": 3600.0}
"""Seconds that one part may take. With two parts at a time, ``ci`` is some five minutes for all of them."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A promise that was broken."""

    part: str
    scene: str
    """Which flavour, which kind of stream, which call."""
    done: str
    """The action."""
    happened: str
    """The observation, in one line or several."""
    fault: str = ""
    """The id of the fault this is taken for, if the harness can tell."""


@dataclasses.dataclass
class Counts:
    """The work of a part; the columns of the report."""

    scenes: int = 0
    calls_failed: int = 0
    interruptions: int = 0
    forks: int = 0
    connections: int = 0

    def add(self, **more: int) -> None:
        """Add to the counters of these names."""
        for name, number in more.items():
            setattr(self, name, getattr(self, name) + number)


class Budget:
    """The budget of one part, and its work so far.

    Attributes:
        seconds: how long the part may take.
        full: do everything, as long as the time lasts; else a sample that is the same for the same seed.
        size: the name in ``SIZES`` that this budget has.
        counts: the work of the part so far.
        notes: facts for the reader of the report that are no findings.
        random: for choices that are the same in each run.
    """

    def __init__(self, size: str = "ci", seconds: float | None = None, seed: int = 1, only: str = "") -> None:
        self.size = size
        self.full = size == "full"
        self.seconds = SIZES[size] if seconds is None else seconds
        self.seed = seed
        self.counts = Counts()
        self.notes: list[str] = []
        self.random = random.Random(seed)
        self._only = re.compile(only)
        self._began = time.monotonic()

    def remaining(self) -> float:
        """Seconds that are left, 0.0 at least."""
        return max(0.0, self._began + self.seconds - time.monotonic())

    def spent(self) -> bool:
        """Whether the part should end."""
        return self.remaining() == 0.0

    def elapsed(self) -> float:
        """Seconds since the part began."""
        return time.monotonic() - self._began

    def wants(self, scene: str) -> bool:
        """Whether a scene was asked for (``--only``)."""
        return bool(self._only.search(scene))

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """The items in an order that is the same for the same seed: a budget that ends early has tried some of all."""
        found = list(items)
        self.random.shuffle(found)
        return found

    def note(self, text: str) -> None:
        """Say something in the report that is no finding: a known window, or a case that could not be tried here."""
        self.notes.append(text)


@dataclasses.dataclass
class Outcome:
    """The result of one part."""

    name: str
    counts: Counts
    seconds: float
    findings: list[Finding]
    notes: list[str]


Run = Callable[[Budget], Iterable[Finding]]

_importing = threading.Lock()


def names() -> list[str]:
    """The parts that are there."""
    return [name for name in NAMES if importlib.util.find_spec(f"tests.torture.{name}") is not None]


def run(name: str, budget: Budget, say: Callable[[Finding], None] = lambda _: None) -> Outcome:
    """Run one part.

    Args:
        name: one of ``names()``.
        budget: how much to do.
        say: called with every finding as soon as it is there.
    """
    with _importing:
        part: Run = importlib.import_module(f"tests.torture.{name}").run
    findings = []
    for finding in part(budget):
        findings.append(finding)
        say(finding)
    return Outcome(name, budget.counts, budget.elapsed(), findings, budget.notes)


def merged(findings: Sequence[Finding]) -> list[tuple[Finding, int]]:
    """Findings that say the same but for numbers, once, with how often they were seen."""
    seen: dict[tuple[str, str, str], tuple[Finding, int]] = {}
    for finding in findings:
        first_line = finding.happened.partition("\n")[0]
        key = (finding.part, finding.scene, re.sub(r"\d+", "0", first_line)[:80])
        first, count = seen.get(key, (finding, 0))
        seen[key] = (first, count + 1)
    return list(seen.values())
