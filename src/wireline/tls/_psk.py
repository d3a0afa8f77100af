"""Pre-shared keys (PSK): the callbacks that provide keys, and whose key a handshake has proved.

Where libssl can be called (``_openssl``), it is used on every version of Python. Elsewhere, Python 3.13 has PSK
callbacks of its own. They get neither the connection nor the result of the handshake: ``_PskSSLObject`` supplies the
first, the rule in ``_proved_identity_natively`` the second. Otherwise there is no PSK, and setting a callback fails.

Three traps of the usual recipes, and the cure of each:

* The identity that a server's callback gets is a claim. In TLS 1.3 a server with a certificate ignores the key if the
  suite does not fit it, and never checks that the client has the key. So the identity is read from the session after
  the handshake, and suites with SHA-256, which fit every key, are preferred.
* A client whose ciphers are PSK suites only still accepts a certificate in TLS 1.3. Its connection must be refused
  unless ``was_used``.
* A ticket outlives the key, and OpenSSL offers tickets to the callback as identities. A server with PSK sends none.
"""

from __future__ import annotations

import dataclasses
import hmac
import os
import ssl
import sys
import threading
from collections.abc import Callable

from . import _openssl, _openssl_psk

__all__ = [
    "ClientGetPsk",
    "ServerGetPsk",
    "encode_hint",
    "identity",
    "install_client",
    "install_server",
    "require_available",
    "take_callback_error",
    "was_used",
]

ClientGetPsk = Callable[[str | None], tuple[str, bytes]]
"""Returns identity and key for a server with this hint; None in TLS 1.3, which has no hints. May be called twice for
one connection: before the server has chosen a version, and again if that is TLS 1.2."""

ServerGetPsk = Callable[[str], bytes]
"""Returns the key of an identity, ``b""`` to refuse it. The identity is unverified input from the network."""

# In bytes: PSK_MAX_IDENTITY_LEN without its NUL, and PSK_MAX_PSK_LEN of OpenSSL 3. A version with lower limits refuses
# longer values when it gets them.
_MAX_IDENTITY = 255
_MAX_KEY = 512


# ------------------------------------------------------------------------------------- what users' callbacks return


def encode_hint(hint: str) -> bytes:
    """Encode a hint; ``""`` means no hint.

    Raises:
        ValueError: it is longer than 255 bytes or contains a NUL.
    """
    return _encode(hint, "a hint", least=0)


def _encode(name: object, what: str, least: int) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"{what} is a str, not {type(name).__name__}")
    data = name.encode()
    if not least <= len(data) <= _MAX_IDENTITY or b"\0" in data:
        # The value is not in the message: it may be a key, passed by mistake.
        raise ValueError(
            f"{what} has {least} to {_MAX_IDENTITY} bytes of UTF-8 and no NUL; these {len(data)} bytes do not fit"
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
    """Calls ``server_get_psk`` with an identity from the network and checks the key; ``b""`` refuses the client."""

    callback: ServerGetPsk
    decoy: bytes = dataclasses.field(default=b"", repr=False)
    """The secret of the keys of unknown identities; ``b""`` refuses them."""

    def __call__(self, identity: bytes) -> bytes:
        try:
            name = identity.decode()
        except UnicodeDecodeError:  # identities are text; OpenSSL also offers tickets here, which are not
            return b""
        if not name or "\0" in name or len(identity) > _MAX_IDENTITY:
            return b""
        key = _check_key(self.callback(name), least=0)
        # The same key for the same name, or two tries would tell an unknown name from a wrong key.
        return key or (hmac.digest(self.decoy, identity, "sha256") if self.decoy else b"")


@dataclasses.dataclass(frozen=True)
class _CheckedClientCallback:
    """Calls ``client_get_psk`` and checks identity and key."""

    callback: ClientGetPsk

    def __call__(self, hint: bytes | None) -> tuple[bytes, bytes]:
        result: object = self.callback(hint.decode() if hint else None)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError("client_get_psk returns (identity, key)")
        return _encode(result[0], "an identity", least=1), _check_key(result[1], least=1)


# ----------------------------------------------------------------------------------------------------- installing


def require_available() -> None:
    """Check that PSK can be used.

    Raises:
        NotImplementedError: it cannot; the message says why.
    """
    reason = _openssl_psk.why_not()
    if reason and not _has_native_callbacks():
        raise NotImplementedError(f"PSK needs Python 3.13, or access to libssl: {reason}")


def _has_native_callbacks() -> bool:
    """Whether ``ssl`` has PSK callbacks of its own."""
    return sys.version_info >= (3, 13) and ssl.HAS_PSK


def install_client(context: ssl.SSLContext, callback: ClientGetPsk) -> None:
    """Make a client use PSK. ``verify_mode`` stays as it is: a handshake with PSK passes ``CERT_REQUIRED``.

    Raises:
        NotImplementedError: PSK is not available.
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


def install_server(
    context: ssl.SSLContext, callback: ServerGetPsk, hint: str, *, decoy: bool = False
) -> None:
    """Make a server use PSK. Call this after the ciphersuites are set.

    Args:
        context: it sends no tickets and caches no sessions afterwards.
        callback: see ``ServerGetPsk``.
        hint: sent to clients of TLS 1.2; ``""`` for no hint.
        decoy: give an unknown identity a random key, so that it cannot be told from a wrong key.

    Raises:
        NotImplementedError: PSK is not available.
        ValueError: see ``encode_hint``.
    """
    require_available()
    checked = _CheckedServerCallback(callback, os.urandom(32) if decoy else b"")
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
    """Prefer the suites that fit a PSK; with another suite a server that has a certificate ignores the key."""
    suites = _openssl.tls13_suites(context)
    if suites:
        ordered = sorted(suites, key=lambda name: not name.endswith("SHA256"))
        _openssl.set_ciphersuites(context, ":".join(ordered))
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE


# --------------------------------------------------------------------------------------------- after the handshake


def was_used(obj: ssl.SSLObject) -> bool:
    """Whether a PSK authenticated this connection. False until the handshake is done."""
    return _proved_identity(obj) is not None


def identity(obj: ssl.SSLObject) -> str:
    """Return the client's identity if its PSK authenticated this connection (at both ends), else ``""``."""
    return _proved_identity(obj) or ""


def take_callback_error() -> BaseException | None:
    """Return what a PSK callback of this thread has raised since the last call, and forget it."""
    error, _openssl_psk.thread_state.callback_error = _openssl_psk.thread_state.callback_error, None
    return error


def _proved_identity(obj: ssl.SSLObject) -> str | None:
    if obj.version() is None:  # the handshake is not done, or has failed: an identity is only claimed
        return None
    if isinstance(obj, _PskSSLObject):
        return _proved_identity_natively(obj)
    proved = None if _openssl_psk.why_not() else _openssl_psk.proved_identity(obj)
    return None if proved is None else proved.decode()


# ------------------------------------------------------------------------------------------------ without libssl


# Where a context keeps its callback. The callback may refer to the context: if `ssl` owned it, the context would never
# be freed.
_CALLBACK_ATTRIBUTE = "_wireline_native_psk"


class _PskSSLObject(ssl.SSLObject):
    """A connection that its PSK callbacks can find: ``ssl`` does not pass it to them.

    Attributes:
        claimed: the last identity for which a key was returned.
        answered_by: the callback that returned it.
        failed: a callback has raised an exception.
    """

    claimed = ""
    answered_by: _CheckedServerCallback | _CheckedClientCallback | None = None
    failed = False

    def do_handshake(self) -> None:
        """Continue the handshake as the current connection of this thread.

        Raises:
            ssl.SSLError: also if a callback has failed; ``ssl`` itself would continue without a key.
        """
        before, _this_thread.connection = _this_thread.connection, self
        try:
            super().do_handshake()
        finally:
            _this_thread.connection = before
            if self.failed:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "a PSK callback failed")


class _CurrentConnection(threading.local):
    """The connection whose handshake this thread is inside."""

    connection: _PskSSLObject | None = None


_this_thread = _CurrentConnection()


def _native_client_callback(hint: str | None) -> tuple[str, bytes]:
    connection = _this_thread.connection
    callback = getattr(connection and connection.context, _CALLBACK_ATTRIBUTE, None)
    if connection is None or not isinstance(callback, _CheckedClientCallback):
        return "", _random_key()
    try:
        name, key = callback(None if hint is None else hint.encode())
    except BaseException as error:  # noqa: BLE001 - kept for `take_callback_error`, a KeyboardInterrupt too
        connection.failed, _openssl_psk.thread_state.callback_error = True, error
        return "", _random_key()
    connection.claimed, connection.answered_by = name.decode(), callback
    return connection.claimed, key


def _native_server_callback(identity: str | None) -> bytes:
    connection = _this_thread.connection
    callback = getattr(connection and connection.context, _CALLBACK_ATTRIBUTE, None)
    if connection is None or not isinstance(callback, _CheckedServerCallback):
        return b""
    try:
        key = callback((identity or "").encode())
    except BaseException as error:  # noqa: BLE001 - kept for `take_callback_error`, a KeyboardInterrupt too
        connection.failed, _openssl_psk.thread_state.callback_error = True, error
        return _random_key()
    if key:
        connection.claimed, connection.answered_by = identity or "", callback
    return key


def _random_key() -> bytes:
    """Return a key that makes the handshake fail. Without any key TLS 1.3 would continue without PSK."""
    return os.urandom(32)


def _proved_identity_natively(obj: _PskSSLObject) -> str | None:
    """Return the claimed identity if the handshake can only have succeeded with its key.

    TLS 1.2: the cipher uses a PSK and no session was resumed (its identity would be unknown). TLS 1.3: a session was
    "resumed", with a suite that fits a PSK; there are no tickets, so that can only be the PSK. In both, the callback
    must be that of the final context: after an SNI switch a key of the first context proves nothing to the second.
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
