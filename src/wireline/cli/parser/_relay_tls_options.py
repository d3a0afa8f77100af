"""TLS options of the two sides of ``relay``, and which of them go together.

LISTEN has the options of ``listen``, and TARGET those of ``connect``. Of an option that both have, one has another name
here. `Side.names` has these names; the options, their checks and the sentences about them follow from it.
"""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

from wireline.cli.parser import _option_types, _tls_options
from wireline.cli.parser._common_options import option_name
from wireline.cli.parser._usage import ArgumentGroup


class Side(NamedTuple):
    """One side of a relay."""

    word: str
    """Its argument."""
    tls_option: str
    """The option that asks for TLS."""
    names: dict[str, str]
    """For each option of ``listen`` or ``connect`` that this side has, the attribute that it sets here."""

    def option(self, name: str) -> str:
        """An option of ``listen`` or ``connect``, as it is called here."""
        return option_name(self.names[name])

    def options(self, options: argparse.Namespace) -> argparse.Namespace:
        """The options of this side, named as ``listen`` or ``connect`` names them."""
        given = {name: getattr(options, here) for name, here in self.names.items()}
        return argparse.Namespace(**given, timeout=options.timeout)

    def renamed(self, sentence: str) -> str:
        """A sentence about the options of ``listen`` or ``connect``, with the names that they have here."""
        return re.sub(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", self._renamed_option, sentence)

    def _renamed_option(self, match: re.Match[str]) -> str:
        name = match[0].removeprefix("--").replace("-", "_")
        return option_name(self.names.get(name, name))


_IN_BOTH = ("psk_file", "pin", "tls_min", "tls_max", "ciphers", "alpn")

LISTEN = Side(
    "LISTEN",
    "--listen-tls",
    {name: name for name in ("cert", "key", "key_password", "self_signed", "client_ca", "keylog")}
    | {name: f"listen_{name}" for name in _IN_BOTH},
)
TARGET = Side(
    "TARGET",
    "--tls",
    {name: name for name in ("ca_file", "no_verify", "sni", "keylog", *_IN_BOTH)}
    | {name: f"client_{name}" for name in ("cert", "key", "key_password")},
)


def describe(relay: argparse.ArgumentParser) -> None:
    """Add the TLS options of both sides."""
    _tls_options.add_keylog(relay)
    _describe_listen_side(relay.add_argument_group("TLS of LISTEN"))
    _describe_target_side(relay.add_argument_group("TLS of TARGET"))


def _describe_listen_side(group: ArgumentGroup) -> None:
    group.add_argument("--listen-tls", action="store_true", help="use TLS, also through a unix: socket")
    group.add_argument("--cert", metavar="FILE", help=_tls_options.LISTEN_CERT_HELP)
    group.add_argument("--key", metavar="FILE", help=_tls_options.KEY_HELP)
    group.add_argument("--self-signed", action="store_true", help=_tls_options.SELF_SIGNED_HELP)
    group.add_argument("--client-ca", metavar="FILE", help=_tls_options.CLIENT_CA_HELP)
    group.add_argument("--listen-psk-file", metavar="FILE", help=_tls_options.LISTEN_PSK_FILE_HELP)
    _tls_options.add_settings(group, _tls_options.CHAIN_OF_CLIENT, LISTEN.option)
    _tls_options.add_alpn(group, "select from", "without a common one there is none", LISTEN.option("alpn"))


def _describe_target_side(group: ArgumentGroup) -> None:
    group.add_argument("--tls", dest="target_tls", action="store_true", help=_tls_options.TLS_HELP)
    _tls_options.add_trust(group)
    group.add_argument("--sni", metavar="NAME", type=_option_types.server_name, help=_tls_options.SNI_HELP)
    group.add_argument("--client-cert", metavar="FILE", help=_tls_options.CLIENT_CERT_HELP)
    group.add_argument("--client-key", metavar="FILE", help=_tls_options.KEY_HELP)
    _tls_options.add_settings(group, _tls_options.CHAIN_OF_SERVER, TARGET.option)
    _tls_options.add_alpn(group, "use", "connecting fails if TARGET supports none of them")


def validate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the options go together. Afterwards ``listen_tls`` and ``target_tls`` say which sides use TLS.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    options.listen_tls |= options.listen.scheme == "tls"
    _require_tls_of_all_targets_or_none(parser, options)
    if options.keylog and not (options.listen_tls or options.target_tls):
        parser.error("--keylog is for TLS: write tls:// in LISTEN or in TARGET")
    _validate_side(parser, options, LISTEN, tls=options.listen_tls)
    _validate_side(parser, options, TARGET, tls=options.target_tls)


def _require_tls_of_all_targets_or_none(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """With both, an attacker who blocks the targets with TLS would get the data of all clients in clear."""
    targets = options.relay_targets
    with_tls = [target for target in targets if target.scheme == "tls"]
    without = [target for target in targets if target.scheme != "tls"]
    if with_tls and without and not options.target_tls:
        parser.error(
            f"{with_tls[0]} uses TLS and {without[0]} does not: write tls:// in each TARGET, or --tls for all"
        )
    options.target_tls |= bool(with_tls)
    if options.target_tls:
        options.relay_targets = [
            target._replace(scheme="tls") if target.scheme == "tcp" else target for target in targets
        ]


def _validate_side(
    parser: argparse.ArgumentParser, options: argparse.Namespace, side: Side, *, tls: bool
) -> None:
    if not tls:
        for name in side.names:
            if name != "keylog" and getattr(options, side.names[name]):
                advice = f"write tls:// in {side.word}, or {side.tls_option} for a Unix socket"
                parser.error(f"{side.option(name)} is for TLS: {advice}")
        return

    def error(message: str) -> None:
        parser.error(side.renamed(message))

    own = side.options(options)
    _tls_options.validate_settings(error, own)
    if side is LISTEN:
        _tls_options.validate_server(error, own)
    else:
        for own.target in options.relay_targets:
            _tls_options.validate_client(error, own)
