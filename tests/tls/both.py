"""Helpers for tests of TLS in both flavours: fixtures, an upgrade, and a server that records its clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from tests.scenarios.flavours import FLAVOURS, Face, Flavour, Handler, Server, Sock, in_thread
from tests.tls.memory import server_context
from wireline import Address
from wireline.tls import Certificate, Handshake, SslContext, TlsInfo, _openssl

PATIENCE = 10.0
"""Seconds after which an operation counts as hanging."""


@pytest.fixture(params=["blocking", "asyncio", "uvloop"])
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """The flavour under test. Modules import this fixture together with ``anyio_backend``."""
    chosen = next(each for each in FLAVOURS if each.name == request.param)
    with chosen.in_place():
        yield chosen


@pytest.fixture
def anyio_backend(flavour: Flavour) -> object:
    """The event loop for anyio's plugin."""
    return flavour.backend


def needs_the_bridge() -> None:
    """Skip a test if the bridge is off."""
    if not _openssl.available():
        pytest.skip(_openssl.why_not())


async def upgrade(
    context: SslContext, sock: Sock, handshake: Handshake, hostname: str = "", **options: Any
) -> None:
    """Start TLS on a connected socket of either flavour, by the context's method (``sock.start_tls`` is the other)."""
    if isinstance(sock, Face):
        await in_thread(context.wrap_connected_socket, sock._sock, handshake, hostname, **options)
    else:
        await context.wrap_connected_async(sock, handshake, hostname, **options)


class ServedConnection(NamedTuple):
    """A finished connection of a server."""

    lines: list[bytes]
    """The lines that the client sent."""
    info: TlsInfo
    certificates: list[Certificate]
    error: OSError | None
    """The error that ended the reads; None for a clean end."""


class ConnectionRecorder:
    """A handler that answers each line with its reverse, and records every connection."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[ServedConnection] = asyncio.Queue()

    async def __call__(self, client: Sock, _: Address) -> None:
        lines: list[bytes] = []
        error: OSError | None = None
        try:
            async for line in client.lines(timeout=PATIENCE):
                lines.append(line)
                await client.send(line[::-1] + b"\n", timeout=PATIENCE)
        except OSError as failure:
            error = failure.with_traceback(None)
        self.seen.put_nowait(ServedConnection(lines, client.tls_info, client.get_peer_certificates(), error))

    async def next(self) -> ServedConnection:
        """Wait for the next finished connection."""
        return await asyncio.wait_for(self.seen.get(), PATIENCE)


class RecordedServer(NamedTuple):
    """A running server and its finished connections."""

    server: Server
    connections: ConnectionRecorder

    @property
    def port(self) -> int:
        port: int = self.server.local_addr.port
        return port


@asynccontextmanager
async def serving(
    flavour: Flavour, handler: Handler, tls: SslContext, **options: Any
) -> AsyncIterator[Server]:
    """Run a server on 127.0.0.1."""
    async with await flavour.serve(handler, 0, "127.0.0.1", tls=tls, **options) as server:
        yield server


@asynccontextmanager
async def recorded_server(
    flavour: Flavour, tls: SslContext | None = None, **options: Any
) -> AsyncIterator[RecordedServer]:
    """Run a server that records its connections."""
    connections = ConnectionRecorder()
    async with serving(flavour, connections, tls or server_context(), **options) as server:
        yield RecordedServer(server, connections)
