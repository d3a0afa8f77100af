"""The help of every command, and completion in shells."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.cli.conftest import Start
from wireline.cli import main
from wireline.cli.parser._parser import make_parser, parse


def commands() -> list[str]:
    return list(make_parser().commands)


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([command, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", commands())
def test_every_command_has_examples_and_fits_a_screen(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys)
    examples = text[text.index("\nexamples:\n") :]
    assert f"wireline {command} " in examples
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(("columns", "widest"), [(80, 80), (200, 100)])
@pytest.mark.parametrize("command", ["", *commands()])
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


@pytest.mark.parametrize("command", commands())
def test_every_option_is_explained(command: str) -> None:
    unexplained = [each.dest for each in make_parser().commands[command].arguments if not each.help]
    assert unexplained == []


@pytest.mark.parametrize("command", commands())
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


# Completion.

WORDS = ("connect", "check", "--starttls", "--ca-file", "postgres")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_has_commands_and_options(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    for word in WORDS:
        assert word.removeprefix("--") in out


def test_bash_completes(start: Start) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    script = start("completion", "bash").finish().out.decode()

    def complete(*words: str) -> list[str]:
        typed = " ".join(map(shlex.quote, words))
        program = f"""{script}
COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(typed)}; COMP_POINT=${{#COMP_LINE}}
$(complete -p wireline | sed 's/.*-F \\([^ ]*\\).*/\\1/') wireline {shlex.quote(words[-1])} {shlex.quote(words[-2])}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        ran = subprocess.run(
            [bash, "--norc", "-c", program], capture_output=True, text=True, timeout=10, check=True
        )
        return ran.stdout.split()

    assert complete("wireline", "ch") == ["check"]
    assert complete("wireline", "check", "--start") == ["--starttls"]
    assert complete("wireline", "relay", "--show") == ["--show-code"]
    assert complete("wireline", "twin", "--ch") == ["--check"]
    assert complete("wireline", "completion", "f") == ["fish"]
    assert complete("wireline", "check", "--starttls", "po") == ["pop3", "postgres"]


def test_without_shtab_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert capfd.readouterr() == (
        "",
        "wireline: completion needs the package shtab: pip install 'wireline[cli]'\n",
    )


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "cmd.exe"]) == 2
    assert "invalid choice" in capsys.readouterr().err


def test_a_full_disk_is_reported(start: Start) -> None:
    result = start("completion", "bash", redirect="> /dev/full").finish()
    assert (result.code, result.err) == (
        1,
        "wireline: cannot write to standard output: No space left on device\n",
    )
