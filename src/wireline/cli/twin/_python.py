"""A text of Python as tokens and as a tree; both have offsets into the whole file.

Tokens and trees of different Python versions differ in strings with replacement fields: 3.11 has one token for all of
``f"{await x}"`` and wrong positions in the tree, 3.12 has a token for each part. Here such a string is one token in all
versions, and each expression in it is a `Piece` of its own.
"""

from __future__ import annotations

import ast
import bisect
import io
import token
import tokenize
import warnings
from collections.abc import Iterator
from typing import NamedTuple

_STRING_STARTS = {getattr(token, name, -1) for name in ("FSTRING_START", "TSTRING_START")}
_STRING_ENDS = {getattr(token, name, -1) for name in ("FSTRING_END", "TSTRING_END")}
_LAYOUT = {token.NEWLINE, token.INDENT, token.DEDENT, token.ENDMARKER, tokenize.NL, tokenize.COMMENT}


class Token(NamedTuple):
    """A token. ``kind`` is a number of the module ``token``; the offsets count characters of the file."""

    kind: int
    text: str
    start: int
    end: int

    @property
    def is_code(self) -> bool:
        """Whether it is neither a comment nor a part of the layout."""
        return self.kind not in _LAYOUT


class Text:
    """A text, and which offset is at which line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.split("\n")
        self._starts = [0]
        for line in self.lines[:-1]:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def offset(self, line: int, column: int) -> int:
        """The offset of a column, in characters, of a line, from 1."""
        return self._starts[line - 1] + column if line <= len(self._starts) else len(self.text)

    def offset_of_byte(self, line: int, column: int) -> int:
        """The offset of a column in bytes, as trees have them."""
        content = self.lines[line - 1]
        return self.offset(line, column if content.isascii() else len(content.encode()[:column].decode()))

    def line_of(self, offset: int) -> int:
        """The line of an offset, from 1."""
        return bisect.bisect_right(self._starts, offset)

    def column_of(self, offset: int) -> int:
        """The column of an offset, from 1."""
        return offset - self._starts[self.line_of(offset) - 1] + 1


class Piece:
    """A file, or an expression in one of its strings.

    Attributes:
        tree: the whole of it.
        tokens: all of them.
    """

    def __init__(self, tree: ast.AST, tokens: list[Token], text: Text, shift: int) -> None:
        self.tree = tree
        self.tokens = tokens
        self._text = text
        self._shift = shift
        self._by_start = {each.start: index for index, each in enumerate(tokens) if each.is_code}

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The offsets of the beginning and the end of a node that has a position."""
        place = node.lineno, node.col_offset, node.end_lineno, node.end_col_offset  # type: ignore[attr-defined]
        start = self._text.offset_of_byte(place[0], place[1]) + self._shift
        return start, self._text.offset_of_byte(place[2], place[3]) + self._shift

    def index(self, offset: int) -> int:
        """The index of the token of code that begins at an offset.

        Raises:
            KeyError: none begins there.
        """
        return self._by_start[offset]

    def within(self, start: int, end: int) -> Iterator[Token]:
        """The tokens between two offsets."""
        first = bisect.bisect_left(self.tokens, start, key=lambda each: each.start)
        for each in self.tokens[first:]:
            if each.start >= end:
                return
            yield each


def parse_file(text: Text) -> Piece:
    """Read a whole file.

    Raises:
        SyntaxError, ValueError: it is no Python.
        RecursionError, MemoryError: it is nested too deeply.
    """
    return Piece(_parse(text.text, "exec"), list(_tokens(text)), text, 0)


def parse_expression(expression: str, offset: int) -> Piece | None:
    """Read an expression that is a part of a file, at an offset; None if it is none."""
    # Between parentheses it may have any number of lines; the last one may end with a comment.
    text = Text(f"({expression}\n)")
    try:
        tree = _parse(text.text, "eval")
        found = [each for each in _tokens(text) if each.is_code or each.kind == tokenize.COMMENT]
    except (SyntaxError, ValueError, tokenize.TokenError):
        return None
    tokens = [each._replace(start=each.start + offset - 1, end=each.end + offset - 1) for each in found[1:-1]]
    return Piece(tree, tokens, text, offset - 1)


def _parse(text: str, mode: str) -> ast.AST:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the user's program, which is not run here
        return ast.parse(text, mode=mode)


def _tokens(text: Text) -> Iterator[Token]:
    start = depth = 0
    for kind, string, first, last, _ in tokenize.generate_tokens(io.StringIO(text.text).readline):
        if kind in _STRING_STARTS:
            if not depth:
                start = text.offset(*first)
            depth += 1
        elif kind in _STRING_ENDS:
            depth -= 1
            if not depth:
                end = text.offset(*last)
                yield Token(token.STRING, text.text[start:end], start, end)
        elif not depth:
            yield Token(kind, string, text.offset(*first), text.offset(*last))


# ------------------------------------------------------------------------------------ strings with replacement fields


def replacement_fields(literal: str) -> list[tuple[int, int]]:
    """Where the expressions of a string literal are, as offsets into it; [] for a string without such fields.

    Those in a format specification are included, those of a string inside an expression are not.
    """
    prefix = len(literal) - len(literal.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    kind = literal[:prefix].lower()
    if "f" not in kind and "t" not in kind:
        return []
    scanner = _Scanner(literal)
    scanner.string(prefix)
    return scanner.fields


class _Scanner:
    """Finds the ends of strings and of replacement fields. The literal is correct Python, so they are all there."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: list[tuple[int, int]] = []

    def string(self, at: int) -> int:
        """Pass the string whose quotes begin at an offset; return the offset after it."""
        first = at
        while first and self.text[first - 1].isalpha():
            first -= 1
        kind = self.text[first:at].lower()
        quote = self.text[at] * (3 if self.text.startswith(self.text[at] * 3, at) else 1)
        at += len(quote)
        if "f" in kind or "t" in kind:
            return self._literal(at, quote, raw="r" in kind) + len(quote)
        while not self.text.startswith(quote, at):
            at += 2 if self.text[at] == "\\" else 1
        return at + len(quote)

    def _literal(self, at: int, end: str, *, raw: bool) -> int:
        """Pass the text of a string, or of a format specification, which ends with ``}``."""
        while not self.text.startswith(end, at):
            pair = self.text[at : at + 2]
            if pair == "{{" and end != "}":
                at += 2
            elif pair[0] == "{":
                at = self._field(at + 1, raw=raw)
            elif pair == "\\N" and self.text.startswith("{", at + 2) and not raw:
                at = self.text.index("}", at)
            elif pair[0] == "\\" and pair[1:] not in ("{", "}"):
                at += 2
            else:
                at += 1
        return at

    def _field(self, at: int, *, raw: bool) -> int:
        """Pass a replacement field, and remember where its expression is."""
        start, end = at, self._expression(at)
        expression = self.text[start:end].rstrip()
        if expression.endswith("=") and expression[-2:] not in ("==", "!=", "<=", ">="):
            expression = expression[:-1]
        self.fields.append((start, start + len(expression.rstrip())))
        while self.text[end] not in ":}":
            end += 1  # the conversion
        if self.text[end] == ":":
            end = self._literal(end + 1, "}", raw=raw)
        return end + 1

    def _expression(self, at: int) -> int:
        depth = 0
        while True:
            character = self.text[at]
            if character in "\"'":
                # Only the fields of the outermost string are wanted here.
                at = _Scanner(self.text).string(at)
                continue
            if not depth and (character in ":}" or (character == "!" and self.text[at + 1] != "=")):
                return at
            if character == "#":
                at = self.text.index("\n", at)
            depth += (character in "([{") - (character in ")]}")
            at += 1
