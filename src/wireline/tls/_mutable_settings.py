"""The settings of a context that may be changed until its first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wireline.errors import ClosedError

from ._sessions import SessionCache
from ._tls_options import require, require_callable, short_text

if TYPE_CHECKING:
    from ._psk import ClientGetPsk, ServerGetPsk

__all__ = ["MutableSettings"]

_MAX_ID_CONTEXT = 32  # bytes: SSL_MAX_SID_CTX_LENGTH
_MAX_HINT = 255  # bytes, as for an identity: PSK_MAX_IDENTITY_LEN, 256, includes the NUL


class MutableSettings:
    """The settings of a context. Its first use freezes them: a change is a ``RuntimeError`` from then on."""

    __slots__ = (
        "_client_get_psk",
        "_destroyed",
        "_extra",
        "_frozen",
        "_is_adopted",
        "_psk_identity_hint",
        "_require_alpn",
        "_server_get_psk",
        "_session_cache",
        "_session_id_context",
    )

    def __init__(self, *, adopted: bool, sessions: SessionCache | None) -> None:
        self._is_adopted = adopted
        self._frozen = False
        self._destroyed = False
        self._extra: dict[int, object] = {}
        self._session_cache = sessions
        self._session_id_context = ""
        self._psk_identity_hint = ""
        self._client_get_psk: ClientGetPsk | None = None
        self._server_get_psk: ServerGetPsk | None = None
        self._require_alpn = False

    @property
    def session_id_context(self) -> str:
        """The name that a server's sessions are bound to, 1 to 32 bytes; ``""`` if it is not set.

        Set it for servers that share the keys of their tickets: a session is only resumed where this name is the same.
        Python has a default of its own.

        Raises:
            NotImplementedError: (when set) this interpreter cannot do it.
            RuntimeError: (when set) the context is in use, or adopted.
            ValueError: (when set) the value is empty or too long.
        """
        return self._session_id_context

    @session_id_context.setter
    def session_id_context(self, value: str) -> None:
        if not short_text("session_id_context", value, _MAX_ID_CONTEXT):
            raise ValueError(
                "session_id_context is empty; with client certificates, each resumption would fail"
            )
        self._require_own()
        _require_bridge()
        self._require_unfrozen()
        self._session_id_context = value

    @property
    def psk_identity_hint(self) -> str:
        """The hint by which TLS 1.2 clients of a server choose their key, at most 255 bytes; ``""`` for no hint."""
        return self._psk_identity_hint

    @psk_identity_hint.setter
    def psk_identity_hint(self, value: str) -> None:
        short_text("psk_identity_hint", value, _MAX_HINT)
        self._require_own()
        self._require_unfrozen()
        self._psk_identity_hint = value

    @property
    def client_get_psk(self) -> ClientGetPsk | None:
        """The callback for the pre-shared key of a client: ``(hint: str | None) -> (identity: str, psk: bytes)``.

        It may be called twice for one handshake (without a hint for TLS 1.3, with it for TLS 1.2). If it is set, only
        servers that know the key are accepted. Its exception is the ``__cause__`` of the handshake's error.

        Raises:
            NotImplementedError: (when set) this interpreter cannot do it.
            RuntimeError: (when set) the context is in use, or adopted.
        """
        return self._client_get_psk

    @client_get_psk.setter
    def client_get_psk(self, value: ClientGetPsk | None) -> None:
        self._require_psk("client_get_psk", value)
        self._client_get_psk = value

    @property
    def server_get_psk(self) -> ServerGetPsk | None:
        """The callback for the pre-shared key of a server's client: ``(identity: str) -> bytes``, ``b""`` refuses.

        The identity is unverified input from the network until the handshake is done. If this is set, the server sends
        no session tickets.

        Raises:
            NotImplementedError: (when set) this interpreter cannot do it.
            RuntimeError: (when set) the context is in use, or adopted.
        """
        return self._server_get_psk

    @server_get_psk.setter
    def server_get_psk(self, value: ServerGetPsk | None) -> None:
        self._require_psk("server_get_psk", value)
        self._server_get_psk = value

    @property
    def require_alpn(self) -> bool:
        """Whether a handshake fails if no protocol of ``alpn`` is negotiated. False by default."""
        return self._require_alpn

    @require_alpn.setter
    def require_alpn(self, value: bool) -> None:
        require("require_alpn", value, bool)
        self._require_unfrozen()
        self._require_alpn = value

    @property
    def session_cache(self) -> SessionCache | None:
        """The cache of client sessions, which ``connect`` and ``dial`` resume. None switches resumption off."""
        return self._session_cache

    @session_cache.setter
    def session_cache(self, value: SessionCache | None) -> None:
        if value is not None:
            require("session_cache", value, SessionCache)
        self._require_unfrozen()
        self._session_cache = value

    def get_extra_data(self, index: int) -> object:
        """Return the object stored under ``index``; None if there is none.

        Raises:
            TypeError: ``index`` is not an ``int``.
            ClosedError: the context was destroyed.
        """
        require("index", index, int)
        self._require_alive()
        return self._extra.get(index)

    def set_extra_data(self, index: int, value: object) -> None:
        """Store any object under a number, until the context is destroyed. Allowed after the first use too.

        Raises:
            TypeError: ``index`` is not an ``int``.
            ClosedError: the context was destroyed.
        """
        require("index", index, int)
        self._require_alive()
        self._extra[index] = value

    def _require_alive(self) -> None:
        if self._destroyed:
            raise ClosedError("the SslContext was destroyed")

    def _require_own(self) -> None:
        if self._is_adopted:
            raise RuntimeError(
                "an adopted ssl.SSLContext is used unchanged; this can only be set on a context made by SslContext(...)"
            )

    def _require_unfrozen(self) -> None:
        self._require_alive()
        if self._frozen:
            raise RuntimeError("the SslContext is in use and cannot be changed; make another one")

    def _require_psk(self, name: str, value: Callable[..., object] | None) -> None:
        require_callable(name, value)
        self._require_own()
        if value is not None:
            from . import _psk

            _psk.require_available()
        self._require_unfrozen()


def _require_bridge() -> None:
    from . import _openssl

    if not _openssl.available():
        raise NotImplementedError(f"this interpreter cannot set a session id context: {_openssl.why_not()}")
