"""The library's log, printed like the command's own messages."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from wireline.cli._printable import sanitize_for_terminal
from wireline.cli._stderr import print_stderr


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Print warnings and errors of the library as one line on standard error, without a traceback."""
    handler = _StderrHandler(logging.WARNING)
    log = logging.getLogger("wireline")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        reason = f": {type(error).__name__}: {error}" if error is not None else ""
        print_stderr(f"wireline: {sanitize_for_terminal(record.getMessage() + reason)}")
