"""What every scene needs: somewhere to write, a way to say and to check things, and programs to run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

Printer = Callable[[str, str], None]
"""Prints a text in a style."""

PATIENCE = 20.0
"""Seconds after which a program that should have ended counts as hanging. A guess: none takes two on a slow machine."""

EXAMPLES = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A check did not hold."""


class Stage:
    """Where a scene is played.

    Attributes:
        directory: for files; it is removed at the end.
        size: bytes of the large transfer.
        moved: bytes that were moved and compared with what they should be.
        checks: how many claims were checked.
    """

    def __init__(self, tell: Printer, directory: Path, size: int) -> None:
        self._tell = tell
        self.directory = directory
        self.size = size
        self.moved = 0
        self.checks = 0

    def show(self, text: str) -> None:
        """Say what happens."""
        self._tell(f"   {text}", "cyan" if text.startswith(("$ ", ">>> ")) else "")

    def check(self, holds: bool, claim: str, seen: object = None) -> None:
        """Say that a claim is true.

        Args:
            holds: whether it is.
            claim: what is claimed.
            seen: what there was instead, if it is not.

        Raises:
            Failed: it is not true.
        """
        if not holds:
            raise Failed(f"it is not true that {claim}" + ("" if seen is None else f"; there was {seen!r}"))
        self.checks += 1
        self._tell(f"   ok: {claim}", "green")

    def check_bytes(self, seen: bytes, expected: bytes, claim: str) -> None:
        """Check that bytes arrived as they should, and count them."""
        self.check(seen == expected, claim, seen[:80])
        self.moved += len(seen)


class Scene(NamedTuple):
    """One step of the story."""

    title: str
    play: Callable[[Stage], None]


class Program:
    """A running program. It is ended, if it has not by itself, when the ``with`` block is left."""

    def __init__(
        self,
        stage: Stage,
        argv: list[str],
        *,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.PIPE,
        stderr: IO[bytes] | int | None = subprocess.PIPE,
    ) -> None:
        """Start it. What it does not read from a file or write to one goes through pipes."""
        stage.show(f"$ {_spell(argv)}{_redirected('<', stdin)}{_redirected('>', stdout)}")
        self.process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr)
        self._finished = False
        # So that nothing can hang: whoever reads from a killed program finds the end.
        self._watchdog = threading.Timer(PATIENCE, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        if not self._finished:
            self.process.kill()
            self.process.communicate()  # closes the pipes and waits

    def listening_on(self, *, on_stdout: bool = False) -> str:
        """Wait for the line that says where a server listens, and return the address in it.

        Args:
            on_stdout: it is on standard output, as with the examples. The command keeps that for data.
        """
        stream = self.process.stdout if on_stdout else self.process.stderr
        assert stream is not None
        line = stream.readline().decode()
        match = re.fullmatch(r"listening on (\S+)\s*", line)
        if match is None:
            raise Failed(f"the server does not say where it listens, but {line!r}")
        return match[1]

    def finish(self, data: bytes | None = None) -> bytes:
        """Give the input, if there is any, wait for a good end, and return the output.

        Raises:
            Failed: the exit code is not 0.
        """
        out, err = self.process.communicate(data)
        self._finished = True
        if self.process.returncode:
            said = (err or b"").decode(errors="replace").strip() or "nothing"
            words = _spell(self.process.args)
            raise Failed(f"'{words}' ended with exit code {self.process.returncode} and said: {said}")
        return out or b""

    def fail(self, data: bytes | None = None) -> tuple[int, str]:
        """Give the input, if there is any, wait for an end that is not good, and return exit code and message.

        Raises:
            Failed: the exit code is 0, or something was written to standard output.
        """
        out, err = self.process.communicate(data)
        self._finished = True
        if not self.process.returncode or out:
            raise Failed(f"'{_spell(self.process.args)}' should have failed, and wrote {out!r}")
        return self.process.returncode, err.decode(errors="replace").strip()

    def terminate(self) -> None:
        """Ask a server to end, as Ctrl-C would, and wait until it has."""
        self.process.terminate()
        self.finish()


def wireline(
    stage: Stage,
    *words: str,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int | None = subprocess.PIPE,
) -> Program:
    """Run the installed command."""
    installed = shutil.which("wireline", path=str(Path(sys.executable).parent))
    command = [installed] if installed else [sys.executable, "-m", "wireline"]
    return Program(stage, [*command, *words], stdin=stdin, stdout=stdout, stderr=stderr)


def example(stage: Stage, name: str, *words: str, stdin: IO[bytes] | int = subprocess.DEVNULL) -> Program:
    """Run one of the examples."""
    return Program(stage, [sys.executable, str(EXAMPLES / name), *words], stdin=stdin)


def make_printer() -> Printer:
    """Return what prints: in colour on a terminal if ``rich`` is there, else plainly."""
    try:
        from rich.console import Console
    except ImportError:
        return lambda text, style: print(text, flush=True)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return lambda text, style: console.print(text, style=style or None)


def _spell(argv: object) -> str:
    """A command as one would type it, without the directories of this machine."""
    assert isinstance(argv, list)
    words = [Path(word).name if Path(word).is_absolute() and Path(word).exists() else word for word in argv]
    words = ["python", *words[1:]] if argv[0] == sys.executable else words
    return " ".join(f"'{word}'" if " " in word or not word else word for word in words)


def _redirected(arrow: str, stream: IO[bytes] | int) -> str:
    return "" if isinstance(stream, int) else f" {arrow} {Path(stream.name).name}"
