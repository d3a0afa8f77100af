"""The counts of a server. Loaded when ``Server.stats`` is first used: it needs ``dataclasses``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServerStats"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStats:
    """The counts of a server since it was started."""

    accepted: int
    """Connections that were accepted, without those that were refused."""
    refused: int
    """Connections that were closed at once, because of ``max_per_address``, or with ``on_full="refuse"``."""
    handshakes_failed: int
    """Connections that ended in their TLS handshake."""
    open: int
    """Connections that are being served."""
    bytes_received: int
    """Bytes of payload received from all clients, closed connections included."""
    bytes_sent: int
    """Bytes of payload sent to all clients, closed connections included."""
