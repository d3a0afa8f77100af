"""The arguments of an ``SslContext``: enums, cipher lists, ``TlsOptions``, and their checks."""

from __future__ import annotations

import enum
import functools
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._context import SslContext

__all__ = [
    "CIPHERS_INTERMEDIATE",
    "CIPHERS_MODERN",
    "CIPHERS_PSK",
    "ProtocolVersion",
    "TlsOptions",
    "VerifyMode",
]

# Mozilla's guidelines 5.4 (https://ssl-config.mozilla.org/guidelines/5.4.json), as Nim's `ssl_config` has them.
CIPHERS_MODERN = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""Mozilla's "modern" list: TLS 1.3 only. These suites are also OpenSSL's default."""

CIPHERS_INTERMEDIATE = (
    f"{CIPHERS_MODERN}:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"
)
"""Mozilla's "intermediate" list: TLS 1.3, and the TLS 1.2 suites with authentication and forward secrecy."""

# Not the alias "PSK": it has suites without encryption, and suites without forward secrecy, for which a key that is
# stolen later decrypts earlier recordings. RSA-PSK needs a certificate.
CIPHERS_PSK = "kECDHEPSK+CHACHA20:kDHEPSK+AESGCM:kDHEPSK+CHACHA20:kECDHEPSK+AES:kDHEPSK+AES:!AESCCM8"
"""The TLS 1.2 suites that a pre-shared key adds to the default list: only with forward secrecy, AEAD first.

For a device that supports none of them, name its suite: ``cipher_list="PSK-AES128-GCM-SHA256"``.
"""


class VerifyMode(enum.Enum):
    """How a client verifies the certificate of a server."""

    NONE = enum.auto()
    """Not at all, not even the host name: anyone on the network path can impersonate the server."""
    PEER = enum.auto()
    """A trusted CA must have issued it, for the host name that the client asked for."""
    PEER_USE_ENV_VARS = enum.auto()
    """The same, with the CAs of ``SSL_CERT_FILE``, else ``SSL_CERT_DIR``, else the system."""


class ProtocolVersion(enum.Enum):
    """The versions of TLS to negotiate. Only ``SSLV23`` is accepted; the others exist to be refused with a reason."""

    SSLV2 = enum.auto()
    """Broken, and not in OpenSSL any more: refused."""
    SSLV3 = enum.auto()
    """Broken, and not in OpenSSL any more: refused."""
    TLSV1 = enum.auto()
    """Deprecated by RFC 8996: refused."""
    SSLV23 = enum.auto()
    """The highest version that both peers support, at least TLS 1.2. The name is OpenSSL's old one for this."""


_REFUSED = {
    ProtocolVersion.SSLV2: "SSL 2 is broken (RFC 6176) and OpenSSL does not have it any more",
    ProtocolVersion.SSLV3: "SSL 3 is broken (RFC 7568) and OpenSSL does not have it any more",
    ProtocolVersion.TLSV1: "TLS 1.0 is deprecated (RFC 8996); TLS 1.2 is the oldest supported version",
}

_CLIENT_CERTS = {
    "ignore": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}

Password = str | bytes | Callable[[], str | bytes]
FilePath = str | os.PathLike[str]
ServerNameCallback = Callable[[str | None], "SslContext | None"]


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The checked arguments of an ``SslContext``. Files are paths; ``""`` means no file."""

    verify_mode: VerifyMode
    cert_file: str
    key_file: str
    cipher_list: str
    ca_dir: str
    ca_file: str
    ciphersuites: str
    client_certs: ssl.VerifyMode
    alpn: tuple[str, ...]
    password: Password | None = field(repr=False)
    server_name_callback: ServerNameCallback | None
    keylog_file: str | None

    @property
    def has_own_cas(self) -> bool:
        """Whether the caller named the CAs to trust."""
        return bool(self.ca_file or self.ca_dir)


def check_version(version: ProtocolVersion) -> None:
    """Refuse versions that are no longer supported.

    Raises:
        TypeError: it is not a ``ProtocolVersion``.
        ValueError: it is not supported; the message says why.
    """
    require("prot_version", version, ProtocolVersion)
    if version in _REFUSED:
        raise ValueError(
            f"{_REFUSED[version]}; ProtocolVersion.SSLV23 negotiates the highest version that both peers support"
        )


def require(name: str, value: object, kind: type) -> None:
    """Check the type of an argument.

    Raises:
        TypeError: ``value`` is not of type ``kind``.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is of type {kind.__name__}, not {type(value).__name__}")


def require_callable(name: str, value: object) -> None:
    """Check that an argument is callable or None.

    Raises:
        TypeError: it is neither callable nor None.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a callable or None, not {type(value).__name__}")


def path(name: str, value: FilePath) -> str:
    """Return a path as ``str``.

    Raises:
        TypeError: it is not a path, or a path of bytes.
        ValueError: it contains a NUL.
    """
    text = os.fspath(value)
    require(name, text, str)
    if "\0" in text:
        raise ValueError(f"{name} contains a NUL character")
    return text


def certificate_paths(cert_file: FilePath, key_file: FilePath) -> tuple[str, str]:
    """Return the paths of a certificate and its key.

    Raises:
        ValueError: there is a key without a certificate.
    """
    cert, key = path("cert_file", cert_file), path("key_file", key_file)
    if key and not cert:
        raise ValueError("key_file needs the cert_file of the certificate that the key belongs to")
    return cert, key


def client_certs_mode(client_certs: str) -> ssl.VerifyMode:
    """Return the verify mode of a server for its clients.

    Raises:
        ValueError: it is not ``"ignore"``, ``"optional"`` or ``"required"``.
    """
    require("client_certs", client_certs, str)
    if client_certs not in _CLIENT_CERTS:
        raise ValueError(f"client_certs is one of {', '.join(_CLIENT_CERTS)}, got {client_certs!r}")
    return _CLIENT_CERTS[client_certs]


def alpn_protocols(alpn: Sequence[str]) -> tuple[str, ...]:
    """Return the protocols to negotiate, in order of preference.

    Raises:
        TypeError: it is not a sequence of ``str``, or a single ``str``.
        ValueError: one is not 1 to 255 ASCII characters.
    """
    if isinstance(alpn, str | bytes):
        raise TypeError(f"alpn is a sequence of protocol names, got {alpn!r}")
    protocols = tuple(alpn)
    for each in protocols:
        require("a protocol of alpn", each, str)
        if not each.isascii() or not 1 <= len(each) <= 255:
            raise ValueError(f"a protocol of alpn is 1 to 255 ASCII characters, got {each!r}")
    return protocols


def key_password(password: Password | None) -> Password | None:
    """Return the password of a key; a callable is wrapped so that it is called once for all loads of the key.

    Raises:
        TypeError: it is not text, bytes or callable.
    """
    if password is None or isinstance(password, str | bytes):
        return password
    if not callable(password):
        raise TypeError(f"password is str, bytes or a callable, not {type(password).__name__}")
    return functools.cache(password)


def short_text(name: str, text: str, limit: int) -> bytes:
    """Return a text of at most ``limit`` bytes, encoded as UTF-8.

    Raises:
        TypeError: it is not a ``str``.
        ValueError: it is longer, contains a NUL, or cannot be encoded.
    """
    require(name, text, str)
    data = text.encode()
    if len(data) > limit:
        raise ValueError(f"{name} is at most {limit} bytes, got {len(data)}")
    if b"\0" in data:
        raise ValueError(f"{name} contains a NUL character")
    return data
