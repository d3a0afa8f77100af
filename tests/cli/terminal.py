"""Run the command on its own terminal, and read the screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import PATIENCE

if TYPE_CHECKING:
    from pexpect.fdpexpect import fdspawn

HEIGHT = 24

# Makes descriptor 2 the controlling terminal of this process, so that its Ctrl-C arrives, and becomes the program.
_LAUNCHER = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
for number in (signal.SIGINT, signal.SIGHUP):  # ignored in a job in the background, and under nohup
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class OnTerminal:
    """A command whose standard streams are a terminal, except those that are given."""

    def __init__(self, *words: str, width: int = 80, stdin: int | None = None, **env: str) -> None:
        """Start it.

        Args:
            words: the command line after the program's name.
            width: columns of the terminal.
            stdin: a descriptor to read from instead of the terminal.
            env: environment variables to add.
        """
        fdpexpect = pytest.importorskip(
            "pexpect.fdpexpect", reason="there are no pseudo-terminals on Windows"
        )
        self.width = width
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, width, 0, 0))
        unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
        inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
        # Not `pty.fork`, which pexpect uses: a child forked from a process with threads may deadlock.
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", _LAUNCHER, sys.executable, "-m", "wireline", *words],
            stdin=slave if stdin is None else stdin,
            stdout=slave,
            stderr=slave,
            env={**inherited, "TERM": "xterm-256color", **env},
        )
        os.close(slave)
        self.terminal: fdspawn = fdpexpect.fdspawn(master, timeout=PATIENCE, encoding="utf-8")
        self._seen = self.terminal.logfile_read = _Log()

    def see(self, pattern: str) -> re.Match[str]:
        """Wait for output that matches a pattern."""
        self.terminal.expect(pattern)
        found = self.terminal.match
        assert isinstance(found, re.Match)
        return found

    def type(self, text: str) -> None:
        self.terminal.send(text)

    def ctrl_c(self) -> None:
        self.type("\x03")

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        import pexpect

        self.terminal.expect(pexpect.EOF)
        return self.process.wait(PATIENCE)

    @property
    def raw(self) -> str:
        """All output so far, with escape sequences."""
        return "".join(self._seen.pieces)

    def screen(self) -> list[str]:
        """The lines on the terminal at the end."""
        return Screen(self.raw, self.width).lines()

    def frame(self) -> list[str]:
        """The lines of the last complete frame of a display that is redrawn."""
        self.see(re.escape(_AGAIN))
        return Screen(self.raw.rpartition(_AGAIN)[0], self.width).lines()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.terminal.close()


class _Log:
    """The log of pexpect."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def write(self, text: str) -> None:
        self.pieces.append(text)

    def flush(self) -> None:
        """Do nothing: the log is not buffered."""


@contextlib.contextmanager
def on_terminal(*words: str, width: int = 80, stdin: int | None = None, **env: str) -> Iterator[OnTerminal]:
    """Run a command on a terminal; it is ended if the test has not."""
    command = OnTerminal(*words, width=width, stdin=stdin, **env)
    try:
        yield command
    finally:
        command.close()


_AGAIN = "\r\x1b[2K"
"""The sequence with which rich starts to redraw a display."""

_PART = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """The subset of a terminal that the command uses. Any other escape sequence is an error."""

    def __init__(self, text: str, width: int) -> None:
        """Write text on an empty screen of unlimited height.

        Raises:
            AssertionError: something is sent that moves the cursor in another way.
        """
        self._rows = [""]
        self._row = self._column = 0
        self._width = width
        at = 0
        for part in _PART.finditer(text):
            assert part.start() == at, f"not understood: {text[at : at + 20]!r}"
            at = part.end()
            parameter, command, carriage_return, line_feed, plain = part.groups()
            if command:
                self._control(parameter, command)
            elif carriage_return:
                self._column = 0
            elif line_feed:
                self._down()
            else:
                self._write(plain)
        assert at == len(text), f"not understood: {text[at : at + 20]!r}"

    def lines(self) -> list[str]:
        """The text on the screen, without trailing spaces and trailing empty lines."""
        rows = [row.rstrip() for row in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _control(self, parameter: str, command: str) -> None:
        if command == "A":
            self._row -= int(parameter or 1)
            assert self._row >= 0
        elif command == "K":
            assert parameter == "2"
            self._rows[self._row] = ""
        else:
            # Colours, and showing and hiding the cursor.
            assert command == "m" or (command in "hl" and parameter == "?25"), f"{parameter}{command}"

    def _write(self, plain: str) -> None:
        for character in plain:
            if self._column == self._width:
                self._column = 0
                self._down()
            row = self._rows[self._row].ljust(self._column)
            self._rows[self._row] = row[: self._column] + character + row[self._column + 1 :]
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append("")
