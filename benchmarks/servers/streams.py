"""asyncio's streams, on asyncio's loop or uvloop's: the echo server of their documentation, as a loop."""

from __future__ import annotations

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

from benchmarks.servers.control import GREETING, READ_SIZE, announce, run, tls_context

Handler = Callable[[StreamReader, StreamWriter], Awaitable[None]]


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(READ_SIZE):
        writer.write(data)
        await writer.drain()


async def lines(reader: StreamReader, writer: StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def lines_batch(reader: StreamReader, writer: StreamWriter) -> None:
    """Answer all lines of one receive together. ``readline`` cannot tell which those are."""
    rest = b""
    while data := await reader.read(READ_SIZE):
        *lines, rest = (rest + data).split(b"\n")
        writer.writelines([line + b"\n" for line in lines])
        await writer.drain()


async def greet(_: StreamReader, writer: StreamWriter) -> None:
    writer.write(GREETING)
    await writer.drain()


HANDLERS = {
    "echo": echo,
    "lines": lines,
    "lines-batch": lines_batch,
    "greet": greet,
}


def _closing(handle: Handler) -> Handler:
    async def handle_and_close(reader: StreamReader, writer: StreamWriter) -> None:
        await handle(reader, writer)
        writer.close()
        await writer.wait_closed()

    return handle_and_close


async def main() -> None:
    """Serve for ever."""
    handle = _closing(HANDLERS[sys.argv[1]])
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls_context())
    announce(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    run(main())
