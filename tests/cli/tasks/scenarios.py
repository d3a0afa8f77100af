"""What each task has to do, whichever program does it: a function for each row of the page, by its title.

A function gets the lines of one program, in the order of the page, and runs them with other programs at the other end.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.cli.tasks.bench import Bench

Scenario = Callable[[Bench, list[str]], None]

SCENARIOS: dict[str, Scenario] = {}
"""By the title of the task."""


def task(title: str) -> Callable[[Scenario], Scenario]:
    """Decorate the scenario of a task."""

    def register(scenario: Scenario) -> Scenario:
        assert title not in SCENARIOS
        SCENARIOS[title] = scenario
        return scenario

    return register
