"""The parts of ``docs/benchmarks.md`` that have numbers: tables, the rows in which others are ahead, and pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks._programs import absent
from benchmarks._rows import Row
from benchmarks._saved import LIMIT, Comparison, Measured, Saved, growing, is_ours, read
from benchmarks._words import in_bytes, in_microseconds, in_short

_NO_BREAK = "\N{NO-BREAK SPACE}"
_RANGE = f"{_NO_BREAK}to{_NO_BREAK}"
_COLUMNS_OF_WORDS = {"work", "against", "target", "", "connections", "messages of"}


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, numbers to the right."""
    rule = ["---" if heading in _COLUMNS_OF_WORDS else "--:" for heading in headings]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *lines)) + "\n"


def _in_unit(value: float, unit: str) -> str:
    return f"{value:.2f}x" if unit == "x" else f"{value:.0f} {unit}"


def _line(row: Comparison) -> list[str]:
    median, *spread = (_in_unit(each, row.unit) for each in (row.median, row.low, row.high))
    verdict = {True: "reached", False: "missed", None: ""}[row.reached]
    return [row.name, row.against, f"**{median}**", _RANGE.join(spread), row.target, verdict]


_HEADINGS = ["work", "against", "median", "min to max", "target", ""]


def all_rows(saved: Saved) -> str:
    """Every row with a value, except those of growth, which have tables of their own."""
    lines = [_line(row) for row in saved.comparisons if not row.name.startswith("growth")]
    return _table(_HEADINGS, lines) if lines else "Nothing was compared.\n"


def losses(saved: Saved) -> str:
    """The rows in which others are ahead, and those that miss their target."""
    behind = [row for row in saved.comparisons if row.is_behind]
    below = [row for row in behind if _is_below_streams(row.program)]
    own = [row for row in behind if is_ours(row.program)]
    peers = [row for row in behind if row not in below and row not in own]
    short = [row for row in saved.comparisons if row.reached is False and not row.is_behind]
    parts = [
        _losses("Behind others of the same kind", peers) or "No other of the same kind is ahead.\n",
        _losses("Not behind, but short of the target", short) or "No other row is short of its target.\n",
        _losses("Behind another way of doing it that this library has", own),
        _briefly("Behind callbacks and C, which do less for a program", below),
    ]
    return "\n".join(filter(None, parts))


def _is_below_streams(program: str) -> bool:
    """Whether a program has no reads that wait, but callbacks."""
    return "Protocol" in program or program == LIMIT


def _losses(title: str, rows: Sequence[Comparison]) -> str:
    if not rows:
        return ""
    return f"{title} ({len(rows)}):\n\n{_table(_HEADINGS, [_line(row) for row in rows])}"


def _briefly(title: str, rows: Sequence[Comparison]) -> str:
    """A line for each program: the rows in which it is ahead."""
    found: dict[str, list[str]] = {}
    for row in rows:
        what = row.name.rpartition(":")[0].removeprefix("growth: ").removeprefix("async ")
        found.setdefault(row.program, []).append(f"{what} {_in_unit(row.median, row.unit)}")
    lines = [f"- **{program}**: {', '.join(what)}\n" for program, what in found.items()]
    return f"{title} ({len(rows)}):\n\n{''.join(lines)}" if lines else ""


def growth(saved: Saved) -> str:
    """Rates by connections and by message size, and the CPU time."""
    parts = []
    for axis, title, words in (
        ("connections", "connections", str),
        ("bytes", "messages of", in_bytes),
    ):
        steps = growing(axis, saved.measured)
        if steps:
            parts.append(_growth(steps, title, words))
    return "\n".join(parts) or "Nothing was measured with other numbers.\n"


def _growth(steps: Mapping[str, Mapping[int, Measured]], title: str, words: Callable[[int], str]) -> str:
    numbers = sorted({number for points in steps.values() for number in points})
    lines = [
        [program, *(_cell(points[number]) if number in points else "" for number in numbers)]
        for program, points in steps.items()
    ]
    return _table([title, *map(words, numbers)], lines)


def _cell(point: Measured) -> str:
    lines = f"{in_short(point.rate)}/s", f"{in_microseconds(point.cpu)} µs"
    return "<br>".join(lines).replace(" ", _NO_BREAK)


_KERNEL = re.compile(r"(\w+)-(\d+(?:\.\d+)*)")
_PROCESSOR = re.compile(r"x86_64|amd64|aarch64|arm64|riscv64", re.IGNORECASE)


def machine(saved: Saved) -> str:
    """The machine, the programs that were left out or failed, and notes on the others."""
    facts = saved.facts
    told = str(facts["platform"])
    system = _KERNEL.match(told)
    processor = _PROCESSOR.search(told)
    words = [
        str(facts["python"]),
        " ".join(system.groups()) if system else "",
        processor[0] if processor else "",
        f"{facts['cpus']} processors" if "cpus" in facts else "",
        _cores(facts),
        f"the load {facts['load']}",
        f"{facts['rounds']} rounds",
        f"{facts['scale']} times the usual work a round" if facts["scale"] != 1 else "",
    ]
    parts = [f"Measured with {', '.join(filter(None, words))}.\n"]
    programs = {name.partition(":")[0]: reason for name, reason in saved.left_out.items()}
    for title, reasons in (("Left out", programs), ("Failed", saved.failures), ("Note", saved.remarks)):
        parts.append(_by_reason(title, reasons))
    return "\n".join(filter(None, parts))


def _cores(facts: Mapping[str, object]) -> str:
    if facts["contestant_core"] is None:
        return "no processor pinned"
    return f"contestants on processor {facts['contestant_core']}, loads on {facts['load_core']}"


def _by_reason(title: str, reasons: Mapping[str, str]) -> str:
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, []).append(name)
    said = [f"{', '.join(names)} ({reason})" for reason, names in found.items()]
    return f"{title}: {'; '.join(said)}.\n" if said else ""


PAGES: dict[str, Callable[[Saved], str]] = {
    "machine.inc": machine,
    "table.inc": all_rows,
    "losses.inc": losses,
    "growth.inc": growth,
}
"""The text of each file that ``docs/benchmarks.md`` includes."""


def publish(file: Path, rows: Sequence[Row], directory: Path) -> None:
    """Write the parts of the page, and draw the pictures where matplotlib is installed.

    Args:
        file: a file that ``--json`` wrote.
        rows: the rows to show.
        directory: for the tables and pictures.

    Raises:
        OSError: the file cannot be read, or the directory not be written.
        ValueError: the file was not written by ``--json``.
    """
    try:
        saved = read(file, rows)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not what --json writes: {error!r}") from None
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in PAGES.items():
        (directory / name).write_text(text(saved), encoding="utf-8", newline="\n")
    if reason := absent(["matplotlib"]):
        print(f"left out: pictures: {reason}")
        return
    from benchmarks import _plots  # takes a second, and matplotlib may be missing

    if missing := _plots.draw_all(saved, directory):
        print(f"left out: {', '.join(missing)}: nothing was measured for them")
