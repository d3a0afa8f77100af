"""The report of a check for a terminal: the titles of the plain text, tables, a tree, and colour."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from wireline.cli.check._plain_text import (
    CERTIFICATES,
    DIGEST,
    Row,
    attempt_result,
    certificates,
    is_brief,
    remarks,
    tls_rows,
    tls_title,
    verdict_of_all,
)
from wireline.cli.check._report import Report, TlsReport, milliseconds

_STYLES = {True: "green", False: "bold red", None: ""}
_VERDICTS = {"OK": "bold green", "WARNING": "bold magenta", "FAILED": "bold red"}


def format_tables(reports: list[Report]) -> str:
    """The reports as text with escape sequences, as wide as the terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, highlight=False)
    with console.capture() as capture:
        for part in _parts(reports[0]) if len(reports) == 1 else _all_parts(reports):
            console.print(part)
    return capture.get()


def _all_parts(reports: list[Report]) -> Iterator[RenderableType]:
    yield _verdict(verdict_of_all(reports))
    for report in reports:
        if is_brief(report):
            yield _verdict(report.verdict)
        else:
            yield ""
            yield from _parts(report)


def _parts(report: Report) -> Iterator[RenderableType]:
    yield _verdict(report.verdict)
    for title, sentences in remarks(report):
        yield _title(title)
        for sentence in sentences:
            yield _indented(Text(sentence))
    if report.attempts and not report.of_files:
        yield _title("addresses")
        yield _indented(_addresses(report))
    for addresses, tls in report.tls_groups():
        yield _title(tls_title(addresses, report))
        yield _indented(_grid(tls_rows(addresses, tls, report)))
        yield from _chain(tls, report)


def _verdict(line: str) -> Text:
    word, _, _ = line.partition(":")
    text = Text(line)
    text.stylize(_VERDICTS[word], 0, len(word))
    return text


def _title(words: str) -> Text:
    return Text(words, style="bold")


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)


def _addresses(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for attempt in report.attempts:
        result = Text(attempt_result(attempt, report), style=_STYLES[attempt.error is None])
        table.add_row(Text(str(attempt.endpoint)), milliseconds(attempt.seconds), result)
    return table


def _grid(rows: list[Row]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        value = _Halves(row.value) if row.label == DIGEST else Text(row.value, style=_STYLES[row.good])
        grid.add_row(row.label, value)
    return grid


class _Halves(NamedTuple):
    """A word that breaks in the middle where it does not fit."""

    word: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        size = len(self.word)
        return Measurement((size + 1) // 2, size)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        middle = (len(self.word) + 1) // 2
        if options.max_width < len(self.word):
            yield Text(self.word[:middle])
            yield Text(self.word[middle:], overflow="fold")
        else:
            yield Text(self.word)


def _chain(tls: TlsReport, report: Report) -> Iterator[RenderableType]:
    root = branch = None
    for title, rows in certificates(tls, report):
        is_bad = not rows or title.endswith("[at fault]")
        heading = Text(title, style=_STYLES[False] if is_bad else "bold")
        label = Group(heading, _grid(rows)) if rows else heading
        branch = Tree(label) if branch is None else branch.add(label)
        root = root or branch
    if root is not None:
        yield _title(CERTIFICATES)
        yield _indented(root)
