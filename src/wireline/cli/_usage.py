"""How the command explains itself: help as wide as the terminal, and one sentence to who types a wrong word."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import NoReturn

_WIDEST = 100
"""Characters of a line of text; longer ones are tiring to read, however wide the terminal is."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Fills what is written at the margin; what is indented stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for is_text, lines in groupby(text.split("\n"), key=lambda line: line[:1] not in ("", " ")):
            part = "\n".join(lines)
            # What has a hyphen in it may be meant to be typed.
            filled = textwrap.fill(part, min(width, _WIDEST), break_on_hyphens=False) if is_text else part
            parts.append(filled)
        return "\n".join(parts)


class Parser(argparse.ArgumentParser):
    """A parser without a screen of usage before what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with 2."""
        sentence = message.removeprefix("argument ").rstrip(".")
        self.exit(2, f"wireline: {sentence}; '{self.prog} --help' shows what there is\n")


def reject_unknown_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """End with a sentence if an option does not exist.

    ``argparse`` would take the value of a mistyped option for the target, and complain of that.

    Raises:
        SystemExit: one does not; everything is said.
    """
    commands = _commands(parser)
    current = parser
    for word in words:
        if word == "--":
            return
        name = word.partition("=")[0]
        if not _looks_like_an_option(name):
            current = commands.get(word, current) if current is parser else current
        elif name not in _options(current):
            current.exit(2, f"wireline: {_complaint(name, current, commands)}\n")


def _looks_like_an_option(name: str) -> bool:
    # A minus alone, and a number below 0, are values; `argparse` sees it so, too.
    return name.startswith("-") and name != "-" and not name[1:2].isdigit() and " " not in name


def _complaint(
    name: str, parser: argparse.ArgumentParser, commands: dict[str, argparse.ArgumentParser]
) -> str:
    knowing = [command for command, each in commands.items() if name in _options(each)]
    if parser not in commands.values() and knowing:
        return f"{name} belongs to a command: write 'wireline {knowing[0]} {name} ...'"
    import difflib  # for who mistypes, and for nobody else

    near = difflib.get_close_matches(f"--{name.lstrip('-')}", sorted(_options(parser)), n=1)
    advice = f"write {near[0]}, or see" if near else "see"
    return f"there is no option {name}; {advice} '{parser.prog} --help'"


def _options(parser: argparse.ArgumentParser) -> Collection[str]:
    return {name for action in parser._actions for name in action.option_strings}


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return {
        name: command
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, command in action.choices.items()
    }
