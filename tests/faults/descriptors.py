"""Counting descriptors, and running out of them."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator

# Linux and macOS both have it, and each lists the process's own.
_LISTING = "/dev/fd"

PATIENCE = 2.0
"""Seconds that a helper thread gets to close a descriptor."""


def open_descriptors() -> dict[int, tuple[int, int]]:
    """Every open descriptor and the file it refers to, so that a number which was given away twice is seen too."""
    found = {}
    for name in os.listdir(_LISTING):
        with contextlib.suppress(OSError):  # the one that was listing the directory is gone by now
            status = os.fstat(int(name))
            found[int(name)] = (status.st_dev, status.st_ino)
    return found


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """Fail if other descriptors are open at the end than at the beginning."""
    for thread in threading.enumerate():
        if thread.name == "wireline-linger":  # of a connection before, whose descriptors are about to go
            thread.join(PATIENCE)
    before = open_descriptors()
    yield
    deadline = time.monotonic() + PATIENCE
    while (after := open_descriptors()) != before and time.monotonic() < deadline:
        # An exception that was caught may hold its frames in a cycle.
        gc.collect()
    assert after == before, (
        f"left open: {after.keys() - before.keys()}, closed: {before.keys() - after.keys()}"
    )


@contextlib.contextmanager
def only(count: int) -> Iterator[None]:
    """Leave this process ``count`` descriptors to open, and not one more."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the number of a descriptor, and a new one gets the lowest that is free: fill the gaps first.
    plugs = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + 1 + count, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                plugs.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(plugs.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for plug in plugs:
            os.close(plug)
