"""One test of many values, where a test of each would only cost time."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest


def in_turn(names: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make one test that goes through ``values``, of which ``pytest.mark.parametrize`` would make a test each.

    A failure says which value, and ends the test. Values that are skipped do not end it. Other arguments are fixtures:
    ``monkeypatch`` is undone after each value, ``tmp_path`` is another directory for each, what ``capsys`` and
    ``capfd`` caught of the value before is dropped; all others are the same for every value.
    """
    of_value = [name.strip() for name in names.split(",")]
    values = list(values)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        if inspect.iscoroutinefunction(test):
            raise TypeError(f"{test.__name__} is a coroutine function, which in_turn cannot run")
        signature = inspect.signature(test)

        @functools.wraps(test)
        def every_value(*of_method: Any, **fixtures: Any) -> None:
            skipped: list[pytest.skip.Exception] = []
            for number, value in enumerate(values, 1):
                arguments = dict(zip(of_value, value if len(of_value) > 1 else (value,), strict=True))
                try:
                    with _fresh(fixtures, number) as given:
                        test(*of_method, **given, **arguments)
                except pytest.skip.Exception as reason:
                    skipped.append(reason)
                except BaseException as error:
                    error.add_note(f"value {number} of {len(values)}: {names} = {value!r:.500}")
                    raise
            if len(skipped) == len(values):
                raise skipped[0]

        others = [each for name, each in signature.parameters.items() if name not in of_value]
        every_value.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return every_value

    return decorate


def few_in_sample(values: Iterable[Any], *few: Any) -> list[Any]:
    """Values for ``pytest.mark.parametrize`` of a slow test. The sample has ``few`` of them, ``make test-all`` all."""
    values = list(values)
    if unknown := [each for each in few if each not in values]:
        raise ValueError(f"not of the values: {unknown}")
    return [each if each in few else pytest.param(each, marks=pytest.mark.full) for each in values]


def one_test_of(*checks: Callable[[], None]) -> Callable[[], None]:
    """Make one test of several."""

    def all_checks() -> None:
        for check in checks:
            check()

    return all_checks


@contextlib.contextmanager
def _fresh(fixtures: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """The fixtures for one value, without what the value before has left in them."""
    given = dict(fixtures)
    for name in {"capsys", "capfd"} & given.keys():
        given[name].readouterr()
    if "tmp_path" in given:
        given["tmp_path"] = fixtures["tmp_path"] / str(number)
        given["tmp_path"].mkdir()
    with pytest.MonkeyPatch.context() as undone:
        if "monkeypatch" in given:
            given["monkeypatch"] = undone
        yield given
