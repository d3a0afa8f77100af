"""The order of words: options may stand anywhere among the arguments of a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wireline.cli.parser._usage import Parser


def options_first(parser: Parser, words: Sequence[str]) -> Sequence[str]:
    """The words of a command line with the options of its command before the arguments.

    ``argparse`` takes all targets from the first row of arguments, and refuses those after one more option. Its own
    remedy, ``parse_intermixed_args``, knows no commands.
    """
    start = next((index for index, word in enumerate(words) if not word.startswith("-")), len(words))
    if start == len(words) or words[start] not in parser.commands:
        return words
    actions = parser.commands[words[start]].arguments
    has_value = {name: action.nargs != 0 for action in actions for name in action.option_strings}
    options: list[str] = []
    arguments: list[str] = []
    left = iter(words[start + 1 :])
    for word in left:
        name, equals, _ = word.partition("=")
        if word == "--":
            arguments += [word, *left]
        elif name in has_value:
            options.append(word)
            if has_value[name] and not equals:
                value = next(left, "--")
                if _begins_an_option(value):
                    return words  # it is missing, and argparse says so
                options.append(value)
        elif _begins_an_option(word):
            return words  # a negative number: an error in any order
        else:
            arguments.append(word)
    return [*words[: start + 1], *options, *arguments]


def _begins_an_option(word: str) -> bool:
    return word.startswith("-") and word != "-"
