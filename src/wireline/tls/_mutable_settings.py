"""What may be set on a context after it was made, until it is first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wireline.errors import ClosedError

from ._sessions import SessionCache
from ._tls_options import require, require_callable, short_text

if TYPE_CHECKING:
    from ._psk import ClientGetPsk, ServerGetPsk

__all__ = ["MutableSettings"]

_LONGEST_ID_CONTEXT = 32  # bytes: SSL_MAX_SID_CTX_LENGTH
_LONGEST_HINT = 255  # bytes: as for an identity, PSK_MAX_IDENTITY_LEN is 256 with the NUL


class MutableSettings:
    """The settings of a context. The first use freezes them: to change one then is a ``RuntimeError``."""

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
        """What a server's sessions are bound to, at most 32 bytes; ``""`` if it was not set.

        Python sets one of its own: this is for servers that share tickets, or are to refuse those of others. To set it
        is a ``NotImplementedError`` where this interpreter cannot do it, a ``ValueError`` if it is too long or empty.
        """
        return self._session_id_context

    @session_id_context.setter
    def session_id_context(self, value: str) -> None:
        if not short_text("session_id_context", value, _LONGEST_ID_CONTEXT):
            raise ValueError(
                "session_id_context is empty: resuming a verified client would fail the handshake"
            )
        self._require_own()
        _require_bridge()
        self._change()
        self._session_id_context = value

    @property
    def psk_identity_hint(self) -> str:
        """What a server tells TLS 1.2 clients so that they can choose a key, at most 255 bytes; ``""`` for nothing."""
        return self._psk_identity_hint

    @psk_identity_hint.setter
    def psk_identity_hint(self, value: str) -> None:
        short_text("psk_identity_hint", value, _LONGEST_HINT)
        self._require_own()
        self._change()
        self._psk_identity_hint = value

    @property
    def client_get_psk(self) -> ClientGetPsk | None:
        """How a client gets its pre-shared key: ``(hint: str | None) -> (identity: str, psk: bytes)``.

        It may be called twice for one handshake (without a hint for TLS 1.3, with it for TLS 1.2). A context that has
        it accepts only servers that know the key. What it raises is the ``__cause__`` of the handshake's error.
        To set it is a ``NotImplementedError`` where this interpreter cannot do it.
        """
        return self._client_get_psk

    @client_get_psk.setter
    def client_get_psk(self, value: ClientGetPsk | None) -> None:
        self._require_psk("client_get_psk", value)
        self._client_get_psk = value

    @property
    def server_get_psk(self) -> ServerGetPsk | None:
        """How a server gets the pre-shared key of a client: ``(identity: str) -> bytes``, ``b""`` refuses.

        The identity is what a stranger claims, and proved only by the handshake. A context that has this issues no
        tickets. To set it is a ``NotImplementedError`` where this interpreter cannot do it.
        """
        return self._server_get_psk

    @server_get_psk.setter
    def server_get_psk(self, value: ServerGetPsk | None) -> None:
        self._require_psk("server_get_psk", value)
        self._server_get_psk = value

    @property
    def require_alpn(self) -> bool:
        """Whether a handshake fails that agrees on none of the protocols in ``alpn``. False at first."""
        return self._require_alpn

    @require_alpn.setter
    def require_alpn(self, value: bool) -> None:
        require("require_alpn", value, bool)
        self._change()
        self._require_alpn = value

    @property
    def session_cache(self) -> SessionCache | None:
        """The sessions of clients: ``connect`` and ``dial`` resume them by themselves. None: none are kept."""
        return self._session_cache

    @session_cache.setter
    def session_cache(self, value: SessionCache | None) -> None:
        if value is not None:
            require("session_cache", value, SessionCache)
        self._change()
        self._session_cache = value

    def get_extra_data(self, index: int) -> object:
        """Return what was kept under ``index``; None if nothing was.

        Raises:
            TypeError: ``index`` is no ``int``.
            ClosedError: the context was destroyed.
        """
        require("index", index, int)
        self._require_alive()
        return self._extra.get(index)

    def set_extra_data(self, index: int, value: object) -> None:
        """Keep any object under a number, for as long as the context lives. Not frozen by use.

        Raises:
            TypeError: ``index`` is no ``int``.
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
            raise RuntimeError("an adopted ssl.SSLContext is used as it is; set this on a context of our own")

    def _change(self) -> None:
        self._require_alive()
        if self._frozen:
            raise RuntimeError("the SslContext is in use, and cannot be changed any more; make another one")

    def _require_psk(self, name: str, value: Callable[..., object] | None) -> None:
        require_callable(name, value)
        self._require_own()
        if value is not None:
            from . import _psk

            _psk.require_available()
        self._change()


def _require_bridge() -> None:
    from . import _openssl

    if not _openssl.available():
        raise NotImplementedError(f"this interpreter cannot set a session id context: {_openssl.why_not()}")
