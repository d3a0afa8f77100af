"""A certificate as it came over the wire."""

from __future__ import annotations

import functools
import hashlib
import ssl
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["Certificate"]


class Certificate(bytes):
    """A certificate: its DER bytes, and a few questions to them.

    What has to be parsed is parsed when it is asked for, by the package ``cryptography``; nothing else needs it.
    """

    def to_pem(self) -> str:
        """Return the certificate as PEM text."""
        return ssl.DER_cert_to_PEM_cert(self)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the DER bytes, as 64 lower-case hexadecimal digits."""
        return hashlib.sha256(self).hexdigest()

    @property
    def subject(self) -> str:
        """Whose certificate it is, as RFC 4514 writes names (``CN=example.org``).

        Raises:
            ImportError: the package ``cryptography`` is not installed.
            ValueError: the bytes are no certificate.
        """
        return self._parsed.subject.rfc4514_string()

    @property
    def issuer(self) -> str:
        """Who signed it, as RFC 4514 writes names.

        Raises:
            ImportError: the package ``cryptography`` is not installed.
            ValueError: the bytes are no certificate.
        """
        return self._parsed.issuer.rfc4514_string()

    @property
    def not_valid_after(self) -> datetime:
        """The last moment at which it is valid, in UTC.

        Raises:
            ImportError: the package ``cryptography`` is not installed.
            ValueError: the bytes are no certificate.
        """
        return self._parsed.not_valid_after_utc

    @functools.cached_property
    def _parsed(self) -> x509.Certificate:
        try:
            # Here and not above: nothing but these properties needs the package.
            from cryptography import x509
        except ImportError as error:
            raise ImportError(
                "to look into a certificate the package cryptography is needed: pip install 'wireline[cli]'"
            ) from error
        try:
            return x509.load_der_x509_certificate(self)
        except x509.InvalidVersion as error:  # which is no ValueError
            raise ValueError(f"no certificate: {error}") from error

    def __repr__(self) -> str:
        return f"<Certificate of {len(self)} bytes, SHA-256 {self.fingerprint()[:16]}...>"

    __str__ = __repr__
