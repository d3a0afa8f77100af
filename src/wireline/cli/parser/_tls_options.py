"""TLS options of ``connect``, ``listen`` and ``check``, and which of them go together."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

from wireline import parse_hostname
from wireline.cli._datagram_targets import is_datagram, scheme_of
from wireline.cli.parser import _option_types
from wireline.cli.parser._common_options import option_name
from wireline.cli.parser._usage import ArgumentGroup
from wireline.cli.starttls._names import PROTOCOLS

KEY_HELP = "its private key, if it is in another file (PEM)"
CA_FILE_HELP = "trust these CAs (PEM) instead of those of the system"
NO_VERIFY_HELP = "accept any certificate: anyone on the network path can impersonate the server"
SNI_HELP = "the name of the server, if it is not the host of TARGET"
TLS_HELP = "use TLS, also through a unix: socket; tls://host:port means the same"
CLIENT_CA_HELP = "accept only clients with a certificate of this CA (PEM)"
SELF_SIGNED_HELP = "make a throw-away CA and certificate, and print what a client needs"
CLIENT_CERT_HELP = "certificate to send if the server asks for one (PEM, or PKCS#12 with its key)"
LISTEN_CERT_HELP = "certificate of this server, followed by its intermediates (PEM, or PKCS#12 with its key)"
CHAIN_OF_SERVER = "the chain of the server"
CHAIN_OF_CLIENT = "the chain of a client, with --client-ca,"
PSK_FILE_HELP = "use a pre-shared key instead of certificates; a file with one line IDENTITY:KEYHEX, or fd:N"
LISTEN_PSK_FILE_HELP = "accept clients that have a pre-shared key; one line IDENTITY:KEYHEX for each"

_NEEDS_TLS = (
    "ca_file",
    "no_verify",
    "psk_file",
    "pin",
    "key_password",
    "keylog",
    "tls_min",
    "tls_max",
    "ciphers",
    "cert",
    "key",
    "alpn",
    "sni",
    "self_signed",
    "client_ca",
)

_NAME_MISSING = "the certificate is checked for a name, and a Unix socket has none: give it with --sni NAME"

Error: TypeAlias = Callable[[str], object]
"""Prints an error and ends the program."""


def describe_connect(command: argparse.ArgumentParser) -> None:
    """Add the TLS options of ``connect``."""
    tls = _add_group(command)
    _add_starttls(tls)
    add_trust(tls)
    _add_client_certificate(tls)
    add_settings(tls, CHAIN_OF_SERVER)
    add_keylog(tls)
    add_alpn(tls, "use", "connecting fails if the server supports none of them")
    tls.add_argument("--sni", metavar="NAME", type=_option_types.server_name, help=SNI_HELP)
    command.set_defaults(validate_role=validate_client)


def describe_check(command: argparse.ArgumentParser) -> None:
    """Add the TLS options of ``check``."""
    tls = _add_group(command)
    _add_starttls(tls)
    tls.add_argument("--ca-file", metavar="FILE", help=CA_FILE_HELP)
    _add_client_certificate(tls)
    add_settings(tls, CHAIN_OF_SERVER)
    add_keylog(tls)
    add_alpn(tls, "offer", "fail if the server supports none of them")
    tls.add_argument("--sni", metavar="NAME", type=_option_types.server_name, help=SNI_HELP)
    command.set_defaults(validate_role=_validate_check, no_verify=False, psk_file=None)


def describe_listen(command: argparse.ArgumentParser) -> None:
    """Add the TLS options of ``listen``."""
    tls = _add_group(command)
    tls.add_argument("--cert", metavar="FILE", help=LISTEN_CERT_HELP)
    tls.add_argument("--key", metavar="FILE", help=KEY_HELP)
    tls.add_argument("--self-signed", action="store_true", help=SELF_SIGNED_HELP)
    tls.add_argument("--psk-file", metavar="FILE", help=LISTEN_PSK_FILE_HELP)
    tls.add_argument("--client-ca", metavar="FILE", help=CLIENT_CA_HELP)
    add_settings(tls, CHAIN_OF_CLIENT)
    add_keylog(tls)
    command.set_defaults(validate_role=validate_server)


def _add_group(command: argparse.ArgumentParser) -> ArgumentGroup:
    tls = command.add_argument_group("TLS")
    tls.add_argument("--tls", action="store_true", help=TLS_HELP)
    return tls


def _add_starttls(tls: ArgumentGroup) -> None:
    tls.add_argument(
        "--starttls",
        metavar="PROTOCOL",
        choices=PROTOCOLS,
        help=f"begin without TLS in this protocol, and ask for TLS: {', '.join(PROTOCOLS)}",
    )


def _add_client_certificate(tls: ArgumentGroup) -> None:
    tls.add_argument("--cert", metavar="FILE", help=CLIENT_CERT_HELP)
    tls.add_argument("--key", metavar="FILE", help=KEY_HELP)


def add_trust(tls: ArgumentGroup) -> None:
    """Add the options that say which servers are trusted."""
    trust = tls.add_mutually_exclusive_group()
    trust.add_argument("--ca-file", metavar="FILE", help=CA_FILE_HELP)
    trust.add_argument("--no-verify", action="store_true", help=NO_VERIFY_HELP)
    trust.add_argument("--psk-file", metavar="FILE", help=PSK_FILE_HELP)


def add_settings(tls: ArgumentGroup, chain: str, option: Callable[[str], str] = option_name) -> None:
    """Add the options that servers and clients share.

    Args:
        tls: receives them.
        chain: the chain that ``--pin`` is about.
        option: returns the option that stands for one of them.
    """
    tls.add_argument(
        option("key_password"),
        metavar="SOURCE",
        type=_option_types.password_source,
        help="password of the private key, or of the PKCS#12 file: file:PATH, fd:N, env:NAME or prompt",
    )
    tls.add_argument(
        option("pin"),
        metavar="PIN",
        action="append",
        type=_option_types.pin,
        help=f"refuse {chain} unless it has this public key, sha256/BASE64, or this certificate, its SHA-256 in "
        "hexadecimal; may be repeated, and one is enough",
    )
    for name, text in (("tls_min", "lowest"), ("tls_max", "highest")):
        tls.add_argument(option(name), choices=("1.2", "1.3"), help=f"{text} version of TLS")
    tls.add_argument(
        option("ciphers"),
        metavar="LIST",
        type=_option_types.ciphers,
        help="OpenSSL names, separated by colons; those that begin with TLS_ are for TLS 1.3, the others for 1.2",
    )


def add_keylog(command: argparse.ArgumentParser | ArgumentGroup) -> None:
    """Add ``--keylog``."""
    command.add_argument(
        "--keylog",
        metavar="FILE",
        help="append the keys of connections, for Wireshark; by default to the file that SSLKEYLOGFILE names",
    )


def add_alpn(tls: ArgumentGroup, verb: str, otherwise: str, option: str = "--alpn") -> None:
    """Add ``--alpn``."""
    tls.add_argument(
        option,
        metavar="NAMES",
        type=_option_types.alpn_protocols,
        help=f"protocols to {verb}, separated by commas, the preferred one first; {otherwise}",
    )


def validate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the options go together. Afterwards ``options.tls`` says whether TLS is used.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    starttls = getattr(options, "starttls", None)
    if starttls and options.target.scheme == "tls":
        parser.error("tls:// starts TLS with the first byte, and --starttls later: write host:port")
    options.tls = options.tls or bool(starttls) or options.target.scheme == "tls"
    if not options.tls:
        _reject_tls_options(parser, options)
        return
    if is_datagram(options.target):
        parser.error(f"TLS needs a stream, and {scheme_of(options.target)} has none")
    if options.target.scheme == "tcp" and not starttls:
        options.target = options.target._replace(scheme="tls")
    validate_settings(parser.error, options)
    options.validate_role(parser.error, options)


def _reject_tls_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for name in _NEEDS_TLS:
        if getattr(options, name, None):
            target = options.target
            advice = "add --tls" if target.path else f"write {target._replace(scheme='tls')}"
            if is_datagram(target):
                advice = f"{scheme_of(target)} has none"
            parser.error(f"{option_name(name)} is for TLS: {advice}")


def validate_settings(error: Error, options: argparse.Namespace) -> None:
    """Check the options that servers and clients share."""
    if options.key and not options.cert:
        error("--key needs its certificate: --cert FILE")
    if getattr(options, "tls_min", None) == "1.3" and options.tls_max == "1.2":
        error("--tls-min 1.3 and --tls-max 1.2 leave no version")
    if getattr(options, "key_password", None) and not options.cert:
        error("--key-password is for the key of a certificate: --cert FILE")


def validate_client(error: Error, options: argparse.Namespace) -> None:
    """Check the options of ``connect``, for one target."""
    if options.pin and options.psk_file:
        error("--pin is about certificates, and with --psk-file there are none")
    unchecked = options.no_verify or options.psk_file
    if options.target.path and not options.sni and not unchecked:
        error(_NAME_MISSING)
    _require_server_name(error, options)


def _validate_check(error: Error, options: argparse.Namespace) -> None:
    if options.target.path and not options.sni:
        error(_NAME_MISSING)
    _require_server_name(error, options)


def _require_server_name(error: Error, options: argparse.Namespace) -> None:
    """Refuse a host that a resolver may know, such as ``*.example.com``, and that TLS cannot name."""
    if options.sni or options.target.path:
        return
    try:
        parse_hostname(options.target.host)
    except ValueError as reason:
        error(f"{reason}, and TLS needs one: correct TARGET, or give the name with --sni NAME")


def validate_server(error: Error, options: argparse.Namespace) -> None:
    """Check the options of ``listen``."""
    if options.cert and options.self_signed:
        error("--self-signed makes a certificate and --cert names one: use one of them")
    if not (options.cert or options.self_signed or options.psk_file):
        error("a TLS server needs --cert FILE (and --key FILE), --self-signed, or --psk-file FILE")
    if options.pin and not options.client_ca:
        error("--pin is about certificates of clients, which --client-ca FILE asks for")
    if options.client_ca and not (options.cert or options.self_signed):
        error("--client-ca needs a certificate of this server: --cert FILE, or --self-signed")
