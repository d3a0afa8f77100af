"""Fixtures of the tests of the command."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.cli.command import Command

pytest.register_assert_rewrite("tests.cli.tasks")

Start = Callable[..., Command]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start commands. Those that are still running at the end are ended."""
    commands: list[Command] = []
    # A test run in the background of a shell has Ctrl-C ignored, and its children would inherit that.
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def starter(*words: str, **streams: object) -> Command:
        command = Command(*words, **streams)  # type: ignore[arg-type]
        commands.append(command)
        return command

    yield starter
    signal.signal(signal.SIGINT, before)
    for command in commands:
        command.abandon()
