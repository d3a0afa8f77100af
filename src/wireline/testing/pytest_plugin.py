"""Fixtures for pytest. A ``conftest.py`` opts in: ``pytest_plugins = ["wireline.testing.pytest_plugin"]``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from wireline import Address
from wireline.testing import Faults, Pair, TestCA, fault_proxy, pair
from wireline.testing._pairs import Kind

__all__ = ["wireline_ca", "wireline_fault_proxy", "wireline_pair"]


@pytest.fixture(scope="session")
def wireline_ca() -> TestCA:
    """Make one certificate authority for all tests."""
    return TestCA()


@pytest.fixture
def wireline_pair(request: pytest.FixtureRequest) -> Iterator[Callable[[Kind], Pair]]:
    """Make connected sockets of the blocking flavour: ``wireline_pair("tls")``. The end of the test closes them."""
    with contextlib.ExitStack() as stack:

        def make(kind: Kind = "tcp") -> Pair:
            tls = request.getfixturevalue("wireline_ca").context() if kind == "tls" else None
            return stack.enter_context(pair(kind, tls=tls))

        yield make


@pytest.fixture
def wireline_fault_proxy() -> Iterator[Callable[[Address | tuple[str, int] | str, Faults | str], Address]]:
    """Start fault proxies that run until the end of the test: ``wireline_fault_proxy(address, "chunk=1")``."""
    with contextlib.ExitStack() as stack:

        def make(server: Address | tuple[str, int] | str, faults: Faults | str) -> Address:
            return stack.enter_context(fault_proxy(server, faults))

        yield make
