"""Clients of a TLS listener that ``try_accept_addr``, which never waits, has accepted: they are in their handshake."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from wireline._sansio.stream import StreamCore
from wireline.address import Address

if TYPE_CHECKING:
    from wireline._sansio.tlsstream import TlsCore

__all__ = ["Guests"]

# Seconds that a client has for its handshake. A guess: that of `serve`, where it can be told.
_PATIENCE = 10.0


class Client(Protocol):
    """What is asked of a client's socket."""

    def _hold(self, operation: str) -> StreamCore: ...
    def _begin_upgrade(self, secure: TlsCore, plain: StreamCore, leftover: str) -> None: ...
    def _step_handshake(self, secure: TlsCore) -> bool: ...
    def _published(self) -> None: ...
    def close(self) -> None: ...


C = TypeVar("C", bound=Client)


class _Guest(NamedTuple, Generic[C]):
    client: C
    address: Address
    secure: TlsCore
    until: float


class Guests(Generic[C]):
    """Those who have come, and cannot be handed out yet."""

    def __init__(self) -> None:
        self._waiting: deque[_Guest[C]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, client: C, address: Address, secure: TlsCore) -> None:
        """Begin a handshake with a client. It is closed if that fails or takes too long."""
        client._begin_upgrade(secure, client._hold("accept"), "refuse")
        self._waiting.append(_Guest(client, address, secure, time.monotonic() + _PATIENCE))

    def ready(self) -> tuple[C, Address] | None:
        """Go on with every handshake as far as that is possible now; the first client whose handshake is done."""
        for _ in range(len(self._waiting)):
            guest = self._waiting.popleft()
            try:
                done = guest.client._step_handshake(guest.secure)
            except OSError:
                _send_away(guest.client)  # nobody waits for the reason; the next may be better
                continue
            if done:
                guest.client._published()
                return guest.client, guest.address
            if time.monotonic() < guest.until:
                self._waiting.append(guest)
            else:
                _send_away(guest.client)
        return None

    def close(self) -> None:
        """Send everybody away."""
        while self._waiting:
            _send_away(self._waiting.popleft().client)


def _send_away(client: Client) -> None:
    """Close a client, and release its core and turn: in the blocking flavour the last user closes the descriptor."""
    client.close()
    client._published()
