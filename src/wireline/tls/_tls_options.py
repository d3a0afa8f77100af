"""The arguments of an ``SslContext``: enums, cipher lists, ``TlsOptions``, and their checks."""

from __future__ import annotations

import enum
import os
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ._pins import Pins

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

TICKET_KEYS_SIZE = 80
"""Bytes of OpenSSL's keys for session tickets: a name of 16, and 32 each for HMAC and AES-256."""

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
    cert_data: bytes | None = field(repr=False)
    key_data: bytes | None = field(repr=False)
    ca_data: bytes | None = field(repr=False)
    min_version: ssl.TLSVersion | None
    max_version: ssl.TLSVersion | None
    partial_chain: bool
    groups: str
    pins: Pins
    psk_decoy: bool
    ticket_keys: bytes | None = field(repr=False)

    @property
    def has_own_cas(self) -> bool:
        """Whether the caller named the CAs to trust."""
        return bool(self.ca_file or self.ca_dir or self.ca_data is not None)


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


def flag(name: str, value: bool) -> bool:
    """Return a flag.

    Raises:
        TypeError: it is not a ``bool``.
    """
    require(name, value, bool)
    return value


def group_list(groups: Sequence[str] | None) -> str:
    """Return the groups as OpenSSL's list; ``""`` for its own.

    Raises:
        TypeError: it is not a sequence of ``str``, or a single ``str``.
        ValueError: it is empty, or one is no name.
    """
    if groups is None:
        return ""
    if isinstance(groups, str | bytes):
        raise TypeError(f"groups is a sequence of names, got {groups!r}")
    names = list(groups)
    for name in names:
        require("a name of groups", name, str)
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ValueError(f"{name!r} is not the name of a group")
    if not names:
        raise ValueError("groups is empty: no key exchange would be left")
    return ":".join(names)


def secret_for_tickets(keys: bytes | None) -> bytes | None:
    """Return a copy of the secret that servers share for their session tickets.

    Raises:
        TypeError: it is not bytes or None.
        ValueError: it does not have 80 bytes.
    """
    if keys is None:
        return None
    if not isinstance(keys, bytes | bytearray | memoryview):
        raise TypeError(f"ticket_keys is bytes, not {type(keys).__name__}")
    if len(bytes(keys)) != TICKET_KEYS_SIZE:
        raise ValueError(f"ticket_keys has {TICKET_KEYS_SIZE} bytes, got {len(bytes(keys))}")
    return bytes(keys)


def keylog_path(value: FilePath | Literal[True] | None) -> str | None:
    """Return the path of the key log; True takes it from the environment.

    Raises:
        TypeError: it is not a path, True or None.
    """
    if value is True:
        return os.environ.get("SSLKEYLOGFILE") or None
    return None if value is None else path("keylog_file", value)


def check_combinations(options: TlsOptions) -> None:
    """Check that each thing is given once, no key without a certificate, and that the versions are a range.

    Raises:
        ValueError: it is not so.
    """
    for name in ("cert", "key", "ca"):
        if getattr(options, f"{name}_file") and getattr(options, f"{name}_data") is not None:
            raise ValueError(f"{name}_file and {name}_data exclude each other: give one of them")
    if options.key_file and not options.cert_file and options.cert_data is None:
        raise ValueError("key_file needs the cert_file of the certificate that the key belongs to")
    if options.min_version and options.max_version and options.min_version > options.max_version:
        raise ValueError("min_version is above max_version")
    if options.key_data is not None and not options.cert_file and options.cert_data is None:
        raise ValueError("key_data needs the cert_data of the certificate that the key belongs to")


def pem_or_der(name: str, data: bytes | None) -> bytes | None:
    """Return a copy of certificates or a key in memory.

    Raises:
        TypeError: it is neither bytes nor None.
    """
    if data is not None and not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"{name} is bytes, PEM or DER, not {type(data).__name__}")
    return None if data is None else bytes(data)


def tls_version(name: str, version: ssl.TLSVersion | None) -> ssl.TLSVersion | None:
    """Return the version of a limit.

    Raises:
        TypeError: it is neither a ``ssl.TLSVersion`` nor None.
        ValueError: it is below TLS 1.2.
    """
    if version is None:
        return None
    require(name, version, ssl.TLSVersion)
    if version not in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        raise ValueError(
            f"{name} is TLSv1_2 or TLSv1_3, not {version.name}: older versions are deprecated (RFC 8996)"
        )
    return version


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
    """Return the password of a key.

    Raises:
        TypeError: it is not text, bytes or callable.
    """
    if password is not None and not isinstance(password, str | bytes) and not callable(password):
        raise TypeError(f"password is str, bytes or a callable, not {type(password).__name__}")
    return password


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
