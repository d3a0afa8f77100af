"""trio: the echo server of its tutorial. It has no lines: its documentation leaves them to the application."""

from __future__ import annotations

import functools
import sys

import trio

from benchmarks.servers.control import GREETING, announce


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def greet(stream: trio.SocketStream) -> None:
    await stream.send_all(GREETING)


HANDLERS = {"echo": echo, "greet": greet}


async def main() -> None:
    """Serve for ever."""
    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio.serve_tcp, HANDLERS[sys.argv[1]], 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        announce(listeners[0].socket.getsockname()[1])


if __name__ == "__main__":
    trio.run(main)
