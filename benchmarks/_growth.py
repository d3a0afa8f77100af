"""How the cost grows, as tables: a line for each program, a column for each number of connections or size."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

from benchmarks._driver import Results
from benchmarks._rows import Reading
from benchmarks._task import Task
from benchmarks._words import in_bytes, in_microseconds, in_short

SIZE = 64
"""Bytes of a message while the connections grow."""
CONNECTIONS = 64
"""While the messages grow."""


class Table(NamedTuple):
    """What is shown."""

    headings: list[str]
    lines: list[list[str]]


def tables(results: Results) -> list[Table]:
    """The tables that can be made of a run: none where nothing grew in it."""
    by_connections = _table(
        results,
        f"echo of {SIZE} B, by connections: a second, us of user + system",
        lambda work: work.connections if work.bytes == SIZE else None,
        str,
    )
    by_size = _table(
        results,
        f"echo on {CONNECTIONS} connections, by size: a second, us of user + system",
        lambda work: work.bytes if work.connections == CONNECTIONS else None,
        in_bytes,
    )
    return [table for table in (by_connections, by_size) if table.lines]


def _table(
    results: Results, title: str, place: Callable[[Task], int | None], words: Callable[[int], str]
) -> Table:
    """Sort the measurements by program, and by the place in the growth that ``place`` gives."""
    found: dict[str, dict[int, str]] = {}
    for name, readings in results.readings.items():
        if (doer := results.doers.get(name)) is None or not _grows(doer.work):
            continue
        if (where := place(doer.work)) is not None:
            found.setdefault(doer.program, {})[where] = _cell(readings)
    # A program with one place only does not grow: it was measured for another row.
    found = {program: cells for program, cells in found.items() if len(cells) > 1}
    columns = sorted({where for cells in found.values() for where in cells})
    lines = [[program, *(cells.get(where, "") for where in columns)] for program, cells in found.items()]
    return Table([title, *map(words, columns)], lines)


def _grows(work: Task) -> bool:
    return (work.what, work.outstanding, work.tls) == ("echo", 1, False)


def _cell(readings: list[Reading]) -> str:
    rate = statistics.median(each.rate for each in readings)
    times = (
        statistics.median(each.user / each.messages for each in readings),
        statistics.median(each.system / each.messages for each in readings),
    )
    return f"{in_short(rate)}  {' + '.join(map(in_microseconds, times))}"
