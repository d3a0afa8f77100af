"""How the programs of the async rows are started, and whether they can be."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from benchmarks._build import build, obstacle


class Program(Protocol):
    """Something that can be started with words."""

    @property
    def name(self) -> str: ...

    def missing(self) -> str:
        """The reason why it cannot run here; empty if it can."""

    def command(self, words: Sequence[str]) -> list[str]:
        """How to start it."""


def absent(modules: Sequence[str]) -> str:
    """Which of these modules are not installed, in words; empty if all are."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


@dataclass(frozen=True)
class PythonProgram:
    """A module that is run."""

    name: str
    module: str
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""
    last_words: tuple[str, ...] = ()

    def missing(self) -> str:
        return absent(self.needs)

    def command(self, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", self.module, *words, *self.last_words]


@dataclass(frozen=True)
class CompiledProgram:
    """A source file beside this one, in C or Nim."""

    name: str
    source: str
    options: tuple[str, ...] = ()
    """More words for the compiler."""

    def missing(self) -> str:
        return obstacle(self.source, *self.options)

    def command(self, words: Sequence[str]) -> list[str]:
        return [str(build(self.source, *self.options)), *words]


class Load(NamedTuple):
    """The other end: one in C, which needs a compiler, and one in Python, which may be the bottleneck."""

    quick: Program
    slow: Program

    @property
    def chosen(self) -> Program:
        """The one in C, or where that cannot be had the one in Python."""
        return self.slow if self.quick.missing() else self.quick

    @property
    def remark(self) -> str:
        """A remark on the figures that were measured with it, or empty."""
        reason = self.quick.missing()
        return reason and f"the load is in Python and may be what was measured: {reason}"


_OPENSSL = ("-lssl", "-lcrypto")

MANY = Load(CompiledProgram("C with epoll", "load.c"), PythonProgram("Python", "benchmarks._load_many"))
MANY_TLS = Load(
    CompiledProgram("C with epoll and OpenSSL", "load.c", ("-DTLS", *_OPENSSL)),
    PythonProgram("Python", "benchmarks._load_many", last_words=("tls",)),
)
ONE_TLS = Load(
    CompiledProgram("C with OpenSSL", "load_one.c", _OPENSSL),
    PythonProgram("Python", "benchmarks._load", last_words=("tls",)),
)
