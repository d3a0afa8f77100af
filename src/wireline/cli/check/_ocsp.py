"""The OCSP response that a server staples to its handshake (RFC 6066, 8)."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from cryptography.x509 import ocsp


class OcspStaple(NamedTuple):
    """The content of a response. Its signature is not verified: it is only shown."""

    status: str
    """``good``, ``revoked``, ``unknown``, or ``unreadable``."""
    this_update: datetime | None = None
    next_update: datetime | None = None


def read_staple(response: bytes) -> OcspStaple:
    """Read a response of an untrusted peer."""
    try:
        parsed = ocsp.load_der_ocsp_response(response)
        # A response without a certificate's status (an error of the responder) raises here.
        return OcspStaple(
            parsed.certificate_status.name.lower(), parsed.this_update_utc, parsed.next_update_utc
        )
    except Exception:  # noqa: BLE001 - the parser does not document all errors that it raises
        return OcspStaple("unreadable")
