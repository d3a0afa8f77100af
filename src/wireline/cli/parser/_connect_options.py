"""Options and help of ``connect``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wireline.cli.parser import _option_types, _tls_options
from wireline.cli.parser._common_options import Command, add_crlf, add_show_code_and_debug, add_timeout

if TYPE_CHECKING:
    from wireline.cli.show_code._program import Program

SUMMARY = "connect to a peer"

ABOUT = """\
Connect to TARGET, send standard input to it, and write what it sends to standard output.

At the end of standard input, connect closes the sending direction (half-close) and reads until the peer closes, too.
If the peer closes first, input from a terminal ends at once. Other input is sent to its end if the peer has sent
nothing; otherwise it is sent until it pauses for half a second.

With udp://, each chunk read from standard input, at most 65507 bytes, is sent as one datagram. After the end of input,
connect waits for replies until none has arrived for --timeout seconds (default 1), and exits with 0.

With tls://, the certificate of the server must be signed by a CA that this system trusts, or by one in --ca-file, and
must match the host of TARGET, or the name given with --sni. The file of --psk-file has one line IDENTITY:KEYHEX; empty
lines and lines that begin with # are ignored."""

EXAMPLES = """\
examples:
  wireline connect example.com:80
  printf 'GET / HTTP/1.0\\n\\n' | wireline connect --crlf --timeout 10 example.com:80
  tar c . | wireline connect '[::1]:9000'
  printf 'GET / HTTP/1.0\\n\\n' | wireline connect --crlf tls://example.com:443
  wireline connect --ca-file ca.pem --cert me.pem --key me.key tls://[::1]:9000
  wireline connect --psk-file key.txt tls://127.0.0.1:9000
  wireline connect unix:/run/app.sock
  echo ping | wireline connect udp://127.0.0.1:9000

If the reader of standard output exits (| head -1), the command exits with 1 and prints no error.
"""


def describe(connect: argparse.ArgumentParser) -> None:
    """Add the options of ``connect``."""
    connect.set_defaults(load=_load, program=_program)
    connect.add_argument("target", metavar="TARGET", type=_option_types.target, help="address to connect to")
    add_timeout(
        connect,
        "for connecting, for the peer to accept data, and, after the end of input, for it to send something",
    )
    add_crlf(connect)
    add_show_code_and_debug(connect)
    _tls_options.describe_connect(connect)


def _load() -> Command:
    from wireline.cli import _connect

    return _connect.run


def _program(options: argparse.Namespace) -> Program:
    from wireline.cli.show_code._connect_program import connect

    return connect(options)
