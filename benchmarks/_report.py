"""The output: a progress line, tables, and JSON for further work."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from benchmarks import _growth
from benchmarks._driver import Results
from benchmarks._process import Cores
from benchmarks._programs import MANY
from benchmarks._rows import Outcome, Row
from benchmarks._words import in_microseconds, in_short

try:
    from rich import box
    from rich.console import Console
    from rich.table import Table
except ImportError:  # then the tables are plain
    HAVE_RICH = False
else:
    HAVE_RICH = True

_COMPARISONS = ["work", "against", "median", "min - max", "CPU us", "theirs", "target", ""]
_CONTESTANTS = ["contestant", "per second", "min - max", "CPU us", "user", "system", "KiB"]
_TEXT_COLUMNS = {"work", "against", "contestant", "target", ""}
_COLOURS = {"reached": "green", "missed": "yellow", "FAILED": "red", "left out": "dim"}

_AT_ITS_LIMIT = 0.95
"""The share of busy time from which on the load is the bottleneck. A guess: it waits now and then."""


class Circumstances(TypedDict):
    """The circumstances of the run."""

    python: str
    platform: str
    cpus: int | None
    rounds: int
    scale: float
    contestant_core: int | None
    load_core: int | None
    load: str


def circumstances(rounds: int, scale: float) -> Circumstances:
    """Say where and how it was measured."""
    cores = Cores.choose()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "rounds": rounds,
        "scale": scale,
        "contestant_core": cores.contestant,
        "load_core": cores.load,
        "load": MANY.chosen.name,
    }


def show_progress(done: int, total: int, name: str) -> None:
    """Show the progress on a terminal; ``name`` is empty at the end."""
    if sys.stderr.isatty():
        words = f"{done}/{total}  {name}" if name else ""
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


def show(rows: Sequence[Row], results: Results, facts: Circumstances) -> None:
    """Print everything."""
    where = "no core pinned"
    if facts["contestant_core"] is not None:
        where = f"contestants on core {facts['contestant_core']}, loads on core {facts['load_core']}"
    print(f"{facts['python']}, {facts['platform']}, {where}")
    print(f"medians of {facts['rounds']} rounds; CPU time is that of the contestant, a message")
    if facts["rounds"] < 5:
        print("fewer than five rounds: the medians mean little")
    if results.readings:
        _table(_CONTESTANTS, [_contestant_cells(name, results) for name in results.readings])
    _table(_COMPARISONS, [_row_cells(row, results) for row in rows])
    for headings, lines in _growth.tables(results):
        _table(headings, lines)
    _remarks(results)


def _remarks(results: Results) -> None:
    """Print the remarks that are not in the tables."""
    busy = [(name, statistics.median(each.load for each in all_)) for name, all_ in results.readings.items()]
    limits = [f"{name} ({part:.0%})" for name, part in busy if part > _AT_ITS_LIMIT]
    if limits:
        print(f"the load was at its limit, the CPU time is what tells: {', '.join(limits)}")
    for kind, reasons in (("left out", results.left_out), ("note", results.remarks)):
        for reason in dict.fromkeys(reasons.values()):
            names = [name for name, each in reasons.items() if each == reason]
            print(f"{kind}: {', '.join(names)}: {reason}")
    for name, reason in results.failures.items():
        print(f"FAILED: {name}: {reason}")


def _contestant_cells(name: str, results: Results) -> list[str]:
    readings = results.readings[name]
    rates = [reading.rate for reading in readings]
    times = [
        [reading.cpu for reading in readings],
        [reading.user / reading.messages for reading in readings],
        [reading.system / reading.messages for reading in readings],
    ]
    spread = f"{in_short(min(rates))} - {in_short(max(rates))}"
    memory = statistics.median(reading.memory / reading.messages for reading in readings)
    return [
        name,
        in_short(statistics.median(rates)),
        spread,
        *(in_microseconds(statistics.median(each)) for each in times),
        f"{memory / 1024:.1f}" if memory >= 0.1 * 1024 else "",
    ]


def outcome(row: Row, results: Results) -> Outcome | None:
    """Compute a row; None if one of its contestants failed or was left out."""
    if any(name in results.failures or name in results.left_out for name in row.contestants):
        return None
    return row.outcome(results.readings)


def _row_cells(row: Row, results: Results) -> list[str]:
    found = outcome(row, results)
    if found is None:
        failed = any(name in results.failures for name in row.contestants)
        return [row.name, row.against, "", "", "", "", "", "FAILED" if failed else "left out"]
    median, low, high = (_value(value, found.unit) for value in (found.value, *_ends(found.values)))
    unit = "x" if found.unit == "x" else f" {found.unit}"
    cpu = [in_microseconds(found.ours), "" if found.theirs is None else in_microseconds(found.theirs)]
    verdict = {True: "reached", False: "missed", None: ""}[found.reached]
    return [row.name, row.against, median + unit, f"{low} - {high}", *cpu, found.target, verdict]


def _value(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "x" else f"{value:.1f}"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _is_text(heading: str) -> bool:
    return heading in _TEXT_COLUMNS or heading.startswith("echo ")


def _table(headings: list[str], lines: list[list[str]]) -> None:
    print()
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    # Better lines that wrap on a narrow terminal than names that are cut.
    if HAVE_RICH and sys.stdout.isatty() and sum(widths) + 2 * len(widths) <= Console().width:
        _rich_table(headings, lines)
        return
    for line in (headings, ["-" * width for width in widths], *lines):
        cells = [
            cell.ljust(width) if _is_text(heading) else cell.rjust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _rich_table(headings: list[str], lines: list[list[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for heading in headings:
        table.add_column(heading, justify="left" if _is_text(heading) else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line, style=_COLOURS.get(line[-1]))
    Console().print(table)


def _contestant(name: str, results: Results) -> dict[str, object]:
    """One contestant: its program, its task, its cost. Times are seconds a message."""
    readings = results.readings[name]
    doer = results.doers.get(name)
    rates = [reading.rate for reading in readings]
    return {
        "program": doer and doer.program,
        "work": doer and doer.work._asdict(),
        "rate": statistics.median(rates),
        "spread": _ends(rates),
        "user": statistics.median(reading.user / reading.messages for reading in readings),
        "system": statistics.median(reading.system / reading.messages for reading in readings),
        "memory": statistics.median(reading.memory / reading.messages for reading in readings),
        "rounds": [reading._asdict() for reading in readings],
    }


def write_json(path: Path, rows: Sequence[Row], results: Results, facts: Circumstances) -> None:
    """Write everything, every round of it."""
    found = {row.name: outcome(row, results) for row in rows}
    document = {
        "circumstances": facts,
        "contestants": {name: _contestant(name, results) for name in results.readings},
        "rows": {
            name: None if each is None else {"median": each.value, **each._asdict()}
            for name, each in found.items()
        },
        "failures": results.failures,
        "left out": results.left_out,
        "remarks": results.remarks,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
