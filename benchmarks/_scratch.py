"""Files that the processes of a run share. They go when it ends."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path


@functools.cache
def _directory() -> Path:
    # `mkdtemp` makes it for its owner only, which protects the file with a key.
    path = tempfile.mkdtemp(prefix="wireline-benchmarks-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def write(name: str, content: bytes) -> Path:
    """Make a file; return where it is."""
    path = _directory() / name
    path.write_bytes(content)
    return path
