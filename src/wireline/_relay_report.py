"""The result of ``relay``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RelayReport"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RelayReport:
    """The result of ``relay``. A byte counts as sent when the operating system has accepted it."""

    a_to_b: int
    """Bytes that were received from ``a`` and sent to ``b``."""
    b_to_a: int
    """Bytes that were received from ``b`` and sent to ``a``."""
    seconds: float
    """The duration of the call."""
    reason: Literal["end", "idle", "reset"]
    """``"end"``: both sides have ended their streams. ``"idle"``: no byte moved for ``idle_timeout`` or
    ``half_close_timeout``. ``"reset"``: a connection broke, or a TLS connection ended without ``close_notify``."""
    failed: Literal["a", "b"] | None = None
    """With the reason ``"reset"``, the side whose connection broke; else None."""
    error: OSError | None = None
    """The error of that connection; else None."""
