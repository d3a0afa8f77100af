"""Options and help of ``relay``, and which of the options go together."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wireline.cli.parser import _option_types, _tls_options
from wireline.cli.parser._common_options import Command, add_show_code_and_debug, add_timeout
from wireline.cli.parser._usage import ArgumentGroup

if TYPE_CHECKING:
    from wireline.cli.show_code._program import Program

SUMMARY = "forward connections"

ABOUT = """\
Listen, connect to TARGET for each client, and copy data in both directions. Each side is TCP, TLS or a Unix socket.

The end of one direction is passed on as a half-close; the other direction stays open. When a connection breaks, the
data received before that is passed on, and then a reset, so incomplete data never looks complete. A slow reader slows
down the writer. A failed connection is reported on standard error; the others continue.

At the first Ctrl-C or SIGTERM, relay stops listening, waits for the open connections, and exits with 0. At the second,
it resets them (exit code 130 or 143).

With tls:// in LISTEN, clients must use TLS. The server needs --cert and --key, --self-signed, or --listen-psk-file;
--client-ca limits which clients are accepted. With tls:// in TARGET, relay connects with TLS as 'connect' does:
--ca-file, --no-verify, --sni, --psk-file, and --client-cert with --client-key if the server asks for a certificate.

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
  wireline relay --fault delay=200ms,jitter=50ms,rate=64k 127.0.0.1:9000 127.0.0.1:8080
  wireline relay --fault chunk=1,reset-after=4k 127.0.0.1:9000 127.0.0.1:8080
"""

# Options that need TLS on their side.
_FOR_LISTEN = ("cert", "key", "self_signed", "client_ca", "listen_psk_file")
_FOR_TARGET = ("ca_file", "no_verify", "sni", "client_cert", "client_key", "psk_file")


def describe(relay: argparse.ArgumentParser) -> None:
    """Add the options of ``relay``."""
    relay.set_defaults(load=_load, program=_program)
    relay.add_argument(
        "listen", metavar="LISTEN", type=_option_types.stream_listen_address, help="address to listen on"
    )
    relay.add_argument(
        "target", metavar="TARGET", type=_option_types.stream_target, help="address to connect to"
    )
    add_timeout(relay, "for connecting to TARGET, and for each handshake (10 for those of clients)")
    add_show_code_and_debug(relay)
    relay.add_argument(
        "--max",
        metavar="N",
        type=_option_types.connection_count,
        help="at most N connections at a time; further clients wait",
    )
    relay.add_argument(
        "--stats",
        action="store_true",
        help="show the connections: a table on a terminal, otherwise one line per second on standard error",
    )
    relay.add_argument(
        "--fault", metavar="WORDS", type=_option_types.faults, help="simulate a bad network, see above"
    )
    _describe_listen_side(relay.add_argument_group("TLS of LISTEN"))
    _describe_target_side(relay.add_argument_group("TLS of TARGET"))


def _describe_listen_side(group: ArgumentGroup) -> None:
    group.add_argument("--listen-tls", action="store_true", help="use TLS, also through a unix: socket")
    group.add_argument("--cert", metavar="FILE", help=_tls_options.LISTEN_CERT_HELP)
    group.add_argument("--key", metavar="FILE", help=_tls_options.KEY_HELP)
    group.add_argument("--self-signed", action="store_true", help=_tls_options.SELF_SIGNED_HELP)
    group.add_argument("--client-ca", metavar="FILE", help=_tls_options.CLIENT_CA_HELP)
    group.add_argument("--listen-psk-file", metavar="FILE", help=_tls_options.LISTEN_PSK_FILE_HELP)


def _describe_target_side(group: ArgumentGroup) -> None:
    group.add_argument("--tls", dest="target_tls", action="store_true", help=_tls_options.TLS_HELP)
    trust = group.add_mutually_exclusive_group()
    trust.add_argument("--ca-file", metavar="FILE", help=_tls_options.CA_FILE_HELP)
    trust.add_argument("--no-verify", action="store_true", help=_tls_options.NO_VERIFY_HELP)
    trust.add_argument(
        "--psk-file",
        metavar="FILE",
        help="use a pre-shared key instead of certificates, from a file with one line IDENTITY:KEYHEX",
    )
    group.add_argument("--sni", metavar="NAME", help=_tls_options.SNI_HELP)
    group.add_argument("--client-cert", metavar="FILE", help=_tls_options.CLIENT_CERT_HELP)
    group.add_argument("--client-key", metavar="FILE", help=_tls_options.KEY_HELP)


def validate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the options go together. Afterwards ``listen_tls`` and ``target_tls`` say which sides use TLS.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    options.listen_tls |= options.listen.scheme == "tls"
    options.target_tls |= options.target.scheme == "tls"
    if not options.listen_tls:
        _reject_tls_options(parser, options, _FOR_LISTEN, "LISTEN", "--listen-tls")
    if not options.target_tls:
        _reject_tls_options(parser, options, _FOR_TARGET, "TARGET", "--tls")
    if options.listen_tls:
        _validate_listen_side(parser, options)
    if options.client_key and not options.client_cert:
        parser.error("--client-key needs its certificate: --client-cert FILE")
    unchecked = options.no_verify or options.psk_file or options.sni
    if options.target_tls and options.target.path and not unchecked:
        parser.error(_tls_options.NAME_MISSING)


def _reject_tls_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace, names: tuple[str, ...], side: str, word: str
) -> None:
    for name in names:
        if getattr(options, name):
            option = _tls_options.option_name(name)
            parser.error(f"{option} is for TLS: write tls:// in {side}, or {word} for a Unix socket")


def _validate_listen_side(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.key and not options.cert:
        parser.error(_tls_options.CERT_MISSING)
    if options.cert and options.self_signed:
        parser.error(_tls_options.CERT_TWICE)
    if not (options.cert or options.self_signed or options.listen_psk_file):
        parser.error(
            "TLS in LISTEN needs --cert FILE (and --key FILE), --self-signed, or --listen-psk-file FILE"
        )
    if options.client_ca and not (options.cert or options.self_signed):
        parser.error(_tls_options.CLIENT_CA_ALONE)


def target_options(options: argparse.Namespace) -> argparse.Namespace:
    """The options of the target's side, named as ``connect`` names them."""
    same = ("target", "timeout", "ca_file", "no_verify", "sni", "psk_file")
    return argparse.Namespace(
        cert=options.client_cert,
        key=options.client_key,
        alpn=None,
        **{name: getattr(options, name) for name in same},
    )


def listen_options(options: argparse.Namespace) -> argparse.Namespace:
    """The options of the listening side, named as ``listen`` names them."""
    same = ("cert", "key", "self_signed", "client_ca", "timeout")
    return argparse.Namespace(
        target=options.listen,
        psk_file=options.listen_psk_file,
        **{name: getattr(options, name) for name in same},
    )


def _load() -> Command:
    from wireline.cli import _relay

    return _relay.run


def _program(options: argparse.Namespace) -> Program:
    from wireline.cli.show_code._relay_program import relay

    return relay(options)
