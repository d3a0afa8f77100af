"""One line on the terminal that says how far a transfer is.

The pumps only add to plain integers; a thread of `rich` reads them a few times a second. Without `rich` (the extra
``wireline[cli]``) there is no line, and nothing else is missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from time import monotonic

_REFRESHES_PER_SECOND = 8
_UNITS = ("B", "KiB", "MiB", "GiB")


class Counters:
    """What has been moved so far, in bytes. Each number has one writer.

    Attributes:
        total: size of the input, where it is known.
        taken: read from the input.
        sent: given to the peer; differs from ``taken`` by what was translated and is on its way.
        received: written to the output.
    """

    __slots__ = ("_started", "received", "sent", "taken", "total")

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.taken = 0
        self.sent = 0
        self.received = 0
        self._started = monotonic()

    def describe(self) -> str:
        """Say it in one line: bytes, rate, elapsed time, and percent when the total is known."""
        elapsed = monotonic() - self._started
        rate = (self.sent + self.received) / max(elapsed, 0.001)
        parts = [
            f"{_size(self.sent)} sent",
            f"{_size(self.received)} received",
            f"{_size(rate)}/s",
            _clock(elapsed),
        ]
        if self.total is not None:
            parts.append(f"{100 * self.taken // self.total if self.total else 100}%")
        return ", ".join(parts)


@contextlib.contextmanager
def show_progress(counters: Counters, *, wanted: bool = True) -> Iterator[Callable[[], None]]:
    """Keep a line on standard error up to date while the block runs, if it is wanted and that is a terminal.

    Yields:
        What takes the line away for good, because something else is about to be written there.
    """
    if not (wanted and os.isatty(2)):
        yield _nothing_to_clear
        return
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        yield _nothing_to_clear
        return
    live = Live(
        console=Console(stderr=True),
        get_renderable=lambda: Text(counters.describe(), no_wrap=True, overflow="ellipsis"),
        refresh_per_second=_REFRESHES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
    )

    def clear() -> None:
        live.transient = True
        live.stop()

    live.start(refresh=True)
    try:
        yield clear
    finally:
        live.stop()


def _nothing_to_clear() -> None:
    """There is no line."""


def _size(count: float) -> str:
    exponent = 0
    while count >= 1024 and exponent < len(_UNITS) - 1:
        count /= 1024
        exponent += 1
    return f"{count:.{min(exponent, 1)}f} {_UNITS[exponent]}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
