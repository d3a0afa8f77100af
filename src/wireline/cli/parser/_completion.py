"""``wireline completion SHELL``: completion scripts, made by ``shtab``."""

from __future__ import annotations

import argparse

from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import ExitCode, Outcome, ReportedFailure
from wireline.cli._stdio import Output
from wireline.cli.parser._parser import make_parser


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Print the script.

    Raises:
        ReportedFailure: the package ``shtab`` is missing.
        Failure: standard output cannot be written to.
    """
    try:
        import shtab
    except ImportError as error:
        sentence = "completion needs the package shtab: pip install 'wireline[cli]'"
        raise ReportedFailure(Outcome(ExitCode.FAILED, sentence)) from error
    parser = make_parser()
    for command in parser.commands.values():
        for argument in command.arguments:
            if argument.metavar in ("FILE", "ASYNC", "SYNC"):
                # shtab reads this attribute; argparse does not declare it.
                setattr(argument, "complete", shtab.FILE)  # noqa: B010
    Output().write(f"{shtab.complete(parser, options.shell).rstrip()}\n".encode())
