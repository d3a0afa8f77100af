"""The comment at the top of a twin. By it a file is known as one that may be replaced."""

from __future__ import annotations

import re
import tokenize

from wireline.cli.twin._python import Piece, Text

_MADE = re.compile(r"^# Made by 'wireline twin' from .+: edit that file\.$", re.MULTILINE)
_STAYS_FIRST = re.compile(r"#!|#.*coding[:=]")
_SEARCHED = 6
"""Lines in which the comment begins: after a line for the shell and one for the encoding."""


def is_made(text: str) -> bool:
    """Whether a text begins as a twin does."""
    return bool(_MADE.search("\n".join(text.split("\n", _SEARCHED)[:_SEARCHED])))


def add(piece: Piece, text: Text, origin: str) -> str:
    """Put the comment at the top, and take as many blank lines away, so that all lines below keep their numbers.

    The formatter and isort leave such a file alone: they would join lines that became shorter.

    Args:
        piece: the twin.
        text: the same.
        origin: the path of the async file, from the directory of the twin.
    """
    lines = text.lines
    first = 0
    while first < 2 and _STAYS_FIRST.match(lines[first] if first < len(lines) else ""):
        first += 1
    head = [
        f"# Made by 'wireline twin' from {origin}: edit that file.",
        "",
        "# isort: skip_file",
        "# fmt: off",
    ]
    free = sorted({text.line_of(each.start) for each in piece.tokens if each.kind == tokenize.NL})
    free = [line for line in free if line > first and not lines[line - 1].strip()][: len(head)]
    last = free[-1] if free else first
    more = len(head) - len(free)
    there = f"N - {more}" if more else "N"
    head[1] = f"# From line {last + 1 + more} on, line N here is line {there} there."
    taken = set(free)
    rest = [line for number, line in enumerate(lines[first:], first + 1) if number not in taken]
    return "\n".join([*lines[:first], *head, *rest])
