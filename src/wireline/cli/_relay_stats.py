"""What a relay has moved: a table on a terminal, a line a second on anything else."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from wireline.cli._outcome import say
from wireline.cli._progress import _clock, _size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from wireline.testing import StreamRelay

_REFRESHES_PER_SECOND = 4

_PERIOD = 1.0
"""Seconds between two lines."""

_WINDOW = 2.0
"""Seconds over which a rate is taken. A guess: less is nervous, more is late."""

_FRAME = 6
"""Lines of the table that are not connections: its frame, its head, its sum, and a line that says how many more."""


class Sum(NamedTuple):
    """Bytes each way."""

    to_target: int = 0
    back: int = 0


class Rate:
    """How fast a number grows."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, value: int, now: float) -> float:
        """Bytes a second over the last moments, of a number that is looked at again and again."""
        self._seen.append((now, value))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return (after - before) / (last - first) if last > first else 0.0


class _Connection:
    """One that is there now."""

    def __init__(self, name: str, relay: StreamRelay) -> None:
        self.name = name
        self.relay = relay
        self.started = monotonic()
        self.rate = Rate()


class Traffic:
    """The connections that are there, and what all that ever were have moved."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[_Connection] = []
        self._finished = Sum()
        self._rate = Rate()
        self.count = 0

    @contextlib.contextmanager
    def counted(self, name: str, relay: StreamRelay) -> Iterator[None]:
        """Count a connection for as long as the block takes."""
        connection = _Connection(name, relay)
        with self._lock:
            self._open.append(connection)
            self.count += 1
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(connection)
                up, down = self._finished
                self._finished = Sum(up + relay.to_server, down + relay.to_client)

    def now(self) -> tuple[list[_Connection], Sum]:
        """The connections, the newest first, and the sum of all."""
        with self._lock:
            connections = self._open[::-1]
            up, down = self._finished
        up += sum(connection.relay.to_server for connection in connections)
        down += sum(connection.relay.to_client for connection in connections)
        return connections, Sum(up, down)

    def line(self) -> str:
        """Say it in one line."""
        connections, total = self.now()
        rate = self._rate.of(sum(total), monotonic())
        return (
            f"{len(connections)} open of {self.count}, {_size(total.to_target)} to the target, "
            f"{_size(total.back)} back, {_size(rate)}/s"
        )

    def rows(self, room: int) -> Iterator[tuple[str, ...]]:
        """The rows of a table, with the sum as the last one.

        Args:
            room: how many connections there is room for.
        """
        now = monotonic()
        connections, total = self.now()
        for connection in connections[:room]:
            up, down = connection.relay.to_server, connection.relay.to_client
            yield _row(
                connection.name, up, down, connection.rate.of(up + down, now), now - connection.started
            )
        if len(connections) > room:
            yield f"and {len(connections) - room} more", "", "", "", ""
        yield _row(f"{len(connections)} open of {self.count}", *total, self._rate.of(sum(total), now))


def _row(name: str, up: int, down: int, rate: float, seconds: float | None = None) -> tuple[str, ...]:
    return name, _size(up), _size(down), f"{_size(rate)}/s", "" if seconds is None else _clock(seconds)


@contextlib.contextmanager
def show_traffic(traffic: Traffic, *, wanted: bool) -> Iterator[None]:
    """Keep the numbers on standard error up to date while the block runs, if that is wanted."""
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

        def tell() -> None:
            while not ended.wait(_PERIOD):
                say(traffic.line())
            say(traffic.line())

        thread = threading.Thread(target=tell, name="wireline-stats", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    return show


class _Table:
    """The table, drawn again and again in its place."""

    def __init__(self, traffic: Traffic, console: Console) -> None:
        self._traffic = traffic
        self._console = console

    @classmethod
    def if_possible(cls, traffic: Traffic) -> _Table | None:
        """None without `rich` (the extra ``wireline[cli]``): then there are lines."""
        try:
            from rich.console import Console
        except ImportError:
            return None
        return cls(traffic, Console(stderr=True))

    @contextlib.contextmanager
    def show(self) -> Iterator[None]:
        from rich.live import Live

        # What else is said meanwhile comes above the table.
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
        # Of columns that may be wrapped rich takes room first, and what stands in this one is cut instead.
        table.add_column("connection")
        for head in ("to target", "back", "rate", "time"):
            table.add_column(head, justify="right", no_wrap=True)
        *connections, total = self._traffic.rows(max(1, self._console.height - _FRAME))
        for name, *numbers in connections:
            table.add_row(Text(name, no_wrap=True, overflow="ellipsis"), *map(Text, numbers))
        table.add_section()
        table.add_row(*(Text(cell, style="bold") for cell in total))
        return table
