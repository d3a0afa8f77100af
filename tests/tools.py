"""What several rooms of the tests need and no fixture is made of."""

from __future__ import annotations

import os
import shutil

import pytest

IN_CI = bool(os.environ.get("WIRELINE_CI"))
"""Set by ``.ci/run``: what is missing there is a mistake, not a reason to skip."""


def require_tool(name: str, package: str) -> str:
    """Find a program that a test talks to.

    Args:
        name: the program, as one would type it.
        package: what to install to have it, on Debian.

    Returns:
        The program's path. Where it is missing the test is skipped by name, and under ``WIRELINE_CI`` it fails.
    """
    path = shutil.which(name)
    if path is not None:
        return path
    missing = f"the program '{name}' is not installed (on Debian: apt-get install {package})"
    if IN_CI:
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
