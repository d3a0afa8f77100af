"""Options and help of ``listen``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wireline.cli._datagram_targets import is_datagram
from wireline.cli.parser import _option_types, _serving_options, _tls_options
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

SUMMARY = "listen for connections"

ABOUT = """\
Listen for one connection, send standard input to it, write the data received to standard output, and exit when the
connection ends. At the end of standard input, the sending direction is closed (half-close). The address is printed on
standard error as 'listening on HOST:PORT'. Port 0 selects a free port, and ':PORT' listens on all interfaces.

--echo and --discard serve one connection, or any number of them with --keep. --chat always serves any number. At the
first Ctrl-C or SIGTERM, a server for any number of connections stops listening, gives the open connections 10 seconds
to finish (--drain), and exits with 0. At the second, it resets them (exit code 130 or 143).

With udp:// and unix-dgram: there are no connections. --echo and --discard serve all senders until Ctrl-C, or until no
datagram has arrived for --timeout seconds. Without them, the first sender becomes the peer, as in 'connect'. With
--keep, the datagrams of all senders are written to standard output. A multicast group is joined; other programs may
listen to it on the same port.

With tls://, the server needs a certificate (--cert, --key or --self-signed) or a file of pre-shared keys (--psk-file)
with lines IDENTITY:KEYHEX; empty lines and lines that begin with # are ignored. The time limit for a handshake is
--timeout (default 10 seconds). A failed handshake is reported on standard error; --keep then serves other clients. At
SIGHUP, certificates, keys, CAs and pre-shared keys are read again."""

EXAMPLES = """\
examples:
  wireline listen 127.0.0.1:9000 > received.tar
  wireline listen --echo --keep :7
  wireline listen --chat '[::1]:9000'
  wireline listen --echo --keep --self-signed tls://localhost:9000
  wireline listen --cert me.pem --key me.key --client-ca ca.pem tls://:9000
  wireline listen --psk-file keys.txt tls://127.0.0.1:9000
  wireline listen --keep unix:/tmp/log.sock >> log.txt
  wireline listen --echo udp://127.0.0.1:9000
  wireline listen --keep --interface eth0 udp://224.0.0.251:5353
  wireline listen --keep unix-dgram:/tmp/log.sock >> log.txt
  wireline listen --echo --keep --max 100 --idle 60 --allow 192.0.2.0/24 --log-format json :7
  wireline listen --echo --keep --fd 3
"""


_SERVICES = {
    "echo": "send all data back",
    "discard": "read and drop all data",
    "chat": "send each client's lines to all others; a client that does not read them in --timeout (5) is disconnected",
}


def describe(listen: argparse.ArgumentParser) -> None:
    """Add the options of ``listen``."""
    listen.set_defaults(load=_load, program=_program, validate=_validate, find_sockets=_find_sockets)
    listen.add_argument(
        "target", metavar="ADDRESS", type=_option_types.listen_address, help="address to listen on"
    )
    service = listen.add_mutually_exclusive_group()
    for name, text in _SERVICES.items():
        service.add_argument(f"--{name}", dest="service", action="store_const", const=name, help=text)
    listen.add_argument(
        "--keep",
        action="store_true",
        help="serve further connections; only the first one gets standard input",
    )
    add_timeout(listen, "for the first connection (without --keep), and for each peer as in 'connect'")
    add_interface(listen)
    add_crlf(listen)
    add_show_code_and_debug(listen)
    _serving_options.describe(listen, "ADDRESS")
    _tls_options.describe_listen(listen)


def serves_many(options: argparse.Namespace) -> bool:
    """Whether it serves any number of connections."""
    return bool(options.keep) or options.service == "chat"


def _validate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the options go together.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    validate_interface(parser, options)
    _tls_options.validate(parser, options)
    _validate_connections(parser, options)


def _find_sockets(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    _serving_options.find_sockets(options, "target")
    _validate_connections(parser, options)


def _validate_connections(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the options of the connections go together with the service, and with the sockets once they are known.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    _serving_options.validate(parser, options, options.target)
    if is_datagram(options.target):
        return
    inherited = options.inherited
    if inherited is not None and inherited.connected:
        if serves_many(options):
            option = "--chat" if options.service == "chat" else "--keep"
            parser.error(f"descriptor {options.fd} is one connection: {option} needs a listening socket")
        if not options.service and options.fd in ("0", "1"):
            parser.error(
                f"descriptor {options.fd} is the connection, and standard input or output, too: "
                "add --echo or --discard"
            )
    elif not serves_many(options):
        _serving_options.reject_for_one(parser, options)
    elif not options.service and (options.max or 1) > 1:
        parser.error("standard output is for one client at a time: --max is 1, or add --echo or --discard")


def _load() -> Command:
    from wireline.cli import _listen

    return _listen.run


def _program(options: argparse.Namespace) -> Program:
    from wireline.cli.show_code._listen_program import listen

    return listen(options)
