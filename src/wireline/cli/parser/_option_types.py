"""Values of options and arguments: each function converts one word, and says what is wrong with it."""

from __future__ import annotations

import argparse
import ipaddress
import keyword
import math
import re
from typing import TYPE_CHECKING, TypeAlias

from wireline import Address, Target, parse_hostname, parse_target
from wireline.address import to_ascii
from wireline.cli._datagram_targets import is_datagram, scheme_of
from wireline.cli.parser._host_names import in_ascii, with_port_number

if TYPE_CHECKING:
    from wireline.testing import Faults


Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

_MAPPED_BITS = 96
"""Bits before the IPv4 address in a mapped one (RFC 4291, 2.5.5.2)."""

_MAX_PORTS = 1024
"""Ports of a range; each is a report. A guess."""


def target(text: str) -> Target:
    """An address to connect to."""
    return _parse(text, listening=False)


def listen_address(text: str) -> Target:
    """An address to listen on."""
    return _parse(text, listening=True)


def stream_target(text: str) -> Target:
    """An address to connect to, except of datagrams."""
    return _require_stream(target(text))


def stream_targets(text: str) -> list[Target]:
    """Addresses to connect to, except of datagrams: one, or one for each port of a range."""
    ports = re.fullmatch(r"(.*):(\d{1,5})-(\d{1,5})", text)
    if ports is None or text.startswith("unix:"):
        return [stream_target(text)]
    first, last = int(ports[2]), int(ports[3])
    if not first <= last < first + _MAX_PORTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of at most {_MAX_PORTS} ports")
    return [stream_target(f"{ports[1]}:{port}") for port in range(first, last + 1)]


def stream_listen_address(text: str) -> Target:
    """An address to listen on, except for datagrams."""
    return _require_stream(listen_address(text))


def source(text: str) -> Address:
    """A host, a port, or both, to connect from; the port 0 stands for any."""
    if "://" in text or text.startswith(("unix:", "unix-dgram:")):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, HOST or :PORT")
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    has_port = text.rpartition("]")[2].count(":") > 0 or text.isdigit()
    try:
        where = parse_target(text if has_port else f"{text}:0", listening=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            str(error).replace("a target", "an address to connect from")
        ) from None
    return Address(where.host, where.port)


def target_of_words(host: str, port: str | None) -> Target:
    """The target of one word, or of ``HOST PORT``."""
    if port is None:
        return target(host)
    is_ipv6 = "://" not in host and host.count(":") > 1 and not host.startswith("[")
    return target(f"[{host}]:{port}" if is_ipv6 else f"{host}:{port}")


def _parse(text: str, *, listening: bool) -> Target:
    try:
        return in_ascii(parse_target(with_port_number(text), listening=listening))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _require_stream(address: Target) -> Target:
    if is_datagram(address):
        raise argparse.ArgumentTypeError(
            f"{scheme_of(address)} has no connections, and this command needs them"
        )
    return address


def server_name(text: str) -> str:
    """The name of a server, as in DNS, or its address."""
    try:
        name = to_ascii(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    try:
        parse_hostname(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{error}; write a name such as example.com, or an IP address, without a port"
        ) from None
    return name


def seconds(text: str) -> float:
    """A time limit."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def drain_time(text: str) -> float:
    """Seconds in which connections may end; 0 leaves them no time."""
    return 0.0 if text == "0" else seconds(text)


def descriptor(text: str) -> str:
    """The number of a descriptor, or the word for those of systemd."""
    if text != "systemd" and not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a descriptor, and not systemd")
    return text


def network(text: str) -> Network:
    """A network of IPv4 or IPv6, or one address. ``::ffff:192.0.2.0/120`` is ``192.0.2.0/24``."""
    address, slash, length = text.partition("/")
    try:
        if slash and not (length.isascii() and length.isdigit()):  # a netmask, which would be taken, too
            raise ValueError
        given = ipaddress.ip_interface(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a network such as 192.0.2.0/24 or 2001:db8::/32, and not an address"
        ) from None
    if given.ip != given.network.network_address:
        raise argparse.ArgumentTypeError(
            f"{text!r} has bits set after the first {length}: write {given.network} for the network, "
            f"or {address} for the one address"
        )
    mapped = getattr(given.ip, "ipv4_mapped", None)
    if mapped is not None and given.network.prefixlen >= _MAPPED_BITS:
        return ipaddress.ip_network((mapped, given.network.prefixlen - _MAPPED_BITS))
    return given.network


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


def password_source(text: str) -> str:
    """Where the password of a key is read from."""
    kind, _, name = text.partition(":")
    if text == "prompt" or (kind in ("file", "env") and name) or (kind == "fd" and name.isdigit()):
        return text
    # The word may be the password itself: it is not repeated.
    raise argparse.ArgumentTypeError("the source of a password is file:PATH, fd:N, env:NAME or prompt")


def ciphers(text: str) -> tuple[str, str]:
    """The ciphers of TLS 1.2, and the suites of TLS 1.3, of one list."""
    names = text.split(":")
    if not all(re.fullmatch(r"[-+!@=\w]+", name) for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of ciphers, separated by colons")
    newer = [name for name in names if name.startswith("TLS_")]
    return ":".join(name for name in names if name not in newer), ":".join(newer)


def pin(text: str) -> str:
    """The hash of a public key or of a certificate."""
    if re.fullmatch(r"sha256/[A-Za-z0-9+/]{43}=|[0-9A-Fa-f]{64}|([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}", text):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is not sha256/ and 44 characters of base64, or 64 hexadecimal digits"
    )


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
