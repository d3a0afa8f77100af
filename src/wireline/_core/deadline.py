"""Arithmetic on a timeout and a given "now". The clock is the caller's."""

from __future__ import annotations

__all__ = ["FOREVER", "Deadline", "check_timeout"]

# A century. The system calls and locks that wait take less than three (`threading.TIMEOUT_MAX`).
FOREVER = 100 * 365.25 * 24 * 3600
"""Seconds. A timeout that is longer is none at all."""


def check_timeout(timeout: float | None) -> float | None:
    """Return ``timeout`` as seconds, or None for "wait forever" (``None``, infinity, or more than a century).

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not a number (NaN).
    """
    if timeout is None:
        return None
    if (type(timeout) is float or type(timeout) is int) and 0 <= timeout <= FOREVER:
        return timeout  # as nearly always, for half of what all the questions take
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is seconds (int, float) or None, not {type(timeout).__name__}")
    if not timeout >= 0:  # NaN is not >= 0 either
        raise ValueError(f"timeout must not be negative, got {timeout!r}")
    return None if timeout > FOREVER else timeout


class Deadline:
    """The moment at which a call must be done.

    Attributes:
        seconds: the timeout it was made from.
        at: the moment, on the caller's clock.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self.at = now + seconds

    def remaining(self, now: float) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self.at - now)

    def passed(self, now: float) -> bool:
        """Whether no time is left."""
        return now >= self.at
