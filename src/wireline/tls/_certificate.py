"""A certificate in DER form."""

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
    """An X.509 certificate: its DER bytes.

    The properties parse it on first use, with the package ``cryptography``. The methods need no other package.
    """

    def to_pem(self) -> str:
        """Return the certificate as PEM text."""
        return ssl.DER_cert_to_PEM_cert(self)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the DER bytes, as 64 lower-case hexadecimal digits."""
        return hashlib.sha256(self).hexdigest()

    @property
    def subject(self) -> str:
        """The subject, in the form of RFC 4514 (``CN=example.org``).

        Raises:
            ImportError: the package ``cryptography`` is not installed.
            ValueError: the bytes are not a certificate.
        """
        return self._parsed.subject.rfc4514_string()

    @property
    def issuer(self) -> str:
        """The issuer, in the form of RFC 4514.

        Raises:
            ImportError: the package ``cryptography`` is not installed.
            ValueError: the bytes are not a certificate.
        """
        return self._parsed.issuer.rfc4514_string()

    @property
    def not_valid_after(self) -> datetime:
        """The end of its validity, in UTC.

        Raises:
            ImportError: the package ``cryptography`` is not installed.
            ValueError: the bytes are not a certificate.
        """
        return self._parsed.not_valid_after_utc

    @functools.cached_property
    def _parsed(self) -> x509.Certificate:
        try:
            # Not at the top of the module: only these properties need the package.
            from cryptography import x509
        except ImportError as error:
            raise ImportError(
                "parsing a certificate needs the package cryptography: pip install 'wireline[cli]'"
            ) from error
        try:
            return x509.load_der_x509_certificate(self)
        except x509.InvalidVersion as error:  # not a ValueError, unlike all its other errors
            raise ValueError(f"not a certificate: {error}") from error

    def __repr__(self) -> str:
        return f"<Certificate of {len(self)} bytes, SHA-256 {self.fingerprint()[:16]}...>"

    __str__ = __repr__
