"""Files of source code: bytes to text with plain newlines, and back."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import NamedTuple

_NEWLINE = re.compile(r"\r\n|\r|\n")
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # PEP 263


class Problem(NamedTuple):
    """Something that has no twin, and where it is; line and column count from 1."""

    path: str
    line: int
    column: int
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.sentence}"


class ProblemsFound(Exception):
    """A file cannot be made into its twin.

    Attributes:
        problems: all of them, in the order of the lines.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


class Source(NamedTuple):
    """A file of source code.

    Attributes:
        text: without a byte order mark, and every line ends with ``\\n``.
        newline: how the lines of the file end; that of the first line, if they differ.
        has_bom: whether it begins with a byte order mark.
    """

    text: str
    newline: str
    has_bom: bool

    def encode(self, text: str) -> bytes:
        """The bytes of another text in the form of this file."""
        data = text.replace("\n", self.newline).encode()
        return codecs.BOM_UTF8 + data if self.has_bom else data


def read(path: Path, shown: str) -> Source:
    """Read a file.

    Raises:
        OSError: it cannot be read.
        ProblemsFound: it is not UTF-8.
    """
    data = path.read_bytes()
    has_bom = data.startswith(codecs.BOM_UTF8)
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        sentence = f"byte {data[error.start]:#04x} is not UTF-8: save the file as UTF-8"
        raise ProblemsFound([Problem(shown, line, column, sentence)]) from None
    for number, line_bytes in enumerate(data.splitlines()[:2], 1):
        cookie = _COOKIE.match(line_bytes)
        if cookie and _codec_name(cookie[1].decode()) != "utf-8":
            sentence = f"the file says that it is {cookie[1].decode()}: save it as UTF-8"
            raise ProblemsFound([Problem(shown, number, 1, sentence)])
    first = _NEWLINE.search(text)
    newline = "\r\n" if first and first[0] == "\r\n" else "\n"
    return Source(_NEWLINE.sub("\n", text), newline, has_bom)


def _codec_name(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return name
