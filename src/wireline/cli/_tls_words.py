"""The words about TLS on the command line, what ``--help`` says about them, and which of them go together."""

from __future__ import annotations

import argparse

from wireline.cli._psk import parse_key
from wireline.cli._starttls import PROTOCOLS

_NEEDS_TLS = (
    "ca_file",
    "no_verify",
    "psk",
    "psk_file",
    "cert",
    "key",
    "alpn",
    "sni",
    "self_signed",
    "client_ca",
)

_NAMELESS = "the certificate is checked for a name, and a Unix socket has none: give it with --sni NAME"

_TLS_HELP = "speak TLS, also through a unix: socket; tls://host:port means the same"


def describe_connect(command: argparse.ArgumentParser) -> None:
    """Add what a client may say."""
    tls = _group(command)
    trust = tls.add_mutually_exclusive_group()
    trust.add_argument("--ca-file", metavar="FILE", help="trust these CAs (PEM), and not those of the system")
    trust.add_argument("--no-verify", action="store_true", help="check nothing: anybody can be the server")
    trust.add_argument(
        "--psk",
        metavar="IDENTITY:KEYHEX",
        type=_psk,
        help="use a pre-shared key, and no certificate; everybody on this machine can see it, so see --psk-file",
    )
    trust.add_argument("--psk-file", metavar="FILE", help="the same, from a file with a line IDENTITY:KEYHEX")
    _add_certificate(tls, "who we are, for a server that asks")
    tls.add_argument(
        "--alpn",
        metavar="NAMES",
        type=_protocols,
        help="protocols to agree on, the preferred one first, with commas between; no connection without one in common",
    )
    tls.add_argument("--sni", metavar="NAME", help="the server's name, where it is not the host of TARGET")
    command.set_defaults(check=_check_connect)


def describe_check(command: argparse.ArgumentParser) -> None:
    """Add what a client may say that only looks."""
    tls = _group(command)
    tls.add_argument(
        "--starttls",
        choices=PROTOCOLS,
        help="begin in clear as this protocol does, and ask for TLS; for host:port",
    )
    tls.add_argument("--ca-file", metavar="FILE", help="trust these CAs (PEM), and not those of the system")
    _add_certificate(tls, "who we are, for a server that asks")
    tls.add_argument(
        "--alpn",
        metavar="NAMES",
        type=_protocols,
        help="protocols to offer, the preferred one first, with commas between; to agree on none is a failure",
    )
    tls.add_argument("--sni", metavar="NAME", help="the server's name, where it is not the host of TARGET")
    command.set_defaults(check=_check_check, no_verify=False, psk=None, psk_file=None)


def describe_listen(command: argparse.ArgumentParser) -> None:
    """Add what a server may say."""
    tls = _group(command)
    _add_certificate(tls, "who we are, with the certificates that lead to the CA")
    tls.add_argument(
        "--self-signed",
        action="store_true",
        help="make a certificate and a CA to throw away, and print what a client needs",
    )
    tls.add_argument(
        "--psk-file",
        metavar="FILE",
        help="let clients in that know a pre-shared key; a line IDENTITY:KEYHEX for each",
    )
    tls.add_argument(
        "--client-ca", metavar="FILE", help="let only clients in with a certificate of this CA (PEM)"
    )
    command.set_defaults(check=_check_listen)


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """See whether the words go together. Afterwards ``options.tls`` says whether TLS is asked for.

    Raises:
        SystemExit: they do not; the parser has said so.
    """
    if getattr(options, "starttls", None):
        if options.target.scheme == "tls":
            parser.error("tls:// means TLS from the first byte, and --starttls means later: write host:port")
        options.tls = True
    options.tls = options.tls or options.target.scheme == "tls"
    if not options.tls:
        for name in _NEEDS_TLS:
            if getattr(options, name, None):
                parser.error(
                    f"{_spelling(name)} is for TLS: write tls://host:port, or --tls for a Unix socket"
                )
        return
    if options.target.scheme == "udp":
        parser.error("TLS needs a stream, and udp:// has none")
    if options.target.scheme == "tcp" and not getattr(options, "starttls", None):
        options.target = options.target._replace(scheme="tls")
    if options.key and not options.cert:
        parser.error("--key needs the certificate that it belongs to: --cert FILE")
    options.check(parser, options)


def _check_connect(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    unchecked = options.no_verify or options.psk or options.psk_file
    if options.target.path and not options.sni and not unchecked:
        parser.error(_NAMELESS)


def _check_check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.target.path and not options.sni:
        parser.error(_NAMELESS)


def _check_listen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.cert and options.self_signed:
        parser.error("--self-signed makes a certificate, and --cert brings one: use one of them")
    if not (options.cert or options.self_signed or options.psk_file):
        parser.error("a TLS server needs --cert FILE (and --key FILE), --self-signed, or --psk-file FILE")
    if options.client_ca and not (options.cert or options.self_signed):
        parser.error("--client-ca needs a certificate of our own: --cert FILE, or --self-signed")


def _group(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    tls = command.add_argument_group("TLS")
    tls.add_argument("--tls", action="store_true", help=_TLS_HELP)
    return tls


def _add_certificate(tls: argparse._ArgumentGroup, what: str) -> None:
    tls.add_argument("--cert", metavar="FILE", help=f"the certificate that says {what} (PEM)")
    tls.add_argument("--key", metavar="FILE", help="its key, if that is not in the same file (PEM)")


def _spelling(name: str) -> str:
    return "--" + name.replace("_", "-")


def _psk(text: str) -> tuple[str, bytes]:
    try:
        return parse_key(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _protocols(text: str) -> list[str]:
    names = text.split(",")
    if not all(name.isascii() and 1 <= len(name) <= 255 for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of protocols, as h2,http/1.1 is one")
    return names
