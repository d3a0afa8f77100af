"""Each adapter is a module of its own, an extra of the same name, and on the page of the adapters."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wireline.adapters

ROOT = Path(__file__).resolve().parents[2]
NAMES = [module.name for module in pkgutil.iter_modules(wireline.adapters.__path__)]
ADAPTERS = [name for name in NAMES if not name.startswith("_")]

every_adapter = pytest.mark.parametrize("name", ADAPTERS)


@every_adapter
def test_an_adapter_is_an_extra(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert [re.split(r"\W", each)[0] for each in project["optional-dependencies"][name]] == [name]


@every_adapter
def test_the_page_has_every_name_and_no_other(name: str) -> None:
    text = (ROOT / "docs/reference/adapters.md").read_text("utf-8")
    section = text.partition(f"## `wireline.adapters.{name}`")[2].partition("\n## ")[0]
    module = importlib.import_module(f"wireline.adapters.{name}")
    assert sorted(re.findall(r"^\.\. auto\w+:: (\w+)$", section, re.MULTILINE)) == sorted(module.__all__)
    for each in module.__all__:
        subject = getattr(module, each)
        assert subject.__module__ == module.__name__
        if inspect.isfunction(subject):
            continue
        public = {key for key in vars(subject) if not key.startswith("_")}
        entry = re.search(rf"^\.\. autoclass:: {each}$(.*?)(?=^\S|\Z)", section, re.DOTALL | re.MULTILINE)
        assert entry is not None
        assert set(re.findall(r"^   \.\. auto\w+:: (\w+)$", entry[1], re.MULTILINE)) == public
        assert all(inspect.getdoc(vars(subject)[key]) for key in public)


def test_the_package_loads_no_library() -> None:
    program = f"import sys, wireline.adapters; print(sorted({set(ADAPTERS)} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
