"""Programs in C and Nim, compiled when they are first needed, and kept for the next time."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

PATIENCE = 300.0
"""Seconds that a compiler gets. A guess: Nim's takes ten on an idle machine."""

_OPTIONS = {
    "c": ["-O2", "-std=gnu11", "-Wall", "-Wextra"],
    "nim": ["c", "-d:release", "--hints:off"],
}


class NotBuiltError(Exception):
    """A program cannot be made here; the text says why."""


def _cache() -> Path:
    """Where compiled programs are kept: the user's own directory, because programs from there are trusted."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wireline-benchmarks"


def compiler(language: str) -> str:
    """The command that compiles: for C what ``CC`` says, or ``cc``."""
    return os.environ.get("CC", "cc") if language == "c" else language


@functools.cache
def build(source: str, *options: str) -> Path:
    """Compile a file of this directory, unless that was done before; return the program.

    Args:
        source: the file.
        options: more words for the compiler, behind the file.

    Raises:
        NotBuiltError: there is no compiler, or it refuses.
    """
    path = HERE / source
    language = path.suffix[1:]
    command = compiler(language).split()
    if shutil.which(command[0]) is None:
        raise NotBuiltError(f"{command[0]} is not installed")
    command += _OPTIONS[language]
    sources = b"".join(each.read_bytes() for each in (path, *sorted(path.parent.glob("*.h"))))
    key = hashlib.sha256(sources + repr((command, options, platform.platform())).encode()).hexdigest()[:16]
    program = _cache() / f"{path.stem}-{key}"
    if not program.exists():
        try:
            _compile(command, language, path, program, options)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotBuiltError(f"{command[0]} cannot make {source}: {error}") from None
    return program


@functools.cache
def obstacle(source: str, *options: str) -> str:
    """Why a file cannot be compiled here, found out once; empty if it can."""
    try:
        build(source, *options)
    except NotBuiltError as error:
        return str(error)
    return ""


def _compile(
    command: list[str], language: str, source: Path, program: Path, options: tuple[str, ...]
) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place and then renamed: another run finds all of it or nothing.
    with tempfile.TemporaryDirectory(dir=program.parent) as directory:
        made = Path(directory) / program.name
        where = ["-o", str(made)] if language == "c" else [f"--nimcache:{directory}/c", f"-o:{made}"]
        ran = subprocess.run(
            [*command, *where, str(source), *options],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
        if ran.returncode:
            complaints = [line for line in (ran.stderr + ran.stdout).splitlines() if "rror" in line]
            reason = complaints[0] if complaints else f"exit code {ran.returncode}"
            raise NotBuiltError(f"{command[0]} cannot compile {source.name}: {reason}")
        made.replace(program)
