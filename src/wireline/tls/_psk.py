"""Pre-shared keys: who is asked for them, what counts as an answer, and who has proved one.

Where the bridge (``_openssl``) is, it is used on every version of Python. Where it is not, Python 3.13 has callbacks of
its own, which are told neither the connection nor whether the key was proved; ``_Tracked`` makes up for the first, the
rule in ``_proven_natively`` for the second. Elsewhere there is no PSK, and that is said when a callback is set.

What usually goes wrong, and what is done about it here:

* An identity that a callback was asked for is a claim. On TLS 1.3 a server with a certificate goes on with that
  when the suite does not fit the key, and never looks whether the client has the key at all. So the identity is read
  from the session that came of the handshake, and suites with SHA-256, which fit, come first.
* A client that asks for PSK suites only is still content with a certificate in TLS 1.3. Its connection is to be refused
  unless ``was_used``.
* A ticket would outlive its key, and tickets are shown to the callback as identities. A server with PSK sends none.
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
    "take_failure",
    "was_used",
]

ClientPsk = Callable[[str | None], tuple[str, bytes]]
"""Gives identity and key for a server with this hint. TLS 1.3 has no hints: None. May be asked twice for one
connection, before and after the server has chosen TLS 1.2."""

ServerPsk = Callable[[str], bytes]
"""Gives the key of an identity; ``b""`` if there is none. The identity is what a stranger sent."""

# Bytes; what OpenSSL 3 has room for (PSK_MAX_IDENTITY_LEN less the NUL, PSK_MAX_PSK_LEN). A version with less refuses
# what it has no room for when it gets it.
_MAX_NAME = 255
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
    if not least <= len(data) <= _MAX_NAME or b"\0" in data:
        # Not repeated: it may be a key, by mistake.
        raise ValueError(
            f"{what} has {least} to {_MAX_NAME} bytes of UTF-8 and no NUL, not {len(data)} bytes like this"
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
class _AskServer:
    """Asks for the key of an identity that came from the network; ``b""`` refuses."""

    callback: ServerPsk

    def __call__(self, identity: bytes) -> bytes:
        try:
            name = identity.decode()
        except UnicodeDecodeError:  # nobody's: names are str, and OpenSSL also offers us tickets
            return b""
        if not name or "\0" in name or len(identity) > _MAX_NAME:
            return b""
        return _check_key(self.callback(name), least=0)


@dataclasses.dataclass(frozen=True)
class _AskClient:
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
    ask = _AskClient(callback)
    if not _openssl_psk.why_not():
        _openssl.clear_session_id_context(context)
        _openssl_psk.install_client(context, ask)
    elif sys.version_info >= (3, 13):
        context.sslobject_class = _Tracked
        setattr(context, _ASK, ask)
        context.set_psk_client_callback(_answer_client)


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
    ask = _AskServer(callback)
    wire_hint = encode_hint(hint)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    if not _openssl_psk.why_not():
        _openssl.disable_session_cache(context)
        _prefer_sha256(context)
        _openssl_psk.install_server(context, ask, wire_hint)
    elif sys.version_info >= (3, 13):
        context.sslobject_class = _Tracked
        setattr(context, _ASK, ask)
        context.set_psk_server_callback(_answer_server, hint or None)


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
    return _proven(obj) is not None


def identity(obj: ssl.SSLObject) -> str:
    """Whose key authenticated this connection: the client's name, at both ends; empty if none did."""
    return _proven(obj) or ""


def take_failure() -> BaseException | None:
    """Take what a callback of this thread raised since the last call."""
    error, _openssl_psk.raised.error = _openssl_psk.raised.error, None
    return error


def _proven(obj: ssl.SSLObject) -> str | None:
    if obj.version() is None:  # not done, or failed: what is known until then is a claim
        return None
    if isinstance(obj, _Tracked):
        return _proven_natively(obj)
    proven = None if _openssl_psk.why_not() else _openssl_psk.proven_identity(obj)
    return None if proven is None else proven.decode()


# ------------------------------------------------------------------------------------------- without the bridge


# What to ask, on its context. Given to `ssl` it could not refer to the context, which would then never be freed.
_ASK = "_wireline_native_psk"


class _Tracked(ssl.SSLObject):
    """A connection whose callbacks, which are not told about it, can find it.

    Attributes:
        claimed: the last identity for which there was a key.
        asked: what said so.
        failed: whether a callback has raised.
    """

    claimed = ""
    asked: _AskServer | _AskClient | None = None
    failed = False

    def do_handshake(self) -> None:
        """Do it, let callbacks know that it is this one's, and fail when one has failed: ``ssl`` goes on without it."""
        before, _current.connection = _current.connection, self
        try:
            super().do_handshake()
        finally:
            _current.connection = before
            if self.failed:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "a PSK callback failed")


class _Current(threading.local):
    """The connection whose handshake this thread is in."""

    connection: _Tracked | None = None


_current = _Current()


def _answer_client(hint: str | None) -> tuple[str, bytes]:
    connection = _current.connection
    ask = getattr(connection and connection.context, _ASK, None)
    if connection is None or not isinstance(ask, _AskClient):
        return "", _nobodys_key()
    try:
        name, key = ask(None if hint is None else hint.encode())
    except BaseException as error:  # noqa: BLE001 - it is kept, a KeyboardInterrupt too
        connection.failed, _openssl_psk.raised.error = True, error
        return "", _nobodys_key()
    connection.claimed, connection.asked = name.decode(), ask
    return connection.claimed, key


def _answer_server(identity: str | None) -> bytes:
    connection = _current.connection
    ask = getattr(connection and connection.context, _ASK, None)
    if connection is None or not isinstance(ask, _AskServer):
        return b""
    try:
        key = ask((identity or "").encode())
    except BaseException as error:  # noqa: BLE001 - it is kept, a KeyboardInterrupt too
        connection.failed, _openssl_psk.raised.error = True, error
        return _nobodys_key()
    if key:
        connection.claimed, connection.asked = identity or "", ask
    return key


def _nobodys_key() -> bytes:
    """Make a key for a handshake that is to fail. Without a key TLS 1.3 would go on without a key."""
    return os.urandom(32)


def _proven_natively(obj: _Tracked) -> str | None:
    """The last identity that had a key, where the handshake cannot have succeeded but by that key.

    That is a cipher with PSK in TLS 1.2; in 1.3, as no tickets were ever sent or offered, a resumption with a suite
    that fits a key. A session of TLS 1.2 that was resumed after all may be anybody's; and a key of the context from
    which a server was switched to this one (SNI) is none of this one's.
    """
    cipher = obj.cipher()
    if cipher is None or not obj.claimed or getattr(obj.context, _ASK, None) != obj.asked:
        return None
    if obj.version() == "TLSv1.3":
        proved = obj.session_reused and cipher[0].endswith("SHA256")
    else:
        proved = "PSK" in cipher[0] and not obj.session_reused
    return obj.claimed if proved else None
