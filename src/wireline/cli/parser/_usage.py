"""How the command prints help, filled to the width of the terminal, and usage errors, one sentence each."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any, NoReturn, TypeAlias

from wireline.cli._printable import sanitize_for_terminal

_MAX_TEXT_WIDTH = 100
"""Characters of a line of prose, however wide the terminal is: longer lines are hard to read."""

_USUAL_WIDTH = 80
"""Columns where there is no terminal."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Fills lines that start at the margin, and leaves indented lines as they are."""

    def __init__(self, prog: str) -> None:
        # Without a width argparse imports shutil, for each command line: it makes a formatter for each option.
        super().__init__(prog, width=_terminal_width() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap  # only help needs it

        parts = []
        for is_prose, lines in groupby(text.split("\n"), key=lambda line: line[:1] not in ("", " ")):
            part = "\n".join(lines)
            # A word with a hyphen may be an option: it stays on one line.
            filled = (
                textwrap.fill(part, min(width, _MAX_TEXT_WIDTH), break_on_hyphens=False) if is_prose else part
            )
            parts.append(filled)
        return "\n".join(parts)


def _terminal_width() -> int:
    """Columns, as ``shutil.get_terminal_size`` finds them."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or _USUAL_WIDTH
    except OSError:  # no terminal
        return _USUAL_WIDTH


ArgumentGroup: TypeAlias = "argparse._ArgumentGroup"
"""The result of ``add_argument_group``, which has no public name."""


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one sentence, and that lists its options and commands.

    Attributes:
        commands: the parsers of the commands by name.
        summary: what a command does, in a few words.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, formatter_class=HelpFormatter, allow_abbrev=False, **options)
        self.commands: dict[str, Parser] = {}
        self.summary = ""

    @property
    def arguments(self) -> Sequence[argparse.Action]:
        """The options and arguments, without those of the commands."""
        return [action for action in self._actions if not isinstance(action, argparse._SubParsersAction)]

    @property
    def shown(self) -> Sequence[argparse.Action]:
        """The same without those that the help hides."""
        return [action for action in self.arguments if action.help != argparse.SUPPRESS]

    def help_of(self, action: argparse.Action) -> str:
        """The help text of an option or argument, as argparse expands it, in one line."""
        return " ".join(((action.help or "") % {**vars(action), "prog": self.prog}).split())

    @property
    def options(self) -> Collection[str]:
        """The names of the options."""
        return {name for action in self._actions for name in action.option_strings}

    def repeats(self, action: argparse.Action) -> bool:
        """Whether an option or argument may be given more than once."""
        return isinstance(action, self._registry_get("action", "append")) or action.nargs in ("*", "+")

    def excluded_by(self, action: argparse.Action) -> list[str]:
        """The names of the options that cannot be given with an option."""
        groups = [group._group_actions for group in self._mutually_exclusive_groups]
        others = [other for group in groups if action in group for other in group if other is not action]
        return [name for other in others for name in other.option_strings]

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with 2."""
        sentence = message.removeprefix("argument ")
        self.refuse(f"{sentence}; see '{self.prog} --help'")

    def refuse(self, sentence: str) -> NoReturn:
        """Print a sentence and exit with 2."""
        self.exit(2, f"wireline: {sanitize_for_terminal(sentence)}\n")


def reject_unknown_options(parser: Parser, words: Sequence[str]) -> None:
    """Exit with 2 and one sentence if an option does not exist.

    ``argparse`` would read the value of a mistyped option as the target, and report that instead. For options of netcat
    the sentence has the line to write.

    Raises:
        SystemExit: an option does not exist.
    """
    current = parser
    for index, word in enumerate(words):
        if word == "--":
            return
        name = word.partition("=")[0]
        if not _looks_like_an_option(name):
            if current is parser and word not in parser.commands:
                _reject_unknown_command(parser, words[index:])
            current = current.commands.get(word, current)
        elif name not in current.options:
            from wireline.cli.parser._netcat import advise  # only wrong usage needs it

            current.refuse(str(advise(parser, words) or _unknown_option(name, current)))


def _reject_unknown_command(parser: Parser, words: Sequence[str]) -> None:
    from wireline.cli.parser._netcat import advise_command  # only wrong usage needs it

    advice = advise_command(words)
    if advice:
        parser.refuse(advice)


def _looks_like_an_option(name: str) -> bool:
    # "-" and negative numbers are values, for `argparse` too.
    if name in ("-4", "-6"):
        return True
    return name.startswith("-") and name != "-" and not name[1:2].isdigit() and " " not in name


def _unknown_option(name: str, parser: Parser) -> str:
    owners = [command for command, each in parser.commands.items() if name in each.options]
    if owners:
        return f"{name} belongs to a command: write 'wireline {owners[0]} {name} ...'"
    import difflib  # only a mistyped option needs it

    # A letter is near to nothing.
    word = name.lstrip("-")
    near = difflib.get_close_matches(f"--{word}", sorted(parser.options), n=1) if len(word) > 2 else []
    advice = f"write {near[0]}, or see" if near else "see"
    return f"there is no option {name}; {advice} '{parser.prog} --help'"
