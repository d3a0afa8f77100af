"""Docstrings: which lines of them are code, and ``await`` and ``async`` there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from wireline.cli.twin._context import Context
from wireline.cli.twin._python import Token

_WAITING = re.compile(r"\b(?:await|async) +(?=[\w(\[{])")
_PROMPTS = (">>> ", "... ")
_FENCE = "```"


def rewrite_docstring(each: Token, context: Context) -> None:
    """Replace names everywhere, and remove ``await`` and ``async`` in code."""
    context.replace_prose(each.start, each.end)
    for start, end in code_lines(each.text, context.text.column_of(each.start) - 1):
        for found in _WAITING.finditer(each.text, start, end):
            context.edits.replace(each.start + found.start(), each.start + found.end(), "")


def code_lines(literal: str, indent: int) -> Iterator[tuple[int, int]]:
    """Where the lines of code are: those after ``::``, between fences, and those of a dialogue with Python.

    Args:
        literal: the docstring with its quotes.
        indent: the column in which it begins.
    """
    block: int | None = None  # the indent of the line with the colons, whose block is deeper
    is_fenced = False
    start = 0
    for line in literal.splitlines(keepends=True):
        text = line.strip()
        depth = len(line) - len(line.lstrip()) if start else indent
        if text.startswith(_FENCE):
            is_fenced = not is_fenced
        elif is_fenced or text.startswith(_PROMPTS) or (block is not None and depth > block):
            yield start, start + len(line)
        elif text:
            block = depth if text.endswith("::") else None
        start += len(line)
