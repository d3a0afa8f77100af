"""The methods that a socket must have to be wrapped.

The packages of the sockets are above this one in the layers, so they are not imported. Their methods called here are
private because users must call those of ``SslContext``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore
    from wireline._validation import Leftover
    from wireline.timing import Timeout

    from ._context import SslContext

__all__ = ["AsyncUpgradable", "Upgradable", "Wrappable", "require_method"]


class Wrappable(Protocol):
    """A socket of either flavour."""

    def _wrap(self, context: SslContext, hostname: str) -> None: ...


class Upgradable(Protocol):
    """A ``wireline.net.Socket``."""

    def _upgrade(self, tls_core: TlsCore, timeout: Timeout, operation: str, leftover: Leftover) -> None: ...


class AsyncUpgradable(Protocol):
    """A ``wireline.asyncnet.AsyncSocket``."""

    async def _upgrade(
        self, tls_core: TlsCore, timeout: Timeout, operation: str, leftover: Leftover
    ) -> None: ...


def require_method(sock: object, name: str, *, awaited: bool) -> None:
    """Check that ``sock`` is a socket of this library, and that its method ``name`` is a coroutine or not.

    Raises:
        TypeError: it is another object, or a socket of the other flavour.
    """
    method = getattr(type(sock), name, None)
    if method is None:
        raise TypeError(f"sock is a socket of wireline.net or wireline.asyncnet, not {type(sock).__name__}")
    if inspect.iscoroutinefunction(method) != awaited:
        other = "wrap_connected_socket" if awaited else "wrap_connected_async"
        raise TypeError(f"a {type(sock).__name__} is wrapped by {other}")
