"""``--stats``: the statistics of a relay, as a table on a terminal, otherwise as one line per second.

Both have the same titles.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from wireline.cli._progress import format_duration, format_size
from wireline.cli._relay_traffic import Connection, Flow, Traffic
from wireline.cli._stderr import print_stderr

if TYPE_CHECKING:
    from rich.console import Console, Group

_REFRESHES_PER_SECOND = 4

_LINE_INTERVAL = 1.0
"""Seconds between two lines."""

_OTHER_LINES = 5
"""Lines of the table that are neither connections nor the head: its titles, two rules, its sum, the count of hidden
connections."""

# Characters of the columns of numbers: with these a column does not change its width.
_SIZE, _RATE, _TIME = 9, 10, 7

_LEAST_NAME = 6
"""Characters of a name on the narrowest terminal: the port."""

_GAP = 2
"""Spaces between two columns."""

_NARROW = 100
"""Columns of a terminal below which a table with targets has no times."""


def head(options: argparse.Namespace) -> list[tuple[str, str]]:
    """What is in force for all connections: titles and values."""
    targets = ", ".join(map(str, options.relay_targets))
    several = len(options.relay_targets) > 1
    rows = [("targets", f"{targets} ({options.balance})") if several else ("target", targets)]
    if options.fault:
        rows.append(("fault", str(options.fault)))
    return rows


@contextlib.contextmanager
def show_traffic(traffic: Traffic, options: argparse.Namespace) -> Iterator[None]:
    """Show the statistics on standard error while the block runs, if they are wanted."""
    if not options.stats:
        yield
        return
    # The lines of a dump would go on above the table for ever, and redraw it each time.
    on_terminal = os.isatty(2) and not options.dump
    table = _Table.if_possible(traffic, options) if on_terminal else None
    show = table.show if table is not None else _lines(traffic, options)
    with show():
        yield


def _flow(moved: Flow, rate: Flow) -> tuple[str, str, str, str]:
    up, down = (f"{format_size(each)}/s" for each in rate)
    return format_size(moved.to_target), up, format_size(moved.to_client), down


def line(traffic: Traffic) -> str:
    """A summary in one line."""
    count, moved, rate = traffic.total(monotonic())
    up, up_rate, down, down_rate = _flow(moved, rate)
    return (
        f"{count} open of {traffic.count}, to target {up}, rate {up_rate}, to client {down}, rate {down_rate}"
    )


def _lines(
    traffic: Traffic, options: argparse.Namespace
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def show() -> Iterator[None]:
        ended = threading.Event()
        for title, value in head(options):
            print_stderr(f"{title} {value}")

        def print_lines() -> None:
            while not ended.wait(_LINE_INTERVAL):
                print_stderr(line(traffic))
            print_stderr(line(traffic))

        thread = threading.Thread(target=print_lines, name="wireline-stats", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    return show


class _Table:
    """The table, redrawn in place."""

    def __init__(self, traffic: Traffic, options: argparse.Namespace, console: Console) -> None:
        self._traffic = traffic
        self._head = head(options)
        self._has_targets = len(options.relay_targets) > 1
        self._console = console

    @classmethod
    def if_possible(cls, traffic: Traffic, options: argparse.Namespace) -> _Table | None:
        """None without `rich` (the extra ``wireline[cli]``): then lines are printed."""
        try:
            from rich.console import Console
        except ImportError:
            return None
        return cls(traffic, options, Console(stderr=True))

    @contextlib.contextmanager
    def show(self) -> Iterator[None]:
        from rich.live import Live

        # Other messages are printed above the table.
        live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=_REFRESHES_PER_SECOND,
            redirect_stdout=False,
        )
        with live:
            yield

    def _draw(self) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        has_times = not self._has_targets or self._console.width >= _NARROW
        numbers = [("to target", _SIZE), ("rate", _RATE), ("to client", _SIZE), ("rate", _RATE)]
        if has_times:
            numbers.append(("time", _TIME))
        names = ["client", "target"] if self._has_targets else ["client"]
        space = self._console.width - sum(width + _GAP for _, width in numbers) - _GAP * (len(names) - 1)
        width = max(_LEAST_NAME, space // len(names))
        rows = [
            (style, [*(_end_of(name, width) for name in cells[: len(names)]), *cells[len(names) :]])
            for style, cells in self._rows(has_times)
        ]

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for index, title in enumerate(names):
            longest = max(len(cells[index]) for _, cells in rows)
            table.add_column(title, no_wrap=True, width=max(longest, min(width, _TIME)))
        for title, number_width in numbers:
            table.add_column(title, justify="right", no_wrap=True, width=number_width)
        for style, cells in rows[:-1]:
            table.add_row(*map(Text, cells), style=style)
        table.add_section()
        table.add_row(*map(Text, rows[-1][1]), style=rows[-1][0])
        lines = [
            Text(f"{title} ", style="dim", no_wrap=True, overflow="ellipsis").append(value, style="not dim")
            for title, value in self._head
        ]
        return Group(*lines, table)

    def _rows(self, has_times: bool) -> Iterator[tuple[str, list[str]]]:
        """Style and cells of each row; the last one is the sum."""
        now = monotonic()
        targets = [""] if self._has_targets else []
        count, moved, rate = self._traffic.total(now)
        opened, ended = self._traffic.connections(now)
        space = max(1, self._console.height - _OTHER_LINES - len(self._head))
        for connection in [*opened, *ended][:space]:
            ended_style = "red" if connection.failed else "dim"
            style = "" if connection.ended is None else ended_style
            yield style, self._cells(connection, now, has_times)
        if len(opened) > space:
            yield "", [f"and {len(opened) - space} more", *targets, "", "", "", "", *[""] * has_times]
        total = f"{count} open of {self._traffic.count}"
        yield "bold", [total, *targets, *_flow(moved, rate), *[""] * has_times]

    def _cells(self, connection: Connection, now: float, has_times: bool) -> list[str]:
        names = [connection.client, connection.target] if self._has_targets else [connection.client]
        up, up_rate, down, down_rate = _flow(connection.moved, connection.rate(now))
        if connection.ended is not None:
            up_rate, down_rate = "", "failed" if connection.failed else "closed"
        times = [format_duration(connection.seconds(now))] if has_times else []
        return [*names, up, up_rate, down, down_rate, *times]


def _end_of(name: str, width: int) -> str:
    """A name that fits; of a longer one its end, which has the port."""
    return name if len(name) <= width else f"…{name[len(name) - width + 1 :]}"
