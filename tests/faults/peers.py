"""Peers on asyncio's own streams: one that throws something at a server, one that listens, one that stands between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

PATIENCE = 10.0
"""Seconds after which a silent peer counts as hanging."""

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""The work of a peer on one connection."""


async def throw(port: int, data: bytes, *, half_close: bool = False) -> bytes:
    """Connect, say something, and return the replies until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[int]:
    """A peer that does the same work with each client, and then closes the connection."""
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            with contextlib.suppress(OSError):
                await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            running.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if running:  # the client has gone: each of them ends by itself
            _, hanging = await asyncio.wait(running, timeout=PATIENCE)
            assert not hanging


@asynccontextmanager
async def relay(port: int, downstream: Talk, upstream: Talk | None = None) -> AsyncIterator[int]:
    """A proxy between a client and a server that may change the stream; yield its port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        up = asyncio.create_task((upstream or downstream)(reader, server_writer))
        try:
            await downstream(server_reader, writer)
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            server_writer.close()
            with contextlib.suppress(OSError):
                await server_writer.wait_closed()

    async with listening(talk) as between:
        yield between


async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Byte by byte."""
    while data := await reader.read(1):
        writer.write(data)
        await writer.drain()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward the stream unchanged."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def records(most: int, part: float, seen: list[int]) -> Talk:
    """Forward so many whole records and a part of the next one, then close.

    Args:
        most: how many; -1 for all.
        part: of the one after: 0 for nothing of it.
        seen: gets the sizes of the records that were forwarded whole.
    """

    async def some(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(5)
                record = head + await reader.readexactly(int.from_bytes(head[3:]))
                if len(seen) == most:
                    writer.write(record[: int(part * len(record))])
                    break
                seen.append(len(record))
                writer.write(record)
        await writer.drain()

    return some
