"""The configuration of one role of an ``SslContext``, as the connections of that role use it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from ._pins import Pins
from ._sessions import SessionCache

__all__ = ["RoleContext"]


@dataclass(frozen=True, slots=True)
class RoleContext:
    """The frozen configuration of a client or of a server.

    Attributes:
        context: the ``ssl.SSLContext`` of this role.
        server: this is the server's role.
        ragged_eof: the end of the TCP stream ends the TLS stream cleanly.
        require_alpn: a handshake without a common protocol fails.
        alpn: the protocols that are offered, in order of preference.
        psk: the role has a PSK callback.
        session_id_context: of a server's connections; ``b""`` leaves that of ``ssl``.
        sessions: the cache of a client; None if it resumes nothing.
        pins: of which the peer's chain must have one.
        select_context: the ``server_name_callback`` of a server; returns the role to switch to, None to stay.
    """

    context: ssl.SSLContext
    server: bool
    ragged_eof: bool = False
    require_alpn: bool = False
    alpn: tuple[str, ...] = ()
    psk: bool = False
    session_id_context: bytes = b""
    sessions: SessionCache | None = None
    pins: Pins | None = None
    select_context: Callable[[str | None], RoleContext | None] | None = None
