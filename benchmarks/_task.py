"""The task of a contestant, in numbers: its place in a plot and in the table of growth."""

from __future__ import annotations

from typing import NamedTuple


class Task(NamedTuple):
    """A work, whichever kind it is; None where there is no such number."""

    what: str
    """``echo``, ``lines``, ``connect``, ``read lines``, ``send`` and so on."""
    connections: int | None
    """At once."""
    bytes: int | None
    """Of one message."""
    outstanding: int | None
    """Messages in flight on each connection; None where they are sent as fast as they are taken."""
    tls: bool = False


class Doer(NamedTuple):
    """A program and its task."""

    program: str
    """Several contestants are the same program, at different works."""
    work: Task
