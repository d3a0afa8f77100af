"""Checks of numbers of bytes, or of other things."""

from __future__ import annotations

import operator

__all__ = ["check_count", "check_max_length", "check_size"]


def check_size(size: int, name: str = "size", unit: str = "bytes") -> int:
    """Return ``size`` as an int that is not negative.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is negative.
    """
    if type(size) is not int:
        if isinstance(size, bool):
            raise TypeError(f"{name} is a number of {unit}, not a bool")
        try:
            size = operator.index(size)
        except TypeError:
            raise TypeError(f"{name} is a number of {unit}, not {type(size).__name__}") from None
    if size < 0:
        raise ValueError(f"{name} must not be negative, got {size}")
    return size


def check_max_length(max_length: int) -> int:
    """Return the limit of a line as an int of at least 1.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is less than 1.
    """
    max_length = check_size(max_length, "max_length")
    if max_length < 1:
        raise ValueError("max_length must be at least 1 byte")
    return max_length


def check_count(max_count: int) -> int:
    """Return the most items that a call may return, as an int of at least 1.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is less than 1.
    """
    if type(max_count) is not int:
        raise TypeError(f"max_count is an int, not {type(max_count).__name__}")
    if max_count < 1:
        raise ValueError(f"max_count must be at least 1, got {max_count}")
    return max_count
