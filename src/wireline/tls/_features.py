"""The TLS features that depend on the interpreter."""

from __future__ import annotations

import ssl
from typing import NamedTuple

__all__ = ["Feature", "Features", "find_features"]


class Feature(NamedTuple):
    """A TLS feature that not every Python has."""

    name: str
    """The feature, in words."""
    available: bool
    """Whether it can be used."""
    reason: str
    """Why it cannot be used; ``""`` if it can."""

    def __str__(self) -> str:
        return f"{self.name}: {'yes' if self.available else f'no, {self.reason}'}"


class Features(tuple[Feature, ...]):
    """The result of ``SslContext.available_features()``: a tuple that prints as one line per feature."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def find_features() -> Features:
    """Return the features of this interpreter."""
    from . import _openssl, _openssl_psk

    reason = "" if _openssl.available() else _openssl.why_not()
    # `ssl` has methods of its own for suites from 3.15 on, and for PSK from 3.13 on.
    no_suites = "" if hasattr(ssl.SSLContext, "set_ciphersuites") else reason
    no_psk = "" if hasattr(ssl.SSLContext, "set_psk_server_callback") else _openssl_psk.why_not()
    reasons = {
        "TLS with verification, ALPN, SNI, client certificates, resumption, key log": "",
        "pre-shared keys (client_get_psk, server_get_psk)": no_psk,
        "TLS 1.3 ciphersuites other than the default": no_suites,
        "session id context": reason,
        "ssl_pointer": reason,
        "groups, ticket_keys, tls_info.group and .ocsp_response, tickets that outlive a reload": reason,
        "certificates and keys in PKCS#12 files": reason,
        "server_name_callback leading to a context that asks for more client certificates": reason,
    }
    return Features(Feature(name, not why, why) for name, why in reasons.items())
