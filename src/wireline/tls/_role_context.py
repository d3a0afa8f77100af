"""The configuration of one role of an ``SslContext``, as the connections of that role use it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from ._sessions import SessionCache

__all__ = ["RoleContext"]


@dataclass(frozen=True, slots=True)
class RoleContext:
    """What a context decided for the connections of one of its two roles."""

    context: ssl.SSLContext
    server: bool
    ragged_eof: bool = False
    require_alpn: bool = False
    alpn: tuple[str, ...] = ()
    psk: bool = False
    session_id_context: bytes = b""
    sessions: SessionCache | None = None
    select_context: Callable[[str | None], RoleContext | None] | None = None
