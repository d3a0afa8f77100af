"""The progress line of a transfer on a terminal.

The transfer only adds to plain integers; a thread of `rich` reads them a few times per second. Without `rich` (in the
extra ``wireline[cli]``) there is no progress line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from time import monotonic

from wireline.cli import _stderr

_REFRESHES_PER_SECOND = 8
_UNITS = ("B", "KiB", "MiB", "GiB")


class Counters:
    """Bytes moved so far. Each number is written by one thread.

    Attributes:
        total: size of the input, if it is known.
        taken: read from the input.
        sent: sent to the peer; differs from ``taken`` by translated line ends and by data that is being sent.
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
        """One line: bytes, rate, elapsed time, and percent if the total is known."""
        elapsed = monotonic() - self._started
        rate = (self.sent + self.received) / max(elapsed, 0.001)
        parts = [
            f"{format_size(self.sent)} sent",
            f"{format_size(self.received)} received",
            f"{format_size(rate)}/s",
            format_duration(elapsed),
        ]
        if self.total is not None:
            parts.append(f"{100 * self.taken // self.total if self.total else 100}%")
        return ", ".join(parts)


@contextlib.contextmanager
def show_progress(counters: Counters, *, wanted: bool = True) -> Iterator[Callable[[], None]]:
    """Update a line on standard error while the block runs, if it is wanted and standard error is a terminal.

    Yields:
        A function that removes the line for good, before other text is written to the terminal.
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

    def print_above(line: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            live.console.print(Text(line), soft_wrap=True)

    live.start(refresh=True)
    put, _stderr.put = _stderr.put, print_above
    try:
        yield clear
    finally:
        _stderr.put = put
        live.stop()


def _nothing_to_clear() -> None:
    """Do nothing: there is no line."""


def format_size(count: float) -> str:
    """A number of bytes with its unit, in at most eight characters up to 1023 GiB."""
    exponent = 0
    while count >= 1024 and exponent < len(_UNITS) - 1:
        count /= 1024
        exponent += 1
    digits = 1 if exponent and count < 99.95 else 0  # 99.95 is 100.0
    return f"{count:.{digits}f} {_UNITS[exponent]}"


def format_duration(seconds: float) -> str:
    """A duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
