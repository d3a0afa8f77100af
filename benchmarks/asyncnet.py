"""``wireline.asyncnet`` with one connection: the tasks of ``asyncio_streams``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks._payload import BLOCK_SIZE
from benchmarks._trial import Trial
from benchmarks.asyncio_streams import TIMEOUT, run_on_uvloop
from wireline.asyncnet import AsyncSocket
from wireline.tls import Handshake, SslContext

Talk = Callable[[Trial, AsyncSocket], Awaitable[None]]


async def _serve_one(trial: Trial, talk: Talk) -> None:
    async with AsyncSocket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        trial.announce(listener.local_addr.port)
        sock = await listener.accept()
    async with sock:
        if trial.certificate:
            context = SslContext(cert_file=trial.certificate)
            await context.wrap_connected_async(sock, Handshake.AS_SERVER)
        await talk(trial, sock)


def run(trial: Trial, talk: Talk) -> None:
    """Accept the load's connection on asyncio's own loop, and talk to it."""
    asyncio.run(_serve_one(trial, talk))


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


async def _recv_some(trial: Trial, sock: AsyncSocket) -> None:
    for _ in trial.reads():
        trial.take(await sock.recv_some(BLOCK_SIZE))


async def _recv_some_ready(trial: Trial, sock: AsyncSocket) -> None:
    for _ in trial.ready_reads(sock):
        trial.take(await sock.recv_some(BLOCK_SIZE))


async def _send(trial: Trial, sock: AsyncSocket) -> None:
    for count in trial.laps():
        for block in trial.outgoing(count):
            await sock.send(block)
        await sock.recv_exactly(1)


def recv_line(trial: Trial) -> None:
    run(trial, _recv_line)


def recv_line_timeout(trial: Trial) -> None:
    run(trial, _recv_line_timeout)


def recv_some(trial: Trial) -> None:
    run(trial, _recv_some)


def recv_some_uvloop(trial: Trial) -> None:
    run_on_uvloop(_serve_one(trial, _recv_some))


def recv_some_ready(trial: Trial) -> None:
    asyncio.run(_serve_one(trial, _recv_some_ready))


def recv_some_ready_uvloop(trial: Trial) -> None:
    run_on_uvloop(_serve_one(trial, _recv_some_ready))


def send(trial: Trial) -> None:
    asyncio.run(_serve_one(trial, _send))


def send_uvloop(trial: Trial) -> None:
    run_on_uvloop(_serve_one(trial, _send))
