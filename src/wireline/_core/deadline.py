"""Arithmetic on a timeout and a given "now". The clock is the caller's, or that of a ``Deadline``."""

from __future__ import annotations

from wireline.timing import FOREVER, Deadline, Timeout, check_seconds

__all__ = ["FOREVER", "CallDeadline", "check_timeout"]


def check_timeout(timeout: Timeout) -> float | None:
    """Return ``timeout`` as seconds, or None for "wait forever" (``None``, infinity, or more than a century).

    A ``Deadline`` gives the seconds that are left.

    Raises:
        TypeError: it is neither a number nor a ``Deadline``.
        ValueError: it is negative or not a number (NaN).
    """
    if timeout is None:
        return None
    if (type(timeout) is float or type(timeout) is int) and 0 <= timeout <= FOREVER:
        return timeout  # as nearly always, for half of what all the questions take
    if isinstance(timeout, Deadline):
        timeout = timeout.remaining()
    return check_seconds("timeout", timeout)


class CallDeadline:
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
