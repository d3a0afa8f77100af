"""What is installed is what ``pyproject.toml`` and the doors of the house say."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wireline

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOORS = ["wireline", "wireline.net"]


def test_installed_metadata_is_that_of_this_checkout() -> None:
    installed = importlib.metadata.metadata("wireline")
    assert installed["Version"] == PROJECT["version"]
    assert installed["License-Expression"] == "MIT"
    assert sorted(installed.get_all("Provides-Extra") or []) == sorted(PROJECT["optional-dependencies"])
    assert Path(wireline.__file__).is_relative_to(ROOT), "the tests would run against another copy"


def test_the_library_has_no_run_time_dependency() -> None:
    requirements = importlib.metadata.requires("wireline") or []
    assert [each for each in requirements if "extra ==" not in each] == []


def test_the_command_is_installed() -> None:
    (command,) = importlib.metadata.distribution("wireline").entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("wireline", "wireline.cli:main")
    assert callable(command.load())


def test_types_are_announced() -> None:
    assert (Path(wireline.__file__).parent / "py.typed").is_file()
    assert Path(wireline.__file__).with_name("py.typed").read_text(encoding="utf-8") == ""


def test_the_changelog_knows_the_version() -> None:
    assert f"\n## {PROJECT['version']} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("door", DOORS)
def test_a_door_offers_exactly_what_it_lists(door: str) -> None:
    module = importlib.import_module(door)
    offered = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, type(sys))
    }
    assert sorted(module.__all__) == sorted(offered)
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("door", DOORS)
def test_importing_a_door_loads_neither_asyncio_nor_ssl(door: str) -> None:
    """In a fresh interpreter without site packages, whose start-up files may load anything."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import {door}; "
        "print(sorted({'asyncio', 'ssl', 'rich', 'wireline.cli'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", program], capture_output=True, text=True, timeout=20
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")
