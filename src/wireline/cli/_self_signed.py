"""The throw-away CA and certificate of ``--self-signed``."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALIDITY = timedelta(days=30)
"""A guess: longer than such a server runs."""

_CLOCK_SKEW = timedelta(hours=1)
"""The clock of a client may be behind by this much."""


class SelfSigned(NamedTuple):
    """PEM texts. The private key of the CA is discarded: it signs nothing else."""

    ca: bytes
    """The certificate of the CA, which a client must trust."""
    server: bytes
    """The key and the certificate of the server."""


def make(names: list[str]) -> SelfSigned:
    """Make a CA, and a certificate signed by it for a server with these names and addresses."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # The name has a random number, because some programs confuse two CAs of the same name.
    ca_name = _name(f"wireline throw-away CA {x509.random_serial_number() % 10**6:06}")
    ca = _certificate(ca_name, ca_key, ca_name, ca_key, _CA_USAGE, _IS_CA)
    leaf = _certificate(
        _name("wireline throw-away certificate"),
        key,
        ca_name,
        ca_key,
        _SERVER_USAGE,
        x509.BasicConstraints(ca=False, path_length=None),
        x509.SubjectAlternativeName(list(map(_general_name, dict.fromkeys(names)))),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SelfSigned(_pem(ca), secret + _pem(leaf))


def _key_usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in allowed for name in _KEY_USAGES})


_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_CA_USAGE = _key_usage("key_cert_sign", "crl_sign")
_SERVER_USAGE = _key_usage("digital_signature")
_IS_CA = x509.BasicConstraints(ca=True, path_length=0)


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    usage: x509.KeyUsage,
    constraints: x509.BasicConstraints,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALIDITY)
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        # Strict clients require it; Python does since 3.13.
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
