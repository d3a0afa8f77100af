"""Which file becomes which, and how the twins are written: all of them or none."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from wireline.cli.twin import _header, _source
from wireline.cli.twin._context import Module

_SUFFIXES = (".py", ".pyi")


class Refused(Exception):
    """The two paths cannot be a package and its twin; the text says why."""


class Pair(NamedTuple):
    """A file and its twin."""

    source: Path
    target: Path
    module: Module

    @property
    def origin(self) -> str:
        """The path of the file from the directory of its twin."""
        return Path(os.path.relpath(_real(self.source), _real(self.target).parent)).as_posix()


class Plan(NamedTuple):
    """What is to be done.

    Attributes:
        pairs: the files, each with its twin.
        stale: twins whose files are gone.
    """

    pairs: list[Pair]
    stale: list[Path]


def make_plan(source: Path, target: Path) -> Plan:
    """Find the files of a package, or take a single one.

    Raises:
        Refused: the paths do not go together, or a file there is no twin that may be replaced.
        OSError: a directory cannot be read.
    """
    _check_paths(source, target)
    if source.is_file():
        names = [Path()]
    else:
        names = sorted(path.relative_to(source) for path in _python_files(source, skip=target))
    if not names:
        raise Refused(f"there is no Python file in {source}")
    files = {source.name: target.name} if source.is_file() else {}
    pairs = [Pair(source / name, target / name, _module(source, target, name, files)) for name in names]
    for pair in pairs:
        _check_pair(pair)
    found = _python_files(target, skip=source) if target.is_dir() else ()
    others = set(found) - {pair.target for pair in pairs}
    return Plan(pairs, sorted(path for path in others if _is_made(path)))


def _real(path: Path) -> Path:
    """A path without symbolic links. Unlike ``Path.resolve`` it accepts a loop of them, before Python 3.13, too."""
    return Path(os.path.realpath(path))


def _check_paths(source: Path, target: Path) -> None:
    if not source.exists():
        raise Refused(f"{source} does not exist")
    if source.is_file() and source.suffix not in _SUFFIXES:
        raise Refused(f"{source} is no Python file: its name does not end with .py")
    here, there = _real(source), _real(target)
    if here == there:
        raise Refused(f"{source} and {target} are the same: the twin needs a path of its own")
    if here in there.parents:
        raise Refused(f"{target} is inside of {source}: the twin would be a part of its own package")
    if source.is_file():
        if target.is_dir() or target.suffix != source.suffix:
            raise Refused(
                f"{source} is a file: the twin needs the name of a file that ends with {source.suffix}"
            )
    elif target.is_symlink() and not target.exists():
        raise Refused(f"{source} is a directory, and {target} is a symbolic link that leads nowhere")
    elif target.exists() and not target.is_dir():
        raise Refused(f"{source} is a directory, and {target} is none")


def _check_pair(pair: Pair) -> None:
    if not pair.origin.isprintable():
        raise Refused(f"the twin of {str(pair.source)!r} cannot name it: rename the file")
    if _is_made(pair.source):
        raise Refused(f"{pair.source} was made by 'wireline twin' itself: name the async file first")
    path = pair.target
    if path.is_symlink():
        raise Refused(f"{path} is a symbolic link: remove it, or write the twin elsewhere")
    if path.is_dir():
        raise Refused(f"{path} is a directory: the twin needs this name for a file")
    if path.exists() and not _is_made(path):
        raise Refused(f"{path} was not made by 'wireline twin': move it away, or write the twin elsewhere")


def _is_made(path: Path) -> bool:
    try:
        return _header.is_made(_source.read(path, str(path)).text)
    except _source.ProblemsFound:
        return False


def _python_files(root: Path, skip: Path) -> Iterator[Path]:
    """The files of a directory and those below it, without hidden directories and one that is skipped."""
    with os.scandir(root) as found:
        entries = sorted(found, key=lambda each: each.name)
    for entry in entries:
        path = root / entry.name
        if entry.is_symlink() and (path.suffix in _SUFFIXES or path.is_dir()):
            raise Refused(f"{path} is a symbolic link: a twin is made of files only")
        if entry.is_dir():
            if entry.name[0] != "." and entry.name != "__pycache__" and _real(path) != _real(skip):
                yield from _python_files(path, skip)
        elif path.suffix in _SUFFIXES and entry.name[0] != ".":
            yield path


def _module(source: Path, target: Path, name: Path, files: Mapping[str, str]) -> Module:
    here, there = _real(source), _real(target)
    # It may be that only the twin makes a package of its directory.
    packages = {there} if (here / "__init__.py").exists() else set()
    (package, root), (twin, twin_root) = _dotted(here, packages), _dotted(there, packages)
    inside = ".".join([package, *name.parts[:-1]]) if name.parts else package.rpartition(".")[0]
    above = tuple(itertools.takewhile(str.isidentifier, root.parts[::-1]))
    return Module(package, twin, inside, here.parent == there.parent, files, above, root == twin_root)


def _dotted(path: Path, packages: Collection[Path]) -> tuple[str, Path]:
    """The name by which a directory or a file is imported, and the directory in which the first part of it is."""
    parts = [path.stem if path.suffix in _SUFFIXES else path.name]
    root = path.parent
    while (root / "__init__.py").exists() or root in packages:
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts), root


def write(contents: Mapping[Path, tuple[bytes, int]], stale: list[Path]) -> None:
    """Write files, each with its content and its mode, and remove those that are stale.

    Each is written beside its place first, and moved there when all are complete. After an error nothing has changed,
    but for an error while they are moved.

    Raises:
        OSError: a directory cannot be written to, the disk is full.
    """
    moves: dict[str, Path] = {}
    directories: list[Path] = []
    try:
        for path, (data, mode) in contents.items():
            directories += _make_directories(path.parent)
            fd, temporary = tempfile.mkstemp(prefix=".wireline-twin-", dir=path.parent)
            moves[temporary] = path
            with open(fd, "wb") as file:
                os.fchmod(fd, mode)
                file.write(data)
        for temporary, path in list(moves.items()):
            os.replace(temporary, path)
            del moves[temporary]
        directories.clear()
        for path in stale:
            path.unlink()
    finally:
        for temporary in moves:
            os.unlink(temporary)
        for directory in reversed(directories):
            with contextlib.suppress(OSError):  # it is not empty: another file is there by now
                directory.rmdir()


def _make_directories(path: Path) -> list[Path]:
    """Make a directory and those above it; return the new ones, the outermost first."""
    new = [each for each in (path, *path.parents) if not each.exists()][::-1]
    for each in new:
        each.mkdir()
    return new
