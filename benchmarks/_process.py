"""A process that says lines of JSON, on a core of its own, and never longer than it may."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_ROOT = Path(__file__).resolve().parent.parent

PATIENCE = 60.0
"""Seconds that one process gets; none needs more than a few. A guess for a loaded machine."""


class Cores(NamedTuple):
    """Where the processes run; None lets the operating system choose."""

    contestant: int | None
    load: int | None

    @classmethod
    def choose(cls) -> Cores:
        """One core for the contestant and another for its load, where there are two and they can be chosen."""
        if sys.platform == "linux":
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) > 1:
                return cls(cores[-1], cores[0])
        return cls(None, None)


class FailedError(Exception):
    """A process did not do its work."""


class Process:
    """A child process; leaving the ``with`` block ends it."""

    def __init__(self, command: Sequence[str], core: int | None) -> None:
        """Start it.

        Args:
            command: the program and its words; it runs in the root of the checkout.
            core: the core it is kept on; None leaves that to the operating system.
        """
        # A file and not a pipe: it is read at the end only, and a full pipe would stop the child.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `__exit__` closes it
        self._popen = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
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

    def ask(self) -> dict[str, float]:
        """Write an empty line to it and return the line that it answers.

        Raises:
            FailedError: it ended before, or took too long.
        """
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(b"\n")
            self._popen.stdin.flush()
        except OSError:  # it has ended: `read` says why
            pass
        return self.read()

    def memory(self) -> int:
        """Bytes of memory that it has now; 0 where the operating system does not tell."""
        if sys.platform == "linux":
            pages = Path(f"/proc/{self._popen.pid}/statm").read_text(encoding="ascii").split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        if sys.platform == "win32":
            return 0
        told = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self._popen.pid)], capture_output=True, text=True
        )
        return 1024 * int(told.stdout or 0)

    def dismiss(self) -> None:
        """Tell it that no more will be asked of it."""
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):  # unflushed data for a process that has ended
            self._popen.stdin.close()

    def last_words(self) -> str:
        """The last line that it wrote to its standard error, once it has ended."""
        self._popen.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        return words[-1] if words else ""

    def complaint(self) -> str:
        """Its last messages, if it has failed. Empty if it ended well."""
        status = self._popen.wait()
        if self._late:
            return f"it was not done after {PATIENCE:g} s"
        if status == 0:
            return ""
        return self.last_words() or f"it ended with exit code {status}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        self._watchdog.join()
        self._popen.kill()
        self._popen.wait()
        self.dismiss()
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        self._errors.close()
