"""Every part of the torture harness, at the size that WIRELINE_TORTURE names: a sample of seconds by default."""

from __future__ import annotations

import os

import pytest

from tests.torture import registry, report
from tests.torture.registry import Budget

SIZE = os.environ.get("WIRELINE_TORTURE", "sample")


@pytest.mark.torture
@pytest.mark.timeout(registry.SIZES[SIZE] * 2 + 60)
@pytest.mark.parametrize("name", registry.names())
def test_nothing_is_found(name: str) -> None:
    outcome = registry.run(name, Budget(SIZE))
    assert sum(vars(outcome.counts).values()) > 0, "the part did nothing"
    if outcome.findings:
        pytest.fail(report.listed(outcome.findings), pytrace=False)
