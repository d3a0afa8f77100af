"""Pre-shared keys (PSK): the callbacks that provide keys, and whose key a handshake has proved.

Where libssl can be called (``_openssl``), it is used on every version of Python. Elsewhere, Python 3.13 has PSK
callbacks of its own. They get neither the connection nor the result of the handshake: ``_PskSSLObject`` supplies the
first, the rule in ``_proved_identity_natively`` the second. Otherwise there is no PSK, and setting a callback raises an error.

Three traps of the usual recipes, and the cure of each:

* The identity that the server's callback gets is a claim. In TLS 1.3 a server with a certificate ignores the key if the
  suite does not fit it, and never checks whether the client has the key. So the identity is read from the session after
  the handshake, and suites with SHA-256, which fit every key, are preferred.
* A client whose ciphers are PSK suites alone still accepts a certificate in TLS 1.3. Its connection must be refused
  unless ``was_used``.
* A ticket outlives the key, and OpenSSL offers tickets to the callback as identities. A server with PSK sends none.
"""

from __future__ import annotations

import dataclasses
import os
import ssl
import sys
import threading
from collections.abc import Callable

from . import _openssl, _openssl_psk

__all__ = [
    "ClientPsk",
    "ServerPsk",
    "encode_hint",
    "identity",
    "install_client",
    "install_server",
    "require_available",
    "take_callback_error",
    "was_used",
]

ClientPsk = Callable[[str | None], tuple[str, bytes]]
"""Gives identity and key for a server with this hint. TLS 1.3 has no hints: None. May be asked twice for one
connection, before and after the server has chosen TLS 1.2."""

ServerPsk = Callable[[str], bytes]
"""Gives the key of an identity; ``b""`` if there is none. The identity is what a stranger sent."""

# Bytes; what OpenSSL 3 has room for (PSK_MAX_IDENTITY_LEN less the NUL, PSK_MAX_PSK_LEN). A version with less refuses
# what it has no room for when it gets it.
_MAX_IDENTITY = 255
_MAX_KEY = 512


# -------------------------------------------------------------------------------------------------- what a key is


def encode_hint(hint: str) -> bytes:
    """Check a hint; empty is none.

    Raises:
        ValueError: longer than 255 bytes, or with a NUL in it.
    """
    return _encode(hint, "a hint", least=0)


def _encode(name: object, what: str, least: int) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"{what} is a str, not {type(name).__name__}")
    data = name.encode()
    if not least <= len(data) <= _MAX_IDENTITY or b"\0" in data:
        # Not repeated: it may be a key, by mistake.
        raise ValueError(
            f"{what} has {least} to {_MAX_IDENTITY} bytes of UTF-8 and no NUL, not {len(data)} bytes like this"
        )
    return data


def _check_key(key: object, least: int) -> bytes:
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise TypeError(f"a key is bytes, not {type(key).__name__}")
    data = bytes(key)
    if not least <= len(data) <= _MAX_KEY:
        raise ValueError(f"a key has {least} to {_MAX_KEY} bytes, not {len(data)}")
    return data


@dataclasses.dataclass(frozen=True)
class _CheckedServerCallback:
    """Asks for the key of an identity that came from the network; ``b""`` refuses."""

    callback: ServerPsk

    def __call__(self, identity: bytes) -> bytes:
        try:
            name = identity.decode()
        except UnicodeDecodeError:  # nobody's: names are str, and OpenSSL also offers us tickets
            return b""
        if not name or "\0" in name or len(identity) > _MAX_IDENTITY:
            return b""
        return _check_key(self.callback(name), least=0)


@dataclasses.dataclass(frozen=True)
class _CheckedClientCallback:
    """Asks for identity and key."""

    callback: ClientPsk

    def __call__(self, hint: bytes | None) -> tuple[bytes, bytes]:
        answer: object = self.callback(hint.decode() if hint else None)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError("a client's PSK callback gives (identity, key)")
        return _encode(answer[0], "an identity", least=1), _check_key(answer[1], least=1)


# ----------------------------------------------------------------------------------------------------- installing


def require_available() -> None:
    """Raise ``NotImplementedError``, with the reason, where there is no PSK."""
    reason = _openssl_psk.why_not()
    if reason and not _native():
        raise NotImplementedError(f"PSK needs Python 3.13 or OpenSSL within reach: {reason}")


def _native() -> bool:
    """Whether ``ssl`` has PSK callbacks of its own."""
    return sys.version_info >= (3, 13) and ssl.HAS_PSK


def install_client(context: ssl.SSLContext, callback: ClientPsk) -> None:
    """Let connections of a client ask for their key. Leave ``verify_mode`` as it is: a PSK passes it.

    Raises:
        NotImplementedError: there is no PSK here.
    """
    require_available()
    checked = _CheckedClientCallback(callback)
    if not _openssl_psk.why_not():
        _openssl.clear_session_id_context(context)
        _openssl_psk.install_client(context, checked)
    elif sys.version_info >= (3, 13):
        context.sslobject_class = _PskSSLObject
        setattr(context, _CALLBACK_ATTRIBUTE, checked)
        context.set_psk_client_callback(_native_client_callback)


def install_server(context: ssl.SSLContext, callback: ServerPsk, hint: str) -> None:
    """Let connections of a server ask for keys. To be called when the ciphersuites are set.

    Args:
        context: sends no tickets and keeps no sessions from now on.
        callback: see ``ServerPsk``.
        hint: is sent to clients of TLS 1.2; empty for none.

    Raises:
        NotImplementedError: there is no PSK here.
        ValueError: see ``encode_hint``.
    """
    require_available()
    checked = _CheckedServerCallback(callback)
    wire_hint = encode_hint(hint)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    if not _openssl_psk.why_not():
        _openssl.disable_session_cache(context)
        _prefer_sha256(context)
        _openssl_psk.install_server(context, checked, wire_hint)
    elif sys.version_info >= (3, 13):
        context.sslobject_class = _PskSSLObject
        setattr(context, _CALLBACK_ATTRIBUTE, checked)
        context.set_psk_server_callback(_native_server_callback, hint or None)


def _prefer_sha256(context: ssl.SSLContext) -> None:
    """Put the suites that a PSK fits first; with another one a server that has a certificate drops the key."""
    suites = _openssl.tls13_suites(context)
    if suites:
        ordered = sorted(suites, key=lambda name: not name.endswith("SHA256"))
        _openssl.set_ciphersuites(context, ":".join(ordered))
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE


# --------------------------------------------------------------------------------------------- what came of it


def was_used(obj: ssl.SSLObject) -> bool:
    """Whether a key authenticated this connection. False until the handshake is done."""
    return _proved_identity(obj) is not None


def identity(obj: ssl.SSLObject) -> str:
    """Whose key authenticated this connection: the client's name, at both ends; empty if none did."""
    return _proved_identity(obj) or ""


def take_callback_error() -> BaseException | None:
    """Take what a callback of this thread raised since the last call."""
    error, _openssl_psk.raised.error = _openssl_psk.raised.error, None
    return error


def _proved_identity(obj: ssl.SSLObject) -> str | None:
    if obj.version() is None:  # not done, or failed: what is known until then is a claim
        return None
    if isinstance(obj, _PskSSLObject):
        return _proved_identity_natively(obj)
    proven = None if _openssl_psk.why_not() else _openssl_psk.proved_identity(obj)
    return None if proven is None else proven.decode()


# ------------------------------------------------------------------------------------------- without the bridge


# What to checked, on its context. Given to `ssl` it could not refer to the context, which would then never be freed.
_CALLBACK_ATTRIBUTE = "_wireline_native_psk"


class _PskSSLObject(ssl.SSLObject):
    """A connection whose callbacks, which are not told about it, can find it.

    Attributes:
        claimed: the last identity for which there was a key.
        asked: what said so.
        failed: whether a callback has raised.
    """

    claimed = ""
    answered_by: _CheckedServerCallback | _CheckedClientCallback | None = None
    failed = False

    def do_handshake(self) -> None:
        """Do it, let callbacks know that it is this one's, and fail when one has failed: ``ssl`` goes on without it."""
        before, _this_thread.connection = _this_thread.connection, self
        try:
            super().do_handshake()
        finally:
            _this_thread.connection = before
            if self.failed:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "a PSK callback failed")


class _HandshakeInThread(threading.local):
    """The connection whose handshake this thread is in."""

    connection: _PskSSLObject | None = None


_this_thread = _HandshakeInThread()


def _native_client_callback(hint: str | None) -> tuple[str, bytes]:
    connection = _this_thread.connection
    checked = getattr(connection and connection.context, _CALLBACK_ATTRIBUTE, None)
    if connection is None or not isinstance(checked, _CheckedClientCallback):
        return "", _random_key()
    try:
        name, key = checked(None if hint is None else hint.encode())
    except BaseException as error:  # noqa: BLE001 - it is kept, a KeyboardInterrupt too
        connection.failed, _openssl_psk.raised.error = True, error
        return "", _random_key()
    connection.claimed, connection.answered_by = name.decode(), checked
    return connection.claimed, key


def _native_server_callback(identity: str | None) -> bytes:
    connection = _this_thread.connection
    checked = getattr(connection and connection.context, _CALLBACK_ATTRIBUTE, None)
    if connection is None or not isinstance(checked, _CheckedServerCallback):
        return b""
    try:
        key = checked((identity or "").encode())
    except BaseException as error:  # noqa: BLE001 - it is kept, a KeyboardInterrupt too
        connection.failed, _openssl_psk.raised.error = True, error
        return _random_key()
    if key:
        connection.claimed, connection.answered_by = identity or "", checked
    return key


def _random_key() -> bytes:
    """Make a key for a handshake that is to fail. Without a key TLS 1.3 would go on without a key."""
    return os.urandom(32)


def _proved_identity_natively(obj: _PskSSLObject) -> str | None:
    """The last identity that had a key, where the handshake cannot have succeeded but by that key.

    That is a cipher with PSK in TLS 1.2; in 1.3, as no tickets were ever sent or offered, a resumption with a suite
    that fits a key. A session of TLS 1.2 that was resumed after all may be anybody's; and a key of the context from
    which a server was switched to this one (SNI) is none of this one's.
    """
    cipher = obj.cipher()
    if (
        cipher is None
        or not obj.claimed
        or getattr(obj.context, _CALLBACK_ATTRIBUTE, None) != obj.answered_by
    ):
        return None
    if obj.version() == "TLSv1.3":
        proved = obj.session_reused and cipher[0].endswith("SHA256")
    else:
        proved = "PSK" in cipher[0] and not obj.session_reused
    return obj.claimed if proved else None
