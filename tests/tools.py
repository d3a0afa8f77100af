"""Helpers for several directories of tests that are no fixtures."""

from __future__ import annotations

import os
import shutil

import pytest

IN_CI = bool(os.environ.get("WIRELINE_CI"))
"""Set by ``.ci/run``: a missing program is a mistake there, not a reason to skip."""


def require_tool(name: str, package: str) -> str:
    """Find a program that a test talks to.

    Args:
        name: the program, as one would type it.
        package: the Debian package that has it.

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
