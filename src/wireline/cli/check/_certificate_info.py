"""The content of a certificate."""

from __future__ import annotations

import threading
import warnings
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from wireline.cli._printable import sanitize_for_terminal
from wireline.tls import Certificate

_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_SHA1: "RSA with SHA-1",
    SignatureAlgorithmOID.RSA_WITH_SHA224: "RSA with SHA-224",
    SignatureAlgorithmOID.RSA_WITH_SHA256: "RSA with SHA-256",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "RSA with SHA-384",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "RSA with SHA-512",
    SignatureAlgorithmOID.RSASSA_PSS: "RSA-PSS",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "ECDSA with SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "ECDSA with SHA-256",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "ECDSA with SHA-384",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "ECDSA with SHA-512",
    SignatureAlgorithmOID.ED25519: "Ed25519",
    SignatureAlgorithmOID.ED448: "Ed448",
}


_FILTERS = threading.Lock()
"""Held while the filters of warnings are changed, which all threads share."""


class CertificateInfo(NamedTuple):
    """The content of a certificate. A part that cannot be read is empty or None."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """DNS names and IP addresses."""
    key: str
    signature: str
    not_before: datetime | None
    not_after: datetime | None
    sha256: str
    sent: bool
    """Whether the server sent it; otherwise it is one of the certificates that are trusted here."""
    self_signed: bool

    def days_left(self, now: datetime) -> int | None:
        """Whole days until it expires; below 0 afterwards."""
        return None if self.not_after is None else (self.not_after - now) // timedelta(days=1)


def read(certificate: Certificate, *, sent: bool) -> CertificateInfo:
    """Read a certificate of an untrusted peer. Parts that violate the standard are left out."""
    try:
        # `cryptography` warns about certificates that later versions will refuse.
        with _FILTERS, warnings.catch_warnings(action="ignore"):
            return _read(x509.load_der_x509_certificate(certificate), certificate.fingerprint(), sent)
    except Exception as error:  # noqa: BLE001 - the parser does not document all errors that it raises
        problem = sanitize_for_terminal(f"cannot be read: {error}")
        return CertificateInfo(problem, "", (), "", "", None, None, certificate.fingerprint(), sent, False)


def _read(parsed: x509.Certificate, fingerprint: str, sent: bool) -> CertificateInfo:
    oid = parsed.signature_algorithm_oid
    return CertificateInfo(
        subject=sanitize_for_terminal(parsed.subject.rfc4514_string()),
        issuer=sanitize_for_terminal(parsed.issuer.rfc4514_string()),
        names=_names(parsed),
        key=_key(parsed),
        signature=_SIGNATURES.get(oid, oid.dotted_string),
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        sha256=fingerprint,
        sent=sent,
        self_signed=parsed.subject == parsed.issuer,
    )


def _names(parsed: x509.Certificate) -> tuple[str, ...]:
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        sanitize_for_terminal(str(name.value))
        for name in names
        if isinstance(name, x509.DNSName | x509.IPAddress)
    )


def _key(parsed: x509.Certificate) -> str:
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return parsed.public_key_algorithm_oid.dotted_string
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case dsa.DSAPublicKey():
            return f"DSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case _:
            return parsed.public_key_algorithm_oid.dotted_string


def is_for_servers(certificate: Certificate) -> bool:
    """Whether the uses that a certificate lists, if any, include TLS servers."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        uses = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in uses or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in uses


def is_ca(certificate: Certificate) -> bool:
    """Whether a certificate says that it may sign others."""
    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as error:
        return error.oid == x509.KeyUsage.oid
    except ValueError:
        return True
