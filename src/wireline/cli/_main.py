"""Runs one command line: parses it, runs the command, and turns the result into an exit code.

``--version``, ``--help`` and wrong usage need only the parser. The rest is imported when a command runs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wireline.cli._outcome import ExitCode, Failure, Stage, report
from wireline.cli._version import VERSION

if TYPE_CHECKING:
    import argparse

    from wireline.cli.parser._common_options import Command


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; the arguments and the result are those of `wireline.cli.main`."""
    _occupy_standard_descriptors()
    if list(sys.argv[1:] if argv is None else argv) == ["--version"]:
        return _print_version()  # without the parser, which takes longer than the rest
    from wireline.cli.parser._parser import find_sockets, parse

    try:
        options = parse(argv)
        find_sockets(options)
    except SystemExit as end:
        return ExitCode.USAGE if end.code else _print("")
    if options.version:
        return _print_version()
    return _run_command(options)


def _run_command(options: argparse.Namespace) -> int:
    from wireline.cli._exit_signals import signals_caught

    # Before signals are caught: until then a SIGINT raises KeyboardInterrupt, and `main` ends the command.
    command: Command = options.load()
    gc.enable()
    with _log_shown(options), signals_caught() as signals:
        try:
            command(options, signals)
        except Exception as error:  # noqa: BLE001 - every error becomes an exit code
            # Errors after a signal are only a result of closing things.
            if signals.received is None:
                return report(error, debug=options.debug)
        return ExitCode.CLEAN if signals.received is None else signals.exit_code


def _log_shown(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Show the log of the library. What logs has loaded ``logging`` by now, but for TLS; a plain client need not."""
    if "logging" not in sys.modules and not getattr(options, "tls", False):
        return contextlib.nullcontext()
    from wireline.cli._logging import log_to_stderr

    return log_to_stderr()


def _print_version() -> int:
    return _print(f"wireline {VERSION}\n")


def _print(text: str) -> int:
    """Write text, after what argparse has written, to standard output, and report if that fails."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # The rest of the buffer would fail again when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return report(Failure(Stage.OUTPUT, error))
    return ExitCode.CLEAN


def _occupy_standard_descriptors() -> None:
    """Open the null device for each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next socket would get that number, and be used as standard input or output. Reading then finds the
    end at once; writing output fails, as it should; messages are dropped.
    """
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)
