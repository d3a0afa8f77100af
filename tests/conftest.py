"""Checks of every test: nothing is left behind, and the examples of hypothesis in CI are the same each time.

A test that passes and leaves a descriptor or a thread fails here. Descriptors are compared by number and
by target, so that one of other code that was closed and opened again is seen too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import threading
import time
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.sampling import sample
from tests.tools import IN_CI

# The first loop that uvloop makes opens a pipe for signals, which stays for the life of the process.
with contextlib.suppress(ImportError):
    import uvloop

    uvloop.new_event_loop().close()

settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("ci" if IN_CI else "default")

PATIENCE = 4.0
"""Seconds that threads and descriptors get to go once a test is over. Most are gone at once and only a leak waits for
the end of it. A lingering close may take 2 s by itself; the rest is a guess for a loaded machine."""

HELPERS = ("wireline-linger", "wireline-resolve")
"""How the names of the library's own daemon threads begin. They belong to the process, not to one socket."""

TRIO_WORKERS = ("Trio thread",)
"""How the names of trio's threads begin, which wait ten seconds for more work. anyio runs trio as a guest: in one of
these it waits for input."""

_DESCRIPTORS = "/proc/self/fd"
_OF_COVERAGE = re.compile(r"/\.?coverage\.[^/]*$")
_passed = pytest.StashKey[bool]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two workers more than processors: nearly half of its time a worker waits, for a peer or a deadline."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors + 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sample", action="store_true", help="run the sample of `make test`, see tests/sampling.py"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are not in the sample, with ``--sample``."""
    if config.getoption("sample"):
        kept = sample(items)
        config.hook.pytest_deselected(items=sorted(set(items) - set(kept), key=lambda item: item.nodeid))
        items[:] = kept


@pytest.fixture(scope="module", autouse=True)
def what_is_there_is_no_garbage() -> None:
    """Let the garbage collector look only at the objects of this module.

    Once all tests are collected, that takes a millisecond instead of a second. So tests can collect often, and Python,
    which collects when the heap has grown by a quarter, does not wait for a gigabyte of tracebacks with their data.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep for the fixture below whether the test itself passed."""
    report = yield
    if report.when == "call":
        item.stash[_passed] = report.passed
    return report


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that passed and left a thread, or other descriptors than it found."""
    # The last connection of the test before may have been closed just now, and its helpers are about to end.
    for thread in threading.enumerate():
        if thread.name == "wireline-linger":
            thread.join(PATIENCE)
    threads = set(threading.enumerate())
    descriptors = _descriptors()
    yield
    # The traceback of a failed test keeps its sockets alive: one failure is enough.
    if request.node.stash.get(_passed, False):
        left = _threads_left(threads)
        assert not left, f"threads left behind: {left}"
        opened, closed = _descriptors_changed(descriptors)
        assert not opened, f"descriptors left open: {opened}"
        assert not closed, f"descriptors of other code closed: {closed}"


def _threads_left(before: set[threading.Thread]) -> list[str]:
    """The names of the threads that are new and do not end in time."""
    deadline = time.monotonic() + PATIENCE
    new = [thread for thread in threading.enumerate() if thread not in before]
    new = [thread for thread in new if not (thread.daemon and thread.name.startswith(HELPERS + TRIO_WORKERS))]
    for thread in new:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in new if thread.is_alive()]


def _descriptors() -> set[tuple[int, str]]:
    """Every open descriptor with its target, but for the files of coverage; nothing where there is no /proc."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(_DESCRIPTORS), key=int):
            # The one that was listing the directory is gone by now.
            with contextlib.suppress(FileNotFoundError):
                found.add((int(name), os.readlink(f"{_DESCRIPTORS}/{name}")))
    # With a context for each test coverage opens its file in the first of them.
    return {(number, target) for number, target in found if not _OF_COVERAGE.search(target)}


def _descriptors_changed(before: set[tuple[int, str]]) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """The descriptors that were opened, and those that were closed, once the state has settled."""
    deadline = time.monotonic() + PATIENCE
    while (after := _descriptors()) != before and time.monotonic() < deadline:
        gc.collect()
        # A descriptor may still be with a helper thread, and nothing tells when that closes it.
        threading.Event().wait(0.01)
    return sorted(after - before), sorted(before - after)
