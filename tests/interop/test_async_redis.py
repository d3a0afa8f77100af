"""A real redis-server and an ``AsyncSocket``: pipelines, many connections, and messages without a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.interop import test_redis
from tests.interop.programs import PATIENCE
from tests.interop.test_redis import Reply, command, pipeline
from wireline import AF_UNIX, Address
from wireline.asyncnet import AsyncSocket, dial

pytestmark = [pytest.mark.interop, pytest.mark.anyio]

redis = test_redis.redis


@asynccontextmanager
async def connected(
    redis: tuple[Address, str], kind: str = "tcp", *, buffered: bool = True
) -> AsyncIterator[AsyncSocket]:
    """A connection to a database with nothing in it."""
    where, path = redis
    if kind == "unix":
        sock = AsyncSocket(AF_UNIX, buffered=buffered)
        await sock.connect_unix(path, timeout=PATIENCE)
    else:
        sock = await dial(where.host, where.port, timeout=PATIENCE, buffered=buffered)
    async with sock:
        await sock.send(command(b"FLUSHALL"))
        assert await read_reply(sock) == b"OK"
        yield sock


async def read_reply(sock: AsyncSocket) -> Reply:
    line = await sock.recv_line(PATIENCE)
    kind, rest = line[:1], line[1:]
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        if int(rest) < 0:
            return None
        value = await sock.recv_exactly(int(rest), PATIENCE)
        assert await sock.recv_exactly(2, PATIENCE) == b"\r\n"
        return value
    if kind == b"*":
        return [await read_reply(sock) for _ in range(int(rest))]
    raise AssertionError(f"not a reply that was expected: {line!r}")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_pipeline_of_a_thousand_commands(redis: tuple[Address, str], kind: str) -> None:
    commands, replies = pipeline(1000)
    assert len(commands) == 1000
    async with connected(redis, kind) as sock, asyncio.TaskGroup() as tasks:
        tasks.create_task(sock.send(b"".join(commands), timeout=PATIENCE))
        assert [await read_reply(sock) for _ in commands] == replies
        assert not sock.has_data_buffered


async def test_one_command_at_a_time_without_a_buffer(redis: tuple[Address, str]) -> None:
    commands, replies = pipeline(60)
    async with connected(redis, buffered=False) as sock:
        for line, reply in zip(commands, replies, strict=True):
            await sock.send(line)
            assert await read_reply(sock) == reply


async def test_W5_commands_of_fifty_tasks_are_sent_whole(redis: tuple[Address, str]) -> None:
    """Each adds a value of several buffers to one set: a command that was torn would be a protocol error."""
    values = [bytes([number]) * 200_000 for number in range(50)]
    async with connected(redis, "unix") as sock, asyncio.TaskGroup() as tasks:
        for value in values:
            tasks.create_task(sock.send(command(b"SADD", b"set", value), timeout=PATIENCE))
        assert [await read_reply(sock) for _ in values] == [1] * 50


async def test_fifty_connections_at_once(redis: tuple[Address, str]) -> None:
    where, _ = redis

    async def count(times: int) -> list[Reply]:
        async with await dial(where.host, where.port, timeout=PATIENCE) as sock:
            replies = []
            for _ in range(times):
                await sock.send(command(b"INCR", b"shared"))
                replies.append(await read_reply(sock))
            return replies

    async with connected(redis):
        counts = await asyncio.gather(*[count(20) for _ in range(50)])
    assert sorted(reply for replies in counts for reply in replies) == list(range(1, 1001))
    assert all(replies == sorted(replies) for replies in counts)


async def test_R5_a_cancelled_read_loses_no_message(redis: tuple[Address, str]) -> None:
    """A subscriber gives up again and again while messages arrive, and gets every one of them."""
    async with connected(redis) as publisher, connected(redis) as subscriber:
        await subscriber.send(command(b"SUBSCRIBE", b"news"))
        assert await read_reply(subscriber) == [b"subscribe", b"news", 1]
        impatient = 0
        for number in range(50):
            message = b"<%d>" % number
            reading = asyncio.create_task(subscriber.recv_until(message + b"\r\n", timeout=PATIENCE))
            await asyncio.sleep(0)  # now it waits
            await publisher.send(command(b"PUBLISH", b"news", message))
            if number % 2:  # half of the messages have arrived, or are on their way
                assert await read_reply(publisher) == 1
            reading.cancel()
            try:
                received = await reading
            except asyncio.CancelledError:
                impatient += 1
                received = await subscriber.recv_until(message + b"\r\n", timeout=PATIENCE)
            assert received == command(b"message", b"news", message)
            if not number % 2:
                assert await read_reply(publisher) == 1
        assert impatient >= 25


async def test_the_end_of_the_connection(redis: tuple[Address, str]) -> None:
    async with connected(redis) as sock:
        await sock.send(command(b"PING") + command(b"QUIT"))
        assert [line async for line in sock.lines(timeout=PATIENCE)] == [b"+PONG", b"+OK"]
        assert await sock.recv_line(PATIENCE) == b""
