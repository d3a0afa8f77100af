"""Values of options and arguments: each function converts one word, and says what is wrong with it."""

from __future__ import annotations

import argparse
import keyword
import math
import re
from typing import TYPE_CHECKING

from wireline import Target, parse_target
from wireline.cli._psk_files import parse_key

if TYPE_CHECKING:
    from wireline.testing import Faults


_MAX_PORTS = 1024
"""Ports of a range; each is a report. A guess."""


def target(text: str) -> Target:
    """An address to connect to."""
    return _parse(text, listening=False)


def listen_address(text: str) -> Target:
    """An address to listen on."""
    return _parse(text, listening=True)


def stream_target(text: str) -> Target:
    """An address to connect to, except ``udp://``."""
    return _require_stream(target(text))


def stream_targets(text: str) -> list[Target]:
    """Addresses to connect to, except ``udp://``: one, or one for each port of a range."""
    ports = re.fullmatch(r"(.*):(\d{1,5})-(\d{1,5})", text)
    if ports is None or text.startswith("unix:"):
        return [stream_target(text)]
    first, last = int(ports[2]), int(ports[3])
    if not first <= last < first + _MAX_PORTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of at most {_MAX_PORTS} ports")
    return [stream_target(f"{ports[1]}:{port}") for port in range(first, last + 1)]


def stream_listen_address(text: str) -> Target:
    """An address to listen on, except ``udp://``."""
    return _require_stream(listen_address(text))


def _parse(text: str, *, listening: bool) -> Target:
    try:
        return parse_target(text, listening=listening)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _require_stream(address: Target) -> Target:
    if address.scheme == "udp":
        raise argparse.ArgumentTypeError("udp:// has no connections, and this command needs them")
    return address


def seconds(text: str) -> float:
    """A time limit."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def days(text: str) -> int:
    """A number of days, 0 included."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return int(text)


def connection_count(text: str) -> int:
    """A number of connections above 0."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of connections above 0")
    return int(text)


def alpn_protocols(text: str) -> list[str]:
    """Names of application protocols, separated by commas."""
    names = text.split(",")
    if not all(name.isascii() and 1 <= len(name) <= 255 for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of protocols such as h2,http/1.1")
    return names


def psk(text: str) -> tuple[str, bytes]:
    """A pre-shared key with its identity."""
    try:
        return parse_key(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def renamed(text: str) -> tuple[str, str]:
    """A name, and what it is in the twin."""
    old, _, new = text.partition("=")
    for name in (old, new):
        if not name.isidentifier() or keyword.iskeyword(name):
            raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW with two names of Python")
    return old, new


def faults(text: str) -> Faults:
    """Network faults, as `Faults.parse` reads them."""
    from wireline.testing import Faults  # loads the blocking sockets

    try:
        return Faults.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
