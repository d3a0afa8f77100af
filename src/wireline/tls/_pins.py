"""Pins: hashes of the public keys or certificates of which a peer's verified chain must have one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import ssl
from collections.abc import Iterable, Sequence

from ._pem import content, elements

__all__ = ["Pins"]

_PREFIX = "sha256/"
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")


class Pins:
    """A set of pins; false if it is empty."""

    __slots__ = ("_certificates", "_keys")

    def __init__(self, pinned: Sequence[str] = ()) -> None:
        """Read pins.

        Args:
            pinned: ``"sha256/BASE64"`` of a public key (its SubjectPublicKeyInfo, as in RFC 7469 and curl), or the
                SHA-256 of a certificate in hexadecimal, with or without colons.

        Raises:
            TypeError: it is not a sequence of ``str``, or a single ``str``.
            ValueError: one has neither form.
        """
        if isinstance(pinned, str | bytes):
            raise TypeError(f"pinned is a sequence of pins, got {pinned!r}")
        self._keys: set[bytes] = set()
        self._certificates: set[bytes] = set()
        for pin in pinned:
            if not isinstance(pin, str):
                raise TypeError(f"a pin is a str, not {type(pin).__name__}")
            if pin.startswith(_PREFIX):
                self._keys.add(_digest_of_key(pin))
            else:
                self._certificates.add(_digest_of_certificate(pin))

    def __bool__(self) -> bool:
        return bool(self._keys or self._certificates)

    def check(self, chain: Iterable[bytes]) -> None:
        """Check that one certificate of a verified chain is pinned.

        Raises:
            ssl.SSLError: none is.
        """
        seen = []
        for der in chain:
            key = hashlib.sha256(public_key_of(der)).digest()
            if key in self._keys or hashlib.sha256(der).digest() in self._certificates:
                return
            seen.append(_PREFIX + base64.b64encode(key).decode())
        raise ssl.SSLError(
            ssl.SSL_ERROR_SSL,
            f"no certificate of the peer is pinned; the keys of its chain are {', '.join(seen) or 'none'}",
        )


def public_key_of(der: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate (RFC 5280, section 4.1); ``b""`` if it is none."""
    fields = elements(content(next(elements(content(der)), b"")))
    parts = [field for field in fields if field[:1] != b"\xa0"]  # without the version
    # After serial number, algorithm, issuer, validity and subject.
    return parts[5] if len(parts) > 5 else b""


def _digest_of_key(pin: str) -> bytes:
    try:
        digest = base64.b64decode(pin.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError(f"a pin of a key is 'sha256/' and 44 characters of base64, got {pin!r}")
    return digest


def _digest_of_certificate(pin: str) -> bytes:
    text = pin.replace(":", "").lower()
    if not _HEXADECIMAL.fullmatch(text):
        raise ValueError(f"a pin is 'sha256/BASE64' of a key, or 64 hexadecimal digits, got {pin!r}")
    return bytes.fromhex(text)
