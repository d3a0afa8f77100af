"""The former base class of sockets that may speak TLS: the async flavour still names it."""

from __future__ import annotations

from wireline._socket_base import BaseSocket as SecureSocket

__all__ = ["SecureSocket"]
