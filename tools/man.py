"""Write the manual pages of the command, from the same parsers as ``--help``.

    python tools/man.py DIRECTORY    write wireline.1 and a page for each command into the directory

The date of the pages is that of ``SOURCE_DATE_EPOCH``, if it is set, so that a build can be repeated exactly.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from wireline.cli._version import VERSION
from wireline.cli.parser._parser import make_parser
from wireline.cli.parser._usage import Parser

_SUMMARY = "move bytes between standard streams and a network peer"
_WIDTH = 65
"""Characters of a line before its escapes, with which it has at most 80."""


_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})


def pages() -> dict[str, str]:
    """The pages by the names of their files."""
    program = make_parser()
    made = {"wireline.1": page(program, program)}
    for name, command in program.commands.items():
        made[f"wireline-{name}.1"] = page(command, program)
    return made


def page(parser: Parser, program: Parser) -> str:
    """One page."""
    name = parser.prog.replace(" ", "-")
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    lines = [f'.TH {name.upper()} 1 {date} "wireline {VERSION}" "User Commands"']
    lines += [".SH NAME", rf"{escaped(name)} \- {escaped(parser.summary or _SUMMARY)}"]
    lines += [".SH SYNOPSIS", *synopsis(parser)]
    lines += [".SH DESCRIPTION", *prose(parser.description or "")]
    if parser is program:
        lines += [".SH COMMANDS", *commands(program)]
    lines += [".SH OPTIONS", *options(parser)]
    if parser is not program:
        lines += [".SH EXAMPLES", *prose((parser.epilog or "").partition("\n")[2])]
    lines += [".SH EXIT STATUS", *exit_codes(program)]
    others = [
        other for other in ("wireline", *(f"wireline-{each}" for each in program.commands)) if other != name
    ]
    lines += [".SH SEE ALSO", *(f".BR {escaped(other)} (1)," for other in others[:-1])]
    lines += [f".BR {escaped(others[-1])} (1)"]
    return "\n".join(lines) + "\n"


def synopsis(parser: Parser) -> Iterator[str]:
    """The command with its arguments; the options have a section of their own."""
    yield f".B {escaped(parser.prog)}"
    yield r"[\fIOPTION\fR]..."
    arguments = [action for action in parser.shown if not action.option_strings]
    for action in arguments:
        yield rf"\fI{escaped(metavar(action))}\fR{'...' if action.nargs == '*' else ''}"
    if parser.commands:
        yield r"\fICOMMAND\fR ..."


def metavar(action: argparse.Action) -> str:
    """What stands for the value."""
    if action.choices is not None and action.metavar is None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def commands(program: Parser) -> Iterator[str]:
    """The commands with their summaries."""
    for name, command in program.commands.items():
        yield from (
            ".TP",
            rf"\fB{escaped(name)}\fR",
            *sentence(command.summary),
            f"See \\fBwireline\\-{name}\\fR(1).",
        )


def options(parser: Parser) -> Iterator[str]:
    """The arguments and options in their groups; the standard groups have no heading."""
    for group in parser._action_groups:
        actions = [action for action in parser.shown if action in group._group_actions]
        if actions and group.title not in ("positional arguments", "options", "commands"):
            yield f".SS {escaped(str(group.title))}"
        for action in actions:
            yield from (".TP", heading(action), *sentence(parser.help_of(action)))


def heading(action: argparse.Action) -> str:
    """The spellings of an option and its value, or the name of an argument."""
    value = rf"\fI{escaped(metavar(action))}\fR"
    if not action.option_strings:
        return value
    if action.nargs == 0:
        value = ""
    return ", ".join(rf"\fB{escaped(name)}\fR{' ' if value else ''}{value}" for name in action.option_strings)


def sentence(text: str) -> list[str]:
    """A text of help as a sentence."""
    return filled(text[:1].upper() + text[1:] + ("" if text.endswith(".") else "."))


def exit_codes(program: Parser) -> Iterator[str]:
    """The table of exit codes, from the two columns of the help."""
    found = re.findall(r"(?:^|  )(\d[\d, ]*)  ([^\n]*?)(?=  +\d|$)", program.epilog or "", re.MULTILINE)
    for codes, meaning in sorted(found, key=lambda each: int(each[0].partition(",")[0])):
        yield from (".TP", rf"\fB{escaped(codes.strip())}\fR", *sentence(meaning.strip()))


def prose(text: str) -> Iterator[str]:
    """Paragraphs at the margin, which are filled, and indented lines, which stay as they are."""
    for kind, lines in groupby(text.strip("\n").split("\n"), key=kind_of):
        if kind == "blank":
            yield ".PP"
        elif kind == "prose":
            yield from filled(" ".join(lines))
        else:
            yield from (".RS 2", ".nf", *(line_of(line[2:]) for line in lines), ".fi", ".RE")


def kind_of(line: str) -> str:
    """What a line of a help text is."""
    if not line:
        return "blank"
    return "indented" if line.startswith(" ") else "prose"


def filled(text: str) -> list[str]:
    """Prose in short lines, as the style of manual pages has them."""
    return [line_of(line) for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]


def line_of(text: str) -> str:
    """A line of text; roff would take a point or an apostrophe at its beginning for a request."""
    line = escaped(text)
    return rf"\&{line}" if line[:1] in ".'" else line


def escaped(text: str) -> str:
    """Text in which roff finds no escapes of its own, and that has the hyphens and quotes of a terminal."""
    return text.translate(_ESCAPES)


def write(directory: Path) -> list[Path]:
    """Write the pages into a directory; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in pages().items():
        written.append(directory / name)
        written[-1].write_text(text, encoding="utf-8")
    return written


def main(arguments: Iterable[str]) -> int:
    """Write the pages, and print their paths."""
    for path in write(Path(next(iter(arguments), "build/man"))):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
