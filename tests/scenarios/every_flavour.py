"""The fixtures of tests elsewhere that run once in each flavour: a module imports both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scenarios.flavours import FLAVOURS, Flavour

ON_ASYNCIO = [flavour for flavour in FLAVOURS if flavour.name != "trio"]
"""The tests elsewhere use asyncio themselves."""


@pytest.fixture(params=ON_ASYNCIO, ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    chosen: Flavour = request.param
    with chosen.in_place():
        yield chosen


@pytest.fixture
def anyio_backend(flavour: Flavour) -> object:
    """The event loop for anyio's plugin."""
    return flavour.backend
