"""Reading the file of a run that ``--json`` wrote."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from benchmarks._rows import RateRow, Row
from benchmarks._task import Task

PLAIN_ECHO = Task("echo", 64, 64, 1, False)
"""The task of most pictures: 64 connections, messages of 64 bytes, one outstanding on each."""


LIMIT = "C epoll"
"""The program that shows the kernel's limit."""


def is_ours(program: str) -> bool:
    """Whether a program is one of this library's."""
    return program.startswith("wireline")


class Measured(NamedTuple):
    """One contestant. Times are seconds of CPU time a message, medians of all rounds."""

    name: str
    program: str
    work: Task
    rate: float
    """Messages a second."""
    user: float
    system: float

    @property
    def cpu(self) -> float:
        """User and system time."""
        return self.user + self.system


class Comparison(NamedTuple):
    """One row: ours against theirs."""

    name: str
    against: str
    program: str
    """The program of ``against``; empty where there is none."""
    median: float
    low: float
    high: float
    unit: str
    """``x`` or ``ms``."""
    target: str
    reached: bool | None
    smaller_is_better: bool

    @property
    def is_behind(self) -> bool:
        """Whether theirs is better."""
        shown = round(self.median, 2)
        return self.unit == "x" and (shown > 1 if self.smaller_is_better else shown < 1)


class Saved(NamedTuple):
    """Everything that the documentation shows."""

    facts: Mapping[str, object]
    measured: Sequence[Measured]
    comparisons: Sequence[Comparison]
    left_out: Mapping[str, str]
    failures: Mapping[str, str]
    remarks: Mapping[str, str]
    fingerprint: str
    """Tells whether a picture was drawn from these numbers."""


class _Doing(TypedDict):
    what: str
    connections: int | None
    bytes: int | None
    outstanding: int | None
    tls: bool


class _Round(TypedDict):
    messages: int
    user: float
    system: float


class _Contestant(TypedDict):
    program: str
    work: _Doing
    rate: float
    rounds: list[_Round]


class _Outcome(TypedDict):
    median: float
    values: list[float]
    unit: str
    target: str
    reached: bool | None


def read(path: Path, rows: Sequence[Row]) -> Saved:
    """Read a file that ``--json`` wrote.

    Args:
        path: the file.
        rows: the rows to read; others in the file are ignored.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    contestants: dict[str, _Contestant] = document["contestants"]
    outcomes: dict[str, _Outcome | None] = document["rows"]
    measured = [_measured(name, each) for name, each in contestants.items()]
    programs = {each.name: each.program for each in measured}
    found = ((row, outcomes.get(row.name)) for row in rows)
    text = json.dumps(document, sort_keys=True)
    return Saved(
        document["circumstances"],
        measured,
        [_comparison(row, outcome, programs.get(row.against, "")) for row, outcome in found if outcome],
        document["left out"],
        document["failures"],
        document["remarks"],
        hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def _measured(name: str, entry: _Contestant) -> Measured:
    user, system = (
        [each[kind] / each["messages"] for each in entry["rounds"]] for kind in ("user", "system")
    )
    both = statistics.median(one + other for one, other in zip(user, system, strict=True))
    # The sum is exact in each round, how it divides is an estimate: the more rounds it is taken from, the better.
    part = sum(user) / (sum(user) + sum(system) or 1)
    return Measured(
        name, entry["program"], Task(**entry["work"]), entry["rate"], both * part, both * (1 - part)
    )


def _comparison(row: Row, found: _Outcome, program: str) -> Comparison:
    values = found["values"]
    return Comparison(
        row.name,
        row.against,
        program,
        found["median"],
        min(values),
        max(values),
        found["unit"],
        found["target"],
        found["reached"],
        not isinstance(row, RateRow),
    )


# ------------------------------------------------------------------------------------------------------- choosing


def doing(work: Task, measured: Iterable[Measured]) -> list[Measured]:
    """The measurements of a task, least CPU time first; each program once."""
    found = {each.program: each for each in measured if each.work == work}
    return sorted(found.values(), key=lambda each: each.cpu)


def growing(axis: str, measured: Iterable[Measured]) -> dict[str, dict[int, Measured]]:
    """The measurements of the plain echo with other values on one axis, by program and value.

    Args:
        axis: ``connections`` or ``bytes``.
        measured: the measurements to select from.
    """
    found: dict[str, dict[int, Measured]] = {}
    for each in measured:
        number = each.work._asdict()[axis]
        if number is not None and each.work == PLAIN_ECHO._replace(**{axis: number}):
            found.setdefault(each.program, {})[number] = each
    steps = {program: dict(sorted(points.items())) for program, points in found.items()}
    return {program: points for program, points in steps.items() if len(points) > 2}
