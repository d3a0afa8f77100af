"""The bytes that a connection has carried. Loaded when ``stats`` is first used: it needs ``dataclasses``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SocketStats"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SocketStats:
    """The numbers of bytes that a socket has received and sent so far."""

    bytes_received: int
    """Payload that was received, whether the program has read it or not. ``PEEK`` and ``unread`` do not count."""
    bytes_sent: int
    """Payload that the sending calls have sent, as ``last_bytes_sent`` counts it."""
    wire_bytes_received: int
    """Bytes received from the operating system: over TLS the encrypted ones, with the handshake."""
    wire_bytes_sent: int
    """Bytes that the operating system has accepted: over TLS the encrypted ones, with the handshake."""
    opened_at: float | None
    """When the socket was connected, accepted or taken over (``time.monotonic()``); None if it is not connected."""
