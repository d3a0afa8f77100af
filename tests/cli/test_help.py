"""The help of every command."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.cases import in_turn
from wireline.cli import main
from wireline.cli.parser._parser import make_parser, parse


def commands() -> list[str]:
    return list(make_parser().commands)


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([command, "--help"]) == 0
    return capsys.readouterr().out


@in_turn("command", commands())
def test_every_command_has_examples_and_fits_a_screen(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys)
    examples = text[text.index("\nexamples:\n") :]
    assert f"wireline {command} " in examples
    assert max(map(len, text.splitlines())) <= 120


@in_turn("columns, widest", [(80, 80), (200, 100)])
@in_turn("command", ["", *commands()])
def test_help_is_as_wide_as_the_terminal_and_not_too_wide_to_read(
    command: str,
    columns: int,
    widest: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([*([command] if command else []), "--help"]) == 0
    text = capsys.readouterr().out.partition("\nexamples:\n")[0]
    # The lines of usage are argparse's own: Python 3.11 breaks no pair of brackets.
    text = text.partition("\n\n")[2]
    prose = text.partition("\npositional arguments:")[0]
    assert [line for line in prose.splitlines() if len(line) > widest] == []
    assert [line for line in text.splitlines() if len(line) > columns] == []


@in_turn("command", commands())
def test_every_option_is_explained(command: str) -> None:
    unexplained = [each.dest for each in make_parser().commands[command].arguments if not each.help]
    assert unexplained == []


@in_turn("command", commands())
def test_the_examples_are_right_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(command, capsys)
    found = re.findall(rf"^  .*?(wireline {command} .*)$", text[text.index("\nexamples:\n") :], re.MULTILINE)
    assert found
    for line in found:
        words = shlex.split(re.split(r" {2,}|[|>]", line)[0])
        parse(words[1:])  # wrong usage ends it


def test_every_command_is_in_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {command}\b", text, re.MULTILINE) for command in commands())
