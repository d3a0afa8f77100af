"""The edits that make a blocking program of an async one."""

from __future__ import annotations

import ast
import keyword
import re
import token
import tokenize

from wireline.cli.twin import _import_statements, _names
from wireline.cli.twin._context import Context
from wireline.cli.twin._docstrings import rewrite_docstring
from wireline.cli.twin._python import Piece, Token, parse_expression, replacement_fields

_ATTRIBUTE_FUNCTIONS = ("hasattr", "getattr", "setattr", "delattr")

_TYPE_COMMENT = re.compile(r"# type: (?:\((.*)\) -> )?([^#]*)")
"""The type of a variable, or those of the arguments and of the result of a function."""

_PRIMARY = (ast.Call, ast.Name, ast.Attribute, ast.Subscript)
"""Expressions that need no parentheses anywhere."""

_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def rewrite(piece: Piece, context: Context, *, is_annotation: bool = False) -> None:
    """Collect the edits and problems of a file, or of an expression in one of its strings."""
    _rewrite_tokens(piece, context)
    _Visitor(piece, context, is_annotation=is_annotation).visit(piece.tree)


# ------------------------------------------------------------------------------------------- what a token alone tells


def _rewrite_tokens(piece: Piece, context: Context) -> None:
    before = ""
    for each in piece.tokens:
        if not context.is_gone(each.start):
            _rewrite_token(each, before, context)
        before = each.text if each.is_code else before


def _rewrite_token(each: Token, before: str, context: Context) -> None:
    if each.kind == tokenize.COMMENT:
        _rewrite_comment(each, context)
    elif each.kind == token.STRING:
        _rewrite_string(each, context)
    elif each.kind == token.NAME:
        if each.text in ("async", "await"):
            context.edits.replace_word(each.start, each.end, "")
        elif each.text in context.words:
            context.rename((each.start, each.end), each.text, context.words[each.text], _target(each.text))
        elif each.text in _names.MEMBERS and before in (".", "def"):
            context.edits.replace(each.start, each.end, _names.MEMBERS[each.text])


def _rewrite_comment(each: Token, context: Context) -> None:
    context.replace_prose(each.start, each.end)
    if types := _TYPE_COMMENT.match(each.text):
        for number in (1, 2):
            piece = parse_expression(types[number] or "...", each.start + types.start(number))
            if piece is not None:
                rewrite(piece, context, is_annotation=True)


def _target(name: str) -> str:
    """What the twin of a name stands for, if it is one of the library."""
    return f"{_names.MODULE_OF[name]}.{_names.LIBRARY[name]}" if name in _names.LIBRARY else ""


def _rewrite_string(each: Token, context: Context) -> None:
    for start, end in replacement_fields(each.text):
        piece = parse_expression(each.text[start:end], each.start + start)
        if piece is None:
            context.problem(each.start + start, "cannot read this expression: move it out of the string")
        else:
            rewrite(piece, context)
    # A string that is exactly such a name stands for it: in `__all__`, in `cast`, in `getattr`.
    if each.text[:1] in ("'", '"') and each.text[1:-1] in context.words:
        context.edits.replace(each.start + 1, each.end - 1, context.words[each.text[1:-1]])


# ------------------------------------------------------------------------------------------------ what the tree tells


class _Visitor(ast.NodeVisitor):
    """Looks at each node of a piece."""

    def __init__(self, piece: Piece, context: Context, *, is_annotation: bool) -> None:
        self._piece = piece
        self._context = context
        self._is_annotation = is_annotation

    def _start(self, node: ast.AST) -> int:
        return self._piece.span(node)[0]

    # Names.

    def visit_Name(self, node: ast.Name) -> None:
        """Rename what was imported, or is built in."""
        dotted = self._context.bound.get(node.id)
        if dotted is not None:
            self._imported(node, dotted)
        elif twin := _names.BUILTINS.get(node.id):
            self._rename(node, node.id, twin)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Rename a name that is written with its module."""
        dotted = self._context.dotted(node)
        if dotted is None or not self._imported(node, dotted):
            self.visit(node.value)

    def _rename(self, node: ast.AST, old: str, new: str, target: str = "") -> None:
        if not self._context.is_gone(self._start(node)):
            self._context.rename(self._piece.span(node), old, new, target)

    def _imported(self, node: ast.Name | ast.Attribute, dotted: str) -> bool:
        """Look at a name that stands for something imported; return whether its parts need no look."""
        if sentence := _names.instead_of(dotted):
            if not self._was_reported(node, dotted):
                self._context.problem(self._start(node), sentence)
            return True
        if dotted in _names.WRAPPERS:
            self._bare_wrapper(node, dotted)
            return True
        twin = self._context.twin_of(dotted)
        if twin == dotted:
            return False
        if isinstance(node, ast.Attribute):
            return self._attribute(node, dotted, twin)
        name = dotted.rpartition(".")[2]
        if node.id == name and self._context.module.twin_of(dotted) is None:
            self._rename(node, name, twin.rpartition(".")[2], twin)
        return True

    def _was_reported(self, node: ast.Name | ast.Attribute, dotted: str) -> bool:
        """Whether the import of a single name was reported. A whole module, and a line that is left out, are not."""
        if not isinstance(node, ast.Name) or dotted in {*_names.FOREIGN, *_names.WITHOUT_IMPORT}:
            return False
        return node.id not in self._context.left_out

    def _attribute(self, node: ast.Attribute, dotted: str, twin: str) -> bool:
        module, _, name = twin.rpartition(".")
        if _names.STANDARD.get(dotted) == twin and module != dotted.rpartition(".")[0]:
            self._rename(node, dotted, twin, module or twin)
            if module and not self._context.is_gone(self._start(node)):
                self._context.modules.add(module)
            return True
        if not self._context.is_gone(self._start(node)):
            end = self._piece.span(node)[1]
            self._context.edits.replace(end - len(node.attr), end, name)
        return False

    def _bare_wrapper(self, node: ast.Name | ast.Attribute, dotted: str) -> None:
        if self._is_annotation:
            self._rename(node, dotted, "object")
            return
        sentence = f"{dotted} has no twin here, where its result would be: mark this with '# async:'"
        self._context.problem(self._start(node), sentence)

    # Expressions.

    def visit_Await(self, node: ast.Await) -> None:
        """Remove the parentheses that only ``await`` needed."""
        self._remove_parentheses(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """``asyncio.run(CALL)`` is ``CALL``; ``asyncio.to_thread(F, A)`` and ``anyio.run(F, A)`` are ``F(A)``."""
        dotted = self._context.dotted(node.func)
        if _calls_its_argument(dotted, node):
            self._call_directly(node)
            for each in (*node.args, *node.keywords):
                self.visit(each)
            return
        if dotted == "asyncio.run" and len(node.args) == 1 and not node.keywords:
            self._unwrap(node, node.args[0])
            self.visit(node.args[0])
            return
        if _names.STANDARD.get(dotted or "") == "time.sleep" and (len(node.args) != 1 or node.keywords):
            sentence = f"{dotted} has a twin with one argument, the seconds: time.sleep(SECONDS)"
            self._context.problem(self._start(node), sentence)
        if isinstance(node.func, ast.Name) and node.func.id in _ATTRIBUTE_FUNCTIONS and len(node.args) > 1:
            self._attribute_name(node.args[1])
        self.generic_visit(node)

    def _attribute_name(self, node: ast.expr) -> None:
        """The name of a method may be a string, as in ``hasattr(x, "aclose")``."""
        if isinstance(node, ast.Constant) and not self._context.is_gone(self._start(node)):
            start, end = self._piece.span(node)
            written = self._context.text.text[start + 1 : end - 1]
            if written == node.value and written in _names.MEMBERS:
                self._context.edits.replace(start + 1, end - 1, _names.MEMBERS[written])

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """``Awaitable[T]`` is ``T``."""
        dotted = self._context.dotted(node.value)
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if dotted in _names.WRAPPERS and len(arguments) == _names.WRAPPERS[dotted] + 1:
            self._unwrap(node, arguments[-1])
            self.visit(arguments[-1])
            return
        is_there = not self._context.is_gone(self._start(node))
        if dotted in _names.GENERATORS and len(arguments) == 2 and is_there:
            end = self._piece.span(arguments[1])[1]
            self._context.edits.replace(end, end, ", None")
        self.visit(node.value)
        if (dotted or "").endswith(".Literal"):
            return  # its strings are values
        if (dotted or "").partition(".")[0] in ("typing", "typing_extensions", "collections"):
            self._annotation(node.slice)
        else:
            self.visit(node.slice)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """The expressions in a string are pieces of their own."""

    visit_TemplateStr = visit_JoinedStr

    def _unwrap(self, node: ast.expr, inner: ast.expr) -> None:
        """Leave only a part of an expression, between parentheses if it is on a line of its own."""
        (start, end), (first, last) = self._piece.span(node), self._piece.span(inner)
        if self._context.is_gone(start):
            return
        edits = self._context.edits
        if "\n" not in self._context.text.text[start:end]:
            is_whole = isinstance(node, ast.Subscript) or isinstance(inner, _PRIMARY)
            edits.replace(start, first, "" if is_whole else "(")
            edits.replace(last, end, "" if is_whole else ")")
            return
        around = [each for each in self._piece.within(start, end) if each.is_code]
        around = [each for each in around if not first <= each.start < last]
        for each in around:
            edits.replace(each.start, each.end, "")
        edits.replace(around[0].start, around[0].end, "(")
        edits.replace(around[-1].start, around[-1].end, ")")

    def _call_directly(self, node: ast.Call) -> None:
        """Call the first argument with the others."""
        start, end = self._piece.span(node)
        if self._context.is_gone(start):
            return
        tokens = [each for each in self._piece.within(self._piece.span(node.func)[1], end) if each.is_code]
        depth, comma = 0, tokens[-1]
        for each in tokens[1:-1]:
            depth += (each.text in "([{") - (each.text in ")]}")
            if each.text == "," and not depth:
                comma = each
                break
        is_name = isinstance(node.args[0], ast.Name | ast.Attribute)
        is_simple = is_name and "\n" not in self._context.text.text[start : comma.start]
        self._context.edits.replace(start, tokens[0].end, "" if is_simple else "(")
        call = "(" if is_simple else ")("
        if comma is tokens[-1]:
            self._context.edits.replace(comma.start, comma.start, call)
        else:
            self._context.edits.replace_word(comma.start, comma.end, call)

    def _remove_parentheses(self, node: ast.Await) -> None:
        start, end = self._piece.span(node)
        tokens, index = self._piece.tokens, self._piece.index(start)
        if index == 0 or tokens[index - 1].text != "(" or self._context.is_gone(start):
            return
        opening = tokens[index - 1]
        after = next((each for each in tokens[index:] if each.start >= end), None)
        is_primary = isinstance(node.value, _PRIMARY)
        if after is None or after.text != ")" or not is_primary:
            return
        text = self._context.text.text
        if "\n" in text[opening.start : after.end] or text[after.end : after.end + 1].isalnum():
            return
        if index > 1 and _needs_parenthesis(tokens[index - 2], opening):
            return
        self._context.edits.replace(opening.start, opening.end, "")
        self._context.edits.replace(after.start, after.end, "")

    # Strings.

    def visit_Expr(self, node: ast.Expr) -> None:
        """A string that is a statement is a docstring."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            start, end = self._piece.span(node)
            for each in self._piece.within(start, end):
                if each.kind == token.STRING and not self._context.is_gone(each.start):
                    rewrite_docstring(each, self._context)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """An annotation may be a string."""
        if self._is_annotation and isinstance(node.value, str):
            start, end = self._piece.span(node)
            written = self._context.text.text[start + 1 : end - 1]
            piece = parse_expression(written, start + 1) if written == node.value else None
            if piece is not None and not self._context.is_gone(start):
                rewrite(piece, self._context, is_annotation=True)

    # Statements.

    def visit_Import(self, node: ast.Import) -> None:
        """Rename modules."""
        _import_statements.rewrite_import(node, self._piece, self._context)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Rename modules and what is imported from them."""
        _import_statements.rewrite_import_from(node, self._piece, self._context)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A class may not have a method and its twin, too."""
        methods = [each for each in node.body if isinstance(each, _Definition)]
        methods = [each for each in methods if not self._context.is_gone(self._start(each))]
        names = {each.name for each in methods}
        for each in methods:
            twin = _names.MEMBERS.get(each.name)
            if twin in names:
                sentence = f"{each.name} is {twin} in the twin, and the class has that, too: mark one of them"
                self._context.problem(self._start(each), f"{sentence} with '# async:'")
            if each.name == "__await__":
                sentence = "__await__ has no twin: mark the method with '# async:'"
                self._context.problem(self._start(each), sentence)
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        """Look at the annotation of an argument."""
        self._annotation(node.annotation)

    def visit_FunctionDef(self, node: _Definition) -> None:
        """Look at what a function returns, too."""
        self._annotation(node.returns)
        for field, value in ast.iter_fields(node):
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, ast.AST) and field != "returns":
                    self.visit(each)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Look at an annotation; an alias of a type is one, too."""
        self._annotation(node.annotation)
        self.visit(node.target)
        if "TypeAlias" in ast.unparse(node.annotation):
            self._annotation(node.value)
        elif node.value is not None:
            self.visit(node.value)

    def visit_TypeAlias(self, node: ast.AST) -> None:
        """``type X = ...``, from Python 3.12 on."""
        before, self._is_annotation = self._is_annotation, True
        self.generic_visit(node)
        self._is_annotation = before

    def _annotation(self, node: ast.expr | None) -> None:
        if node is not None:
            before, self._is_annotation = self._is_annotation, True
            self.visit(node)
            self._is_annotation = before


def _needs_parenthesis(before: Token, opening: Token) -> bool:
    """Whether an opening parenthesis belongs to the token before it, or separates it from the next one."""
    if before.kind == token.NAME:
        return not keyword.iskeyword(before.text) or before.end == opening.start
    return before.text in (")", "]", "}") or before.kind in (token.STRING, token.NUMBER)


def _calls_its_argument(dotted: str | None, node: ast.Call) -> bool:
    """Whether the twin of a call is a call of its first argument with the others."""
    has_function = bool(node.args) and not isinstance(node.args[0], ast.Starred)
    if dotted in ("anyio.run", "trio.run"):
        return has_function and not node.keywords
    return has_function and dotted == "asyncio.to_thread"
