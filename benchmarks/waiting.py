"""Reads that wait, with a timeout and without: the difference is the cost of the timeout.

Both ends of the connection are in the contestant. In two processes, most of the cost of a message would be
waking the other process, and would vary by more than the difference.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from benchmarks._payload import MESSAGE_SIZE, Payload
from benchmarks._trial import Trial, settle_allocator
from wireline.asyncnet import AsyncSocket

TIMEOUT = 5.0
"""Seconds. It never fires."""


async def _exchange(trial: Trial, peer: socket.socket, read: Callable[[], Awaitable[bytes]]) -> None:
    """Send each message of a piece when the one before has been received."""
    settle_allocator()
    for count, piece in zip(trial.incoming(), Payload.LINES.pieces(), strict=False):
        received = []
        for number in range(count):
            peer.send(piece[number * MESSAGE_SIZE : (number + 1) * MESSAGE_SIZE])
            received.append(await read())
        trial.check(received)


async def _with_stream(trial: Trial, *, timeout: bool) -> None:
    ours, peer = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    async def read() -> bytes:
        return await reader.read(MESSAGE_SIZE)

    async def read_timeout() -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await reader.read(MESSAGE_SIZE)

    with peer:
        await _exchange(trial, peer, read_timeout if timeout else read)
    writer.close()
    await writer.wait_closed()


async def _with_ours(trial: Trial, *, timeout: bool) -> None:
    ours, peer = socket.socketpair()
    async with AsyncSocket.from_socket(ours) as sock:

        async def read() -> bytes:
            return await sock.recv_some(MESSAGE_SIZE)

        async def read_timeout() -> bytes:
            return await sock.recv_some(MESSAGE_SIZE, TIMEOUT)

        with peer:
            await _exchange(trial, peer, read_timeout if timeout else read)


def read(trial: Trial) -> None:
    asyncio.run(_with_stream(trial, timeout=False))


def read_timeout(trial: Trial) -> None:
    asyncio.run(_with_stream(trial, timeout=True))


def recv_some(trial: Trial) -> None:
    asyncio.run(_with_ours(trial, timeout=False))


def recv_some_timeout(trial: Trial) -> None:
    asyncio.run(_with_ours(trial, timeout=True))
