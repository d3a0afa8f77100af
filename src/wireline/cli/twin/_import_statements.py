"""The edits of ``import`` statements."""

from __future__ import annotations

import ast

from wireline.cli.twin import _names
from wireline.cli.twin._context import Context
from wireline.cli.twin._python import Piece

_LOST = "this imports the async package, and the name of its twin is not known: import it with a dot in front"


def rewrite_import(node: ast.Import, piece: Piece, context: Context) -> None:
    """Rename the modules of ``import`` ..., and report those that have no twin."""
    for alias in node.names:
        start = piece.span(alias)[0]
        # `import asyncio` itself is left out when nothing needs it any more.
        sentence = None if alias.name in _names.LOOPS else _names.instead_of(alias.name)
        if sentence or context.module.is_lost(alias.name):
            context.problem(start, sentence or _LOST)
        elif not context.is_gone(start) and (twin := context.twin_of(alias.name)) != alias.name:
            context.edits.replace(start, start + len(alias.name), twin)


def rewrite_import_from(node: ast.ImportFrom, piece: Piece, context: Context) -> None:
    """Rename the module and the names of ``from`` ... ``import``, and report those that have no twin."""
    start = piece.span(node)[0]
    module = context.module.absolute(node.module or "", node.level)
    if context.is_gone(start):
        return
    if node.level and context.module.leaves(node.level) and not context.module.beside:
        context.problem(
            start, "this import leaves the package, and the twin is elsewhere: write it without dots"
        )
    if not node.level and any(context.module.is_lost(f"{module}.{alias.name}") for alias in node.names):
        context.problem(start, _LOST)
    elif node.names[0].name == "*" and module in _names.STAR_REFUSED:
        context.problem(start, f"the names of {module} must be known: write them instead of *")
    elif module in _names.LOOPS:
        _from_loop(node, module, piece, context)
    else:
        _rename_module(node, module, piece, context)
        for alias in node.names:
            _rename_alias(alias, f"{module}.{alias.name}", piece, context)


def _rename_module(node: ast.ImportFrom, module: str, piece: Piece, context: Context) -> None:
    twin = context.twin_of(module)
    if twin == module:
        return
    start, end = piece.span(node)
    tokens = [each for each in piece.within(start, end) if each.is_code]
    stop = next(index for index, each in enumerate(tokens) if each.text == "import")
    written = context.text.text[tokens[1].start : tokens[stop - 1].end]
    if node.level:
        # Only the last part of the package's name can differ: the twin is beside it.
        old, new = (name.rpartition(".")[2] for name in (context.module.package, context.module.twin))
        dots = written[: len(written) - len(written.lstrip("."))]
        rest = written[len(dots) :]
        inside = rest == old or rest.startswith(f"{old}.")
        twin = (
            dots + new + rest.removeprefix(old) if inside and context.module.leaves(node.level) else written
        )
    context.edits.replace(tokens[1].start, tokens[stop - 1].end, twin)


def _rename_alias(alias: ast.alias, dotted: str, piece: Piece, context: Context) -> None:
    start = piece.span(alias)[0]
    if sentence := _names.instead_of(dotted):
        context.problem(start, sentence)
        return
    twin = context.twin_of(dotted)
    if twin == dotted or context.is_gone(start):
        return
    name = twin.rpartition(".")[2]
    is_module = name != alias.name and alias.name not in context.words
    if alias.asname is None and is_module and context.module.twin_of(dotted):
        name = f"{name} as {alias.name}"  # the file calls it by its old name
    context.edits.replace(start, start + len(alias.name), name)


def _from_loop(node: ast.ImportFrom, module_of_loop: str, piece: Piece, context: Context) -> None:
    """The twins of asyncio's names are in several modules. Those that need no import leave it later."""
    found: dict[str, list[str]] = {}
    for alias in node.names:
        dotted = f"{module_of_loop}.{alias.name}"
        if dotted in _names.WITHOUT_IMPORT and alias.asname is None:
            continue
        if sentence := _names.instead_of(dotted):
            context.problem(piece.span(alias)[0], sentence)
            continue
        module, _, name = _names.STANDARD[dotted].rpartition(".")
        suffix = f" as {alias.asname}" if alias.asname else ""
        found.setdefault(module or "builtins", []).append(name + suffix)
    statements = [f"from {module} import {', '.join(names)}" for module, names in sorted(found.items())]
    if statements:
        context.edits.replace(*piece.span(node), "; ".join(statements))
