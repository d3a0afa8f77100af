"""What the tests of the command share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cli.command import Command

Start = Callable[..., Command]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start commands. Those that are still running at the end are ended."""
    commands: list[Command] = []

    def starter(*words: str, **streams: object) -> Command:
        command = Command(*words, **streams)  # type: ignore[arg-type]
        commands.append(command)
        return command

    yield starter
    for command in commands:
        command.abandon()
