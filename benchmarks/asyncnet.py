"""``wireline.asyncnet`` with one connection, for what the asyncio streams of ``asyncio_streams`` do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks._trial import Trial
from benchmarks.asyncio_streams import TIMEOUT
from wireline.asyncnet import AsyncSocket

Talk = Callable[[Trial, AsyncSocket], Awaitable[None]]


async def _serve_one(trial: Trial, talk: Talk) -> None:
    async with AsyncSocket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        trial.announce(listener.local_addr.port)
        sock = await listener.accept()
    async with sock:
        await talk(trial, sock)


async def _recv_line(trial: Trial, sock: AsyncSocket) -> None:
    for count in trial.incoming():
        lines = []
        for _ in range(count):
            lines.append(await sock.recv_line())
        trial.check(lines, b"\n")


async def _recv_line_timeout(trial: Trial, sock: AsyncSocket) -> None:
    for count in trial.incoming():
        lines = []
        for _ in range(count):
            lines.append(await sock.recv_line(timeout=TIMEOUT))
        trial.check(lines, b"\n")


def recv_line(trial: Trial) -> None:
    asyncio.run(_serve_one(trial, _recv_line))


def recv_line_timeout(trial: Trial) -> None:
    asyncio.run(_serve_one(trial, _recv_line_timeout))
