"""The report of a check for a terminal: tables, a tree, and colour."""

from __future__ import annotations

import io

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from wireline.cli.check._plain_text import Row, attempt_result, certificates, milliseconds, tls_rows
from wireline.cli.check._report import Report

_STYLES = {True: "green", False: "bold red", None: ""}


def format_tables(report: Report) -> str:
    """The report as text with escape sequences, as wide as the terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, highlight=False)
    with console.capture() as capture:
        for part in _parts(report):
            console.print(part)
    return capture.get()


def _parts(report: Report) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(str(report.target), style="bold")]
    if report.attempts:
        parts.append(_addresses(report))
    if report.tls is not None:
        parts.append(_grid(tls_rows(report.tls)))
        parts += _chain(report)
    return parts


def _addresses(report: Report) -> Table:
    table = Table("address", "result")
    table.add_column("time", justify="right")
    for attempt in report.attempts:
        result = Text(attempt_result(attempt, report), style=_STYLES[attempt.error is None])
        table.add_row(Text(str(attempt.endpoint)), result, milliseconds(attempt.seconds))
    return table


def _grid(rows: list[Row]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(row.label, Text(row.value, style=_STYLES[row.good]))
    return grid


def _chain(report: Report) -> list[RenderableType]:
    root = branch = None
    for title, rows in certificates(report):
        heading = Text(title, style="bold" if rows else _STYLES[False])
        label = Group(heading, _grid(rows)) if rows else heading
        branch = Tree(label) if branch is None else branch.add(label)
        root = root or branch
    return [] if root is None else [root]
