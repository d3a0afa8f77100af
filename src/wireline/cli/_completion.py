"""``wireline completion SHELL``: scripts for the completion of shells, made by ``shtab``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from wireline.cli._outcome import ExitCode, Outcome, Verdict
from wireline.cli._signals import Signals
from wireline.cli._stdio import Output

SHELLS = ("bash", "zsh", "fish")


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Print the script.

    Raises:
        Verdict: the package is missing.
        Failure: nobody takes the script.
    """
    from wireline.cli import _arguments

    try:
        import shtab
    except ImportError as error:
        sentence = "the package shtab is missing: pip install 'wireline[cli]'"
        raise Verdict(Outcome(ExitCode.FAILED, sentence)) from error
    parser = _arguments.make_parser()
    for action in _actions(parser):
        if action.metavar == "FILE":
            # How shtab is told what a word is; argparse knows nothing of it.
            setattr(action, "complete", shtab.FILE)  # noqa: B010
    Output().write(f"{shtab.complete(parser, options.shell).rstrip()}\n".encode())


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every option of a parser and of the parsers of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
