"""Copy the docstrings of the blocking flavour to their twins in the async one.

The two flavours have the same methods with the same promises, so they have the same text. Each class carries its text
itself, where an editor finds it; ``tests/test_twins.py`` compares the two. After a change to a docstring in
``wireline.net``:

    python tools/docstrings.py            write the text into ``wireline.asyncnet``
    python tools/docstrings.py --check    exit with 1, and name the methods whose text differs
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[1] / "src" / "wireline"
FILES = ("_dial.py", "_pool.py", "_relay.py", "_serve.py", "_socket.py", "_systemd.py")
"""The files with the public names. Other files of the flavours have docstrings of their own."""

RENAMED = {"Socket": "AsyncSocket"}
"""Classes that have another name in the async flavour."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Text(NamedTuple):
    """A docstring as it is written: its lines, and where they are."""

    file: Path
    name: str
    first: int
    lines: list[str]


def docstrings(package: str) -> Iterator[Text]:
    """Find the docstring of every public method and function of a flavour."""
    for file in (SOURCE / package / name for name in FILES):
        text = file.read_text()
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                owner = next((ours for ours, theirs in RENAMED.items() if theirs == node.name), node.name)
                for member in node.body:
                    if isinstance(member, Function) and not member.name.startswith("_"):
                        yield from _docstring(file, f"{owner}.{member.name}", member, lines)
            elif isinstance(node, Function) and not node.name.startswith("_"):
                yield from _docstring(file, node.name, node, lines)


def _docstring(file: Path, name: str, node: Function, lines: list[str]) -> Iterator[Text]:
    if ast.get_docstring(node, clean=False) is not None:
        first, last = node.body[0].lineno, node.body[0].end_lineno
        yield Text(file, name, first - 1, lines[first - 1 : last])


def main() -> int:
    """Compare, and write unless there is ``--check``."""
    wanted = {text.name: text for text in docstrings("net")}
    differing = [
        text
        for text in docstrings("asyncnet")
        if text.name in wanted and text.lines != wanted[text.name].lines
    ]
    for text in differing:
        print(f"{text.file.relative_to(SOURCE.parents[1])}: {text.name}")
    if "--check" in sys.argv[1:]:
        return 1 if differing else 0
    for text in sorted(
        differing, key=lambda each: -each.first
    ):  # from the end, so that line numbers stay true
        lines = text.file.read_text().splitlines()
        lines[text.first : text.first + len(text.lines)] = wanted[text.name].lines
        text.file.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
