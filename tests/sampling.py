"""The sample of the tests that ``make test`` runs, the same on every machine.

Most tests are few scenarios in many places: flavours, loops, transports. The sample has each case of a test once, and
each test in both flavours, in clear and over TLS, without and with a timeout. Which case runs where is decided by the
names of the tests, so that one test runs on this loop and the next on another. Tests that run in one place only are all
in it. ``make test-all`` runs everything.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator

import pytest

PLACES = frozenset(("flavour", "transport", "way", "loop", "anyio_backend"))
"""The parameters that say where a test runs. A test that has none of them is in the sample with all that it has."""

MODES = frozenset(("timeout", "buffered", "from_thread"))
"""The parameters whose every value is in the sample for each flavour, but not with every other parameter."""

MOMENT = "moment"
"""The parameter that counts the instructions before an interruption: in the sample is one moment of 20."""

IMPLEMENTATIONS = frozenset(("blocking", "net", "bridge", "native"))
"""Names of the blocking flavour in tests, and of the two ways to pre-shared keys; any other is the async flavour."""

IN_BOTH = "in_both_flavours"
"""Tests with this mark are in the sample in both flavours with each of their cases."""

AT_MOST = 6000
"""Tests in the sample, which take three minutes on two cores. Above that it is an error: make one test of many that
only differ in a value (``tests/cases.py``)."""

LEFT_OUT = ("torture", "long", "full")
"""Tests with one of these marks run for many seconds each, or start many servers, and in ``make test-all`` only."""


def sample(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Choose of all tests those of the sample; they stay in their order."""
    chosen: set[pytest.Item] = set()
    in_places: dict[str, list[pytest.Function]] = defaultdict(list)
    items = [item for item in items if not any(map(item.get_closest_marker, LEFT_OUT))]
    for item in items:
        if isinstance(item, pytest.Function) and (PLACES | {MOMENT}) & parameters(item).keys():
            in_places[item.nodeid.partition("[")[0]].append(item)
        else:
            chosen.add(item)
    for variants in in_places.values():
        chosen.update(covering(variants))
    if len(chosen) > AT_MOST:
        raise pytest.UsageError(
            f"the sample has {len(chosen)} tests, at most {AT_MOST}: see tests/sampling.py"
        )
    return [item for item in items if item in chosen]


def covering(variants: list[pytest.Function]) -> Iterator[pytest.Function]:
    """Choose variants of one test until each thing that any has is there, those with the most new things first."""
    has = {item: set(things(item)) for item in variants}
    rank = {item: (is_everywhere(item), zlib.crc32(item.nodeid.encode())) for item in variants}
    missing = set().union(*has.values())
    while missing:
        best = max(has, key=lambda item: (len(has[item] & missing), rank[item]))
        missing -= has.pop(best)
        yield best


def things(item: pytest.Function) -> Iterator[Hashable]:
    """The things of a test that the sample must have."""
    given = parameters(item)
    flavour = name_of(given.get("flavour", given.get("way")))
    if flavour not in IMPLEMENTATIONS:
        flavour = "async"
    # An object stands for itself: those of one test are made once.
    case = frozenset(
        (name, id(value)) for name, value in given.items() if name not in PLACES | MODES | {MOMENT}
    )
    yield (flavour, case) if item.get_closest_marker(IN_BOTH) else case
    yield flavour, name_of(given.get("transport")).startswith("tls")
    for mode in MODES & given.keys():
        yield flavour, mode, name_of(given[mode])
    if isinstance(moment := given.get(MOMENT), int):
        yield MOMENT, moment // 20


def is_everywhere(item: pytest.Function) -> bool:
    """Whether a test is there in every interpreter: tasks that start at once are not in 3.11."""
    return "eager" not in name_of(parameters(item).get("way"))


def parameters(item: pytest.Function) -> dict[str, object]:
    """The parameters of a test, by name."""
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


def name_of(value: object) -> str:
    """The name of a parameter's value in the tests."""
    name = getattr(value, "name", value)
    return name if isinstance(name, str) else str(getattr(value, "__name__", value))
