"""The imports of a twin: without the names that only the async file needed, and with the modules that it needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from itertools import zip_longest
from typing import NamedTuple

from wireline.cli.twin import _names
from wireline.cli.twin._edits import Edits
from wireline.cli.twin._python import Piece, Text

_Import = ast.Import | ast.ImportFrom
_WORD = re.compile(r"[^\W\d]\w*")
_LIKE_ANNOTATION = re.compile(r"[\w.\[\]]+(?:(?:, ?| \| )[\w.\[\]]+)*")
_DIGITS = re.compile(r"(\d+)")


class Change(NamedTuple):
    """What the imports have to be changed for.

    Attributes:
        unused: names that the async file used, and the twin does not use.
        modules: modules that the twin needs and does not import yet.
        unsorted: lines of the imports whose names were not sorted.
    """

    unused: Collection[str]
    modules: list[str]
    unsorted: Collection[int]


def used_names(piece: Piece) -> set[str]:
    """The names that a file uses. A string that is a name, or an annotation, uses names, too."""
    used = set()
    for node in ast.walk(piece.tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            used.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.update(_WORD.findall(node.value) if _LIKE_ANNOTATION.fullmatch(node.value) else ())
    for each in piece.tokens:
        if each.text.startswith("# type:"):
            used.update(_WORD.findall(each.text))
    return used


def imports(piece: Piece) -> Iterator[_Import]:
    """The statements that import something, but for those of ``__future__``."""
    for node in ast.walk(piece.tree):
        if isinstance(node, _Import) and getattr(node, "module", "") != "__future__":
            yield node


def bound_names(piece: Piece) -> set[str]:
    """The names that the imports of a file bind."""
    return {(alias.asname or alias.name).partition(".")[0] for node in imports(piece) for alias in node.names}


def unsorted_lines(piece: Piece) -> set[int]:
    """The lines of the imports whose names are not sorted as isort does it."""
    return {node.lineno for node in imports(piece) if (names := _texts(node)) != sorted(names, key=_rank)}


def clean(piece: Piece, text: Text, change: Change) -> str:
    """Change the imports of a twin, each in its own lines, and return the new text."""
    cleaner = _Cleaner(piece, text, change)
    for node in imports(piece):
        cleaner.statement(node)
    cleaner.remove()
    return cleaner.edits.apply()


class _Cleaner:
    """Collects the edits of the imports."""

    def __init__(self, piece: Piece, text: Text, change: Change) -> None:
        self.edits = Edits(text.text)
        self._piece = piece
        self._text = text
        self._change = change
        self._removed: set[ast.stmt] = set()
        self._has_modules = False

    def statement(self, node: _Import) -> None:
        """Change one statement, or remember that nothing of it is left."""
        names = list(dict.fromkeys(name for alias in node.names for name in self._twins(node, alias)))
        if node.lineno not in self._change.unsorted and isinstance(node, ast.ImportFrom):
            names.sort(key=_rank)
        if not names:
            self._removed.add(node)
        elif names != _texts(node):
            self._set_names(node, names)

    def _twins(self, node: _Import, alias: ast.alias) -> Iterator[str]:
        """What the twin imports in the place of a name."""
        is_used = (alias.asname or alias.name) not in self._change.unused or alias.asname == alias.name
        if isinstance(node, ast.ImportFrom):
            is_used = is_used and f"{node.module}.{alias.name}" not in _names.WITHOUT_IMPORT
        if is_used:
            yield _text(alias)
        if isinstance(node, ast.Import) and alias.name in _names.LOOPS and not self._has_modules:
            yield from self._change.modules
            # Below a function the import is for that function only.
            self._has_modules = isinstance(self._piece.tree, ast.Module) and node in self._piece.tree.body

    def _set_names(self, node: _Import, names: list[str]) -> None:
        spans = [self._piece.span(alias) for alias in node.names]
        start, end = spans[0][0], spans[-1][1]
        if "\n" not in self._text.text[start:end]:
            self.edits.replace(start, end, ", ".join(names))
            return
        for span, name in zip_longest(spans, names):
            self.edits.replace(span[0], span[1], name or "")
            comma = next(
                (each for each in self._piece.within(span[1], len(self._text.text)) if each.is_code), None
            )
            if name is None and comma is not None and comma.text == ",":
                self.edits.replace(comma.start, comma.end, "")

    def remove(self) -> None:
        """Remove the statements of which nothing is left."""
        needs_pass = set()
        for parent in ast.walk(self._piece.tree):
            for _, block in ast.iter_fields(parent):
                if isinstance(block, list) and block and not isinstance(parent, ast.Module):
                    needs_pass |= {block[0]} if self._removed.issuperset(block) else set()
        for node in self._removed:
            start, end = self._piece.span(node)
            line = self._text.line_of(end)
            rest = self._text.lines[line - 1][self._text.column_of(end) - 1 :].strip()
            is_alone = not self._text.lines[node.lineno - 1][: node.col_offset].strip()
            if is_alone and (not rest or rest.startswith("#")):
                end = self._text.offset(line, len(self._text.lines[line - 1]))
                self.edits.replace(start, end, "pass" if node in needs_pass else "")
            else:
                self.edits.replace(start, end, "pass")


def _texts(node: _Import) -> list[str]:
    return [_text(alias) for alias in node.names]


def _text(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _rank(name: str) -> tuple[int, list[str], str]:
    """Constants, classes, others, as isort and ruff sort them; numbers in names by their value."""
    first = name.partition(" ")[0]
    kind = 0 if first.isupper() and len(first) > 1 else 1 if first[:1].isupper() else 2
    parts = [part.zfill(20) if part.isdigit() else part for part in _DIGITS.split(name.lower())]
    return kind, parts, name
