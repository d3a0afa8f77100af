"""Options and help of ``connect``."""

from __future__ import annotations

import argparse
import socket
from typing import TYPE_CHECKING

from wireline.cli._datagram_targets import is_datagram, scheme_of
from wireline.cli.parser import _option_types, _tls_options
from wireline.cli.parser._common_options import (
    Command,
    add_crlf,
    add_interface,
    add_show_code_and_debug,
    add_timeout,
    validate_interface,
)

if TYPE_CHECKING:
    from wireline.cli.show_code._program import Program

SUMMARY = "connect to a peer"

ABOUT = """\
Connect to TARGET, send standard input to it, and write what it sends to standard output.

At the end of standard input, connect waits until the peer has sent nothing for 2 seconds. Then it closes the sending
direction (half-close) and reads until the peer closes, too. Many servers and proxies drop the request of a client that
half-closes at once. A peer that reads to the end of the data, such as a receiver of files, needs the half-close:
--at-eof half-close is faster there. If input was sent and the peer closes without sending a byte, a line on standard
error says so; with --expect-reply the exit code is 6.

If the peer closes first, input from a terminal ends at once. Other input is sent to its end if the peer has sent
nothing; otherwise it is sent until it pauses for half a second.

With udp:// and unix-dgram:, each chunk read from standard input, at most 65507 bytes, is sent as one datagram. After
the end of input, connect waits for replies until none has arrived for --timeout seconds (default 1), and exits with 0.
With --expect-reply, it exits with 4 if there was none. Replies to a broadcast address or a multicast group are received
from any address, which -v shows.

With tls://, the certificate of the server must be signed by a CA that this system trusts, or by one in --ca-file, and
must match the host of TARGET, or the name given with --sni. The file of --psk-file has one line IDENTITY:KEYHEX; empty
lines and lines that begin with # are ignored.

With --starttls, connect asks for TLS in the protocol of the server before any input is sent. After the handshake the
conversation begins as the protocol says: an SMTP client says EHLO again."""

EXAMPLES = """\
examples:
  wireline connect example.com:80
  printf 'GET / HTTP/1.0\\n\\n' | wireline connect --crlf --timeout 10 --expect-reply example.com:80
  tar c . | wireline connect --at-eof half-close '[::1]:9000'
  printf 'GET / HTTP/1.0\\n\\n' | wireline connect --crlf --expect-reply tls://example.com:443
  wireline connect --ca-file ca.pem --cert me.pem --key me.key tls://[::1]:9000
  wireline connect --psk-file key.txt tls://127.0.0.1:9000
  printf 'EHLO me\\nQUIT\\n' | wireline connect --crlf --starttls smtp mail.example.com:587
  wireline connect -4 --source :1024 --quit-after 3 example.com 80
  wireline connect unix:/run/app.sock
  echo ping | wireline connect --expect-reply udp://127.0.0.1:9000
  echo ping | wireline connect -v udp://192.168.1.255:9000
  echo ping | wireline connect -v --interface eth0 udp://239.1.2.3:9000
  echo '<14>hello' | wireline connect unix-dgram:/dev/log

If the reader of standard output exits (| head -1), the command exits with 1 and prints no error.
"""


def describe(connect: argparse.ArgumentParser) -> None:
    """Add the options of ``connect``."""
    connect.set_defaults(load=_load, program=_program, validate=_validate)
    connect.add_argument(
        "target", metavar="TARGET", help="address to connect to; also HOST PORT as two words"
    )
    connect.add_argument("port", metavar="PORT", nargs="?", help=argparse.SUPPRESS)
    add_timeout(
        connect,
        "for connecting, for the peer to accept data, and, after the end of input, for it to send something",
    )
    _add_source(connect)
    add_interface(connect)
    _add_end_of_input(connect)
    add_crlf(connect)
    connect.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="say on standard error which addresses the name has, which one answered, and what TLS agreed on",
    )
    add_show_code_and_debug(connect)
    _tls_options.describe_connect(connect)


def _add_source(connect: argparse.ArgumentParser) -> None:
    family = connect.add_mutually_exclusive_group()
    for name, value, text in (("-4", socket.AF_INET, "IPv4"), ("-6", socket.AF_INET6, "IPv6")):
        family.add_argument(name, dest="family", action="store_const", const=value, help=f"use only {text}")
    connect.set_defaults(family=socket.AF_UNSPEC)
    connect.add_argument(
        "--source",
        metavar="HOST:PORT",
        type=_option_types.source,
        help="address to connect from; without HOST any address, without PORT any port",
    )


def _add_end_of_input(connect: argparse.ArgumentParser) -> None:
    connect.add_argument(
        "--at-eof",
        choices=("half-close", "wait", "close"),
        help="at the end of input, close the sending direction at once (half-close), leave it open until the peer ends "
        "(wait), or end at once (close), instead of waiting for 2 seconds of silence",
    )
    connect.add_argument(
        "--quit-after",
        metavar="SECONDS",
        type=_option_types.seconds,
        help="exit with 0 this long after the end of input, even if the peer has not ended",
    )
    connect.add_argument(
        "--expect-reply",
        action="store_true",
        help="fail if nothing is received: exit code 6 if the peer ended, 4 if the time did",
    )


def _validate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the options go together.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    _validate_target(parser, options)
    validate_interface(parser, options)
    _tls_options.validate(parser, options)


def _validate_target(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    try:
        options.target = _option_types.target_of_words(options.target, options.port)
    except argparse.ArgumentTypeError as error:
        parser.error(f"TARGET: {error}")
    if options.family and _literal_family(options.target.host) not in (0, options.family):
        parser.error(f"{options.target.host} is an address of the other kind: -4 is for IPv4, -6 for IPv6")
    if options.target.path and (options.family or options.source):
        parser.error("-4, -6 and --source are for hosts, and a Unix socket has none")
    if options.at_eof == "close" and options.quit_after:
        parser.error("--at-eof close ends at once, and --quit-after later: use one of them")
    if options.at_eof and is_datagram(options.target):
        parser.error(
            f"--at-eof is about the end of a stream, and {scheme_of(options.target)} has none: "
            "use --timeout or --quit-after"
        )


def _literal_family(host: str) -> int:
    """The family of an address; 0 for a name."""
    if ":" in host:
        return socket.AF_INET6
    return socket.AF_INET if host.replace(".", "").isdigit() else 0


def _load() -> Command:
    from wireline.cli import _connect

    return _connect.run


def _program(options: argparse.Namespace) -> Program:
    from wireline.cli.show_code._connect_program import connect

    return connect(options)
