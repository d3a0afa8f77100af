"""``--show-code``: print a short program instead of running the command.

The program uses public names only. It does what the command does, without the command's error sentences, progress and
signal handling.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from wireline.cli._exit_signals import Signals
from wireline.cli._stdio import Output
from wireline.cli.show_code._program import Program


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Print the program of the options.

    Raises:
        Failure: standard output cannot be written to.
    """
    make_program: Callable[[argparse.Namespace], Program] = options.program
    Output().write(f"{make_program(options)}".encode())
