"""Host names for TLS: one spelling for the certificate check, for SNI and for the session cache."""

from __future__ import annotations

from wireline.address import IpAddress, parse_hostname

__all__ = ["normalise"]


def normalise(hostname: str | IpAddress) -> str:
    """Return the same as `parse_hostname`; ``""`` stays ``""``: there is no name.

    Raises:
        TypeError: ``hostname`` is neither text nor an ``ipaddress`` object.
        ValueError: it is not a host name.
    """
    return parse_hostname(hostname) if hostname != "" else ""
