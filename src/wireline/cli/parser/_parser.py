"""The parser of the command line: its commands, and the help of the program.

The options of a command are in a module of their own. A command line that begins with a command loads that one alone:
the others are two to four milliseconds of the start, the higher number where no compiled files are kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from wireline.cli.parser import _usage
from wireline.cli.parser._common_options import DEBUG_HELP, Command
from wireline.cli.parser._word_order import options_first

_ABOUT = """\
Move bytes between standard input and output and a network peer.

Targets: host:port, [v6]:port, tls://host:port, unix:/path, unix:@abstract-name,
udp://host:port, unix-dgram:/path. A port may be the name of a service, as in
example.com:https.

Standard output carries only received data; all messages are on standard error."""

_EXIT_CODES = """\
exit codes:
  0  success                             4  timeout
  1  any other failure                   5  certificate or handshake
  2  wrong usage                         6  cut off: reset, or truncated
  3  refused, unreachable, unknown name  130, 143  ended by Ctrl-C, by SIGTERM
"""

_COMMANDS = ("connect", "listen", "relay", "check", "twin", "completion")


class _Options(Protocol):
    """The module of a command."""

    SUMMARY: str
    ABOUT: str
    EXAMPLES: str
    describe: Callable[[argparse.ArgumentParser], None]


def _options_of(command: str) -> _Options:
    return cast("_Options", import_module(f"wireline.cli.parser._{command}_options"))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the words after the program's name.

    Returns:
        The options. ``load`` imports and returns the function that runs the command, unless ``version`` is set.

    Raises:
        SystemExit: help was printed (code 0), or the usage is wrong and was reported (2).
    """
    words = sys.argv[1:] if argv is None else argv
    # After a command the others make no difference: neither to what is accepted nor to what an error says.
    parser = make_parser(words[:1] if words and words[0] in _COMMANDS else _COMMANDS)
    _usage.reject_unknown_options(parser, words)
    options = _parse(parser, options_first(parser, _with_address(words)))
    if options.version:
        return options
    if options.load is None:
        parser.exit(2, parser.format_help())
    parser = options.parser  # of the command: errors refer to its help
    if options.crlf and options.service:
        parser.error(f"--crlf changes standard input, and --{options.service} does not read it")
    if options.validate is not None:
        options.validate(parser, options)
    if options.show_code:
        _show_code_instead(parser, options)
    return options


def _parse(parser: _usage.Parser, words: Sequence[str]) -> argparse.Namespace:
    options, more = parser.parse_known_args(words)
    if more and getattr(options, "fd", None) is not None:
        options.parser.error(f"--fd takes the place of the address: leave out {more[0]}")
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    return options


def _with_address(words: Sequence[str]) -> Sequence[str]:
    if not any(word.startswith("--fd") for word in words):
        return words
    from wireline.cli.parser._serving_options import with_address  # only servers have it

    return with_address(words)


def find_sockets(options: argparse.Namespace) -> None:
    """Find what ``--fd`` names, and check that the options go together with it. ``--show-code`` needs no socket.

    Raises:
        SystemExit: it cannot be served as they say; the error was printed.
    """
    if getattr(options, "fd", None) is None or options.show_code:
        return
    options.find_sockets(options.parser, options)


def _show_code_instead(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if getattr(options, "self_signed", False):
        parser.error(
            "--show-code cannot show --self-signed: making a certificate takes too many lines; use --cert FILE"
        )
    options.load = _load_show_code


def _load_show_code() -> Command:
    from wireline.cli.show_code import _show_code

    return _show_code.run


def make_parser(names: Sequence[str] = _COMMANDS) -> _usage.Parser:
    """Make the parser of all commands, or of some."""
    parser = _usage.Parser("wireline", description=_ABOUT, epilog=_EXIT_CODES)
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    parser.set_defaults(parser=parser, load=None, validate=None, service=None, crlf=False, show_code=False)
    # `prog`: otherwise argparse formats a usage to find it.
    commands = parser.add_subparsers(prog="wireline", metavar="COMMAND", title="commands")
    for name in names:
        module = _options_of(name)
        command = commands.add_parser(
            name, help=module.SUMMARY, description=module.ABOUT, epilog=module.EXAMPLES
        )
        command.set_defaults(parser=command)
        command.summary = module.SUMMARY
        parser.commands[name] = command
        module.describe(command)
    return parser
