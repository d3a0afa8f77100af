"""The bytes that a connection has carried. Loaded when ``stats`` is first used: it needs ``dataclasses``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SocketStats"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SocketStats:
    """The bytes that a socket has carried, in the moment of the question."""

    bytes_received: int
    """Payload that the network gave, read by the program or not. ``PEEK`` and ``unread`` do not count."""
    bytes_sent: int
    """Payload that the sending calls have sent, as ``last_bytes_sent`` counts it."""
    wire_bytes_received: int
    """Bytes that the operating system gave: over TLS the encrypted ones, with the handshake."""
    wire_bytes_sent: int
    """Bytes that the operating system took: over TLS the encrypted ones, with the handshake."""
    opened_at: float | None
    """When the socket was connected, accepted or taken over (``time.monotonic()``); None if it is not connected."""
