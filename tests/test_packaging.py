"""The installed package agrees with ``pyproject.toml`` and with the public modules."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import wireline.net

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_installed_metadata_is_that_of_this_checkout() -> None:
    installed = importlib.metadata.metadata("wireline")
    assert installed["Version"] == PROJECT["version"]
    assert installed["License-Expression"] == "MIT"
    assert sorted(installed.get_all("Provides-Extra") or []) == sorted(PROJECT["optional-dependencies"])
    assert Path(wireline.__file__).is_relative_to(ROOT), "the tests would run against another copy"


def test_the_library_has_no_run_time_dependency() -> None:
    requirements = importlib.metadata.requires("wireline") or []
    assert [each for each in requirements if "extra ==" not in each] == []


def test_every_tool_of_an_extra_is_pinned() -> None:
    pinned = re.findall(
        r"^([\w-]+)==\S+(?: ; .*)?$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE
    )
    wanted = {
        canonical
        for extra in PROJECT["optional-dependencies"].values()
        for each in extra
        if (canonical := re.split(r"[^\w.-]", each)[0].lower()) != "wireline"
    }
    assert wanted - set(pinned) == set()


def test_the_command_is_installed() -> None:
    (command,) = importlib.metadata.distribution("wireline").entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("wireline", "wireline.cli:main")
    assert callable(command.load())


def test_types_are_announced() -> None:
    assert Path(wireline.__file__).with_name("py.typed").is_file()


def test_the_changelog_knows_the_version() -> None:
    assert f"\n## {PROJECT['version']} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_net_exports_exactly_the_names_in_all() -> None:
    for name in wireline.net.__all__:
        getattr(wireline.net, name)  # some modules are loaded by the first use of a name
    offered = {
        name
        for name, value in vars(wireline.net).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, ModuleType)
    }
    assert sorted(wireline.net.__all__) == sorted(offered)


def test_importing_the_blocking_flavour_loads_neither_asyncio_nor_ssl() -> None:
    """In a fresh interpreter without site packages, whose start-up files may load anything."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import wireline.net; "
        "print(sorted({'asyncio', 'ssl', 'rich', 'wireline.cli'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", program], capture_output=True, text=True, timeout=20
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")
