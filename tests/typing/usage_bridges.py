"""How a typed program uses the bridges. Type checkers read this file; nothing runs it."""

from __future__ import annotations

import asyncio
import http.client
import socket
from typing import assert_type

import anyio.abc
import httpcore
import trio.abc

from wireline.adapters import anyio as on_any_loop
from wireline.adapters import trio as on_trio_only
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


async def on_trio(sock: AsyncSocket, listener: AsyncSocket) -> None:
    stream: trio.abc.HalfCloseableStream = on_trio_only.Stream(sock)
    await stream.send_all(b"x")
    data: bytes | bytearray = await stream.receive_some()
    await stream.send_eof()
    serving: trio.abc.Listener[on_trio_only.Stream] = on_trio_only.Listener(listener, handshake_timeout=5)
    accepted: on_trio_only.Stream = await serving.accept()
    await accepted.do_handshake()
    print(data)


async def over_any_stream(stream: trio.abc.Stream, other: anyio.abc.ByteStream) -> None:
    async with on_trio_only.from_stream(stream) as ours, on_any_loop.from_stream(other) as theirs:
        line: bytes = await ours.recv_line(timeout=1)
        async for each in theirs.lines():
            line = each
        async for frame in theirs.frames("!H", timeout=1):
            line = frame.payload
        count: int = await ours.recv_into(bytearray(10))
        await ours.send_many([line, bytearray(count)])
        await theirs.shutdown_write(timeout=1)
