"""The result of ``relay``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RelayReport"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RelayReport:
    """What ``relay`` has done. All bytes of which it says that they were sent are in the hands of the system."""

    a_to_b: int
    """Bytes that were received from ``a`` and sent to ``b``."""
    b_to_a: int
    """Bytes that were received from ``b`` and sent to ``a``."""
    seconds: float
    """The duration."""
    reason: Literal["end", "idle", "reset"]
    """``"end"``: both sides have ended their streams. ``"idle"``: no byte moved for the given time. ``"reset"``: a
    connection broke, or ended without TLS's ``close_notify``."""
    failed: Literal["a", "b"] | None = None
    """The side whose connection broke."""
    error: OSError | None = None
    """Its error."""
