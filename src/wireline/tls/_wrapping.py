"""What a socket has to have to be wrapped. The rooms of the sockets are above this one: nothing of them is imported."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

    from ._context import SslContext

__all__ = ["AsyncUpgradable", "Upgradable", "Wrappable", "require_method"]


class Wrappable(Protocol):
    """A socket of either flavour."""

    def _wrap(self, context: SslContext, hostname: str) -> None: ...


class Upgradable(Protocol):
    """A ``wireline.net.Socket``."""

    _buffered: bool

    def _upgrade(self, secure: TlsCore, timeout: float | None, leftover: str) -> None: ...


class AsyncUpgradable(Protocol):
    """A ``wireline.asyncnet.AsyncSocket``."""

    _buffered: bool

    async def _upgrade(self, secure: TlsCore, timeout: float | None, leftover: str) -> None: ...


def require_method(sock: object, name: str, *, awaited: bool) -> None:
    """Refuse what is no socket of ours, or of the other flavour."""
    method = getattr(type(sock), name, None)
    if method is None:
        raise TypeError(f"a socket of wireline.net or wireline.asyncnet is needed, not {type(sock).__name__}")
    if inspect.iscoroutinefunction(method) != awaited:
        other = "wrap_connected_socket" if awaited else "wrap_connected_async"
        raise TypeError(f"a {type(sock).__name__} is wrapped by {other}")
