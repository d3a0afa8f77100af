"""Limits and delays in seconds: ``Deadline`` for several calls together, ``Backoff`` between tries."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, Self

__all__ = ["Backoff", "Deadline", "Timeout"]

# A century. The system calls and locks that wait take less than three (`threading.TIMEOUT_MAX`).
FOREVER = 100 * 365.25 * 24 * 3600
"""Seconds. A timeout that is longer is none at all."""


def check_seconds(name: str, seconds: object) -> float | None:
    """Return a duration, or None for "without limit" (``None``, infinity, or more than a century).

    Args:
        name: of the argument.
        seconds: the argument.

    Raises:
        TypeError: it is not a number. A ``bool`` is always a mistake.
        ValueError: it is negative or not a number (NaN).
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is seconds (int, float) or None, not {type(seconds).__name__}")
    if not seconds >= 0:  # NaN is not >= 0 either
        raise ValueError(f"{name} must not be negative, got {seconds!r}")
    return None if seconds > FOREVER else seconds


def trio_if_it_runs() -> Any:
    """Return ``trio.lowlevel`` in a task of trio, else None. A program that has not imported trio pays nothing."""
    lowlevel = sys.modules.get("trio.lowlevel")
    in_trio_task = getattr(
        lowlevel, "in_trio_task", None
    )  # another thread may be importing it in this moment
    return lowlevel if in_trio_task is not None and in_trio_task() else None


def running_clock() -> Callable[[], float]:
    """Return ``time.monotonic``, or in a task of trio the clock of the run. Any thread may call it at any time."""
    trio = trio_if_it_runs()
    clock: Callable[[], float] = time.monotonic if trio is None else trio.current_clock().current_time
    return clock


class Deadline:
    """One time limit for several calls, to be given wherever a ``timeout`` may stand.

    Each call may take the time that is left. After the deadline a call behaves as with ``timeout=0``. A deadline never
    changes, so threads may share it, and it is equal only to itself. It is on the clock of ``time.monotonic``, or under
    trio on the clock of the run, which another process need not share, so it cannot be pickled.
    """

    __slots__ = ("_at", "_now")

    def __init__(self, seconds: Timeout) -> None:
        """Start the time.

        Args:
            seconds: from now; None means no limit. Another ``Deadline`` gives the same moment: a function with a
                ``timeout`` of its own makes a ``Deadline`` of it, whichever kind it was given.

        Raises:
            TypeError, ValueError: ``seconds`` is not a number, or is negative.
        """
        if isinstance(seconds, Deadline):
            self._now: Callable[[], float] = seconds._now
            self._at: float = seconds._at
        else:
            checked = check_seconds("seconds", seconds)
            self._now = running_clock()
            self._at = math.inf if checked is None else self._now() + checked

    def remaining(self) -> float:
        """Return the seconds that are left: 0.0 after the deadline, ``inf`` without a limit."""
        return max(0.0, self._at - self._now())

    def expired(self) -> bool:
        """Whether no time is left."""
        return self._now() >= self._at

    def __repr__(self) -> str:
        if self._at == math.inf:
            return "<wireline.Deadline, no limit>"
        remaining = self.remaining()
        return f"<wireline.Deadline, {f'{remaining:.3f} s left' if remaining else 'expired'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Deadline cannot be pickled: send remaining() and make a new one")


Timeout = float | Deadline | None
"""The type of a ``timeout``: seconds, the rest of a ``Deadline``, or None for no limit."""


class Backoff:
    """An iterator of delays in seconds that grow from failure to failure, for loops that reconnect.

    The delays grow from ``first`` by ``factor`` to ``limit``, and stay there; the iterator has no end. Each delay is
    shortened by a random part, at most ``jitter`` of it, so that the clients of a server that has failed do not return
    at the same moment. No delay is longer than ``limit``. Each loop has a ``Backoff`` of its own.
    """

    __slots__ = ("_factor", "_first", "_jitter", "_limit", "_next", "_random")

    def __init__(
        self,
        first: float = 0.05,
        limit: float = 30.0,
        factor: float = 2.0,
        jitter: float = 0.2,
        *,
        random: Callable[[], float] | None = None,
    ) -> None:
        """Set the rule.

        Args:
            first: the first delay in seconds, more than 0.
            limit: the longest delay in seconds, at least ``first``.
            factor: each delay is this many times the one before, before the jitter; at least 1.
            jitter: the part of a delay, 0 to 1, that chance may take away.
            random: returns numbers from 0 to 1; by default ``random.random``.

        Raises:
            TypeError: an argument is not a number, or ``random`` is not callable.
            ValueError: an argument is out of range, infinite or NaN.
        """
        self._first = _check_number("first", first, 0.0, "more than 0")
        self._limit = _check_number("limit", limit, 0.0, "more than 0")
        if limit < first:
            raise ValueError(f"limit must be at least first, got {limit!r} and {first!r}")
        self._factor = _check_number("factor", factor, 1.0, "at least 1", inclusive=True)
        self._jitter = _check_number("jitter", jitter, 0.0, "0 to 1", inclusive=True)
        if jitter > 1:
            raise ValueError(f"jitter must be 0 to 1, got {jitter!r}")
        if random is None:
            random = _default_random() if jitter else float
        elif not callable(random):
            raise TypeError(f"random must be callable without arguments, got {random!r}")
        self._random = random
        self._next = self._first

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> float:
        """Return the next delay in seconds."""
        delay = self._next
        self._next = min(delay * self._factor, self._limit)
        return delay * (1.0 - self._jitter * self._random())

    def reset(self) -> None:
        """Start again with the shortest delay: the connection works."""
        self._next = self._first

    def __repr__(self) -> str:
        return (
            f"wireline.Backoff(first={self._first:g}, limit={self._limit:g}, factor={self._factor:g}, "
            f"jitter={self._jitter:g})"
        )


def _default_random() -> Callable[[], float]:
    # Imported late: it takes a millisecond and 80 KB, and few programs need it.
    from random import random

    return random


def _check_number(name: str, value: object, least: float, allowed: str, *, inclusive: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number (int, float), not {type(value).__name__}")
    if not math.isfinite(value) or value < least or (value == least and not inclusive):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return float(value)
