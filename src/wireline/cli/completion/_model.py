"""What can be completed: the commands, options and values of the parsers, without what argparse needs of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from wireline.cli.parser import _option_types

if TYPE_CHECKING:
    from wireline.cli.parser._usage import Parser

_MAX_DESCRIPTION = 72
"""Characters: a line of 100 has room for the longest option beside it."""

_FILES = ("FILE", "ASYNC", "SYNC")
_ADDRESSES = ("TARGET", "ADDRESS", "LISTEN")

_SCHEMES = {
    "tls://": ("TLS over TCP", "tls://h:1"),
    "udp://": ("UDP", "udp://h:1"),
    "unix:": ("a Unix socket", "unix:/s"),
    "unix-dgram:": ("a Unix datagram socket", "unix-dgram:/s"),
}
"""What an address begins with, its description, and an address that shows whether a command accepts it."""

_SOURCES = {
    "file:": "a file",
    "fd:": "a descriptor",
    "env:": "an environment variable",
    "prompt": "ask on the terminal",
}


class Value(NamedTuple):
    """What completes a value. With neither words nor files, nothing does.

    Attributes:
        name: as the help calls it.
        words: each with its description, which may be empty; one that ends with ``:`` or ``/`` is a beginning.
        files: whether it is the path of a file or directory.
        socket_prefixes: the words that the path of a socket follows.
        file_prefixes: the words that the path of a file follows.
    """

    name: str
    words: tuple[tuple[str, str], ...] = ()
    files: bool = False
    socket_prefixes: tuple[str, ...] = ()
    file_prefixes: tuple[str, ...] = ()


class Option(NamedTuple):
    """An option, or with no names an argument.

    Attributes:
        names: its spellings.
        description: the first clause of its help.
        value: what completes its value; None if it has none.
        repeats: whether it may be given more than once.
        excludes: the names of the options that cannot be given with it.
    """

    names: tuple[str, ...]
    description: str
    value: Value | None
    repeats: bool
    excludes: tuple[str, ...]


class Command(NamedTuple):
    """A command; that with the name ``""`` is the program before one."""

    name: str
    description: str
    options: tuple[Option, ...]
    arguments: tuple[Option, ...]


class Program(NamedTuple):
    """Everything that can be completed."""

    itself: Command
    commands: tuple[Command, ...]

    @property
    def all(self) -> tuple[Command, ...]:
        """The program before a command, and the commands."""
        return (self.itself, *self.commands)


def program_of(parser: Parser) -> Program:
    """Read the parsers."""
    commands = (_command(name, each) for name, each in parser.commands.items())
    return Program(_command("", parser), tuple(commands))


def _command(name: str, parser: Parser) -> Command:
    options = [_option(action, parser) for action in parser.shown]
    return Command(
        name,
        parser.summary,
        tuple(option for option in options if option.names),
        tuple(option for option in options if not option.names),
    )


def _option(action: argparse.Action, parser: Parser) -> Option:
    return Option(
        tuple(action.option_strings),
        short(parser.help_of(action)),
        _value(action) if action.nargs != 0 else None,
        parser.repeats(action),
        tuple(parser.excluded_by(action)),
    )


def _value(action: argparse.Action) -> Value:
    name = str(action.metavar or action.dest.replace("_", "-"))
    if action.choices is not None:
        return Value(name, tuple((str(choice), "") for choice in action.choices))
    if name in _FILES:
        return Value(name, files=True)
    if name in _ADDRESSES:
        return _address(name, action)
    if name == "SOURCE":
        return Value(name, tuple(_SOURCES.items()), file_prefixes=("file:",))
    return Value(name)


def _address(name: str, action: argparse.Action) -> Value:
    # `connect` makes its target of one word or of two, later.
    parse = action.type if callable(action.type) else _option_types.target
    words = [(word, text) for word, (text, sample) in _SCHEMES.items() if _accepts(parse, sample)]
    return Value(
        name, tuple(words), socket_prefixes=tuple(word for word, _ in words if word.startswith("unix"))
    )


def _accepts(parse: Callable[[str], object], sample: str) -> bool:
    try:
        parse(sample)
    except (argparse.ArgumentTypeError, ValueError):
        return False
    return True


def short(text: str) -> str:
    """The first clause of a help text, at most `_MAX_DESCRIPTION` characters."""
    clause = re.split(r"(?<!unix)[;:] | \(", text)[0]
    if len(clause) > _MAX_DESCRIPTION:
        clause = clause[: _MAX_DESCRIPTION - 3].rpartition(" ")[0].rstrip(",") + "..."
    return clause


def values_of(program: Program) -> list[Value]:
    """The values for which a script has a function, each once: those with a beginning that a path follows."""
    found = (option.value for command in program.all for option in (*command.options, *command.arguments))
    return list(dict.fromkeys(value for value in found if value and has_beginnings(value)))


def has_beginnings(value: Value) -> bool:
    """Whether some words of a value are only its beginning."""
    return bool(value.socket_prefixes or value.file_prefixes)


def quoted(text: str) -> str:
    """A word in single quotes for bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def indented(lines: Iterable[str], width: int = 4) -> str:
    """Lines with a margin."""
    return "\n".join(f"{' ' * width}{line}" for line in lines)
