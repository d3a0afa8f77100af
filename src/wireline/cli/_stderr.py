"""Standard error, one line at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable

from wireline.cli._printable import sanitize_lines


def print_stderr(line: str) -> None:
    """Write a line to standard error at once, without escape sequences; drop it if standard error is closed."""
    put(sanitize_lines(line))


def _write(line: str) -> None:
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (AttributeError, OSError):
        # With `2>&-`, `sys.stderr` is None. Nothing is left to print to; the exit code still reports the error.
        pass


put: Callable[[str], object] = _write
"""Takes the lines. Servers replace it, see `_background_stderr`."""
