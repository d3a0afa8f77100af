"""Tools for every scene: a directory, output, checks, and programs to run."""

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
        moved: bytes that were moved and compared.
        checks: how many claims were checked.
    """

    def __init__(self, tell: Printer, directory: Path, size: int) -> None:
        self._tell = tell
        self.directory = directory
        self.size = size
        self.moved = 0
        self.checks = 0

    def show(self, text: str) -> None:
        """Print a step."""
        self._tell(f"   {text}", "cyan" if text.startswith(("$ ", ">>> ")) else "")

    def check(self, holds: bool, claim: str, seen: object = None) -> None:
        """Check a claim and print it.

        Args:
            holds: whether it is true.
            claim: the claim, as text.
            seen: the value to report if it is not.

        Raises:
            Failed: it is not true.
        """
        if not holds:
            raise Failed(f"it is not true that {claim}" + ("" if seen is None else f"; there was {seen!r}"))
        self.checks += 1
        self._tell(f"   ok: {claim}", "green")

    def check_bytes(self, seen: bytes, expected: bytes, claim: str) -> None:
        """Check that bytes arrived unchanged, and count them."""
        self.check(seen == expected, claim, seen[:80])
        self.moved += len(seen)


class Scene(NamedTuple):
    """One step of the story."""

    title: str
    play: Callable[[Stage], None]


class Program:
    """A running program. The end of the ``with`` block kills it if it is still running."""

    def __init__(
        self,
        stage: Stage,
        argv: list[str],
        *,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.PIPE,
        stderr: IO[bytes] | int | None = subprocess.PIPE,
    ) -> None:
        """Start it, with pipes for every stream that is not a file."""
        stage.show(f"$ {_spell(argv)}{_redirected('<', stdin)}{_redirected('>', stdout)}")
        self.process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr)
        self._finished = False
        # So that nothing can hang: a killed program ends the streams that we read.
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
        """Wait for the line with the address of a server, and return the address.

        Args:
            on_stdout: examples print it on standard output, the command on standard error.
        """
        stream = self.process.stdout if on_stdout else self.process.stderr
        assert stream is not None
        line = stream.readline().decode()
        match = re.fullmatch(r"listening on (\S+)\s*", line)
        if match is None:
            raise Failed(f"the server does not say where it listens, but {line!r}")
        return match[1]

    def finish(self, data: bytes | None = None) -> bytes:
        """Send the input, if any, wait for a successful end, and return the output.

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
        """Send the input, if any, wait for a failure, and return the exit code and the message.

        Raises:
            Failed: the exit code is 0, or something was written to standard output.
        """
        out, err = self.process.communicate(data)
        self._finished = True
        if not self.process.returncode or out:
            raise Failed(f"'{_spell(self.process.args)}' should have failed, and wrote {out!r}")
        return self.process.returncode, err.decode(errors="replace").strip()

    def terminate(self) -> None:
        """Terminate a server, as Ctrl-C would, and wait for its end."""
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
    """Return a function that prints: in colour on a terminal if ``rich`` is installed, else plainly."""
    try:
        from rich.console import Console
    except ImportError:
        return lambda text, style: print(text, flush=True)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return lambda text, style: console.print(text, style=style or None)


def _spell(argv: object) -> str:
    """Return a command as typed, without the directories of this machine."""
    assert isinstance(argv, list)
    words = [Path(word).name if Path(word).is_absolute() and Path(word).exists() else word for word in argv]
    words = ["python", *words[1:]] if argv[0] == sys.executable else words
    return " ".join(f"'{word}'" if " " in word or not word else word for word in words)


def _redirected(arrow: str, stream: IO[bytes] | int) -> str:
    return "" if isinstance(stream, int) else f" {arrow} {Path(stream.name).name}"
