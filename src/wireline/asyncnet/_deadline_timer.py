"""One timer for all the timeouts of a waiter, or of a queue."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wireline.asyncnet._port import Port, Timer

__all__ = ["DeadlineTimer"]


class DeadlineTimer:
    """A timer that is set for the earliest deadline, and is moved only when it goes off.

    So a timeout that never fires makes no timer: when the timer goes off, its owner cancels it, wakes the tasks whose
    time is up, and arms it for the earliest deadline that is left. (It has no reference to its owner, which would be a
    reference cycle for each connection.)

    Attributes:
        at: when it goes off; ``inf`` is never.
    """

    __slots__ = ("_handle", "at")

    def __init__(self) -> None:
        self._handle: Timer | None = None
        self.at = math.inf

    @property
    def is_armed(self) -> bool:
        return self._handle is not None

    def arm(self, port: Port, at: float, go_off: Callable[[], object]) -> None:
        """Call ``go_off`` when the loop's clock shows ``at``, if no earlier call is due."""
        if at < self.at:
            self.cancel()
            self.at = at  # a handle of uvloop may not know
            self._handle = port.call_at(at, go_off)

    def cancel(self) -> None:
        self.at = math.inf
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()
