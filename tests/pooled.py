"""What the tests of pools put into them."""

from __future__ import annotations

import gc
from operator import length_hint
from typing import Any

from wireline._pool import PoolCore

__all__ = ["Item", "conserved"]


class Item:
    """A connection that only counts.

    Attributes:
        is_closed: as of a socket.
        closes: how often ``close`` was called.
    """

    def __init__(self, name: object = None) -> None:
        self.name = name
        self.is_closed = False
        self.closes = 0

    def close(self) -> None:
        self.is_closed = True
        self.closes += 1

    def __repr__(self) -> str:
        return f"Item({self.name!r})"


def conserved(core: PoolCore[Any], *, in_use: int = 0) -> None:
    """Fail unless every entry is there, nothing waits and no other item is in use."""
    gc.collect()
    stats = core.stats()
    assert (stats.in_use, stats.waiting) == (in_use, 0), stats
    assert len(core._watched) == in_use
    assert len(core._idle) + len(core._vacant) + length_hint(core._unmade) + in_use == core._limits.max_size
