"""How the programs of the async rows are started, and whether they can be."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks._build import build, obstacle


class Program(Protocol):
    """Something that can be started with words."""

    @property
    def name(self) -> str: ...

    def missing(self) -> str:
        """What keeps it from running here; empty if nothing does."""

    def command(self, words: Sequence[str]) -> list[str]:
        """How to start it."""


@dataclass(frozen=True)
class PythonProgram:
    """A module that is run."""

    name: str
    module: str
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""
    last_words: tuple[str, ...] = ()

    def missing(self) -> str:
        absent = [module for module in self.needs if importlib.util.find_spec(module) is None]
        return f"{' and '.join(absent)} not installed" if absent else ""

    def command(self, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", self.module, *words, *self.last_words]


@dataclass(frozen=True)
class CompiledProgram:
    """A source file beside this one, in C or Nim."""

    name: str
    source: str

    def missing(self) -> str:
        return obstacle(self.source)

    def command(self, words: Sequence[str]) -> list[str]:
        return [str(build(self.source)), *words]


QUICK_LOAD = CompiledProgram("C with epoll", "load.c")
PYTHON_LOAD = PythonProgram("Python", "benchmarks._load_many")


def choose_load() -> Program:
    """The load of the async rows: the one in C, or where that cannot be had the one in Python."""
    return PYTHON_LOAD if QUICK_LOAD.missing() else QUICK_LOAD
