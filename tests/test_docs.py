"""The documentation tells the truth: its programs run and print what it says, and it names what there is."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tls import certificates
from wireline import asyncnet, net, tls

ROOT = Path(__file__).resolve().parent.parent

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PRINTS = re.compile(r"^#> ?(.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_programs_of_a_page_print_what_it_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of a page are one program, each continues the one before. The files that they name are there."""
    for name, source in zip(("server.pem", "server.key"), certificates.server(), strict=True):
        shutil.copy(source, tmp_path / name)
    shutil.copy(certificates.ca_file(), tmp_path / "ca.pem")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": page}
    expected: list[str] = []
    for block in _BLOCK.finditer(text):
        # As many newlines as there are above it, so that a traceback names the page's own line.
        source = "\n" * text.count("\n", 0, block.start(1)) + block[1]
        exec(compile(source, page, "exec"), namespace)
        expected += _PRINTS.findall(block[1])
    assert expected, f"{page} has no program"
    assert capsys.readouterr().out.splitlines() == expected


DOORS = {
    "wireline": "docs/reference/wireline.md",
    "wireline.net": "docs/reference/net.md",
    "wireline.asyncnet": "docs/reference/asyncnet.md",
    "wireline.tls": "docs/reference/tls.md",
}
CLASSES = [net.Socket, net.Server, asyncnet.AsyncSocket, asyncnet.Server, tls.SslContext, tls.SessionCache]


def name_of(subject: type) -> str:
    return f"{subject.__module__}.{subject.__qualname__}"


@pytest.mark.parametrize(("door", "page"), DOORS.items(), ids=DOORS)
def test_the_reference_has_every_public_name_and_no_other(door: str, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    documented: list[str] = []
    for entry in re.finditer(r"^\.\. (?:auto\w+|py:\w+):: (\w+(?:\n {13}\w+)*)$", text, re.MULTILINE):
        documented += entry[1].split()
    assert sorted(documented) == sorted(importlib.import_module(door).__all__)


@pytest.mark.parametrize("subject", CLASSES, ids=name_of)
def test_the_reference_has_every_method_and_no_other(subject: type) -> None:
    door = subject.__module__.rpartition(".")[0]
    text = (ROOT / DOORS[door]).read_text(encoding="utf-8")
    inside = re.search(rf"^\.\. autoclass:: {subject.__name__}$(.*?)^(?=\S)", text, re.DOTALL | re.MULTILINE)
    assert inside is not None
    documented = re.findall(r"^   \.\. auto\w+:: (\w+)$", inside[1], re.MULTILINE)
    documented += re.findall(rf"^\.\. auto\w+:: {subject.__name__}\.(\w+)$", text, re.MULTILINE)
    public = {name for room in subject.__mro__[:-1] for name in [*vars(room), *inspect.get_annotations(room)]}
    assert sorted(documented) == sorted(name for name in public if not name.startswith("_"))


CALLABLES = [*CLASSES, net.dial, net.serve, asyncnet.dial, asyncnet.serve]


@pytest.mark.parametrize("subject", CALLABLES, ids=name_of)
def test_whatever_can_be_called_says_what_it_does(subject: object) -> None:
    assert inspect.getdoc(subject)
    public = [name for name in dir(subject) if not name.startswith("_")]
    assert [name for name in public if not inspect.getdoc(getattr(subject, name))] == []


def test_the_page_of_the_command_has_every_option_and_no_other() -> None:
    text = (ROOT / "docs/reference/command.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    offered = set()
    for command in re.findall(r"^## wireline (\w+)", text, re.MULTILINE):
        asked = [sys.executable, "-m", "wireline", command, "--help"]
        helped = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
        offered |= set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", helped.stdout, re.MULTILINE))
    assert documented == offered - {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"
