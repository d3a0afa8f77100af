"""anyio on asyncio's loop or trio: the server of its documentation, and its buffered stream for lines."""

from __future__ import annotations

import sys

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from benchmarks.servers.control import GREETING, READ_SIZE, announce


async def echo(stream: SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)


async def lines(stream: SocketStream) -> None:
    async with stream:
        reader = BufferedByteReceiveStream(stream)
        while True:
            try:
                line = await reader.receive_until(b"\n", READ_SIZE)
            except anyio.IncompleteRead:
                return
            await stream.send(line + b"\n")


async def greet(stream: SocketStream) -> None:
    async with stream:
        await stream.send(GREETING)


HANDLERS = {"echo": echo, "lines": lines, "greet": greet}


async def main() -> None:
    """Serve for ever."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    announce(listener.extra(SocketAttribute.local_port))
    await listener.serve(HANDLERS[sys.argv[1]])


if __name__ == "__main__":
    anyio.run(main, backend="trio" if "trio" in sys.argv[2:] else "asyncio")
