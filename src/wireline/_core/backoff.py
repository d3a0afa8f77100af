"""What a server does when it has run out of descriptors or memory: try less often, and say so, but not too often.

The steps are those of Go's ``net/http`` server: 5 ms, doubling to 1 s.
"""

from __future__ import annotations

import math

from wireline.timing import Backoff

__all__ = ["AcceptBackoff"]

_FIRST, _LONGEST = 0.005, 1.0
_SECONDS_BETWEEN_REPORTS = 1.0


class AcceptBackoff:
    """Counts failures in a row."""

    __slots__ = ("_delays", "_reported", "_unreported")

    def __init__(self) -> None:
        self._delays = Backoff(_FIRST, _LONGEST, jitter=0)
        self._reported = -math.inf
        self._unreported = 0

    def failed(self, now: float) -> tuple[float, int]:
        """Note a failure.

        Returns:
            The seconds to wait before the next try, and how many failures to report now: 0 when the last
            report was less than a second ago, else all those since.
        """
        delay = next(self._delays)
        self._unreported += 1
        if now - self._reported < _SECONDS_BETWEEN_REPORTS:
            return delay, 0
        self._reported = now
        count, self._unreported = self._unreported, 0
        return delay, count

    def succeeded(self) -> None:
        """Start again with the shortest delay."""
        self._delays.reset()
