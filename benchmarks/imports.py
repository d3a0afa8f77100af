"""The cost of an import: each piece is a fresh interpreter that times the one statement."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import wireline
from benchmarks._trial import Trial

_PACKAGE = Path(wireline.__file__).parent

# Without `site`: this environment may load at start-up the module that is measured, or one that must not be loaded.
# `site` loads `os` everywhere. No `json`: it would load modules that the statement has to pay for.
_PROGRAM = """
import os, sys, time
def spent():
    try:
        import resource
    except ImportError:
        return time.process_time(), 0.0
    return resource.getrusage(resource.RUSAGE_SELF)[:2]
sys.path.insert(0, sys.argv[1])
user, system = spent()
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
user_after, system_after = spent()
print(seconds, user_after - user, system_after - system, *sorted({{"asyncio", "ssl"}} & set(sys.modules)))
"""


class HeavyImportError(Exception):
    """An import loaded a module that it must not."""


def _import(trial: Trial, module: str, path: Path, *options: str) -> None:
    """Time one import in a fresh interpreter, and check the loaded modules."""
    command = [sys.executable, "-I", "-S", *options, "-c", _PROGRAM.format(module=module), str(path)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    seconds, user, system, *heavy = ran.stdout.split()
    if heavy:
        raise HeavyImportError(f"import {module} loads {' and '.join(heavy)}")
    trial.passed(float(seconds), float(user), float(system))


def _installed(trial: Trial, module: str) -> None:
    for _ in range(trial.total):
        _import(trial, module, _PACKAGE.parent)


def _uncompiled(trial: Trial, module: str) -> None:
    """As after unpacking: this library has no bytecode yet, the standard library does."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        shutil.copytree(_PACKAGE, path / "wireline", ignore=shutil.ignore_patterns("__pycache__"))
        for _ in range(trial.total):
            _import(trial, module, path, "-B")


def front_door(trial: Trial) -> None:
    _installed(trial, "wireline")


def net(trial: Trial) -> None:
    _installed(trial, "wireline.net")


def front_door_uncompiled(trial: Trial) -> None:
    _uncompiled(trial, "wireline")


def net_uncompiled(trial: Trial) -> None:
    _uncompiled(trial, "wireline.net")
