"""``Certificate``: its bytes and its parsed properties."""

from __future__ import annotations

import hashlib
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.tls import certificates
from wireline.tls import Certificate

PEM = Path(certificates.self_signed().cert).read_text()
DER = ssl.PEM_cert_to_DER_cert(PEM)


def test_it_is_its_bytes() -> None:
    certificate = Certificate(DER)
    assert certificate == DER
    assert hash(certificate) == hash(DER)
    assert certificate.to_pem() == PEM
    assert certificate.fingerprint() == hashlib.sha256(DER).hexdigest()
    assert repr(certificate) == str(certificate)
    assert repr(certificate).startswith(
        f"<Certificate of {len(DER)} bytes, SHA-256 {certificate.fingerprint()[:16]}"
    )


def test_subject_issuer_and_end_of_validity() -> None:
    certificate = Certificate(DER)
    assert certificate.subject == "CN=localhost"
    assert certificate.issuer == "CN=localhost"
    assert certificate.not_valid_after > datetime.now(UTC)


def test_the_end_of_validity_of_an_expired_certificate() -> None:
    expired = Certificate(ssl.PEM_cert_to_DER_cert(Path(certificates.expired().cert).read_text()))
    assert expired.not_valid_after < datetime.now(UTC)
    assert expired.issuer.startswith("O=wireline tests") or "wireline tests" in expired.issuer


def test_bytes_that_are_not_a_certificate_cannot_be_parsed() -> None:
    certificate = Certificate(b"nothing")
    assert len(certificate.fingerprint()) == 64
    with pytest.raises(ValueError):
        _ = certificate.subject


@in_turn("question", ["subject", "issuer", "not_valid_after"])
def test_without_the_package_the_error_says_what_to_install(
    question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    certificate = Certificate(DER)
    with pytest.raises(ImportError, match="package cryptography"):
        getattr(certificate, question)
    assert certificate.fingerprint()


def test_an_unknown_version_is_a_value_error() -> None:
    der = ssl.PEM_cert_to_DER_cert(certificates.ca().cert_pem.bytes().decode())
    version = b"\xa0\x03\x02\x01"  # [0] INTEGER, of one byte
    assert der.count(version + b"\x02") == 1
    with pytest.raises(ValueError, match="not a certificate"):
        _ = Certificate(der.replace(version + b"\x02", version + b"\x07")).subject
