"""``wireline completion SHELL``."""

from __future__ import annotations

import argparse

from wireline.cli._exit_signals import Signals
from wireline.cli._stdio import Output
from wireline.cli.completion import _bash, _fish, _zsh
from wireline.cli.completion._model import program_of
from wireline.cli.parser._parser import make_parser

_SCRIPTS = {"bash": _bash.script, "zsh": _zsh.script, "fish": _fish.script}


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Print the script.

    Raises:
        Failure: standard output cannot be written to.
    """
    Output().write(_SCRIPTS[options.shell](program_of(make_parser())).encode())
