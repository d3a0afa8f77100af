"""What is written in a certificate, and whether it is for a name."""

from __future__ import annotations

import ipaddress
import warnings
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

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


class Facts(NamedTuple):
    """What a certificate says. What cannot be read is empty or None."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """DNS names and IP addresses that it is for."""
    key: str
    signature: str
    not_before: datetime | None
    not_after: datetime | None
    sha256: str
    sent: bool
    """Whether the server sent it; else it was found among those that are trusted here."""
    self_signed: bool

    def days_left(self, now: datetime) -> int | None:
        """Whole days until its end; below 0 after it."""
        return None if self.not_after is None else (self.not_after - now) // timedelta(days=1)


def read(certificate: Certificate, *, sent: bool) -> Facts:
    """Read a certificate. A stranger wrote it: what does not follow the rules is left out."""
    try:
        # `cryptography` warns of what it will refuse one day; that is not for who looks at somebody's certificate.
        with warnings.catch_warnings(action="ignore"):
            return _read(x509.load_der_x509_certificate(certificate), certificate.fingerprint(), sent)
    except Exception as error:  # noqa: BLE001 - the parser does not say all that it may raise
        unreadable = f"cannot be read: {error}"
        return Facts(
            _harmless(unreadable), "", (), "", "", None, None, certificate.fingerprint(), sent, False
        )


def _read(parsed: x509.Certificate, fingerprint: str, sent: bool) -> Facts:
    oid = parsed.signature_algorithm_oid
    return Facts(
        subject=_harmless(parsed.subject.rfc4514_string()),
        issuer=_harmless(parsed.issuer.rfc4514_string()),
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
        _harmless(str(name.value)) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)
    )


def _key(parsed: x509.Certificate) -> str:
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return parsed.public_key_algorithm_oid.dotted_string
    match key:
        case rsa.RSAPublicKey() | dsa.DSAPublicKey():
            return f"{'RSA' if isinstance(key, rsa.RSAPublicKey) else 'DSA'} {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case _:
            return parsed.public_key_algorithm_oid.dotted_string


def _harmless(text: str) -> str:
    """What a stranger wrote, so that it cannot talk to the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def is_for(names: tuple[str, ...], wanted: str) -> bool:
    """Say whether one of the names in a certificate covers a host name or an address (RFC 9525, 6.3 and 6.4)."""
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        return any(_covers(name.lower(), wanted.lower().removesuffix(".")) for name in names)
    return any(_same_address(name, address) for name in names)


def _covers(name: str, wanted: str) -> bool:
    """A ``*`` stands for the whole first label, and for one label only."""
    star, dot, rest = name.partition(".")
    if star != "*":
        return name == wanted
    return bool(dot) and "." in rest and rest == wanted.partition(".")[2]


def _same_address(name: str, wanted: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ipaddress.ip_address(name) == wanted
    except ValueError:
        return False


def now() -> datetime:
    """The time by which certificates are judged."""
    return datetime.now(UTC)
