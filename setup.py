"""Makes the manual pages, so that a wheel has them however it is built. All else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

from man import write  # noqa: E402 - the command is found in this checkout

setup(
    data_files=[("share/man/man1", [str(path.relative_to(ROOT)) for path in write(ROOT / "build" / "man")])]
)
