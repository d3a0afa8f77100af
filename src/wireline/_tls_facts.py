"""The properties of a socket's TLS connection, its beginning and its end. Each function takes the socket's core.

This module does not import ``ssl``: ``wireline.tls`` does, and a program without TLS saves the time and the memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from wireline._core.stream import StreamCore
from wireline._os.linger import DEFAULT_LINGER
from wireline._parts import Stream
from wireline._validation import Leftover
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
    """Return the core if it is a TLS core, otherwise None."""
    return cast("TlsCore", core) if core is not None and core.is_tls else None


def require_tls_core(core: StreamCore | None, operation: str, *, wrapped: bool) -> TlsCore:
    """Return the TLS core.

    Raises:
        ssl.SSLError: the socket has none; the text says "yet" if it is ``wrapped``.
    """
    tls_core = tls_core_of(core)
    if tls_core is None:
        raise tls_error(f"{operation}: the socket does not use TLS" + (" yet" if wrapped else ""))
    return tls_core


def certificates(core: StreamCore | None, *, verified: bool) -> list[Certificate]:
    """Return the verified certificates of the peer, or those that it has sent; its own first."""
    tls_core = tls_core_of(core)
    if tls_core is None:
        return []
    policy = tls_core.engine.policy
    return tls_core.with_ssl_object(policy.certificates if verified else policy.sent_certificates)


def psk_identity(core: StreamCore | None) -> str:
    """Return the PSK identity that the handshake has verified; ``""`` if there is none."""
    tls_core = tls_core_of(core)
    return "" if tls_core is None else tls_core.with_ssl_object(tls_core.engine.policy.psk_identity)


def repr_extra(core: StreamCore | None) -> str:
    """Return the part of ``repr`` about TLS."""
    tls_core = tls_core_of(core)
    version = None if tls_core is None else tls_core.with_ssl_object(lambda obj: obj.version())
    return f"tls={version or 'not yet'}"


def begin_upgrade(io: Stream, owner: object, tls_core: TlsCore, leftover: Leftover) -> None:
    """Use TLS on a stream. From here on nothing is sent in clear, even if the handshake fails.

    Bytes received in clear must not be taken for protected ones (T6). A stream that uses TLS already gets a layer
    inside of it (T12), and what was received in the outer layer counts as received in clear.

    Args:
        io: of the stream, which the caller holds.
        owner: its socket.
        tls_core: the core to use.
        leftover: what is done with unread bytes, see ``SslContext.wrap_connected_socket``.

    Raises:
        ssl.SSLError: the socket has unread bytes that were received in clear.
    """
    plaintext_core = io.core
    assert plaintext_core is not None
    outer = tls_core_of(plaintext_core)
    tls_core.buffered = plaintext_core.buffered
    plaintext_core.recover()  # a read that was interrupted may have left bytes outside the buffer
    tls_core.continue_counts(plaintext_core, io.payload_sent)
    if plaintext_core:
        unread = plaintext_core.recv_some(len(plaintext_core), SocketFlag.PEEK) or b""
        if leftover != "tls":
            where = "in clear" if outer is None else "in the outer layer"
            raise tls_error(
                f"{len(unread)} bytes were received {where} and not read before TLS begins: an attacker may have "
                "injected them (leftover='tls' takes them for the beginning of the handshake)"
            )
        tls_core.feed(unread)
    if outer is not None:
        tls_core.enter_layer(outer)  # now, because what was fed is plaintext of the outer layer
    io.use_core(owner, tls_core)


def closing_output(core: StreamCore | None, linger: float | None) -> tuple[float | None, bytes]:
    """Return the linger time of ``close`` in seconds, and the bytes that it sends."""
    tls_core = tls_core_of(core)
    if tls_core is None or linger == 0:
        return linger, b""
    # The peer must be able to distinguish the end from a truncation. And its session tickets, which no call reads, must
    # not turn the close into a reset, which would lose the bytes sent before, for example an alert.
    return (DEFAULT_LINGER if linger is None else linger), tls_core.final_bytes()


def tls_error(message: str) -> OSError:
    """Return an ``ssl.SSLError``. ``ssl`` is imported here, on demand: a program without TLS does not load it."""
    ssl = importlib.import_module("ssl")
    # With a number first: the text of an `SSLError` made from a message alone is the repr of a tuple.
    error: OSError = ssl.SSLError(ssl.SSL_ERROR_SSL, message)
    return error
