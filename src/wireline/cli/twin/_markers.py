"""The comments ``# async:`` and ``# blocking:``: lines that one of the two files has and the other has not."""

from __future__ import annotations

import ast
import re
import token
import tokenize
from typing import NamedTuple

from wireline.cli.twin._python import Piece, Text

_MARKER = re.compile(r"#\s*(async|blocking):(?: (.*)|\s*)$")
_NEARLY = re.compile(r"#\s*(async|blocking|sync)$")
_NO_COLON = "with a colon this comment is a marker: write '# async:' or '# blocking: CODE'"
_NO_CODE = "write the code of the twin after '# blocking:', or '# async:' if it has none"


class LogicalLine(NamedTuple):
    """A line as Python's grammar sees it: a simple statement, or what is before the block of a compound one.

    Attributes:
        first: its first line in the file.
        last: its last line in the file.
        depth: how many blocks it is in.
    """

    first: int
    last: int
    depth: int


class Markers(NamedTuple):
    """What the comments of a file say.

    Attributes:
        lines: the new text of lines, ``""`` for those that are left out.
        unclear: the offsets of comments that are nearly such a comment, with what to write instead.
    """

    lines: dict[int, str]
    unclear: list[tuple[int, str]]


def read(piece: Piece, text: Text) -> Markers:
    """Find the comments of a file, and which lines they are about."""
    reader = _Reader(piece, text)
    for each in piece.tokens:
        if each.kind == tokenize.COMMENT:
            reader.comment(each.text, each.start)
    lines = {**dict.fromkeys(reader.left_out, ""), **reader.replaced}
    for first in _empty_blocks(reader.logical, reader.left_out, reader.replaced, text):
        lines[first] = _indent(text, first) + "pass"
    return Markers(lines, reader.unclear)


def logical_lines(piece: Piece, text: Text) -> list[LogicalLine]:
    """The logical lines of a file."""
    found: list[LogicalLine] = []
    depth, first = 0, 0
    for each in piece.tokens:
        if each.kind in (token.INDENT, token.DEDENT):
            depth += 1 if each.kind == token.INDENT else -1
        elif each.is_code and not first:
            first = text.line_of(each.start)
        elif each.kind == token.NEWLINE and first:
            found.append(LogicalLine(first, text.line_of(each.start), depth))
            first = 0
    return found


class _Reader:
    """Collects the lines that are left out, and those that are replaced."""

    def __init__(self, piece: Piece, text: Text) -> None:
        self.logical = logical_lines(piece, text)
        self.left_out: set[int] = set()
        self.replaced: dict[int, str] = {}
        self.unclear: list[tuple[int, str]] = []
        self._text = text
        self._decorators = {
            node.lineno: min(each.lineno for each in node.decorator_list)
            for node in ast.walk(piece.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.decorator_list
        }

    def comment(self, comment: str, offset: int) -> None:
        """Look at one comment."""
        if _NEARLY.match(comment):
            self.unclear.append((offset, _NO_COLON))
        marker = _MARKER.search(comment)
        if marker is None:
            return
        number = self._text.line_of(offset)
        code = (marker[2] or "").rstrip() if marker[1] == "blocking" else ""
        is_alone = not self._text.lines[number - 1][: self._text.column_of(offset) - 1].strip()
        if marker[1] == "blocking" and not code and not is_alone:
            self.unclear.append((offset, _NO_CODE))
            return
        first = number if is_alone else self._leave_out(number, with_block=marker[1] == "async")
        if code:
            self.replaced[first] = _indent(self._text, first) + code
        else:
            self.left_out.add(first)

    def _leave_out(self, number: int, *, with_block: bool) -> int:
        """Leave out what a comment at the end of a line is about, and return the first line of that.

        That is the whole logical line if the comment is in its first or last line, and otherwise the line alone.
        """
        index, line = next((i, each) for i, each in enumerate(self.logical) if each.last >= number)
        if line.first < number < line.last:
            self.left_out.add(number)
            return number
        self.left_out.update(range(line.first, line.last + 1))
        if with_block:
            for each in self.logical[index + 1 :]:
                if each.depth <= line.depth:
                    break
                self.left_out.update(range(line.first, each.last + 1))
            # Otherwise they would decorate what follows.
            self.left_out.update(range(self._decorators.get(line.first, line.first), line.first))
        return line.first


def _empty_blocks(
    logical: list[LogicalLine], left_out: set[int], replaced: dict[int, str], text: Text
) -> list[int]:
    """The first line of each block that has no line left in the twin, though the line before the block is there."""
    found = []
    for index, header in enumerate(logical[:-1]):
        block = []
        for each in logical[index + 1 :]:
            if each.depth <= header.depth:
                break
            block.append(each)
        if not block or (header.first in left_out and header.first not in replaced):
            continue
        end = block[-1].last + 1
        while end in replaced and len(_indent(text, end)) >= len(_indent(text, block[0].first)):
            end += 1
        if all(each.first in left_out for each in block) and not replaced.keys() & range(
            header.last + 1, end
        ):
            found.append(block[0].first)
    return found


def _indent(text: Text, line: int) -> str:
    content = text.lines[line - 1]
    return content[: len(content) - len(content.lstrip())]
