"""What this interpreter can do, and why not."""

from __future__ import annotations

import ssl
from typing import NamedTuple

__all__ = ["Feature", "Features", "find_features"]


class Feature(NamedTuple):
    """Something that not every Python can do."""

    name: str
    """What it is."""
    available: bool
    """Whether it can be used."""
    reason: str
    """Why not; ``""`` if it can."""

    def __str__(self) -> str:
        return f"{self.name}: {'yes' if self.available else f'no, {self.reason}'}"


class Features(tuple[Feature, ...]):
    """What ``SslContext.available_features()`` found: a tuple of them, and printed a line for each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def find_features() -> Features:
    """Look at this interpreter."""
    from . import _openssl, _openssl_psk

    reason = "" if _openssl.available() else _openssl.why_not()
    own_suites = "" if hasattr(ssl.SSLContext, "set_ciphersuites") else reason  # from 3.15 on
    own_psk = (
        "" if hasattr(ssl.SSLContext, "set_psk_server_callback") else _openssl_psk.why_not()
    )  # from 3.13 on
    reasons = {
        "TLS with verification, ALPN, SNI, client certificates, resumption, key log": "",
        "pre-shared keys (client_get_psk, server_get_psk)": own_psk,
        "TLS 1.3 ciphersuites other than the default": own_suites,
        "session id context": reason,
        "ssl_pointer": reason,
        "server_name_callback leading to a context that asks for more client certificates": reason,
    }
    return Features(Feature(name, not why, why) for name, why in reasons.items())
