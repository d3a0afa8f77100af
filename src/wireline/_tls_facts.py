"""What is known of a socket's TLS connection, and what it sends at its end. Functions of the socket's core.

``ssl`` is not imported here: a program that uses TLS has loaded it by importing ``wireline.tls``, and no other pays for
it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from wireline._core.stream import StreamCore
from wireline._os.linger import DEFAULT_LINGER
from wireline.options import SocketFlag

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore
    from wireline.tls import Certificate

__all__ = [
    "begin_upgrade",
    "certificates",
    "closing_output",
    "psk_identity",
    "repr_extra",
    "require_tls_core",
    "tls_core_of",
    "tls_error",
]


def tls_core_of(core: StreamCore | None) -> TlsCore | None:
    """Return the core if it is one of TLS."""
    return cast("TlsCore", core) if core is not None and core.is_tls else None


def require_tls_core(core: StreamCore | None, operation: str, *, wrapped: bool) -> TlsCore:
    """Return the core of TLS.

    Raises:
        ssl.SSLError: there is none; not yet, if the socket is ``wrapped``.
    """
    tls_core = tls_core_of(core)
    if tls_core is None:
        raise tls_error(f"{operation}: the socket does not speak TLS" + (" yet" if wrapped else ""))
    return tls_core


def certificates(core: StreamCore | None) -> list[Certificate]:
    """Return the certificates of the peer that were verified, its own first."""
    tls_core = tls_core_of(core)
    return [] if tls_core is None else tls_core.with_ssl_object(tls_core.engine.policy.certificates)


def psk_identity(core: StreamCore | None) -> str:
    """Return the PSK identity that the handshake has proven; ``""`` if there is none."""
    tls_core = tls_core_of(core)
    return "" if tls_core is None else tls_core.with_ssl_object(tls_core.engine.policy.psk_identity)


def repr_extra(core: StreamCore | None) -> str:
    """Return what ``repr`` says about TLS."""
    tls_core = tls_core_of(core)
    version = None if tls_core is None else tls_core.with_ssl_object(lambda obj: obj.version())
    return f"tls={version or 'not yet'}"


def begin_upgrade(tls_core: TlsCore, plaintext_core: StreamCore, leftover: str) -> None:
    """Check that a stream may become one of TLS. Bytes received in clear must not be taken for protected ones (T6).

    A socket that speaks TLS already is left as it is: to put this handshake in its place would send the rest of the
    conversation without its encryption.

    Raises:
        ssl.SSLError: it may not.
    """
    if plaintext_core.is_tls:
        raise tls_error("the socket speaks TLS already, and TLS inside TLS is not possible on it")
    plaintext_core.recover()  # a read that was interrupted may have left bytes outside the buffer
    if plaintext_core:
        unread = plaintext_core.recv_some(len(plaintext_core), SocketFlag.PEEK) or b""
        if leftover != "tls":
            raise tls_error(
                f"{len(unread)} bytes were received in clear and not read before TLS begins: somebody may have "
                "put them there (leftover='tls' takes them for the beginning of the handshake)"
            )
        tls_core.feed(unread)


def closing_output(core: StreamCore | None, linger: float | None) -> tuple[float | None, bytes]:
    """Return how long ``close`` lingers, and the bytes that it sends."""
    tls_core = tls_core_of(core)
    if tls_core is None or linger == 0:
        return linger, b""
    # A peer must be able to tell the end from a truncation; and its session tickets, which no call reads, must not turn
    # the close into a reset that loses what was sent before, be it the alert that says what was wrong.
    return (DEFAULT_LINGER if linger is None else linger), tls_core.final_bytes()


def tls_error(message: str) -> OSError:
    """Return an ``ssl.SSLError``. The modules that every program imports do not import ``ssl``."""
    ssl = importlib.import_module("ssl")
    # With a number before it: the text of an `SSLError` made of a message alone is the repr of a tuple.
    error: OSError = ssl.SSLError(ssl.SSL_ERROR_SSL, message)
    return error
