"""Fixtures for pytest. A ``conftest.py`` opts in: ``pytest_plugins = ["wireline.testing.pytest_plugin"]``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from wireline import Address
from wireline.testing import Faults, Pair, ThrowawayCA, faulty, pair
from wireline.testing._pairs import Kind

__all__ = ["wireline_ca", "wireline_faulty", "wireline_pair"]


@pytest.fixture(scope="session")
def wireline_ca() -> ThrowawayCA:
    """Make a CA to throw away, once for all tests."""
    return ThrowawayCA()


@pytest.fixture
def wireline_pair(request: pytest.FixtureRequest) -> Iterator[Callable[[Kind], Pair]]:
    """Make connected sockets of the blocking flavour, ``wireline_pair("tls")``. They are closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(kind: Kind = "tcp") -> Pair:
            tls = request.getfixturevalue("wireline_ca").context() if kind == "tls" else None
            return stack.enter_context(pair(kind, tls=tls))

        yield make


@pytest.fixture
def wireline_faulty() -> Iterator[Callable[[Address | tuple[str, int] | str, Faults | str], Address]]:
    """Put a bad network in front of a server until the end of the test: ``wireline_faulty(address, "chunk=1")``."""
    with contextlib.ExitStack() as stack:

        def make(server: Address | tuple[str, int] | str, faults: Faults | str) -> Address:
            return stack.enter_context(faulty(server, faults))

        yield make
