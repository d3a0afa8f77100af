"""TLS options of ``connect``, ``listen`` and ``check``, and which of them go together."""

from __future__ import annotations

import argparse

from wireline.cli.parser import _option_types
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

NAME_MISSING = "the certificate is checked for a name, and a Unix socket has none: give it with --sni NAME"
CERT_MISSING = "--key needs its certificate: --cert FILE"
PASSWORD_ALONE = "--key-password is for the key of a certificate: --cert FILE"
CERT_TWICE = "--self-signed makes a certificate and --cert names one: use one of them"
CLIENT_CA_ALONE = "--client-ca needs a certificate of this server: --cert FILE, or --self-signed"


def describe_connect(command: argparse.ArgumentParser) -> None:
    """Add the TLS options of ``connect``."""
    tls = _add_group(command)
    _add_starttls(tls)
    trust = tls.add_mutually_exclusive_group()
    trust.add_argument("--ca-file", metavar="FILE", help=CA_FILE_HELP)
    trust.add_argument("--no-verify", action="store_true", help=NO_VERIFY_HELP)
    trust.add_argument("--psk-file", metavar="FILE", help=PSK_FILE_HELP)
    _add_client_certificate(tls)
    _add_settings(tls, "the chain of the server")
    _add_alpn(tls, "use", "connecting fails if the server supports none of them")
    tls.add_argument("--sni", metavar="NAME", type=_option_types.server_name, help=SNI_HELP)
    command.set_defaults(validate=_validate_connect)


def describe_check(command: argparse.ArgumentParser) -> None:
    """Add the TLS options of ``check``."""
    tls = _add_group(command)
    _add_starttls(tls)
    tls.add_argument("--ca-file", metavar="FILE", help=CA_FILE_HELP)
    _add_client_certificate(tls)
    _add_settings(tls, "the chain of the server")
    _add_alpn(tls, "offer", "fail if the server supports none of them")
    tls.add_argument("--sni", metavar="NAME", type=_option_types.server_name, help=SNI_HELP)
    command.set_defaults(validate=_validate_check, no_verify=False, psk_file=None)


def describe_listen(command: argparse.ArgumentParser) -> None:
    """Add the TLS options of ``listen``."""
    tls = _add_group(command)
    tls.add_argument("--cert", metavar="FILE", help=LISTEN_CERT_HELP)
    tls.add_argument("--key", metavar="FILE", help=KEY_HELP)
    tls.add_argument("--self-signed", action="store_true", help=SELF_SIGNED_HELP)
    tls.add_argument("--psk-file", metavar="FILE", help=LISTEN_PSK_FILE_HELP)
    tls.add_argument("--client-ca", metavar="FILE", help=CLIENT_CA_HELP)
    _add_settings(tls, "the chain of a client, with --client-ca,")
    command.set_defaults(validate=_validate_listen)


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


def add_key_password(tls: ArgumentGroup, name: str = "--key-password") -> None:
    """Add the option for the password of a key."""
    tls.add_argument(
        name,
        metavar="SOURCE",
        type=_option_types.password_source,
        help="password of the private key, or of the PKCS#12 file: file:PATH, fd:N, env:NAME or prompt",
    )


def _add_settings(tls: ArgumentGroup, chain: str) -> None:
    add_key_password(tls)
    tls.add_argument(
        "--pin",
        metavar="PIN",
        action="append",
        type=_option_types.pin,
        help=f"refuse {chain} unless it has this public key, sha256/BASE64, or this certificate, its SHA-256 in "
        "hexadecimal; may be repeated, and one is enough",
    )
    for name, text in (("min", "lowest"), ("max", "highest")):
        tls.add_argument(f"--tls-{name}", choices=("1.2", "1.3"), help=f"{text} version of TLS")
    tls.add_argument(
        "--ciphers",
        metavar="LIST",
        type=_option_types.ciphers,
        help="OpenSSL names, separated by colons; those that begin with TLS_ are for TLS 1.3, the others for 1.2",
    )
    tls.add_argument(
        "--keylog",
        metavar="FILE",
        help="append the keys of connections, for Wireshark; by default to the file that SSLKEYLOGFILE names",
    )


def _add_alpn(tls: ArgumentGroup, verb: str, otherwise: str) -> None:
    tls.add_argument(
        "--alpn",
        metavar="NAMES",
        type=_option_types.alpn_protocols,
        help=f"protocols to {verb}, separated by commas, the preferred one first; {otherwise}",
    )


def option_name(name: str) -> str:
    """The option that sets an attribute of the namespace."""
    return "--" + name.replace("_", "-")


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
    if options.target.scheme == "udp":
        parser.error("TLS needs a stream, and udp:// has none")
    if options.target.scheme == "tcp" and not starttls:
        options.target = options.target._replace(scheme="tls")
    if options.key and not options.cert:
        parser.error(CERT_MISSING)
    if getattr(options, "tls_min", None) == "1.3" and options.tls_max == "1.2":
        parser.error("--tls-min 1.3 and --tls-max 1.2 leave no version")
    if getattr(options, "key_password", None) and not options.cert:
        parser.error(PASSWORD_ALONE)
    options.validate(parser, options)


def _reject_tls_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for name in _NEEDS_TLS:
        if getattr(options, name, None):
            target = options.target
            advice = "add --tls" if target.path else f"write {target._replace(scheme='tls')}"
            if target.scheme == "udp":
                advice = "udp:// has none"
            parser.error(f"{option_name(name)} is for TLS: {advice}")


def _validate_connect(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.pin and options.psk_file:
        parser.error("--pin is about certificates, and with --psk-file there are none")
    unchecked = options.no_verify or options.psk_file
    if options.target.path and not options.sni and not unchecked:
        parser.error(NAME_MISSING)


def _validate_check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.target.path and not options.sni:
        parser.error(NAME_MISSING)


def _validate_listen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.cert and options.self_signed:
        parser.error(CERT_TWICE)
    if not (options.cert or options.self_signed or options.psk_file):
        parser.error("a TLS server needs --cert FILE (and --key FILE), --self-signed, or --psk-file FILE")
    if options.pin and not options.client_ca:
        parser.error("--pin is about certificates of clients, which --client-ca FILE asks for")
    if options.client_ca and not (options.cert or options.self_signed):
        parser.error(CLIENT_CA_ALONE)
