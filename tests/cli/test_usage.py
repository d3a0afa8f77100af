"""Help, version, wrong usage, and start-up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.conftest import Start
from wireline.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_without_arguments_it_prints_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: wireline" in err
    assert "connect" in err
    assert "listen" in err


def test_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wireline {project['version']}\n"


def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {code}  " in out for code in range(7))


@in_turn("command", ["connect", "listen"])
def test_help_of_a_command_ends_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    examples = text[text.index("\nexamples:\n") :]
    assert f"wireline {command} " in examples
    # It fits into 120 columns.
    assert max(map(len, text.splitlines())) <= 120


@in_turn(
    "words, complaint",
    [
        (["dance"], "invalid choice: 'dance'"),
        (["connect"], "TARGET"),
        (["connect", "example.com"], "the port is missing"),
        (["connect", "127.0.0.1:99999"], "the port must be a number"),
        (["connect", "ftp://example.com:21"], "unknown scheme"),
        (["connect", "unix:"], "empty"),
        (["connect", "tls://example.com"], "the port is missing"),
        (["listen", "tls://:443"], "a TLS server needs --cert FILE"),
        (["connect", "--timeout", "0", "127.0.0.1:9"], "not a number of seconds above 0"),
        (["connect", "--timeout", "soon", "127.0.0.1:9"], "'soon' is not a number of seconds"),
        (["connect", "--timeout", "nan", "127.0.0.1:9"], "not a number of seconds above 0"),
        (["connect", "--timeout", "inf", "127.0.0.1:9"], "not a number of seconds above 0"),
        (["connect", "--timeou=3", "127.0.0.1:9"], "there is no option --timeou; write --timeout, or see"),
        # Not "'3' is not a target", which argparse alone would print.
        (["connect", "--timout", "3", "127.0.0.1:9"], "there is no option --timout; write --timeout, or see"),
        (["listen", "-echo", "127.0.0.1:0"], "there is no option -echo; write --echo, or see"),
        (["check", "--colour", "127.0.0.1:9"], "there is no option --colour; see 'wireline check --help'"),
        (["--show-code", "connect", "127.0.0.1:9"], "write 'wireline connect --show-code ...'"),
        (["--loud", "connect", "127.0.0.1:9"], "there is no option --loud; see 'wireline --help'"),
        (["connect", "--", "--timout"], "'--timout' is not a target"),
        (["listen", "--echo", "--discard", "127.0.0.1:0"], "not allowed with"),
        (["listen", "--echo", "--crlf", "127.0.0.1:0"], "--crlf changes standard input"),
    ],
)
def test_wrong_usage_is_a_sentence_and_exit_code_2(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wireline: ")
    assert complaint in err
    assert re.search(r"'wireline( \w+)? --(help|show-code \.\.\.)'", err), "it says where to read on"
    assert err.count("\n") == 1


def test_help_into_a_closed_pipe_is_quiet(start: Start) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        command = start("--help", stdout=write)
    finally:
        os.close(write)
    # With unbuffered output argparse ignores a failed write, and the code is 0.
    assert command.finish().err == ""


def test_version_onto_a_full_disk_fails_with_the_reason(start: Start) -> None:
    result = start("--version", redirect="> /dev/full").finish()
    assert result.code == 1
    assert result.err == "wireline: cannot write to standard output: No space left on device\n"


# Start-up is import time. The sets are modules that a command line must not import; each limit is the number of modules
# that it imports now, and a few more.
_NEVER = {
    "asyncio",
    "ctypes",
    "difflib",
    "importlib.metadata",
    "inspect",
    "json",
    "rich",
    "wireline.asyncnet",
}
_SLOW = {"cryptography", "dataclasses", "logging", "shutil", "ssl", "traceback", "wireline.tls"}
_OF_SOCKETS = {"threading", "wireline.net"}
_OF_OTHER_COMMANDS = {
    f"wireline.cli.parser._{name}_options"
    for name in ("check", "completion", "listen", "relay", "relay_tls", "serving", "twin")
}


@in_turn(
    "words, code, unwanted, limit",
    [
        (["--version"], 0, {"argparse", *_SLOW, *_OF_SOCKETS}, 70),
        (["--help"], 0, {*_SLOW, *_OF_SOCKETS}, 93),
        (["connect", "unix:/nowhere/at/all"], 3, {"textwrap", *_SLOW, *_OF_OTHER_COMMANDS}, 139),
        (["connect", "127.0.0.1:1"], 3, {"encodings.idna", "textwrap", *_SLOW, *_OF_OTHER_COMMANDS}, 139),
    ],
)
def test_a_command_line_imports_only_what_it_needs(
    words: list[str], code: int, unwanted: set[str], limit: int
) -> None:
    """In a fresh interpreter without site packages, whose start-up files may import anything."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
before = set(sys.modules)
from wireline.cli import main
code = main({words})
print(code, *sorted(set(sys.modules) - before))
"""
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True, timeout=20
    )
    exit_code, *modules = ran.stdout.splitlines()[-1].split()
    assert int(exit_code) == code
    assert "wireline.cli._main" in modules
    assert {*_NEVER, *unwanted} & set(modules) == set()
    assert len(modules) <= limit
