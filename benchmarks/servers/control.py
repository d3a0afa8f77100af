"""The common part of all servers in Python: the dialogue with the driver, and the choice of the loop."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine

from benchmarks._trial import cpu_seconds, settle_allocator

GREETING = b"w" * 63 + b"\n"
READ_SIZE = 64 * 1024
"""The size of a read, where it has to be given: the default of trio, anyio and this library."""


def announce(port: int) -> None:
    """Say where the server listens, and begin to obey."""
    settle_allocator()
    _say({"port": port})
    # A thread that sleeps in `read` costs the server nothing, and can be had with every loop on every system.
    threading.Thread(target=_obey, daemon=True).start()


def _obey() -> None:
    while os.read(0, 64):
        user, system = cpu_seconds()
        _say({"user": user, "system": system})
    os._exit(0)


def _say(words: dict[str, float]) -> None:
    # Not by `sys.stdout`: if the main thread has failed, its lock may break the end of the interpreter.
    os.write(1, json.dumps(words).encode() + b"\n")


def certificate() -> str:
    """The file with certificate and key, from the command line; empty if there is none: then without TLS."""
    return next((word for word in sys.argv[2:] if word.endswith(".pem")), "")


def tls_context() -> ssl.SSLContext | None:
    """A server's context, as the documentation of ``ssl`` makes one; None without TLS."""
    if not certificate():
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate())
    return context


def run(server: Coroutine[object, object, object]) -> None:
    """Run a server on the loop that the command line names: asyncio's, uvloop's, with aiofastnet on it, or trio's."""
    if "trio" in sys.argv[2:]:
        import trio

        async def main() -> None:
            await server

        trio.run(main)
        return
    with asyncio.Runner(loop_factory=_loop_factory(sys.argv[2:])) as runner:
        runner.run(server)


def _loop_factory(words: list[str]) -> Callable[[], asyncio.AbstractEventLoop] | None:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if "uvloop" in words:
        import uvloop

        factory = uvloop.new_event_loop
    if "aiofastnet" in words:
        import aiofastnet

        factory = aiofastnet.loop_factory(factory)
    return factory
