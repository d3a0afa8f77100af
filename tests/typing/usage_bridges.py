"""How a typed program uses the bridges. Type checkers read this file; nothing runs it."""

from __future__ import annotations

import asyncio
import http.client
import socket
from typing import assert_type

import anyio.abc
import httpcore

from wireline.adapters.anyio import ByteStream, Listener
from wireline.adapters.httpcore import AsyncNetworkBackend, NetworkBackend
from wireline.asyncnet import AsyncSocket, as_streams, as_transport
from wireline.net import Socket, as_socket


def blocking(sock: Socket, connection: http.client.HTTPConnection) -> None:
    assert_type(as_socket(sock), socket.socket)
    connection.sock = as_socket(sock)
    with as_socket(sock) as bridge, bridge.makefile("rb") as file:
        assert_type(file.readline(), bytes)


def awaited(sock: AsyncSocket, protocol: asyncio.Protocol, buffered: asyncio.BufferedProtocol) -> None:
    reader, writer = as_streams(sock, limit=1024)
    assert_type(reader, asyncio.StreamReader)
    assert_type(writer, asyncio.StreamWriter)
    assert_type(as_transport(sock, protocol), asyncio.Transport)
    assert_type(as_transport(sock, buffered), asyncio.Transport)


def pools() -> None:
    httpcore.ConnectionPool(network_backend=NetworkBackend(timeout=5, buffered=False))
    httpcore.AsyncConnectionPool(network_backend=AsyncNetworkBackend())


async def on_anyio(sock: AsyncSocket, listener: AsyncSocket) -> None:
    stream: anyio.abc.ByteStream = ByteStream(sock)
    assert_type(await stream.receive(10), bytes)

    async def handler(client: ByteStream) -> None:
        await client.send(b"data")

    serving: anyio.abc.Listener[ByteStream] = Listener(listener, handshake_timeout=5)
    await serving.serve(handler)
