"""A process that says lines of JSON, on a core of its own, and never longer than it may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_ROOT = Path(__file__).resolve().parent.parent

PATIENCE = 60.0
"""Seconds that one process gets; none needs more than a few. A guess for a loaded machine."""


class FailedError(Exception):
    """A process did not do what it was started for."""


class Process:
    """A child process; leaving the ``with`` block ends it."""

    def __init__(self, command: Sequence[str], core: int | None) -> None:
        """Start it.

        Args:
            command: the program and its words; it runs in the root of the checkout.
            core: the core it is kept on; None leaves that to the operating system.
        """
        # A file and not a pipe: nobody reads it before the end, and a pipe that is full would stop the child.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `__exit__` closes it
        self._popen = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors
        )
        self._late = False
        self._watchdog = threading.Timer(PATIENCE, self._too_late)
        self._watchdog.start()
        if core is not None and sys.platform == "linux":
            try:
                os.sched_setaffinity(self._popen.pid, {core})
            except ProcessLookupError:  # it failed already: the first `read` says so
                pass

    def _too_late(self) -> None:
        self._late = True
        self._popen.kill()

    def read(self) -> dict[str, float]:
        """Return the next line that it says.

        Raises:
            FailedError: it ended before, or took too long.
        """
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise FailedError(self.complaint() or "it ended too early")
        words: dict[str, float] = json.loads(line)
        return words

    def complaint(self) -> str:
        """What it died of, once it has ended: its last words. Empty if it ended well."""
        status = self._popen.wait()
        if self._late:
            return f"it was not done after {PATIENCE:g} s"
        if status == 0:
            return ""
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        return words[-1] if words else f"it ended with exit code {status}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        self._watchdog.join()
        self._popen.kill()
        self._popen.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        self._errors.close()
