"""The way from the words of the command line to an exit code."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence

from wireline.cli._arguments import parse
from wireline.cli._outcome import ExitCode, Failure, Stage, report
from wireline.cli._signals import signals_caught
from wireline.cli._stdio import occupy_standard_descriptors


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; the arguments and the result are those of `wireline.cli.main`."""
    occupy_standard_descriptors()
    try:
        options = parse(argv)
    except SystemExit as end:
        return ExitCode.USAGE if end.code else _print("")
    if options.version:
        return _print(f"wireline {_version()}\n")
    with _plain_log(), signals_caught() as signals:
        try:
            options.run(options, signals)
        except Exception as error:  # noqa: BLE001 - every outcome is an exit code
            # What follows a signal is only the noise of things being closed.
            if signals.received is None:
                return report(error, debug=options.debug)
        return ExitCode.CLEAN if signals.received is None else signals.exit_code


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


@contextlib.contextmanager
def _plain_log() -> Iterator[None]:
    """Let what the library logs look like the command's own messages: one line, no traceback."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PlainFormatter())
    log = logging.getLogger("wireline")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"wireline: {record.getMessage()}"
