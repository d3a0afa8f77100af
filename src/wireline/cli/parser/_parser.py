"""The parser of the command line: its commands, the help of the program, and which options go together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from wireline.cli.parser import (
    _check_options,
    _completion_options,
    _connect_options,
    _listen_options,
    _relay_options,
    _serving_options,
    _tls_options,
    _twin_options,
    _usage,
)
from wireline.cli.parser._common_options import DEBUG_HELP, Command, validate_interface

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

_COMMANDS = {
    "connect": _connect_options,
    "listen": _listen_options,
    "relay": _relay_options,
    "check": _check_options,
    "twin": _twin_options,
    "completion": _completion_options,
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the words after the program's name.

    Returns:
        The options. ``load`` imports and returns the function that runs the command, unless ``version`` is set.

    Raises:
        SystemExit: help was printed (code 0), or the usage is wrong and was reported (2).
    """
    parser = make_parser()
    words = sys.argv[1:] if argv is None else argv
    _usage.reject_unknown_options(parser, words)
    options = _parse(parser, _serving_options.with_address(words))
    if options.load is None and not options.version:
        parser.exit(2, parser.format_help())
    parser = options.parser  # of the command: errors refer to its help
    if options.crlf and options.service:
        parser.error(f"--crlf changes standard input, and --{options.service} does not read it")
    _validate(parser, options)
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


def find_sockets(options: argparse.Namespace) -> None:
    """Find what ``--fd`` names, and check that the options go together with it. ``--show-code`` needs no socket.

    Raises:
        SystemExit: it cannot be served as they say; the error was printed.
    """
    if getattr(options, "fd", None) is None or options.show_code:
        return
    _serving_options.find_sockets(options, "listen" if "listen" in options else "target")
    if "keep" in options:
        _listen_options.validate(options.parser, options)
    else:
        _serving_options.validate(options.parser, options, options.listen)


def _validate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if "at_eof" in options:
        _connect_options.validate(parser, options)
    if "interface" in options:
        validate_interface(parser, options)
    if "targets" in options:
        _check_options.validate(parser, options)
    elif "tls" in options:
        _tls_options.validate(parser, options)
    if "keep" in options:
        _listen_options.validate(parser, options)
    if "listen_tls" in options:
        _relay_options.validate(parser, options)


def _show_code_instead(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if getattr(options, "self_signed", False):
        parser.error(
            "--show-code cannot show --self-signed: making a certificate takes too many lines; use --cert FILE"
        )
    options.load = _load_show_code


def _load_show_code() -> Command:
    from wireline.cli.show_code import _show_code

    return _show_code.run


def make_parser() -> _usage.Parser:
    """Make the parser of all commands."""
    parser = _usage.Parser("wireline", description=_ABOUT, epilog=_EXIT_CODES)
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    parser.set_defaults(parser=parser, load=None, service=None, crlf=False, show_code=False)
    # `prog`: otherwise argparse formats a usage to find it.
    commands = parser.add_subparsers(prog="wireline", metavar="COMMAND", title="commands")
    for name, module in _COMMANDS.items():
        command = commands.add_parser(
            name, help=module.SUMMARY, description=module.ABOUT, epilog=module.EXAMPLES
        )
        command.set_defaults(parser=command)
        command.summary = module.SUMMARY
        parser.commands[name] = command
        module.describe(command)
    return parser
