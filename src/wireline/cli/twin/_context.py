"""What is known of a file while it is made into its twin."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from wireline.cli.twin import _names
from wireline.cli.twin._edits import Edits
from wireline.cli.twin._python import Piece, Text
from wireline.cli.twin._source import Problem


class Module(NamedTuple):
    """A module of the package that is made into its twin.

    Attributes:
        package: the dotted name of the package, or of the only module.
        twin: that of its twin.
        inside: the package in which relative imports of the module begin.
        beside: whether the package and its twin are in the same directory.
        files: names of files, each with that of its twin, for comments.
        above: the names of the directories above the package, the nearest first. They have no ``__init__.py``, and may
            be a part of the name by which the package is imported, or not.
        together: whether the same directories are above the twin.
    """

    package: str
    twin: str
    inside: str
    beside: bool
    files: Mapping[str, str]
    above: tuple[str, ...] = ()
    together: bool = True

    def twin_of(self, dotted: str) -> str | None:
        """The name of a module in the twin; None if it is no part of the package."""
        prefix = self._prefix(dotted)
        if prefix is None or (prefix and not self.together):
            return None
        return prefix + self.twin + dotted.removeprefix(prefix + self.package)

    def is_lost(self, dotted: str) -> bool:
        """Whether a module is a part of the package, and its name in the twin cannot be known."""
        return not self.together and bool(self._prefix(dotted))

    def _prefix(self, dotted: str) -> str | None:
        prefix = ""
        for part in ("", *self.above):
            prefix = f"{part}.{prefix}" if part else prefix
            if f"{dotted}.".startswith(f"{prefix}{self.package}."):
                return prefix
        return None

    def absolute(self, name: str, level: int) -> str:
        """The absolute name of a module in ``from`` ... ``import``."""
        if not level:
            return name
        parts = self.inside.split(".") if self.inside else []
        return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])

    def leaves(self, level: int) -> bool:
        """Whether a relative import begins outside of the package."""
        depth = len(self.inside.split(".")) - len(self.package.split("."))
        return level > depth + 1


class Context:
    """A file on its way to its twin.

    Attributes:
        edits: the changes.
        problems: what has no twin.
        bound: what a name stands for, as a module or a name with its module, if it was imported.
        words: names that are others in the twin, wherever they are.
        modules: modules of the standard library that the twin needs.
        left_out: names that are only imported in lines which the twin has not.
    """

    def __init__(
        self,
        shown: str,
        text: Text,
        tree: ast.AST,
        lines: Mapping[int, str],
        module: Module,
        renames: Mapping[str, str],
    ) -> None:
        self.text = text
        self.module = module
        self.edits = Edits(text.text)
        self.problems: list[Problem] = []
        imported = list(_imported(tree, module))
        self.bound = {name: dotted for name, dotted, _ in imported}
        self.left_out = set(self.bound) - {name for name, _, line in imported if line not in lines}
        self.modules: set[str] = set()
        self.words = {**_names.LIBRARY, **renames}
        self._shown = shown
        self._lines = lines
        self._renamed: dict[str, tuple[str, str]] = {}
        paths = {_names.ASYNC_MODULE: _names.BLOCKING_MODULE, **module.files}
        if "." in module.package:  # the name of a single module may be any word
            paths[module.package] = module.twin
        self._phrases = {**self.words, **paths}
        self._prose = re.compile(
            rf"(?<![\w.-])(?:{_any_of(paths)})(?!\w)|(?<!\w)(?:{_any_of(self.words)})(?!\w)"
        )

    def is_gone(self, offset: int) -> bool:
        """Whether the line of an offset is left out or replaced."""
        return self.text.line_of(offset) in self._lines

    def problem(self, offset: int, sentence: str) -> None:
        """Remember something that has no twin."""
        if not self.is_gone(offset):
            place = self.text.line_of(offset), self.text.column_of(offset)
            self.problems.append(Problem(self._shown, *place, sentence))

    def rename(self, span: tuple[int, int], old: str, new: str, target: str = "") -> None:
        """Replace a name.

        Args:
            span: where it is.
            old: the name.
            new: its twin.
            target: what the twin stands for, if it is imported.
        """
        self.edits.replace(*span, new)
        self._renamed[new.partition(".")[0]] = old, target

    def replace_prose(self, start: int, end: int) -> None:
        """Replace names in a comment or a docstring."""
        for found in self._prose.finditer(self.text.text, start, end):
            self.edits.replace(*found.span(), self._phrases[found[0]])

    def report_collisions(self, piece: Piece) -> None:
        """Report names that the file uses for something else than the twin."""
        for name, node in _bindings(piece.tree):
            if name not in self._renamed:
                continue
            old, target = self._renamed[name]
            imported = self.bound.get(name) if isinstance(node, ast.alias) else None
            if imported is not None and _plain(target) in (_plain(self.twin_of(imported)), _plain(imported)):
                continue
            sentence = f"{old} is {name} in the twin, and this is another {name}: give it another name"
            self.problem(piece.span(node)[0], sentence)

    def twin_of(self, dotted: str) -> str:
        """A name, with its module, in the twin."""
        twin = self.module.twin_of(dotted) or _names.twin_of(dotted)
        module, dot, name = twin.rpartition(".")
        return f"{module}{dot}{self.words.get(name, name)}"

    def dotted(self, node: ast.AST) -> str | None:
        """What an expression stands for, with its module, if it was imported."""
        if isinstance(node, ast.Name):
            return self.bound.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return None if base is None else f"{base}.{node.attr}"
        return None


def _any_of(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def _plain(dotted: str) -> str:
    """A name with one module for those that `typing` has, too."""
    module, _, name = dotted.rpartition(".")
    return f"collections.abc.{name}" if module.startswith("typing") else dotted


def _imported(tree: ast.AST, module: Module) -> Iterator[tuple[str, str, int]]:
    """The names that imports bind, what they stand for, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                yield (alias.asname or root, alias.name if alias.asname else root, alias.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = module.absolute(node.module or "", node.level)
            for alias in node.names:
                yield alias.asname or alias.name, f"{origin}.{alias.name}", alias.lineno


def _bindings(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The names that a file gives to something, besides those of methods."""
    methods = {id(each) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for each in node.body}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if isinstance(node, ast.ClassDef) or id(node) not in methods:
                    yield name, node
            case ast.ExceptHandler(name=str(name)):
                yield name, node
            case ast.alias(name=name, asname=alias):
                yield (alias or name).partition(".")[0], node
