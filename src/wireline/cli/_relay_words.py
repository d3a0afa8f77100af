"""The words of ``relay`` on the command line, what ``--help`` says about them, and which of them go together."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wireline.cli._signals import Signals

if TYPE_CHECKING:
    from wireline.testing import Faults

ABOUT = """\
Listen, connect to TARGET for each connection that comes, and copy both ways: TCP, TLS, Unix sockets in any pair.

An end travels as an end, in each direction by itself (half-close). A connection that breaks travels as a reset, after
everything that came before it; nothing that is incomplete passes for whole. A reader that is slow holds the writer
back. Connections that fail are told on standard error, and the others go on.

The first Ctrl-C, or SIGTERM, ends listening, waits for the connections, and is a good end (0). The second one cuts
them (130, 143).

With tls:// as LISTEN clients speak TLS: --cert and --key, --self-signed or --listen-psk-file say who we are, and
--client-ca who may come. With tls:// as TARGET we do, as 'connect' does: --ca-file, --no-verify, --sni, --psk-file, and
--client-cert with --client-key if the server asks who we are.

--fault puts a bad network in between, in both directions. Words with commas between:
  delay=200ms        every byte is under way for so long
  jitter=50ms        and up to so much longer; seed=7: other random numbers
  rate=64k           at most so many bytes a second
  chunk=1            so many bytes at a time, as any program must expect
  reset-after=4k     both sides are reset once so many bytes have gone one way
  truncate-after=1M  the stream ends there, in TLS without close_notify
  drop-tls-close     TLS ends without close_notify, also if it only goes through"""

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

# What makes sense on a side only if it speaks TLS.
_FOR_LISTEN = ("cert", "key", "self_signed", "client_ca", "listen_psk_file")
_FOR_TARGET = ("ca_file", "no_verify", "sni", "client_cert", "client_key", "psk_file")


def describe(relay: argparse.ArgumentParser) -> None:
    """Add what ``relay`` may be told, besides its two addresses and what every command has."""
    relay.set_defaults(run=_run)
    relay.add_argument(
        "--max", metavar="N", type=_count, help="at most N connections at a time; who comes then waits"
    )
    relay.add_argument(
        "--stats",
        action="store_true",
        help="show the connections: a table on a terminal, else a line a second on standard error",
    )
    relay.add_argument(
        "--fault", metavar="WORDS", type=_faults, help="put a bad network in between, see above"
    )
    _describe_listening(relay.add_argument_group("TLS of LISTEN"))
    _describe_connecting(relay.add_argument_group("TLS of TARGET"))


def _describe_listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--listen-tls", action="store_true", help="speak TLS through a unix: socket, too")
    group.add_argument("--cert", metavar="FILE", help="our certificate, with those that lead to the CA (PEM)")
    group.add_argument("--key", metavar="FILE", help="its key, if that is not in the same file (PEM)")
    group.add_argument(
        "--self-signed",
        action="store_true",
        help="make a certificate and a CA to throw away, and print what a client needs",
    )
    group.add_argument(
        "--client-ca", metavar="FILE", help="let only clients in with a certificate of this CA (PEM)"
    )
    group.add_argument(
        "--listen-psk-file",
        metavar="FILE",
        help="let clients in that know a pre-shared key; a line IDENTITY:KEYHEX for each",
    )


def _describe_connecting(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tls",
        dest="target_tls",
        action="store_true",
        help="speak TLS, also through a unix: socket; tls://host:port means the same",
    )
    trust = group.add_mutually_exclusive_group()
    trust.add_argument("--ca-file", metavar="FILE", help="trust these CAs (PEM), and not those of the system")
    trust.add_argument("--no-verify", action="store_true", help="check nothing: anybody can be the server")
    trust.add_argument(
        "--psk-file",
        metavar="FILE",
        help="use a pre-shared key, and no certificate; one line IDENTITY:KEYHEX",
    )
    group.add_argument("--sni", metavar="NAME", help="the server's name, where it is not the host of TARGET")
    group.add_argument("--client-cert", metavar="FILE", help="who we are, for a server that asks (PEM)")
    group.add_argument("--client-key", metavar="FILE", help="its key, if that is not in the same file (PEM)")


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """See whether the words go together. Then ``listen_tls`` and ``target_tls`` say on which sides TLS is spoken.

    Raises:
        SystemExit: they do not; the parser has said so.
    """
    options.listen_tls = _speaks_tls(
        parser, options, options.listen, options.listen_tls, "LISTEN", "--listen-tls", _FOR_LISTEN
    )
    options.target_tls = _speaks_tls(
        parser, options, options.target, options.target_tls, "TARGET", "--tls", _FOR_TARGET
    )
    if options.listen_tls:
        _check_listening(parser, options)
    if options.client_key and not options.client_cert:
        parser.error("--client-key needs the certificate that it belongs to: --client-cert FILE")
    unchecked = options.no_verify or options.psk_file or options.sni
    if options.target_tls and options.target.path and not unchecked:
        parser.error(
            "the certificate is checked for a name, and a Unix socket has none: give it with --sni NAME"
        )


def _speaks_tls(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    address: object,
    wanted: bool,
    side: str,
    word: str,
    needing: tuple[str, ...],
) -> bool:
    speaks = wanted or getattr(address, "scheme", "") == "tls"
    for name in needing:
        if getattr(options, name) and not speaks:
            parser.error(
                f"--{name.replace('_', '-')} is for TLS: write tls:// in {side}, or {word} for a Unix socket"
            )
    return speaks


def _check_listening(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.key and not options.cert:
        parser.error("--key needs the certificate that it belongs to: --cert FILE")
    if options.cert and options.self_signed:
        parser.error("--self-signed makes a certificate, and --cert brings one: use one of them")
    if not (options.cert or options.self_signed or options.listen_psk_file):
        parser.error(
            "clients that speak TLS need --cert FILE (and --key FILE), --self-signed, or --listen-psk-file FILE"
        )
    if options.client_ca and not (options.cert or options.self_signed):
        parser.error("--client-ca needs a certificate of our own: --cert FILE, or --self-signed")


def target_options(options: argparse.Namespace) -> argparse.Namespace:
    """What is said about the side of TARGET, under the names that ``connect`` has for it."""
    same = ("target", "timeout", "ca_file", "no_verify", "sni", "psk_file")
    return argparse.Namespace(
        cert=options.client_cert,
        key=options.client_key,
        psk=None,
        alpn=None,
        **{name: getattr(options, name) for name in same},
    )


def listen_options(options: argparse.Namespace) -> argparse.Namespace:
    """What is said about the side of LISTEN, under the names that ``listen`` has for it."""
    same = ("cert", "key", "self_signed", "client_ca", "timeout")
    return argparse.Namespace(
        target=options.listen,
        psk_file=options.listen_psk_file,
        **{name: getattr(options, name) for name in same},
    )


def _run(options: argparse.Namespace, signals: Signals) -> None:
    # What only this command needs, and the others would load in vain.
    from wireline.cli import _relay

    _relay.run(options, signals)


def _faults(text: str) -> Faults:
    from wireline.testing import Faults

    try:
        return Faults.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of connections above 0")
    return int(text)
