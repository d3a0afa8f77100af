"""Length-prefixed messages, and a line followed by an exact read, in both flavours and with the standard library.

A frame has a header of 5 bytes (``HEADER``) and a payload of 95. A counted message is a line with a size, as of RESP
and of chunked HTTP, and so many bytes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from benchmarks import asyncio_streams, asyncnet
from benchmarks._payload import HEADER
from benchmarks._trial import Trial
from benchmarks.blocking import socket_connection, wireline_connection
from wireline import Frame
from wireline.asyncnet import AsyncSocket
from wireline.net import Socket

FORMAT = HEADER.format


def _check_frames(trial: Trial, frames: Iterable[tuple[tuple[int, ...], bytes]]) -> None:
    trial.check(HEADER.pack(*fields) + payload for fields, payload in frames)


def _check_counted(trial: Trial, messages: Iterable[tuple[bytes, bytes]], end: bytes = b"") -> None:
    trial.check(line + end + body for line, body in messages)


# Blocking.


def makefile_frames(trial: Trial) -> None:
    with socket_connection(trial) as sock, sock.makefile("rb") as file:
        for count in trial.incoming():
            frames = []
            for _ in range(count):
                fields = HEADER.unpack(file.read(HEADER.size))
                frames.append((fields, file.read(fields[-1])))
            _check_frames(trial, frames)


def frames(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        iterator = sock.frames(FORMAT)
        for count in trial.incoming():
            _check_frames(trial, list(itertools.islice(iterator, count)))


def recv_frame(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.incoming():
            _check_frames(trial, [sock.recv_frame(FORMAT) for _ in range(count)])


def _by_fields(sock: Socket) -> tuple[tuple[int, ...], bytes]:
    fields = sock.recv_struct(HEADER)
    return fields, sock.recv_exactly(fields[-1])


def recv_struct(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.incoming():
            _check_frames(trial, [_by_fields(sock) for _ in range(count)])


def makefile_counted(trial: Trial) -> None:
    with socket_connection(trial) as sock, sock.makefile("rb") as file:
        for count in trial.incoming():
            messages = []
            for _ in range(count):
                line = file.readline()
                messages.append((line, file.read(int(line[1:]))))
            _check_counted(trial, messages)


def counted(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.incoming():
            messages = []
            for _ in range(count):
                line = sock.recv_line()
                messages.append((line, sock.recv_exactly(int(line[1:]))))
            _check_counted(trial, messages, b"\r\n")


# Async.


async def _asyncio_frames(trial: Trial, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    for count in trial.incoming():
        frames = []
        for _unused in range(count):
            fields = HEADER.unpack(await reader.readexactly(HEADER.size))
            frames.append((fields, await reader.readexactly(fields[-1])))
        _check_frames(trial, frames)


async def _asyncio_counted(trial: Trial, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    for count in trial.incoming():
        messages = []
        for _unused in range(count):
            line = await reader.readline()
            messages.append((line, await reader.readexactly(int(line[1:]))))
        _check_counted(trial, messages)


async def _async_frames(trial: Trial, sock: AsyncSocket) -> None:
    iterator = sock.frames(FORMAT)
    for count in trial.incoming():
        frames: list[Frame] = []
        async for frame in iterator:
            frames.append(frame)
            if len(frames) == count:
                break
        _check_frames(trial, frames)


async def _async_recv_frame(trial: Trial, sock: AsyncSocket) -> None:
    for count in trial.incoming():
        frames = []
        for _ in range(count):
            frames.append(await sock.recv_frame(FORMAT))
        _check_frames(trial, frames)


async def _async_recv_struct(trial: Trial, sock: AsyncSocket) -> None:
    for count in trial.incoming():
        frames = []
        for _ in range(count):
            fields = await sock.recv_struct(HEADER)
            frames.append((fields, await sock.recv_exactly(fields[-1])))
        _check_frames(trial, frames)


async def _async_counted(trial: Trial, sock: AsyncSocket) -> None:
    for count in trial.incoming():
        messages = []
        for _ in range(count):
            line = await sock.recv_line()
            messages.append((line, await sock.recv_exactly(int(line[1:]))))
        _check_counted(trial, messages, b"\r\n")


def asyncio_frames(trial: Trial) -> None:
    asyncio_streams.run(trial, _asyncio_frames)


def asyncio_counted(trial: Trial) -> None:
    asyncio_streams.run(trial, _asyncio_counted)


def async_frames(trial: Trial) -> None:
    asyncnet.run(trial, _async_frames)


def async_recv_frame(trial: Trial) -> None:
    asyncnet.run(trial, _async_recv_frame)


def async_recv_struct(trial: Trial) -> None:
    asyncnet.run(trial, _async_recv_struct)


def async_counted(trial: Trial) -> None:
    asyncnet.run(trial, _async_counted)
