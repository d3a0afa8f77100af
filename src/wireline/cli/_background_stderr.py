"""Standard error of servers, written in a thread of its own.

A server must go on when its standard error is closed, full, or a pipe that is not read. So while it runs, lines wait in
a queue with a limit, and one thread writes them. It writes to the descriptor: a daemon thread that is blocked in
``sys.stderr`` holds a lock that the interpreter needs when it exits.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import threading
from collections.abc import Iterator
from time import monotonic

from wireline.cli import _stderr

_MAX_LINES = 1000
"""Lines that wait to be written. A guess: a burst of a busy server, and 200 KB of memory."""

_FLUSH_TIMEOUT = 0.5
"""Seconds in which the lines that are left must be written at the end. A guess."""


class _Writer:
    """Writes lines in a thread of its own. Those that find the queue full are counted in their place."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_LINES)
        self._left_out = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="wireline-stderr", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue a line, without waiting."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            with self._lock:
                self._left_out += 1

    def close(self) -> None:
        """Write the lines that are left, as far as time allows."""
        until = monotonic() + _FLUSH_TIMEOUT
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_FLUSH_TIMEOUT)
            self._thread.join(max(0.0, until - monotonic()))

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            _write(line)
            with self._lock:
                left_out, self._left_out = self._left_out, 0
            if left_out:
                _write(f"wireline: {left_out} lines were left out: standard error accepted them too slowly")


@contextlib.contextmanager
def written_in_background() -> Iterator[None]:
    """Let `print_stderr` never wait while the block runs."""
    writer = _Writer()
    before, _stderr.put = _stderr.put, writer.put
    try:
        yield
    finally:
        _stderr.put = before
        writer.close()


def _write(line: str) -> None:
    """Write a line, and wait as long as that takes; drop it if that is not possible."""
    stream = sys.stderr
    with contextlib.suppress(AttributeError, OSError, ValueError):
        if stream is not sys.__stderr__:  # a table is shown: it prints the line above itself
            stream.write(f"{line}\n")
            stream.flush()
            return
        left = memoryview(f"{line}\n".encode(sys.stderr.encoding, "backslashreplace"))
        while left:
            try:
                left = left[os.write(2, left) :]
            except BlockingIOError:  # another process that shares it has made it non-blocking
                select.select([], [2], [])
