"""The command ``wireline``: the library's demonstration, and a tool in its own right. It uses public names only."""

from __future__ import annotations

from wireline.cli._main import main as main

__all__ = ["main"]
