"""How the command prints help, filled to the width of the terminal, and usage errors, one sentence each."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import NoReturn

_MAX_TEXT_WIDTH = 100
"""Characters of a line of prose, however wide the terminal is: longer lines are hard to read."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Fills lines that start at the margin, and leaves indented lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for is_prose, lines in groupby(text.split("\n"), key=lambda line: line[:1] not in ("", " ")):
            part = "\n".join(lines)
            # A word with a hyphen may be an option: it stays on one line.
            filled = (
                textwrap.fill(part, min(width, _MAX_TEXT_WIDTH), break_on_hyphens=False) if is_prose else part
            )
            parts.append(filled)
        return "\n".join(parts)


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with 2."""
        sentence = message.removeprefix("argument ").rstrip(".")
        self.exit(2, f"wireline: {sentence}; see '{self.prog} --help'\n")


def reject_unknown_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Exit with 2 and one sentence if an option does not exist.

    ``argparse`` would take the value of a mistyped option for the target, and report that instead.

    Raises:
        SystemExit: an option does not exist.
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
            current.exit(2, f"wireline: {_unknown_option(name, current, commands)}\n")


def _looks_like_an_option(name: str) -> bool:
    # "-" and negative numbers are values, for `argparse` too.
    return name.startswith("-") and name != "-" and not name[1:2].isdigit() and " " not in name


def _unknown_option(
    name: str, parser: argparse.ArgumentParser, commands: dict[str, argparse.ArgumentParser]
) -> str:
    owners = [command for command, each in commands.items() if name in _options(each)]
    if parser not in commands.values() and owners:
        return f"{name} belongs to a command: write 'wireline {owners[0]} {name} ...'"
    import difflib  # only a mistyped option needs it

    near = difflib.get_close_matches(f"--{name.lstrip('-')}", sorted(_options(parser)), n=1)
    advice = f"write {near[0]}, or see" if near else "see"
    return f"there is no option {name}; {advice} '{parser.prog} --help'"


# argparse has no public way to list what a parser knows. Its two private names are used here and nowhere else.


def all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every option and argument of a parser and of the parsers of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from all_actions(command)


def _options(parser: argparse.ArgumentParser) -> Collection[str]:
    return {name for action in parser._actions for name in action.option_strings}


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return {
        name: command
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, command in action.choices.items()
    }
