"""An ``async def`` test runs once for each way to run a program, and must leave nothing behind in any of them."""

from __future__ import annotations

import functools
import inspect

import pytest

from tests.asyncnet.loops import WAYS, Way


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test as its ``way`` says."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    chosen: Way = pyfuncitem.funcargs["way"]
    chosen.run(functools.partial(pyfuncitem.obj, **arguments))
    return True
