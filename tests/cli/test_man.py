"""The manual pages: valid, complete, and the same text as ``--help``."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_completion import awkward_parser
from tests.tools import require_tool
from tools import man
from wireline.cli.parser._parser import make_parser


@pytest.fixture
def written(tmp_path: Path) -> list[str]:
    man.main([str(tmp_path)])
    return [str(path) for path in sorted(tmp_path.glob("*.1"))]


def test_there_is_a_page_for_each_command(written: list[str]) -> None:
    names = {"wireline.1", *(f"wireline-{name}.1" for name in make_parser().commands)}
    assert {Path(path).name for path in written} == names


def test_mandoc_has_no_complaint(written: list[str]) -> None:
    mandoc = require_tool("mandoc", "mandoc")
    ran = subprocess.run(
        [mandoc, "-T", "lint", "-W", "all", *written], capture_output=True, text=True, timeout=30
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_groff_has_no_warning(written: list[str]) -> None:
    program = require_tool("man", "man-db")
    for path in written:
        ran = subprocess.run(
            [program, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        )
        assert (ran.returncode, ran.stderr) == (0, "")


def read_by_mandoc(path: Path) -> str:
    mandoc = require_tool("mandoc", "mandoc")
    ran = subprocess.run(
        [mandoc, "-T", "ascii", "-O", "width=1000", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return re.sub(".\b", "", ran.stdout)  # bold and underlined characters are printed over others


def test_a_page_has_every_option_and_example_of_its_command(written: list[str]) -> None:
    for name, command in make_parser().commands.items():
        path = next(Path(path) for path in written if path.endswith(f"wireline-{name}.1"))
        text = read_by_mandoc(path)
        assert [option for option in command.options if option not in text] == []
        for line in (command.epilog or "").splitlines():
            assert line.strip().removesuffix(":") in text or line == "examples:"


def test_the_text_of_a_page_is_not_taken_for_roff(tmp_path: Path) -> None:
    parser = awkward_parser()
    path = tmp_path / "wireline-go.1"
    parser.commands["go"].epilog = "examples:\n  .dot 'quote \\n `id` ^~ %\n'prose\n"
    path.write_text(man.page(parser.commands["go"], parser))
    text = read_by_mandoc(path)
    assert ".dot 'quote \\n `id` ^~ %" in text
    assert "'prose" in text
    assert 'The user\'s [own] $HOME `id` \\n "x" 50% of a:b *?!#.' in text


def test_a_build_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert all("1970-01-02" in text.splitlines()[0] for text in man.pages().values())
