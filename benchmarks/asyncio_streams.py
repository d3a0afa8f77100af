"""asyncio's streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from benchmarks._payload import BLOCK_SIZE, MESSAGE_SIZE
from benchmarks._trial import Trial
from benchmarks.blocking import stdlib_context

TIMEOUT = 5.0
"""Seconds. It never fires."""

Talk = Callable[[Trial, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(trial: Trial, talk: Talk) -> None:
    """Accept the load's connection on asyncio's own loop, and talk to it."""
    asyncio.run(_serve_one(trial, talk))


def run_on_uvloop(main: Coroutine[object, object, None]) -> None:
    """As ``asyncio.run``."""
    import uvloop

    uvloop.run(main)


async def _serve_one(trial: Trial, talk: Talk) -> None:
    over = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(trial, reader, writer)
        except Exception as error:  # noqa: BLE001 - it is raised where `over` is awaited
            over.set_exception(error)
        else:
            over.set_result(None)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=stdlib_context(trial))
    async with server:
        trial.announce(server.sockets[0].getsockname()[1])
        await over


async def _readline(trial: Trial, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    for count in trial.incoming():
        lines = []
        for _unused in range(count):
            lines.append(await reader.readline())
        trial.check(lines)


async def _readline_timeout(trial: Trial, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    for count in trial.incoming():
        lines = []
        for _unused in range(count):
            async with asyncio.timeout(TIMEOUT):
                lines.append(await reader.readline())
        trial.check(lines)


async def _readexactly(trial: Trial, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    for count in trial.incoming():
        messages = []
        for _unused in range(count):
            messages.append(await reader.readexactly(MESSAGE_SIZE))
        trial.check(messages)


async def _readexactly_timeout(trial: Trial, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    for count in trial.incoming():
        messages = []
        for _unused in range(count):
            async with asyncio.timeout(TIMEOUT):
                messages.append(await reader.readexactly(MESSAGE_SIZE))
        trial.check(messages)


async def _read(trial: Trial, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    for _unused in trial.reads():
        trial.take(await reader.read(BLOCK_SIZE))


async def _read_ready(trial: Trial, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _unused in trial.ready_reads(writer.get_extra_info("socket")):
        trial.take(await reader.read(BLOCK_SIZE))


async def _write(trial: Trial, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for count in trial.laps():
        for block in trial.outgoing(count):
            writer.write(block)
            await writer.drain()
        await reader.readexactly(1)


def readline(trial: Trial) -> None:
    run(trial, _readline)


def readline_timeout(trial: Trial) -> None:
    run(trial, _readline_timeout)


def readexactly(trial: Trial) -> None:
    run(trial, _readexactly)


def readexactly_timeout(trial: Trial) -> None:
    run(trial, _readexactly_timeout)


def read(trial: Trial) -> None:
    run(trial, _read)


def read_uvloop(trial: Trial) -> None:
    run_on_uvloop(_serve_one(trial, _read))


def read_ready(trial: Trial) -> None:
    run(trial, _read_ready)


def read_ready_uvloop(trial: Trial) -> None:
    run_on_uvloop(_serve_one(trial, _read_ready))


def write(trial: Trial) -> None:
    run(trial, _write)


def write_uvloop(trial: Trial) -> None:
    run_on_uvloop(_serve_one(trial, _write))
