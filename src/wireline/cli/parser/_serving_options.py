"""Options of ``listen`` and ``relay`` about the connections that they serve, and which of them go together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from wireline import Target
from wireline.cli._datagram_targets import is_datagram, scheme_of
from wireline.cli.parser import _option_types
from wireline.cli.parser._common_options import option_name

DRAIN = 10.0
"""Seconds without ``--drain``. A guess: longer than most requests, and less than the 90 s of systemd."""

LOG_FIELDS = "time, event, peer, local, target, bytes_in, bytes_out, seconds and error"

# The options for connections, by their attribute. The first are for any number of them.
_FOR_MANY = ("max", "on_full", "drain")
_FOR_CONNECTIONS = (*_FOR_MANY, "idle", "log_format")

_ANY_FREE_PORT = ":0"
"""Takes the place of the address that ``--fd`` makes unnecessary, until the socket has been asked for its own."""


def describe(command: argparse.ArgumentParser, address: str) -> None:
    """Add the options; ``address`` is the argument that ``--fd`` replaces."""
    group = command.add_argument_group("connections")
    group.add_argument(
        "--max",
        metavar="N",
        type=_option_types.connection_count,
        help="at most N connections at a time; further clients wait",
    )
    group.add_argument(
        "--on-full",
        choices=("wait", "refuse"),
        help="what --max does with further clients: let them wait (the default), or reset their connections",
    )
    group.add_argument(
        "--idle",
        metavar="SECONDS",
        type=_option_types.seconds,
        help="end a connection on which no byte has moved for this time, in either direction",
    )
    group.add_argument(
        "--drain",
        metavar="SECONDS",
        type=_option_types.drain_time,
        help=f"time that open connections get after Ctrl-C or SIGTERM (default {DRAIN:g}); then they are reset",
    )
    group.add_argument(
        "--allow",
        metavar="CIDR",
        action="append",
        type=_option_types.network,
        help="serve only clients of this network, such as 192.0.2.0/24, or of this address; may be repeated",
    )
    group.add_argument(
        "--log-format",
        choices=("text", "json"),
        help=f"log connections on standard error, a line for each event, with {LOG_FIELDS}",
    )
    group.add_argument(
        "--fd",
        metavar="N",
        type=_option_types.descriptor,
        help=f"serve the listening socket that is open as descriptor N, in place of {address}; "
        "'systemd' takes all of LISTEN_FDS; a connected socket is served as one connection",
    )
    command.set_defaults(inherited=None)


def with_address(words: Sequence[str]) -> list[str]:
    """The words with an address where ``--fd`` replaces it: to ``argparse`` it is an argument that is missing."""
    given = list(words)
    own = given[: given.index("--")] if "--" in given else given
    if any(word.partition("=")[0] == "--fd" for word in own):
        for index, word in enumerate(own):
            if word in ("listen", "relay"):
                return [*given[: index + 1], _ANY_FREE_PORT, *given[index + 1 :]]
    return given


def find_sockets(options: argparse.Namespace, address: str) -> None:
    """Find the sockets of ``--fd``: ``options.inherited``. Their address becomes that of the attribute ``address``.

    Raises:
        SystemExit: they cannot be served; the error was printed.
    """
    from wireline.cli._inherited import inherited  # loads the blocking sockets

    try:
        options.inherited = inherited(options.fd)
    except ValueError as error:
        options.parser.error(f"--fd {options.fd}: {error}")
    found: Target = options.inherited.address
    scheme = getattr(options, address).scheme  # it says whether TLS is used
    setattr(options, address, found if found.path else found._replace(scheme=scheme))


def validate(parser: argparse.ArgumentParser, options: argparse.Namespace, target: Target) -> None:
    """Check that the options go together.

    Args:
        parser: of the command.
        options: all options.
        target: the address to listen on.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    if is_datagram(target):
        _reject(parser, options, _FOR_CONNECTIONS, f"is about connections, and {scheme_of(target)} has none")
    if options.inherited is not None and options.inherited.connected:
        words = "is for a listening socket, and descriptor {} is one connection"
        _reject(parser, options, (*_FOR_MANY, "idle"), words.format(options.fd))
    if options.allow and target.path:
        parser.error("--allow is about network addresses, and clients of a Unix socket have none")
    if options.on_full == "refuse" and options.max is None:
        parser.error("--on-full refuse needs a limit: --max N")
    if options.show_code and options.log_format:
        parser.error(
            "--show-code cannot show --log-format: the logger 'wireline' has records with such fields; leave it out"
        )


def reject_for_one(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse the options for any number of connections.

    Raises:
        SystemExit: one of them was given.
    """
    _reject(parser, options, _FOR_MANY, "is for any number of connections: add --keep")
    if options.show_code and options.idle:
        parser.error("--show-code shows --idle only for any number of connections: add --keep")
    if options.show_code and options.fd == "systemd":
        parser.error("--show-code shows --fd systemd only for any number of connections: add --keep")


def _reject(
    parser: argparse.ArgumentParser, options: argparse.Namespace, names: Sequence[str], why: str
) -> None:
    for name in names:
        if getattr(options, name) is not None:
            parser.error(f"{option_name(name)} {why}")
