"""Names that users write in place of numbers and of ASCII: services as ports, and hosts in their own script."""

from __future__ import annotations

import contextlib
import re
import socket

from wireline import Target
from wireline.address import to_ascii

# The port is no number, but may be the name of a service; the host has no colon outside of brackets.
_WITH_SERVICE = re.compile(
    r"((?!unix(?:-dgram)?:)(?:(?:tcp|tls|udp)://)?(?:\[[^\]]*\]|[^:\[\]/]*):)([\w.+-]*[a-z][\w.+-]*)",
    re.ASCII | re.IGNORECASE,
)


def with_port_number(text: str) -> str:
    """A target in which the name of a service, as in ``example.com:https``, is replaced by the number of its port.

    Raises:
        ValueError: this system does not know the service.
    """
    found = _WITH_SERVICE.fullmatch(text)
    if found is None:
        return text
    protocol = "udp" if text[:6].lower() == "udp://" else "tcp"
    # The case does not count (RFC 6335, 5.1), but for the system.
    for service in (found[2], found[2].lower()):
        with contextlib.suppress(OSError):
            return f"{found[1]}{socket.getservbyname(service, protocol)}"
    raise ValueError(
        f"{text!r} is not a target: this system knows no service {found[2]!r} for {protocol.upper()}; write the number "
        "of the port"
    )


def in_ascii(target: Target) -> Target:
    """A target with its host as in DNS (IDNA 2008).

    Raises:
        ValueError: the host is no host name, or the package ``idna`` is not installed.
    """
    is_dns_name = ":" not in target.host  # an IPv6 address may have the name of an interface
    return target._replace(host=to_ascii(target.host)) if is_dns_name else target
