"""The library's log, printed like the command's own messages."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Print records of the library as one line on standard error, without a traceback, while the block runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLineFormatter())
    log = logging.getLogger("wireline")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _OneLineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"wireline: {record.getMessage()}"
