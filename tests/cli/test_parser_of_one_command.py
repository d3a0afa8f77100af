"""A command line that begins with a command has the parser of that command alone, and nothing of it is different."""

from __future__ import annotations

import shlex

import pytest

from tests.cases import in_turn
from tests.cli.test_help import commands
from tests.cli.test_netcat import LINES
from wireline.cli import main
from wireline.cli.parser import _parser

WRONG = [
    "",
    "--nothing",
    "TARGET --nothing",
    "--debug=1",
    "--version",
    "connect",
    "listen --keep :1",
    "--keep",
    "-lvnp 4444",
    "-e sh h:1",
    "--timeout",
    "--timeout x h:1",
    "h:1 h:2 h:3 h:4",
    "--fd 3 h:1 h:2 h:3",
    "-- --keep",
    "-h",
]


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """What a command line prints that only the parser looks at."""
    code = 0
    try:
        _parser.parse(words)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@in_turn("command", commands())
def test_help_errors_and_advice_are_those_of_the_whole_parser(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_parser = _parser.make_parser
    netcat = [line for line in LINES if line.startswith(f"{command} ")]
    lines = [*(f"{command} {line}" for line in WRONG), *netcat]
    made: list[int] = []

    def counted(*names: object) -> object:
        parser = make_parser(*names)
        made.append(len(parser.commands))
        return parser

    monkeypatch.setattr(_parser, "make_parser", counted)
    alone = [printed(shlex.split(line), capsys) for line in lines]
    assert set(made) == {1}
    monkeypatch.setattr(_parser, "make_parser", lambda names: make_parser())
    assert alone == [printed(shlex.split(line), capsys) for line in lines]
    assert make_parser((command,)).commands[command].format_help() == alone[-1 - len(netcat)][1]


@in_turn("words", [[], ["--debug", "connect", "h"], ["conect", "h:1"], ["--help"], ["-l", "9000"]])
def test_other_command_lines_have_the_parsers_of_all_commands(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_parser = _parser.make_parser
    made: list[object] = []
    monkeypatch.setattr(_parser, "make_parser", lambda names: made.append(names) or make_parser(names))
    main(words)
    assert made == [tuple(commands())]
    capsys.readouterr()
