"""Which process is running: how what was made before a fork is told from what was made after it.

A forked child has copies of the parent's objects and shares the parent's descriptors. An object that must not act on
such a descriptor keeps the epoch of the process that owns it, and compares.
"""

from __future__ import annotations

import os

__all__ = ["process"]


class Process:
    """The running process.

    Attributes:
        epoch: an object that a forked child replaces. Whatever kept the one of before belongs to the parent.
    """

    __slots__ = ("epoch",)

    def __init__(self) -> None:
        self.epoch = object()


process = Process()


def _in_child() -> None:
    process.epoch = object()


if hasattr(os, "register_at_fork"):
    # Registered when the lowest layer is imported, and so run before every other hook of this library.
    os.register_at_fork(after_in_child=_in_child)
