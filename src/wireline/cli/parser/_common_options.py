"""Options that several commands have, and the type of a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from wireline.cli._datagram_targets import on_interface
from wireline.cli.parser import _option_types

if TYPE_CHECKING:
    from wireline.cli._exit_signals import Signals

Command: TypeAlias = "Callable[[argparse.Namespace, Signals], None]"
"""Runs a command; raises a `Failure` if an error ends it."""

DEBUG_HELP = "show the traceback of an error"


def option_name(name: str) -> str:
    """The option that sets an attribute of the namespace."""
    return "--" + name.replace("_", "-")


def add_timeout(command: argparse.ArgumentParser, text: str) -> None:
    """Add ``--timeout``."""
    command.add_argument(
        "--timeout", metavar="SECONDS", type=_option_types.seconds, help=f"time limit {text}"
    )


def add_crlf(command: argparse.ArgumentParser) -> None:
    """Add ``--crlf``."""
    command.add_argument(
        "--crlf",
        action="store_true",
        help=r"send each \n of standard input as \r\n; \r\n stays as it is",
    )


def add_show_code_and_debug(command: argparse.ArgumentParser) -> None:
    """Add ``--show-code`` and ``--debug``."""
    command.add_argument(
        "--show-code",
        action="store_true",
        help="print a short Python program that does the same, and do nothing else",
    )
    # SUPPRESS: otherwise the default here would overwrite a --debug before the command.
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG_HELP)


def add_interface(command: argparse.ArgumentParser) -> None:
    """Add ``--interface``."""
    command.add_argument(
        "--interface",
        metavar="NAME",
        help="network interface of a multicast group; the zone of [ff02::1%%NAME]:PORT means the same",
    )


def validate_interface(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check ``--interface``, and join it with the target.

    Raises:
        SystemExit: they do not go together; the error was printed.
    """
    try:
        options.target, options.interface = on_interface(options.target, options.interface)
    except ValueError as error:
        parser.error(str(error))
