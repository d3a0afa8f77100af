"""The sample of ``make test`` has each case once, and each test in both flavours, in clear and over TLS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import sampling

pytest_plugins = ["pytester"]

SUITE = """
import pytest

PLACES = [(flavour, transport) for flavour in ("blocking", "asyncio", "uvloop") for transport in ("tcp4", "tls13")]
every_place = pytest.mark.parametrize(("flavour", "transport"), PLACES)

@every_place
def test_one_case(flavour, transport): pass

@every_place
@pytest.mark.parametrize("case", range(40))
def test_cases(flavour, transport, case): pass

@every_place
@pytest.mark.parametrize("timeout", [None, 0, 5])
def test_modes(flavour, transport, timeout): pass

@pytest.mark.parametrize("way", ["eager", "asyncio", "eager-uvloop"])
def test_way(way): pass

@pytest.mark.in_both_flavours
@pytest.mark.parametrize("flavour", ["blocking", "async"])
@pytest.mark.parametrize("case", range(2))
def test_in_both(flavour, case): pass

@pytest.mark.parametrize("case", range(5))
def test_nowhere(case): pass

@pytest.mark.torture
def test_for_seconds(): pass

@pytest.mark.long
def test_for_long(): pass
"""


@pytest.fixture
def collected(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[], pytest.RunResult]:
    """Collect the sample of the suite above."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\nmarkers =\n  torture\n  long\n  in_both_flavours")
    pytester.makeconftest("from tests.conftest import pytest_addoption, pytest_collection_modifyitems")
    pytester.makepyfile(SUITE)
    return lambda: pytester.runpytest_inprocess("--collect-only", "-q", "--sample", "-p", "no:cacheprovider")


@pytest.fixture
def chosen(collected: Callable[[], pytest.RunResult]) -> dict[str, list[str]]:
    """The parameters of the tests in the sample, by test."""
    found: dict[str, list[str]] = {}
    for line in collected().outlines:
        _, separator, name = line.partition("::")
        if separator:
            test, _, parameters = name.rstrip("]").partition("[")
            found.setdefault(test, []).append(parameters)
    return found


def test_the_tests_in_the_sample(chosen: dict[str, list[str]]) -> None:
    def flavours_and_transports(name: str) -> set[tuple[bool, bool]]:
        return {("blocking" in each, "tls13" in each) for each in chosen[name]}

    everywhere = {(False, False), (False, True), (True, False), (True, True)}
    assert flavours_and_transports("test_one_case") == everywhere
    assert len(chosen["test_one_case"]) == 4
    assert flavours_and_transports("test_cases") == everywhere
    assert len(chosen["test_cases"]) == 40
    assert {int(each.split("-")[0]) for each in chosen["test_cases"]} == set(range(40))
    assert {("blocking" in each, each.split("-")[0]) for each in chosen["test_modes"]} == {
        (blocking, timeout) for blocking in (False, True) for timeout in ("None", "0", "5")
    }
    assert chosen["test_way"] == ["asyncio"], "which is there in every interpreter"
    assert len(chosen["test_nowhere"]) == 5
    assert "test_for_seconds" not in chosen
    assert "test_for_long" not in chosen
    assert len(chosen["test_in_both"]) == 4


def test_the_cases_are_spread_over_the_places(chosen: dict[str, list[str]]) -> None:
    places = [each.split("-", 1)[1] for each in chosen["test_cases"]]
    assert len(set(places)) == 6
    assert max(map(places.count, places)) <= 15


def test_a_sample_that_is_too_large_is_an_error(
    collected: Callable[[], pytest.RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "AT_MOST", 20)
    result = collected()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the sample has * tests, at most 20*"])
