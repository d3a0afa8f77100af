"""TLS for both flavours: contexts, certificates, sessions, and the facts of a connection.

It imports ``ssl``; ``wireline.net`` and ``wireline.asyncnet`` do not.
"""

from __future__ import annotations

import ssl
from typing import NoReturn

from wireline._core.tls_engine import TruncatedError as TruncatedError
from wireline._public import publish as _publish
from wireline.options import AcceptResult as AcceptResult
from wireline.options import Handshake as Handshake

from ._certificate import Certificate as Certificate
from ._context import SslContext as SslContext
from ._features import Feature as Feature
from ._features import Features as Features
from ._policy import TlsInfo as TlsInfo
from ._sessions import SessionCache as SessionCache
from ._sessions import TlsSession as TlsSession
from ._tls_options import CIPHERS_INTERMEDIATE as CIPHERS_INTERMEDIATE
from ._tls_options import CIPHERS_MODERN as CIPHERS_MODERN
from ._tls_options import ProtocolVersion as ProtocolVersion
from ._tls_options import VerifyMode as VerifyMode

__all__ = [
    "CIPHERS_INTERMEDIATE",
    "CIPHERS_MODERN",
    "AcceptResult",
    "Certificate",
    "Feature",
    "Features",
    "Handshake",
    "ProtocolVersion",
    "SessionCache",
    "SslContext",
    "SslError",
    "TlsInfo",
    "TlsSession",
    "TruncatedError",
    "VerifyMode",
    "raise_ssl_error",
]

SslError = ssl.SSLError
"""The error of every TLS failure. It is ``ssl.SSLError`` itself, so ``except ssl.SSLError`` catches all of them."""


def raise_ssl_error(message: str = "") -> NoReturn:
    """Raise ``SslError``.

    Args:
        message: the text; ``""`` takes the last error in OpenSSL's queue of this thread, or says that there is none.
            Python removes errors from that queue when it raises them, so there seldom is one.

    Raises:
        ssl.SSLError: always.
    """
    raise SslError(ssl.SSL_ERROR_SSL, message or _last_recorded() or "OpenSSL recorded no error")


def _last_recorded() -> str:
    """Empty OpenSSL's queue of this thread and return its last error; ``""`` if it is empty or the bridge is off."""
    from . import _libssl, _openssl

    if not _openssl.available():
        return ""
    library, text = _openssl.library(), b""
    while code := library.ERR_get_error():
        text = _libssl.read_bytes(library.ERR_reason_error_string(code))
    return text.decode()


_publish(__name__, globals(), __all__)
