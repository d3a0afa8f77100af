"""Values of the TLS room: enums, cipher lists, and what a context was asked for, checked."""

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
    "Handshake",
    "ProtocolVersion",
    "TlsOptions",
    "VerifyMode",
]

# Mozilla's guidelines 5.4 (https://ssl-config.mozilla.org/guidelines/5.4.json), as Nim's `ssl_config` has them.
CIPHERS_MODERN = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""Mozilla's "modern" list: TLS 1.3 alone. These are also the suites that OpenSSL has on by itself."""

CIPHERS_INTERMEDIATE = (
    f"{CIPHERS_MODERN}:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"
)
"""Mozilla's "intermediate" list: TLS 1.3, and of TLS 1.2 what is authenticated and has forward secrecy."""

# Not the alias "PSK": that has suites which encrypt nothing, and others without forward secrecy, with which a key that
# is stolen later opens everything that was recorded before. RSA-PSK needs a certificate.
CIPHERS_PSK = "kECDHEPSK+CHACHA20:kDHEPSK+AESGCM:kDHEPSK+CHACHA20:kECDHEPSK+AES:kDHEPSK+AES:!AESCCM8"
"""What a pre-shared key adds to the default list, for TLS 1.2: with forward secrecy alone, and AEAD first.

What a device needs that can do nothing of this is asked for by its name: ``cipher_list="PSK-AES128-GCM-SHA256"``.
"""


class VerifyMode(enum.Enum):
    """What a client asks of the certificate that a server shows."""

    NONE = enum.auto()
    """Nothing is checked, the name neither: whoever sits on the line can be the server."""
    PEER = enum.auto()
    """It must be signed by a CA that is trusted, and be for the name that was asked for."""
    PEER_USE_ENV_VARS = enum.auto()
    """The same, and ``SSL_CERT_FILE``, else ``SSL_CERT_DIR``, say where the CAs are."""


class ProtocolVersion(enum.Enum):
    """Which versions of TLS are spoken. Only ``SSLV23`` is left of what the name once promised."""

    SSLV2 = enum.auto()
    """Broken, and not in OpenSSL any more: refused."""
    SSLV3 = enum.auto()
    """Broken, and not in OpenSSL any more: refused."""
    TLSV1 = enum.auto()
    """Deprecated by RFC 8996: refused."""
    SSLV23 = enum.auto()
    """The best that both sides have, TLS 1.2 at least. The name is OpenSSL's old one for this."""


class Handshake(enum.Enum):
    """Which side of a handshake a connected socket takes."""

    AS_CLIENT = enum.auto()
    """Speak first, and check the server."""
    AS_SERVER = enum.auto()
    """Wait for the client's hello, and show the certificate."""


_REFUSED = {
    ProtocolVersion.SSLV2: "SSL 2 is broken (RFC 6176) and OpenSSL does not have it any more",
    ProtocolVersion.SSLV3: "SSL 3 is broken (RFC 7568) and OpenSSL does not have it any more",
    ProtocolVersion.TLSV1: "TLS 1.0 is deprecated (RFC 8996); TLS 1.2 is the oldest that is spoken here",
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
    """What a context was asked for. Files are paths, ``""`` where there is none."""

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
        """Whether the caller said where the CAs are."""
        return bool(self.ca_file or self.ca_dir)


def check_version(version: ProtocolVersion) -> None:
    """Refuse what is not spoken any more.

    Raises:
        TypeError: it is no ``ProtocolVersion``.
        ValueError: it is one of the past; the message says what became of it.
    """
    require("prot_version", version, ProtocolVersion)
    if version in _REFUSED:
        raise ValueError(
            f"{_REFUSED[version]}; ProtocolVersion.SSLV23 negotiates the best that both sides have"
        )


def require(name: str, value: object, kind: type) -> None:
    """Refuse a value of another type.

    Raises:
        TypeError: it is one.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is of type {kind.__name__}, not {type(value).__name__}")


def require_callable(name: str, value: object) -> None:
    """Refuse what can be neither called nor left out.

    Raises:
        TypeError: it is neither callable nor None.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a callable or None, not {type(value).__name__}")


def path(name: str, value: FilePath) -> str:
    """Return a path as text.

    Raises:
        TypeError: it is none.
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
        ValueError: a key alone is nothing.
    """
    cert, key = path("cert_file", cert_file), path("key_file", key_file)
    if key and not cert:
        raise ValueError("key_file needs the cert_file of the certificate that the key belongs to")
    return cert, key


def client_certs_mode(client_certs: str) -> ssl.VerifyMode:
    """Return what a server asks of its clients, as ``ssl`` names it.

    Raises:
        ValueError: it is none of ``"ignore"``, ``"optional"`` and ``"required"``.
    """
    require("client_certs", client_certs, str)
    if client_certs not in _CLIENT_CERTS:
        raise ValueError(f"client_certs is one of {', '.join(_CLIENT_CERTS)}, got {client_certs!r}")
    return _CLIENT_CERTS[client_certs]


def alpn_protocols(alpn: Sequence[str]) -> tuple[str, ...]:
    """Return the protocols to negotiate, in order of preference.

    Raises:
        TypeError: they are no sequence of ``str``; one ``str`` is none.
        ValueError: one is not 1 to 255 ASCII characters.
    """
    if isinstance(alpn, str | bytes):
        raise TypeError(f"alpn is a sequence of protocol names, got {alpn!r} alone")
    protocols = tuple(alpn)
    for each in protocols:
        require("a protocol of alpn", each, str)
        if not each.isascii() or not 1 <= len(each) <= 255:
            raise ValueError(f"a protocol of alpn is 1 to 255 ASCII characters, got {each!r}")
    return protocols


def key_password(password: Password | None) -> Password | None:
    """Return the password of a key so that a callable is asked once, however often the key is loaded.

    Raises:
        TypeError: it is neither text nor callable.
    """
    if password is None or isinstance(password, str | bytes):
        return password
    if not callable(password):
        raise TypeError(f"password is str, bytes or a callable, not {type(password).__name__}")
    return functools.cache(password)


def short_text(name: str, text: str, limit: int) -> bytes:
    """Return a text of at most ``limit`` bytes as UTF-8.

    Raises:
        TypeError: it is no ``str``.
        ValueError: it is longer, contains a NUL, or is not Unicode text.
    """
    require(name, text, str)
    data = text.encode()
    if len(data) > limit:
        raise ValueError(f"{name} is at most {limit} bytes, got {len(data)}")
    if b"\0" in data:
        raise ValueError(f"{name} contains a NUL character")
    return data
