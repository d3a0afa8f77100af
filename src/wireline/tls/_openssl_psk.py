"""Pre-shared keys over the bridge: OpenSSL's callbacks, and whose key a handshake proved.

There are two callbacks for each role, one for TLS 1.2 and one for 1.3, and they are made once for the process and never
freed, so that none is ever called after its end. They get an ``SSL*``; what they ask belongs to its context.

In TLS 1.3 they give OpenSSL a session made of the key, into which the identity is written. OpenSSL makes that the
connection's session only when the other side has proved that it has the key. So ``proved_identity`` reads it there,
and no record is kept beside that threads, handshakes that take turns, or one that starts again could mix up.

A server that switches to another context when it hears the name (SNI) has already asked for the key in TLS 1.3, and
OpenSSL lets a key of the first context into the second one, whether that has other keys or none. So the session says
too whom was asked, and the identity counts where that is, or answers like, the context in which the handshake ended.
"""

from __future__ import annotations

import ssl
import threading
import weakref
from collections.abc import Callable

from wireline._os.process import ProcessLock

from . import _openssl
from ._libssl import Library, call_with_two_outputs, make_callback, read_bytes, write_bytes, write_word

__all__ = ["install_client", "install_server", "proved_identity", "raised", "why_not"]

ServerPskCallback = Callable[[bytes], bytes]
"""The key of an identity; ``b""``: there is none. Two that are equal give the same answers."""

ClientPskCallback = Callable[[bytes | None], tuple[bytes, bytes]]
"""Identity and key for a server with this hint."""

_TLS1_3 = 0x0304
_AES_128_GCM_SHA256 = b"\x13\x01"  # RFC 8446, B.4; a PSK without a hash of its own goes with SHA-256 (4.2.11)

# In front of the identity in a session's application data: that we wrote it, and the `SSL_CTX*` that was asked.
_TAG = b"wireline-psk:"
_POINTER_SIZE = 8
_IDENTITY_AT = len(_TAG) + _POINTER_SIZE


class _Raised(threading.local):
    """What a callback of this thread raised last. It cannot pass through OpenSSL, which learns that one failed."""

    error: BaseException | None = None


raised = _Raised()


class _PskCallbacks:
    """What the callbacks ask for one context. The context owns it, so what is asked may refer to the context."""

    server: ServerPskCallback | None = None
    client: ClientPskCallback | None = None


# Where the callbacks find that by the number of an `SSL_CTX*`, and its name on the context.
_psk_callbacks: weakref.WeakValueDictionary[int, _PskCallbacks] = weakref.WeakValueDictionary()
_CALLBACKS_ATTRIBUTE = "_wireline_psk"


class _CFunctions:
    """The C functions, by their addresses."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.server_key_at = make_callback("upspu", _catching(self.server_key))
        self.find_session_at = make_callback("ippzp", _catching(self.find_session))
        self.client_key_at = make_callback("upspupu", _catching(self.client_key))
        self.use_session_at = make_callback("ippppp", _catching(self.use_session))

    def server_key(self, connection: int, identity: bytes | None, key_at: int, capacity: int) -> int:
        """Give the key of an identity, for TLS 1.2; 0 refuses."""
        asked = self._callbacks_of_connection(connection)
        # In 1.3 this is asked last, when `find_session` had no answer. Nor have we.
        if asked.server is None or self.library.SSL_version(connection) >= _TLS1_3:
            return 0
        return write_bytes(key_at, asked.server(identity or b""), capacity)

    def find_session(self, connection: int, identity_at: int, length: int, session_at: int) -> int:
        """Give the session of an identity, for TLS 1.3; none is no error, and lets the handshake go on without."""
        write_word(session_at, 0)
        asked, identity = self._callbacks_of_connection(connection), read_bytes(identity_at, length)
        if asked.server is not None and (key := asked.server(identity)):
            write_word(session_at, self._session(connection, identity, key))
        return 1

    def client_key(
        self, connection: int, hint: bytes | None, identity_at: int, names: int, key_at: int, capacity: int
    ) -> int:
        """Give identity and key, for TLS 1.2; ``names`` is the room for the identity."""
        asked = self._callbacks_of_connection(connection)
        if asked.client is None:
            return 0
        identity, key = asked.client(hint)
        write_bytes(identity_at, identity + b"\0", names)
        return write_bytes(key_at, key, capacity)

    def use_session(
        self, connection: int, _hash: int, identity_at: int, length_at: int, session_at: int
    ) -> int:
        """Give the session to offer, for TLS 1.3."""
        write_word(session_at, 0)
        asked = self._callbacks_of_connection(connection)
        if asked.client is not None:
            identity, key = asked.client(None)
            session = self._session(connection, identity, key)
            # OpenSSL copies the identity after the return; the session holds it for that long.
            write_word(identity_at, self.appdata(session)[0] + _IDENTITY_AT)
            write_word(length_at, len(identity))
            write_word(session_at, session)
        return 1

    def appdata(self, session: int) -> tuple[int, int]:
        """Where the application data of a session is, and how many bytes."""
        return call_with_two_outputs(self.library.SSL_SESSION_get0_ticket_appdata, session)

    def _callbacks_of_connection(self, connection: int) -> _PskCallbacks:
        """What to ask. A context without PSK, to which SNI may have switched the connection, has no answers."""
        return _psk_callbacks.get(self.library.SSL_get_SSL_CTX(connection)) or _PskCallbacks()

    def _session(self, connection: int, identity: bytes, key: bytes) -> int:
        """Make a session that stands for this key, and says whose it is."""
        lib = self.library
        tagged = _TAG + lib.SSL_get_SSL_CTX(connection).to_bytes(_POINTER_SIZE, "big") + identity
        session = lib.SSL_SESSION_new()
        done = (
            session
            and lib.SSL_SESSION_set1_master_key(session, key, len(key))
            and lib.SSL_SESSION_set_cipher(session, lib.SSL_CIPHER_find(connection, _AES_128_GCM_SHA256))
            and lib.SSL_SESSION_set_protocol_version(session, _TLS1_3)
            and lib.SSL_SESSION_set1_ticket_appdata(session, tagged, len(tagged))
        )
        if not done:
            lib.SSL_SESSION_free(session)
            raise ValueError(f"OpenSSL takes no key of {len(key)} bytes, or no identity of {len(identity)}")
        return session


def _catching(function: Callable[..., int]) -> Callable[..., int]:
    """Keep what ``function`` raises, whatever it is: nothing may be raised into C. 0 fails the handshake in each."""

    def guarded(*arguments: int) -> int:
        try:
            return function(*arguments)
        except BaseException as error:  # noqa: BLE001 - it is kept, a KeyboardInterrupt too
            raised.error = error
            return 0

    return guarded


_lock = ProcessLock()
_loaded: _CFunctions | str | None = None  # the callbacks, or why there are none


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
    """Say why the bridge offers no PSK; empty if it does."""
    try:
        _c_functions()
    except _openssl.BridgeUnavailable as error:
        return str(error)
    return ""


def install_server(context: ssl.SSLContext, callback: ServerPskCallback, hint: bytes) -> None:
    """Let a server ask ``answer`` for keys, in TLS 1.2 and 1.3; an earlier one is replaced.

    What ``answer`` raises fails the handshake and is found in ``raised``.
    """
    callbacks, pointer = _c_functions(), _openssl.ctx_pointer(context)
    _openssl.call(callbacks.library, "SSL_CTX_use_psk_identity_hint", pointer, hint)
    _psk_callbacks_of(context, pointer).server = callback
    # The first one matters in 1.3 too: that it is there makes OpenSSL prefer suites with SHA-256.
    callbacks.library.SSL_CTX_set_psk_server_callback(pointer, callbacks.server_key_at)
    callbacks.library.SSL_CTX_set_psk_find_session_callback(pointer, callbacks.find_session_at)


def install_client(context: ssl.SSLContext, callback: ClientPskCallback) -> None:
    """Let a client ask ``answer`` for identity and key, in TLS 1.2 and 1.3; an earlier one is replaced.

    What ``answer`` raises fails the handshake and is found in ``raised``.
    """
    callbacks, pointer = _c_functions(), _openssl.ctx_pointer(context)
    _psk_callbacks_of(context, pointer).client = callback
    callbacks.library.SSL_CTX_set_psk_client_callback(pointer, callbacks.client_key_at)
    callbacks.library.SSL_CTX_set_psk_use_session_callback(pointer, callbacks.use_session_at)


def _psk_callbacks_of(context: ssl.SSLContext, pointer: int) -> _PskCallbacks:
    psk_callbacks = getattr(context, _CALLBACKS_ATTRIBUTE, None)
    if not isinstance(psk_callbacks, _PskCallbacks):
        psk_callbacks = _PskCallbacks()
        setattr(context, _CALLBACKS_ATTRIBUTE, psk_callbacks)
    _psk_callbacks[pointer] = psk_callbacks
    return psk_callbacks


def proved_identity(obj: ssl.SSLObject) -> bytes | None:
    """Give the identity whose key authenticated a finished handshake; None if no PSK did.

    In TLS 1.2 OpenSSL knows it, and it counts where the cipher uses the key. In TLS 1.3 it is in the session, if that
    is one of ours. What a callback was asked proves nothing: OpenSSL may drop the key and go on with a certificate.
    """
    callbacks, pointer, cipher = _c_functions(), _openssl.ssl_pointer(obj), obj.cipher()
    if callbacks.library.SSL_version(pointer) < _TLS1_3:
        by_key = cipher is not None and "PSK" in cipher[0]
        claimed = callbacks.library.SSL_get_psk_identity(pointer) if by_key else 0
        return read_bytes(claimed) if claimed else None
    session = callbacks.library.SSL_get_session(pointer)
    data = read_bytes(*callbacks.appdata(session)) if session else b""
    asked = int.from_bytes(data[len(_TAG) : _IDENTITY_AT], "big")
    if not data.startswith(_TAG) or not _same_psk_source(asked, callbacks.library.SSL_get_SSL_CTX(pointer)):
        return None
    return data[_IDENTITY_AT:]


def _same_psk_source(asked: int, ended: int) -> bool:
    """Whether two ``SSL_CTX*`` are one, or are of servers that ask the same for keys."""
    if asked == ended:
        return True
    one, other = _psk_callbacks.get(asked), _psk_callbacks.get(ended)
    return one is not None and other is not None and one.server is not None and one.server == other.server
