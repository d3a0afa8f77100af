"""Arguments and help of ``completion``."""

from __future__ import annotations

import argparse

from wireline.cli.parser._common_options import Command

SUMMARY = "print a completion script for a shell"

ABOUT = """\
Print a script that makes a shell complete the commands and options of wireline."""

EXAMPLES = """\
examples:
  wireline completion bash > ~/.local/share/bash-completion/completions/wireline
  wireline completion zsh > ~/.zfunc/_wireline        (~/.zfunc must be in fpath)
  wireline completion fish > ~/.config/fish/completions/wireline.fish
"""

_SHELLS = ("bash", "zsh", "fish")


def describe(completion: argparse.ArgumentParser) -> None:
    """Add the argument of ``completion``."""
    completion.set_defaults(load=_load)
    completion.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=f"one of {', '.join(_SHELLS)}")


def _load() -> Command:
    from wireline.cli.completion import _completion

    return _completion.run
