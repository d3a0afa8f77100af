"""One file: from the text of the async one to that of its twin."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from wireline.cli.twin import _header, _imports, _markers, _names
from wireline.cli.twin._context import Context, Module
from wireline.cli.twin._python import Piece, Text, parse_file
from wireline.cli.twin._rewrite import rewrite
from wireline.cli.twin._source import Problem, ProblemsFound


def convert(source: str, shown: str, origin: str, module: Module, renames: Mapping[str, str]) -> str:
    """Make the twin of a text.

    Args:
        source: the async file; its lines end with ``\\n``.
        shown: its path, for problems.
        origin: its path from the directory of the twin, for the comment at the top.
        module: where it is in its package.
        renames: names of the user that are others in the twin.

    Raises:
        ProblemsFound: it is no Python, or something in it has no twin.
    """
    text = Text(source)
    piece = _compiled(text, shown, "")
    markers = _markers.read(piece, text)
    context = Context(shown, text, piece.tree, markers.lines, module, renames)
    for offset, sentence in markers.unclear:
        context.problem(offset, sentence)
    rewrite(piece, context)
    context.report_collisions(piece)
    if context.problems:
        raise ProblemsFound(sorted(context.problems, key=lambda each: each[:3]))
    lines = context.edits.apply().split("\n")
    lines = [markers.lines.get(number, line) for number, line in enumerate(lines, 1)]
    made = Text("\n".join(lines))
    twin = _parse(made, shown, "in the twin, ")
    _require_imports(twin, context, shown)
    made = Text(_imports.clean(twin, made, _change(piece, twin, context)))
    twin = _compiled(made, shown, "in the twin, ")
    for name in sorted(context.modules - _imports.bound_names(twin)):
        sentence = f"the twin needs the module {name}: write '# blocking: import {name}'"
        raise ProblemsFound([Problem(shown, 1, 1, sentence)])
    return _header.add(twin, made, origin)


def _parse(text: Text, shown: str, where: str) -> Piece:
    """Read a text as Python.

    Raises:
        ProblemsFound: it is none.
    """
    try:
        return parse_file(text)
    except SyntaxError as error:
        place = error.lineno or 1, error.offset or 1
        problem = Problem(shown, *place, f"{where}this is no Python: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        problem = Problem(shown, 1, 1, f"{where}this is no Python: {error}")
    raise ProblemsFound([problem])


def _compiled(text: Text, shown: str, where: str) -> Piece:
    """Read a text as Python, and check more than its syntax: where an ``await`` may be, for example.

    Raises:
        ProblemsFound: it cannot be compiled.
    """
    piece = _parse(text, shown, where)
    try:
        compile(piece.tree, shown, "exec", dont_inherit=True)  # type: ignore[call-overload]
    except SyntaxError as error:
        sentence = f"{where}this is no Python: {error.msg}"
        raise ProblemsFound([Problem(shown, error.lineno or 1, error.offset or 1, sentence)]) from None
    return piece


def _require_imports(twin: Piece, context: Context, shown: str) -> None:
    """Check that no line of the twin uses a name whose import is left out.

    Raises:
        ProblemsFound: one does.
    """
    absent = context.left_out - _imports.bound_names(twin)
    problems = [
        Problem(shown, node.lineno, node.col_offset + 1, f"the twin has no import of {node.id}")
        for node in ast.walk(twin.tree)
        if isinstance(node, ast.Name) and node.id in absent
    ]
    if problems:
        raise ProblemsFound(problems)


def _change(source: Piece, twin: Piece, context: Context) -> _imports.Change:
    before, now = _imports.used_names(source), _imports.used_names(twin)
    before |= {context.words[name] for name in before & context.words.keys()}
    before |= {
        context.twin_of(context.bound[name]).rpartition(".")[2] for name in before & context.bound.keys()
    }
    before |= set(_names.LOOPS)
    modules = sorted(context.modules - _imports.bound_names(twin))
    return _imports.Change(before - now, modules, _imports.unsorted_lines(source))
