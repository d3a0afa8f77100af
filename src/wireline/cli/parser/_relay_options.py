"""Options and help of ``relay``, and which of the options go together."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wireline.cli.parser import _option_types, _relay_tls_options, _serving_options
from wireline.cli.parser._common_options import Command, add_show_code_and_debug, add_timeout

if TYPE_CHECKING:
    from wireline.cli.show_code._program import Program

SUMMARY = "forward connections"

ABOUT = """\
Listen, connect to TARGET for each client, and copy data in both directions. Each side is TCP, TLS or a Unix socket.

Of several targets each client gets one, as --balance says. A target that does not answer is passed over, and tried last
for 10 seconds; then one client tries it in its place. The time limit for one of several is --timeout (default 10). All
targets use TLS, or none; the name that is checked is that of the target that answered.

The end of one direction is passed on as a half-close; the other direction stays open. When a connection breaks, the
data received before that is passed on, and then a reset, so incomplete data never looks complete. A slow reader slows
down the writer. A failed connection is reported on standard error; the others continue.

At the first Ctrl-C or SIGTERM, relay stops listening, gives the open connections 10 seconds to end (--drain), and exits
with 0. At the second, it resets them (exit code 130 or 143).

With tls:// in LISTEN, clients must use TLS. The server needs --cert and --key, --self-signed, or --listen-psk-file;
--client-ca limits which clients are accepted. With tls:// in TARGET, relay connects with TLS as 'connect' does; what is
--cert there is --client-cert here. Options of LISTEN that TARGET has, too, begin with --listen. At SIGHUP, the files of
both sides are read again.

--dump shows data on standard error before it is sent on: with TLS in clear, with --fault as it arrives. '>' is to
TARGET, '<' to the client. Bytes that are not printable are escaped. A slow reader of standard error slows down the
relay.

--fault simulates a bad network in both directions. WORDS are separated by commas. Times need ms or s; sizes are bytes,
k, M and G are 1024 and its powers:
  delay=200ms        delay all data by this time
  jitter=50ms        add a random delay up to this time; seed=7: other numbers
  rate=64k           limit the rate to this many bytes per second
  chunk=1            pass on this many bytes at a time
  reset-after=4k     reset both sides after this many bytes in one direction
  truncate-after=1M  end the stream after this many bytes (TLS: no close_notify)
  drop-tls-close     end TLS without close_notify, also TLS passed through"""

EXAMPLES = """\
examples:
  wireline relay 127.0.0.1:8080 example.com:80
  wireline relay --self-signed tls://localhost:8443 127.0.0.1:8080
  wireline relay 127.0.0.1:6379 tls://redis.example.com:6380
  wireline relay --psk-file key.txt unix:/run/device.sock tls://192.0.2.7:8883
  wireline relay --stats --max 100 :9000 unix:/run/app.sock
  wireline relay --balance first :9000 10.0.0.1:9000 10.0.0.2:9000
  wireline relay --tls-min 1.3 --pin sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU= :9000 tls://example.com:443
  wireline relay --drain 60 --idle 300 --allow 192.0.2.0/24 --log-format json :9000 unix:/run/app.sock
  wireline relay --fd 3 127.0.0.1:8080
  wireline relay --fault delay=200ms,jitter=50ms,rate=64k 127.0.0.1:9000 127.0.0.1:8080
  wireline relay --dump text 127.0.0.1:9000 tls://example.com:443
  wireline relay --fault chunk=1,reset-after=4k 127.0.0.1:9000 127.0.0.1:8080
"""


def describe(relay: argparse.ArgumentParser) -> None:
    """Add the options of ``relay``."""
    relay.set_defaults(load=_load, program=_program, validate=_validate, find_sockets=_find_sockets)
    relay.add_argument(
        "listen", metavar="LISTEN", type=_option_types.stream_listen_address, help="address to listen on"
    )
    relay.add_argument(
        "relay_targets",
        metavar="TARGET",
        nargs="+",
        type=_option_types.stream_target,
        help="address to connect to; further ones are used as --balance says",
    )
    relay.add_argument(
        "--balance",
        choices=("round-robin", "first"),
        default="round-robin",
        help="of several targets, use the next one for each client (round-robin, the default), or the first one, in "
        "the order given, that answers",
    )
    add_timeout(relay, "for connecting to TARGET, and for each handshake (10 for those of clients)")
    add_show_code_and_debug(relay)
    relay.add_argument(
        "--stats",
        action="store_true",
        help="show targets, connections, and bytes and rates in both directions: a table on a terminal, otherwise one "
        "line per second on standard error",
    )
    relay.add_argument(
        "--dump",
        choices=("hex", "text"),
        help="show all data on standard error, in clear also with TLS, with the connection, the direction and the time",
    )
    relay.add_argument(
        "--fault", metavar="WORDS", type=_option_types.faults, help="simulate a bad network, see above"
    )
    _serving_options.describe(relay, "LISTEN")
    _relay_tls_options.describe(relay)


def _validate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the options go together. Afterwards ``listen_tls`` and ``target_tls`` say which sides use TLS.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    _serving_options.validate(parser, options, options.listen)
    _relay_tls_options.validate(parser, options)


def _find_sockets(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    _serving_options.find_sockets(options, "listen")
    _serving_options.validate(parser, options, options.listen)


def _load() -> Command:
    from wireline.cli import _relay

    return _relay.run


def _program(options: argparse.Namespace) -> Program:
    from wireline.cli.show_code._relay_program import relay

    return relay(options)
