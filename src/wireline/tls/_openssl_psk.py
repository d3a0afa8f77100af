"""Pre-shared keys over the bridge: OpenSSL's callbacks, and whose key a handshake has proved.

There are two C callbacks for each role, for TLS 1.2 and 1.3. They are made once in a process and never freed, so none
can be called after it was freed. They get an ``SSL*`` and look up the Python callbacks by its ``SSL_CTX*``.

In TLS 1.3 a callback returns an ``SSL_SESSION`` made from the key, with the identity in its application data. OpenSSL
makes it the connection's session only when the peer has proved that it has the key. ``proved_identity`` reads the
identity there, so there is no record of our own that threads, interleaved handshakes or a HelloRetryRequest could mix
up.

A TLS 1.3 server asks for the key before SNI switches the context, and OpenSSL accepts a key of the first context in the
second, even if that has other keys or none. So the application data also names the ``SSL_CTX`` whose callback returned
the key. The identity is valid if that is the final context, or one with an equal callback.
"""

from __future__ import annotations

import ssl
import threading
import weakref
from collections.abc import Callable

from wireline._os.process import ProcessLock

from . import _openssl
from ._libssl import Library, call_with_two_outputs, make_callback, read_bytes, write_bytes, write_word

__all__ = ["install_client", "install_server", "proved_identity", "thread_state", "why_not"]

ServerPskCallback = Callable[[bytes], bytes]
"""Returns the key of an identity; ``b""`` if there is none. Equal callbacks must return equal keys."""

ClientPskCallback = Callable[[bytes | None], tuple[bytes, bytes]]
"""Returns identity and key for a server with this hint."""

_TLS1_3 = 0x0304
_AES_128_GCM_SHA256 = (
    b"\x13\x01"  # RFC 8446, B.4; the hash of a PSK is SHA-256 unless another is set (4.2.11)
)

# The application data of a session: this tag, the `SSL_CTX*` whose callback returned the key, the identity.
_TAG = b"wireline-psk:"
_POINTER_SIZE = 8
_IDENTITY_AT = len(_TAG) + _POINTER_SIZE


class _ThreadState(threading.local):
    """What a callback of this thread raised last. The exception cannot pass through OpenSSL, only a failure can."""

    callback_error: BaseException | None = None


thread_state = _ThreadState()


class _PskCallbacks:
    """The Python callbacks of one context. The context owns this object, so a callback may refer to the context."""

    server: ServerPskCallback | None = None
    client: ClientPskCallback | None = None


# By the number of their `SSL_CTX*`, for the C callbacks; and their attribute on the context.
_psk_callbacks: weakref.WeakValueDictionary[int, _PskCallbacks] = weakref.WeakValueDictionary()
_CALLBACKS_ATTRIBUTE = "_wireline_psk"


class _CFunctions:
    """The C callbacks: each method is one, ``..._at`` is its address. 0 as result fails the handshake."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.server_key_at = make_callback("upspu", _catching(self.server_key))
        self.find_session_at = make_callback("ippzp", _catching(self.find_session))
        self.client_key_at = make_callback("upspupu", _catching(self.client_key))
        self.use_session_at = make_callback("ippppp", _catching(self.use_session))

    def server_key(self, connection: int, identity: bytes | None, key_at: int, capacity: int) -> int:
        """Write the key of an identity (``SSL_psk_server_cb_func``, TLS 1.2); return its length."""
        callbacks = self._callbacks_of_connection(connection)
        # OpenSSL also calls this in TLS 1.3, after `find_session` has found nothing.
        if callbacks.server is None or self.library.SSL_version(connection) >= _TLS1_3:
            return 0
        return write_bytes(key_at, callbacks.server(identity or b""), capacity)

    def find_session(self, connection: int, identity_at: int, length: int, session_at: int) -> int:
        """Write the session of an identity (``SSL_psk_find_session_cb_func``, TLS 1.3).

        For an unknown identity that is NULL, which is no error: the handshake continues without PSK.
        """
        write_word(session_at, 0)
        callbacks, identity = self._callbacks_of_connection(connection), read_bytes(identity_at, length)
        if callbacks.server is not None and (key := callbacks.server(identity)):
            write_word(session_at, self._session(connection, identity, key))
        return 1

    def client_key(
        self,
        connection: int,
        hint: bytes | None,
        identity_at: int,
        identity_capacity: int,
        key_at: int,
        key_capacity: int,
    ) -> int:
        """Write identity and key (``SSL_psk_client_cb_func``, TLS 1.2); return the length of the key."""
        callbacks = self._callbacks_of_connection(connection)
        if callbacks.client is None:
            return 0
        identity, key = callbacks.client(hint)
        write_bytes(identity_at, identity + b"\0", identity_capacity)
        return write_bytes(key_at, key, key_capacity)

    def use_session(
        self, connection: int, _hash: int, identity_at: int, length_at: int, session_at: int
    ) -> int:
        """Write the session to offer and its identity (``SSL_psk_use_session_cb_func``, TLS 1.3)."""
        write_word(session_at, 0)
        callbacks = self._callbacks_of_connection(connection)
        if callbacks.client is not None:
            identity, key = callbacks.client(None)
            session = self._session(connection, identity, key)
            # OpenSSL copies the identity after this returns. The session, which OpenSSL then owns, holds it till then.
            write_word(identity_at, self.appdata(session)[0] + _IDENTITY_AT)
            write_word(length_at, len(identity))
            write_word(session_at, session)
        return 1

    def appdata(self, session: int) -> tuple[int, int]:
        """Return address and length of a session's application data."""
        return call_with_two_outputs(self.library.SSL_SESSION_get0_ticket_appdata, session)

    def _callbacks_of_connection(self, connection: int) -> _PskCallbacks:
        """Return the callbacks of the connection's current context; both are None if SNI chose one without PSK."""
        return _psk_callbacks.get(self.library.SSL_get_SSL_CTX(connection)) or _PskCallbacks()

    def _session(self, connection: int, identity: bytes, key: bytes) -> int:
        """Make the session that stands for a key and its identity."""
        lib = self.library
        data = _TAG + lib.SSL_get_SSL_CTX(connection).to_bytes(_POINTER_SIZE, "big") + identity
        session = lib.SSL_SESSION_new()
        done = (
            session
            and lib.SSL_SESSION_set1_master_key(session, key, len(key))
            and lib.SSL_SESSION_set_cipher(session, lib.SSL_CIPHER_find(connection, _AES_128_GCM_SHA256))
            and lib.SSL_SESSION_set_protocol_version(session, _TLS1_3)
            and lib.SSL_SESSION_set1_ticket_appdata(session, data, len(data))
        )
        if not done:
            lib.SSL_SESSION_free(session)
            raise ValueError(
                f"OpenSSL refuses a key of {len(key)} bytes, or an identity of {len(identity)} bytes"
            )
        return session


def _catching(function: Callable[..., int]) -> Callable[..., int]:
    """Make ``function`` record its exception and return 0: no exception may be raised into C."""

    def catching(*arguments: int) -> int:
        try:
            return function(*arguments)
        except BaseException as error:  # noqa: BLE001 - kept in `thread_state`, a KeyboardInterrupt too
            thread_state.callback_error = error
            return 0

    return catching


_lock = ProcessLock()
_loaded: _CFunctions | str | None = None  # a str is the reason why there are none


def _c_functions() -> _CFunctions:
    global _loaded
    library = _openssl.library()
    with _lock.here:
        if _loaded is None:
            try:
                _loaded = _CFunctions(library)
            except (MemoryError, OSError) as error:
                _loaded = f"this system forbids callbacks from C: {error!r}"
        if isinstance(_loaded, str):
            raise _openssl.BridgeUnavailable(_loaded)
        return _loaded


def why_not() -> str:
    """Return why the bridge offers no PSK; ``""`` if it does."""
    try:
        _c_functions()
    except _openssl.BridgeUnavailable as error:
        return str(error)
    return ""


def install_server(context: ssl.SSLContext, callback: ServerPskCallback, hint: bytes) -> None:
    """Make a server take keys from ``callback``, in TLS 1.2 and 1.3. It replaces an earlier callback.

    An exception of ``callback`` fails the handshake and is kept in ``thread_state``.
    """
    functions, pointer = _c_functions(), _openssl.ctx_pointer(context)
    _openssl.call(functions.library, "SSL_CTX_use_psk_identity_hint", pointer, hint)
    _psk_callbacks_of(context, pointer).server = callback
    # The callback for TLS 1.2 matters in 1.3 too: its presence makes OpenSSL prefer suites with SHA-256.
    functions.library.SSL_CTX_set_psk_server_callback(pointer, functions.server_key_at)
    functions.library.SSL_CTX_set_psk_find_session_callback(pointer, functions.find_session_at)


def install_client(context: ssl.SSLContext, callback: ClientPskCallback) -> None:
    """Make a client take identity and key from ``callback``, in TLS 1.2 and 1.3. It replaces an earlier callback.

    An exception of ``callback`` fails the handshake and is kept in ``thread_state``.
    """
    functions, pointer = _c_functions(), _openssl.ctx_pointer(context)
    _psk_callbacks_of(context, pointer).client = callback
    functions.library.SSL_CTX_set_psk_client_callback(pointer, functions.client_key_at)
    functions.library.SSL_CTX_set_psk_use_session_callback(pointer, functions.use_session_at)


def _psk_callbacks_of(context: ssl.SSLContext, pointer: int) -> _PskCallbacks:
    callbacks = getattr(context, _CALLBACKS_ATTRIBUTE, None)
    if not isinstance(callbacks, _PskCallbacks):
        callbacks = _PskCallbacks()
        setattr(context, _CALLBACKS_ATTRIBUTE, callbacks)
    _psk_callbacks[pointer] = callbacks
    return callbacks


def proved_identity(obj: ssl.SSLObject) -> bytes | None:
    """Return the identity whose key authenticated a finished handshake; None if no PSK did.

    TLS 1.2: OpenSSL's own record, if the cipher uses a PSK. TLS 1.3: the application data of the session, if we wrote
    it. The identity that a callback was called with proves nothing: OpenSSL may ignore the key and use a certificate.
    """
    functions, pointer, cipher = _c_functions(), _openssl.ssl_pointer(obj), obj.cipher()
    lib = functions.library
    if lib.SSL_version(pointer) < _TLS1_3:
        psk_used = cipher is not None and "PSK" in cipher[0]
        identity_at = lib.SSL_get_psk_identity(pointer) if psk_used else 0
        return read_bytes(identity_at) if identity_at else None
    session = lib.SSL_get_session(pointer)
    data = read_bytes(*functions.appdata(session)) if session else b""
    key_from = int.from_bytes(data[len(_TAG) : _IDENTITY_AT], "big")
    if not data.startswith(_TAG) or not _same_psk_source(key_from, lib.SSL_get_SSL_CTX(pointer)):
        return None
    return data[_IDENTITY_AT:]


def _same_psk_source(key_from: int, final: int) -> bool:
    """Whether two ``SSL_CTX*`` are the same, or belong to servers with equal callbacks."""
    if key_from == final:
        return True
    one, other = _psk_callbacks.get(key_from), _psk_callbacks.get(final)
    return one is not None and other is not None and one.server is not None and one.server == other.server
