"""The statistics of a relay: a table on a terminal, otherwise one line per second."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wireline.cli._outcome import print_stderr
from wireline.cli._progress import format_duration, format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_REFRESHES_PER_SECOND = 4

_LINE_INTERVAL = 1.0
"""Seconds between two lines."""

_RATE_WINDOW = 2.0
"""Seconds over which a rate is averaged. A guess: a shorter window fluctuates, a longer one lags."""

_OTHER_LINES = 6
"""Lines of the table that are not connections: its frame, its head, its sum, and the count of hidden connections."""


class Link(Protocol):
    """What is counted of a connection: a ``Moved``, or a ``StreamRelay``."""

    @property
    def to_server(self) -> int: ...

    @property
    def to_client(self) -> int: ...


class Moved:
    """The bytes that ``relay`` has sent in each direction, for its ``progress``."""

    def __init__(self) -> None:
        self.to_server = 0
        self.to_client = 0

    def show(self, to_server: int, to_client: int) -> None:
        """Take the numbers."""
        self.to_server, self.to_client = to_server, to_client


class Sum(NamedTuple):
    """Bytes in each direction."""

    to_target: int = 0
    to_client: int = 0


class Rate:
    """The rate at which a number grows."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, value: int, now: float) -> float:
        """Add a sample, and return the growth per second over the last samples."""
        self._samples.append((now, value))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _RATE_WINDOW:
            self._samples.popleft()
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first else 0.0


class _Connection:
    """An open connection."""

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self.link = link
        self.started = monotonic()
        self.rate = Rate()


class Traffic:
    """The open connections, and the bytes of all connections so far.

    Attributes:
        count: number of connections so far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[_Connection] = []
        self._finished = Sum()
        self._rate = Rate()
        self.count = 0

    @contextlib.contextmanager
    def counted(self, name: str, link: Link) -> Iterator[None]:
        """Count a connection as open while the block runs."""
        connection = _Connection(name, link)
        with self._lock:
            self._open.append(connection)
            self.count += 1
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(connection)
                up, down = self._finished
                self._finished = Sum(up + link.to_server, down + link.to_client)

    def now(self) -> tuple[list[_Connection], Sum]:
        """The open connections, the newest first, and the bytes of all."""
        with self._lock:
            connections = self._open[::-1]
            up, down = self._finished
        up += sum(connection.link.to_server for connection in connections)
        down += sum(connection.link.to_client for connection in connections)
        return connections, Sum(up, down)

    def line(self) -> str:
        """A summary in one line."""
        connections, total = self.now()
        rate = self._rate.update(sum(total), monotonic())
        return (
            f"{len(connections)} open of {self.count}, {format_size(total.to_target)} to the target, "
            f"{format_size(total.to_client)} to the clients, {format_size(rate)}/s"
        )

    def rows(self, max_connections: int) -> Iterator[tuple[str, ...]]:
        """The rows of a table; the last one is the sum.

        Args:
            max_connections: the most connections to show.
        """
        now = monotonic()
        connections, total = self.now()
        for connection in connections[:max_connections]:
            up, down = connection.link.to_server, connection.link.to_client
            rate = connection.rate.update(up + down, now)
            yield _row(connection.name, up, down, rate, now - connection.started)
        if len(connections) > max_connections:
            yield f"and {len(connections) - max_connections} more", "", "", "", ""
        yield _row(f"{len(connections)} open of {self.count}", *total, self._rate.update(sum(total), now))


def _row(name: str, up: int, down: int, rate: float, seconds: float | None = None) -> tuple[str, ...]:
    duration = "" if seconds is None else format_duration(seconds)
    return name, format_size(up), format_size(down), f"{format_size(rate)}/s", duration


@contextlib.contextmanager
def show_traffic(traffic: Traffic, *, wanted: bool) -> Iterator[None]:
    """Show the statistics on standard error while the block runs, if they are wanted."""
    if not wanted:
        yield
        return
    table = _Table.if_possible(traffic) if os.isatty(2) else None
    show = table.show if table is not None else _lines(traffic)
    with show():
        yield


def _lines(traffic: Traffic) -> Callable[[], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def show() -> Iterator[None]:
        ended = threading.Event()

        def print_lines() -> None:
            while not ended.wait(_LINE_INTERVAL):
                print_stderr(traffic.line())
            print_stderr(traffic.line())

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

    def __init__(self, traffic: Traffic, console: Console) -> None:
        self._traffic = traffic
        self._console = console

    @classmethod
    def if_possible(cls, traffic: Traffic) -> _Table | None:
        """None without `rich` (the extra ``wireline[cli]``): then lines are printed."""
        try:
            from rich.console import Console
        except ImportError:
            return None
        return cls(traffic, Console(stderr=True))

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

    def _draw(self) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        # rich narrows columns that may wrap first, and this one is cut instead of wrapped.
        table.add_column("connection")
        for head in ("to target", "to client", "rate", "time"):
            table.add_column(head, justify="right", no_wrap=True)
        *connections, total = self._traffic.rows(max(1, self._console.height - _OTHER_LINES))
        for name, *numbers in connections:
            table.add_row(Text(name, no_wrap=True, overflow="ellipsis"), *map(Text, numbers))
        table.add_section()
        table.add_row(*(Text(cell, style="bold") for cell in total))
        return table
