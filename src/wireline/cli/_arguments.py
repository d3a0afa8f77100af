"""The words of the command line, and what ``--help`` says about them."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TypeAlias

from wireline import Target, parse_target
from wireline.cli import (
    _check_words,
    _connect,
    _listen,
    _relay_words,
    _show_code,
    _show_relay,
    _tls_words,
    _usage,
)

_Commands: TypeAlias = "argparse._SubParsersAction[_usage.Parser]"

_DEBUG_HELP = "show the traceback of what went wrong"

_ABOUT = """\
Move bytes between standard input and output and a network peer.

Targets: host:port, [v6]:port, tls://host:port, unix:/path, unix:@abstract-name,
udp://host:port.

Standard output carries nothing but data; everything else goes to standard error."""

_EXIT_CODES = """\
exit codes:
  0  all went well                       4  time ran out
  1  any other failure                   5  certificate or handshake
  2  wrong usage                         6  cut off: reset, or truncated
  3  refused, unreachable, unknown name  130, 143  ended by Ctrl-C, by SIGTERM
"""

_CONNECT_ABOUT = """\
Connect, send standard input to the peer, and write what the peer sends to standard output.

At the end of the input the peer is told (half-close), and what it still sends is waited for. If the peer ends first,
a terminal is not waited for; a peer that never sent anything gets the input to its end; any other gets what comes
without a pause of half a second.

With udp:// every chunk that is read from the input, at most 65507 bytes, becomes one datagram. After the end of the
input replies are waited for until none came for --timeout seconds (1 without it), and that is a good end.

With tls:// the server's certificate has to be signed by a CA that this system trusts, or one of --ca-file, and to be
for the host of TARGET, or the name of --sni. The file of --psk-file has one line IDENTITY:KEYHEX; empty lines and those
that begin with # do not count."""

_CONNECT_EXAMPLES = """\
examples:
  wireline connect example.com:80
  printf 'GET / HTTP/1.0\\n\\n' | wireline connect --crlf --timeout 10 example.com:80
  tar c . | wireline connect '[::1]:9000'
  printf 'GET / HTTP/1.0\\n\\n' | wireline connect --crlf tls://example.com:443
  wireline connect --ca-file ca.pem --cert me.pem --key me.key tls://[::1]:9000
  wireline connect --psk-file key.txt tls://127.0.0.1:9000
  wireline connect unix:/run/app.sock
  echo ping | wireline connect udp://127.0.0.1:9000

If the reader of standard output goes away (| head -1), the command ends quietly with exit code 1.
"""

_LISTEN_ABOUT = """\
Wait for a connection, send standard input to it, write what comes to standard output, and end with it. The address
is printed on standard error as 'listening on HOST:PORT'; port 0 is a free one, and ':PORT' is every interface.

--echo and --discard serve one connection as well, or any number with --keep, and --chat any number in any case.
What serves for ever ends with exit code 0 at Ctrl-C or SIGTERM, after half a second for the clients to finish.

With udp:// there are no connections. --echo and --discard serve everybody until Ctrl-C, or until nothing came for
--timeout seconds. Without them the first sender becomes the peer, as in 'connect'; with --keep the datagrams of every
sender go to standard output.

With tls:// a certificate is needed (--cert, --key), or one to throw away (--self-signed), or a file of pre-shared keys.
Each line of that is IDENTITY:KEYHEX; empty lines and those that begin with # do not count. A handshake gets --timeout
seconds, 10 without it. Who fails at it is told on standard error, and with --keep the others are served."""

_LISTEN_EXAMPLES = """\
examples:
  wireline listen 127.0.0.1:9000 > received.tar
  wireline listen --echo --keep :7
  wireline listen --chat '[::1]:9000'
  wireline listen --echo --keep --self-signed tls://localhost:9000
  wireline listen --cert me.pem --key me.key --client-ca ca.pem tls://:9000
  wireline listen --psk-file keys.txt tls://127.0.0.1:9000
  wireline listen --keep unix:/tmp/log.sock >> log.txt
  wireline listen --echo udp://127.0.0.1:9000
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the words after the program's name.

    Returns:
        The options. ``run`` is what runs the command, unless ``version`` was asked for.

    Raises:
        SystemExit: help was asked for (code 0), or the usage was wrong (2); argparse has said everything.
    """
    parser = make_parser()
    words = sys.argv[1:] if argv is None else argv
    _usage.reject_unknown_options(parser, words)
    options = parser.parse_args(words)
    if options.run is None and not options.version:
        parser.exit(2, parser.format_help())
    parser = options.parser  # of the command: its help is where to read on
    if options.crlf and options.service:
        parser.error(f"--crlf is for standard input, and with --{options.service} no client gets that")
    if "tls" in options:
        _tls_words.check(parser, options)
    if "listen_tls" in options:
        _relay_words.check(parser, options)
    if options.show_code:
        _show_instead_of_doing(parser, options)
    return options


def _show_instead_of_doing(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if getattr(options, "self_signed", False):
        parser.error(
            "to make a certificate takes more than the few lines of --show-code: name one with --cert FILE"
        )
    options.run = _show_code.run


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = _usage.Parser(
        prog="wireline",
        description=_ABOUT,
        epilog=_EXIT_CODES,
        formatter_class=_usage.Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.add_argument("--debug", action="store_true", help=_DEBUG_HELP)
    parser.set_defaults(parser=parser, run=None, service=None, crlf=False, show_code=False)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    _describe_connect(_add_command(commands, "connect", "talk to a peer", _CONNECT_ABOUT, _CONNECT_EXAMPLES))
    _describe_listen(_add_command(commands, "listen", "wait for peers", _LISTEN_ABOUT, _LISTEN_EXAMPLES))
    _describe_relay(
        _add_command(commands, "relay", "pass connections on", _relay_words.ABOUT, _relay_words.EXAMPLES)
    )
    _describe_check(
        _add_command(
            commands, "check", "look at a server", _check_words.CHECK_ABOUT, _check_words.CHECK_EXAMPLES
        )
    )
    _check_words.describe_completion(
        _add_command(
            commands,
            "completion",
            "make a shell complete all this",
            _check_words.COMPLETION_ABOUT,
            _check_words.COMPLETION_EXAMPLES,
        )
    )
    return parser


def _add_command(
    commands: _Commands, name: str, summary: str, about: str, examples: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=about,
        epilog=examples,
        formatter_class=_usage.Help,
        allow_abbrev=False,
    )
    command.set_defaults(parser=command)
    return command


def _describe_connect(connect: argparse.ArgumentParser) -> None:
    connect.set_defaults(run=_connect.run, program=_show_code.connect)
    connect.add_argument("target", metavar="TARGET", type=_target, help="where to connect to")
    _add_common(
        connect,
        "for connecting, then for the peer to take something or, once the input has ended, to send something",
    )
    _tls_words.describe_connect(connect)


def _describe_listen(listen: argparse.ArgumentParser) -> None:
    listen.set_defaults(run=_listen.run, program=_show_code.listen)
    listen.add_argument("target", metavar="ADDRESS", type=_address, help="where to listen")
    service = listen.add_mutually_exclusive_group()
    for name, text in (
        ("echo", "send everything back"),
        ("discard", "drop everything"),
        (
            "chat",
            "send each client's lines to all others; who does not take them within --timeout (5) is put out",
        ),
    ):
        service.add_argument(f"--{name}", dest="service", action="store_const", const=name, help=text)
    listen.add_argument(
        "--keep", action="store_true", help="go on after a connection; only the first one gets standard input"
    )
    _add_common(listen, "for a connection to come (without --keep), then for each peer as in 'connect'")
    _tls_words.describe_listen(listen)


def _add_common(command: argparse.ArgumentParser, timeout_help: str) -> None:
    command.add_argument("--timeout", metavar="SECONDS", type=_seconds, help=f"time limit {timeout_help}")
    command.add_argument(
        "--crlf",
        action="store_true",
        help=r"end the input's lines with \r\n; those that do already stay as they are",
    )
    _add_help(command)


def _describe_relay(relay: argparse.ArgumentParser) -> None:
    relay.set_defaults(program=_show_relay.relay)
    relay.add_argument("listen", metavar="LISTEN", type=_stream_address, help="where to listen")
    relay.add_argument("target", metavar="TARGET", type=_stream_target, help="where to connect to")
    relay.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        help="time limit for connecting to TARGET, and for each handshake (10 for those of clients)",
    )
    _add_help(relay)
    _relay_words.describe(relay)


def _describe_check(check: argparse.ArgumentParser) -> None:
    check.set_defaults(program=_show_code.check)
    check.add_argument(
        "target",
        metavar="TARGET",
        type=_stream_target,
        help="what to look at: tls://host:port, host:port, unix:/path",
    )
    check.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        help="time limit for each connection and each handshake (10)",
    )
    _add_help(check)
    _check_words.describe_check(check)


def _add_help(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--show-code",
        action="store_true",
        help="print the few lines of Python that do the same, and do nothing",
    )
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG_HELP)


def _target(text: str) -> Target:
    return _parse(text, listening=False)


def _stream_target(text: str) -> Target:
    return _stream(_target(text))


def _stream_address(text: str) -> Target:
    return _stream(_address(text))


def _stream(target: Target) -> Target:
    if target.scheme == "udp":
        raise argparse.ArgumentTypeError("over udp:// nobody can be connected to: this needs a stream")
    return target


def _address(text: str) -> Target:
    return _parse(text, listening=True)


def _parse(text: str, *, listening: bool) -> Target:
    try:
        return parse_target(text, listening=listening)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
