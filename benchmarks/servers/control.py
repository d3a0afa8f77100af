"""What all servers in Python have in common: how they speak with the driver, and which loop they run on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Coroutine

from benchmarks._trial import cpu_seconds

GREETING = b"w" * 63 + b"\n"
READ_SIZE = 64 * 1024
"""Bytes that are asked for at once, where that has to be said; it is what trio, anyio and we take by default."""
TIMEOUT = 30.0
"""Seconds. It never fires."""


def announce(port: int) -> None:
    """Say where the server listens, and begin to obey."""
    _settle_allocator()
    _say({"port": port})
    # A thread that sleeps in `read` costs the server nothing, and can be had with every loop on every system.
    threading.Thread(target=_obey, daemon=True).start()


def _settle_allocator() -> None:
    """Give all servers the better case of what is chance in a program: a large block was freed before.

    Until then the GNU C library gets every block above 128 KiB from the kernel and gives it back. asyncio reads into
    256 KiB, which doubles what a read costs it in such a process, and says nothing about asyncio.
    """
    bytearray(1 << 20)


def _obey() -> None:
    while os.read(0, 64):
        user, system = cpu_seconds()
        _say({"user": user, "system": system})
    os._exit(0)


def _say(words: dict[str, float]) -> None:
    # Not by `sys.stdout`: its lock may be what the interpreter trips over when the main thread has failed.
    os.write(1, json.dumps(words).encode() + b"\n")


def run(server: Coroutine[object, object, object]) -> None:
    """Run a server on asyncio's loop, or on uvloop's if that is the second word on the command line."""
    if sys.argv[2:] == ["uvloop"]:
        import uvloop

        uvloop.run(server)
    else:
        asyncio.run(server)
