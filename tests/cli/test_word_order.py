"""Options may stand before, between and after the arguments of a command."""

from __future__ import annotations

import argparse
import shlex

import pytest

from tests.cases import in_turn
from wireline.cli import main
from wireline.cli.parser._parser import make_parser, parse
from wireline.cli.parser._word_order import options_first

SAME = [
    (
        "relay --max 3 --stats :0 a:1 b:1",
        "relay :0 a:1 --max 3 b:1 --stats",
        "relay :0 --max=3 a:1 --stats b:1",
        "relay --max 3 :0 --stats -- a:1 b:1",
        "relay :0 --max 3 a:1 --stats -- b:1",
    ),
    (
        "check --days 3 --json a:1 b:1 c:1",
        "check a:1 --days 3 b:1 --json c:1",
        "check a:1 b:1 c:1 --json --days=3",
    ),
    ("check --targets - a:1", "check a:1 --targets -"),
    ("connect -4 --timeout 3 h 80", "connect h -4 80 --timeout 3", "connect h --timeout 3 80 -4"),
    ("listen --echo --keep :0", "listen :0 --echo --keep", "listen --echo :0 --keep"),
    (
        "twin --check --rename A=B one two",
        "twin one --check two --rename A=B",
        "twin one --rename A=B two --check",
    ),
    ("--debug relay --max 3 :0 a:1 b:1", "--debug relay :0 a:1 --max 3 b:1"),
]


def options_of(line: str) -> dict[str, object]:
    options = parse(shlex.split(line))
    values = dict(vars(options))
    checks = values.pop("checks", [])
    found = {name: value for name, value in values.items() if not callable(value)}
    assert isinstance(found.pop("parser"), argparse.ArgumentParser)
    return {**found, "checked": [each.target for each in checks]}


@in_turn("lines", SAME)
def test_options_stand_anywhere(lines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", [])
    monkeypatch.setattr("wireline.cli.parser._check_options._read_targets", lambda *_: [])
    first, *others = map(options_of, lines)
    assert all(other == first for other in others)


@in_turn(
    "line, error",
    [
        ("relay :0 a:1 --max", "--max: expected one argument"),
        ("relay :0 a:1 --max --stats b:1", "--max: expected one argument"),
        ("relay :0 a:1 --max x b:1", "--max: 'x' is not a number of connections above 0"),
        ("relay :0 --max 3", "the following arguments are required: TARGET"),
        ("relay :0 a:1 --nothing b:1", "there is no option --nothing"),
        ("relay :0 a:1 --max 3 b", "TARGET: 'b' is not a target: the port is missing"),
        ("connect h --timeout 3 80 81", "unrecognized arguments: 81"),
        ("connect h 1 -- --echo", "unrecognized arguments: --echo"),
        ("check a:1 --first b:1 --all-addresses", "--all-addresses: not allowed with argument --first"),
        ("listen :1 --fd 3 :2", "--fd takes the place of the address: leave out :1"),
        ("relay a:1 -5 b:1", "'-5' is not a target"),
    ],
)
def test_errors_are_those_of_any_order(line: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)) == 2
    err = capsys.readouterr().err
    assert error in err
    assert err.count("\n") == 1


def test_a_line_without_a_command_stays_as_it_is() -> None:
    parser = make_parser()
    for words in ([], ["--debug"], ["dance", "--max", "3", "x"], ["-l", "9000"]):
        assert options_first(parser, words) == words
