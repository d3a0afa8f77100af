"""The benchmark of the command does the work that it measures, and names each program that does not."""

from __future__ import annotations

import re
import sys

import pytest

from benchmarks.command import NETCAT, OURS, Copier, main
from tests.tools import require_tool

# Receives as netcat does, and spoils one byte; with the word "fail" it then fails.
_CHEAT = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("here", file=sys.stderr, flush=True)
    with server.accept()[0] as client:
        data = b"".join(iter(lambda: client.recv(65536), b""))
sys.stdout.buffer.write(data[:-1] + b"?" if sys.argv[2] == "spoil" else data)
sys.exit("no more" if sys.argv[2] == "fail" else 0)
"""


def cheat(fault: str) -> Copier:
    return Copier("cheat", (sys.executable, "-c", _CHEAT, "PORT", fault), OURS.sender)


def measured(
    capsys: pytest.CaptureFixture[str], size: int, rounds: int, *contestants: Copier
) -> tuple[int, str]:
    code = main(["--size", str(size), "--rounds", str(rounds)], contestants)
    return code, capsys.readouterr().out


def test_every_program_copies_the_file_and_starts(capsys: pytest.CaptureFixture[str]) -> None:
    require_tool("nc.openbsd", "netcat-openbsd")
    code, shown = measured(capsys, 3_000_000, 2, NETCAT, OURS)
    assert code == 0, shown
    names = re.findall(r"(?m)^(.*?)  +CPU +\d+\.\d{3} s  elapsed +\d+\.\d{3} s", shown)
    assert names == [
        "3,000,000 bytes, nc",
        "3,000,000 bytes, wireline",
        "start of the interpreter",
        "start of wireline --version",
        "start of wireline connect",
    ]
    assert len(re.findall(r"ratio of CPU \d+\.\d\d, of elapsed \d+\.\d\d", shown)) == 3


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("spoil", "FAILED: cheat made a copy that differs from the original\n"),
        ("fail", f"FAILED: {sys.executable} ended with 1: no more\n"),
    ],
)
def test_a_program_that_does_not_do_the_work_is_named(
    fault: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = measured(capsys, 100_000, 1, OURS, cheat(fault))
    assert (code, shown) == (1, sentence)


def test_a_program_that_is_not_installed_is_left_out_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    absent = Copier("nowhere", ("no-such-program", "PORT"), ("no-such-program", "PORT"))
    code, shown = measured(capsys, 1, 1, absent, OURS)
    assert code == 0, shown
    assert shown.startswith("left out: nowhere (no-such-program is not installed)\n1 bytes, wireline ")


@pytest.mark.parametrize("words", [["--size", "0"], ["--rounds", "0"], ["--size", "much"]])
def test_wrong_words_are_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err
