"""Numbers as they are written in names and tables."""

from __future__ import annotations


def in_bytes(size: int) -> str:
    """A size: ``64 KiB``."""
    for unit, suffix in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {suffix}"
    return f"{size} B"


def in_microseconds(seconds: float) -> str:
    """A time, with as many places as tell something."""
    return f"{1e6 * seconds:,.{3 if abs(seconds) < 1e-6 else 2 if abs(seconds) < 1e-4 else 0}f}"


def in_short(rate: float) -> str:
    """So many a second: ``14.01 k``."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.2f} {suffix}" if rate < 100 * size else f"{rate / size:.0f} {suffix}"
    return f"{rate:.1f}"
