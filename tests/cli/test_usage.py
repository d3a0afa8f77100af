"""The words of the command line: help, version, wrong usage."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.cli.conftest import Start
from wireline.cli import main


def test_without_words_it_prints_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: wireline" in err
    assert "connect" in err
    assert "listen" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"wireline \S.*\n", capsys.readouterr().out)


def test_version_of_a_source_tree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib import metadata

    def not_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    assert main(["--version"]) == 0
    assert "not installed" in capsys.readouterr().out


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {code}  " in out for code in range(7))


@pytest.mark.parametrize("command", ["connect", "listen"])
def test_help_of_a_command_ends_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    examples = text[text.index("\nexamples:\n") :]
    assert f"wireline {command} " in examples
    # Nobody should have to scroll sideways.
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "complaint"),
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
        # Not "'3' is not a target": that is what argparse would make of it.
        (["connect", "--timout", "3", "127.0.0.1:9"], "there is no option --timout; write --timeout, or see"),
        (["listen", "-echo", "127.0.0.1:0"], "there is no option -echo; write --echo, or see"),
        (["check", "--colour", "127.0.0.1:9"], "there is no option --colour; see 'wireline check --help'"),
        (["--show-code", "connect", "127.0.0.1:9"], "write 'wireline connect --show-code ...'"),
        (["--loud", "connect", "127.0.0.1:9"], "there is no option --loud; see 'wireline --help'"),
        (["connect", "--", "--timout"], "'--timout' is not a target"),
        (["listen", "--echo", "--discard", "127.0.0.1:0"], "not allowed with"),
        (["listen", "--echo", "--crlf", "127.0.0.1:0"], "--crlf is for standard input"),
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
    # argparse keeps a failed write to itself where Python does not buffer: then the code is 0.
    assert command.finish().err == ""


def test_version_onto_a_full_disk_fails_with_the_reason(start: Start) -> None:
    result = start("--version", redirect="> /dev/full").finish()
    assert result.code == 1
    assert result.err == "wireline: cannot write to standard output: No space left on device\n"


def test_the_command_starts_without_what_it_does_not_need() -> None:
    code = """
import sys
before = set(sys.modules)
import wireline.cli
print(*{"rich", "asyncio", "ssl"} & (set(sys.modules) - before))
"""
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, capture_output=True, check=True, timeout=20).stdout == b"\n"
