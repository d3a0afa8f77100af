"""Certificates and key of a PKCS#12 file, and what is wrong with a file that cannot be used."""

from __future__ import annotations

import ssl

from . import _openssl, _openssl_pkcs12
from ._pem import Block, Source, block_of, broken, content, elements
from ._tls_options import Password

__all__ = ["read"]

_CONVERT = "openssl pkcs12 {}-in FILE -nodes -out NEW.pem"


def read(source: Source, der: bytes, password: Password | None) -> tuple[tuple[bytes, ...], Block]:
    """Return the chain, the certificate of the key first, and the key.

    Args:
        source: for errors.
        der: its content.
        password: a callable is called if the file has a password.

    Raises:
        ssl.SSLError: the password is missing or wrong, there is no certificate or no key, or OpenSSL cannot read it;
            the message names the file and the fault.
    """
    found = _parse(source, der, password)
    if not found.key:
        raise broken(source, f"there is no private key in {source.name}: it has only certificates")
    if not found.certificate:
        words = "no certificate in {} belongs to its key" if found.others else "there is no certificate in {}"
        raise broken(source, words.format(source.name))
    return _in_order(found.certificate, found.others), block_of("PRIVATE KEY", found.key)


def _parse(source: Source, der: bytes, password: Password | None) -> _openssl_pkcs12.Content:
    try:
        return _openssl_pkcs12.parse(der, None)
    except _openssl.BridgeUnavailable as error:
        raise broken(
            source,
            f"{source.name} is a PKCS#12 file, which cannot be read here ({error}); convert it: {_CONVERT.format('')}",
        ) from error
    except ssl.SSLError as error:
        _raise_unless_locked(source, error)
        # A wrong checksum means a password. A file without a checksum may have one, or be damaged.
        words = "is" if error.reason == "MAC_VERIFY_FAILURE" else "is damaged, or"
    if password is None:
        raise broken(source, f"the PKCS#12 file {source.name} {words} encrypted, and no password was given")
    given = password() if callable(password) else password
    try:
        return _openssl_pkcs12.parse(der, given.encode() if isinstance(given, str) else given)
    except ssl.SSLError as error:
        _raise_unless_locked(source, error)
        raise broken(
            source, f"the password does not open the PKCS#12 file {source.name}, or the file is damaged"
        ) from error


_UNREADABLE = {
    "CONTENT_TYPE_NOT_DATA": "is damaged",
    "DECODE_ERROR": "is damaged",
    "MAC_ABSENT": "has a password and no checksum (MAC), which OpenSSL does not load; convert it: "
    + _CONVERT.format(""),
    # RC2 with 40 bits was the default of OpenSSL 1 and of Windows.
    "UNSUPPORTED": "has an encryption that OpenSSL does not load (RC2, most likely); convert it: "
    + _CONVERT.format("-legacy "),
}
"""OpenSSL's reasons that have nothing to do with the password, in words."""


def _raise_unless_locked(source: Source, error: ssl.SSLError) -> None:
    """Raise the error for a file that no password opens."""
    if words := _UNREADABLE.get(error.reason):
        raise broken(source, f"the PKCS#12 file {source.name} {words}") from error


def _in_order(first: bytes, others: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Put each issuer behind the certificate that it signed, as TLS 1.2 requires; the rest follows as it is."""
    chain, left = [first], list(others)
    while (
        issuer := next((each for each in left if _names(each)[1] == _names(chain[-1])[0]), None)
    ) is not None:
        chain.append(issuer)
        left.remove(issuer)
    return (*chain, *left)


def _names(certificate: bytes) -> tuple[bytes, bytes]:
    """The issuer and the subject of a certificate (RFC 5280, 4.1)."""
    signed = next(elements(content(certificate)), b"")
    # Serial number, algorithm, issuer, validity, subject; before them the version, which may be missing.
    fields = [each for each in elements(content(signed)) if each[:1] != b"\xa0"]
    return (fields[2], fields[4]) if len(fields) > 4 else (b"", b"?")
