"""The way from the words of the command line to an exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from wireline.cli._arguments import parse
from wireline.cli._outcome import ExitCode, Failure, Stage, Terminated, report
from wireline.cli._stdio import occupy_standard_descriptors


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the words after the program's name; those of the process by default.

    Returns:
        The exit code.
    """
    occupy_standard_descriptors()
    try:
        options = parse(argv)
    except SystemExit as end:
        return ExitCode.USAGE if end.code else _print("")
    if options.version:
        return _print(f"wireline {_version()}\n")
    _log_plainly()
    try:
        with _sigterm_as_exception():
            options.run(options)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every outcome is an exit code
        return report(error, debug=options.debug)
    return ExitCode.CLEAN


def _version() -> str:
    # Half of the start-up time if it were imported above.
    from importlib import metadata

    try:
        return metadata.version("wireline")
    except metadata.PackageNotFoundError:
        return "of a source tree that is not installed"


def _print(text: str) -> int:
    """Write text, and what argparse has written before, to standard output; say if nobody takes it."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # What is left in the buffer would fail once more at the interpreter's exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return report(Failure(Stage.OUTPUT, error))
    return ExitCode.CLEAN


def _log_plainly() -> None:
    """Let what the library logs look like the command's own messages: one line, no traceback."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PlainFormatter())
    logging.getLogger("wireline").addHandler(handler)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"wireline: {record.getMessage()}"


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that socket files are removed and the cursor is shown again."""
    before = signal.getsignal(signal.SIGTERM)
    # A program that is started with a signal ignored leaves it so; only the main thread may set handlers.
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
