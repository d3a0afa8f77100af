"""Very many connections: one after the other, so that descriptors are used again and again, and all at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pathlib
import random
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.asyncnet import idle_clients
from tests.asyncnet.loops import ALL_WAYS, Way, turns
from tests.asyncnet.streams import LOOPBACK, until
from wireline import Address, ClosedError, SocketFlag
from wireline.asyncnet import AsyncSocket, Server, dial, serve

pytestmark = pytest.mark.stress

PATIENCE = 20.0
"""Seconds after which something that should have happened counts as hanging."""

SECONDS = 2.5
"""How long connections are opened and closed. A slow machine takes longer for the least number of rounds."""

LANES, ROUNDS = 12, 10
"""Tasks that open and close at the same time, and how often each does so at least. They reuse each other's numbers."""


def is_tag(data: bytes, tag: bytes, position: int) -> bool:
    """Whether ``data`` is a part of the repeated tag, from a position on."""
    start = position % len(tag)
    return (tag * (len(data) // len(tag) + 2))[start : start + len(data)] == data


class Tags:
    """A server at which every connection says its tag, and gets and gives nothing but this tag from then on."""

    SIZE = 8

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.received = 0

    async def __call__(self, client: AsyncSocket, _: Address) -> None:
        tag = await client.recv(self.SIZE)
        if len(tag) < self.SIZE:
            return  # it was given up before it had said anything
        sending = asyncio.create_task(self._send(client, tag))
        position = 0
        while data := await client.recv_some():
            if not is_tag(data, tag, position):
                self.problems.append(f"the connection {tag!r} got {data[:40]!r}")
            position += len(data)
        self.received += position
        client.close()
        with contextlib.suppress(OSError):  # the peer is gone: that is how each of them ends
            await sending

    @staticmethod
    async def _send(client: AsyncSocket, tag: bytes) -> None:
        for size in itertools.cycle((1, 30, 3000)):
            await client.send(tag * size, SocketFlag(0))


class Client:
    """One connection: it says its tag, reads and writes in tasks of their own, and ends in one of many ways."""

    numbers = itertools.count(1)

    def __init__(self, chances: random.Random) -> None:
        self._tag = b"<%06d>" % (next(self.numbers) % 1_000_000)
        self._chances = chances
        self._position = 0

    async def run(self, server: Server) -> None:
        sock = await self._dial(server)
        if sock is None:
            return
        async with sock:
            await sock.send(self._tag)
            tasks = [asyncio.create_task(self._read(sock)), asyncio.create_task(self._write(sock))]
            await self._moment()
            for _ in range(self._chances.randrange(3)):
                self._chances.choice(tasks).cancel()
                await self._moment()
            rest = await self._rest(sock, tasks[0])
            sock.close(linger=self._chances.choice([None, 0]))
            # A number that is free now is used again at once.
            with contextlib.closing(os.fdopen(os.open(os.devnull, os.O_RDONLY))):
                ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
        for end in ends:
            if not isinstance(end, ClosedError | asyncio.CancelledError):
                raise AssertionError(f"{end!r} where an end by closing belongs")
        assert is_tag(rest, self._tag, self._position)

    async def _dial(self, server: Server) -> AsyncSocket | None:
        """Connect; None if that was given up."""
        dialing = asyncio.create_task(dial(*server.local_addr, timeout=PATIENCE))
        if self._chances.random() < 0.2:
            await turns(self._chances.randrange(4))
            dialing.cancel()
        await asyncio.wait([dialing])
        return None if dialing.cancelled() else dialing.result()

    async def _rest(self, sock: AsyncSocket, reading: asyncio.Task[None]) -> bytes:
        """The bytes that are there, if no task reads any more."""
        await turns(2)
        if not reading.done():
            return b""
        with contextlib.suppress(TimeoutError):
            return await sock.recv_some(timeout=0)
        return b""

    async def _read(self, sock: AsyncSocket) -> None:
        while True:
            data = await sock.recv_some()
            assert data, "an end of the stream where ClosedError belongs"
            assert is_tag(data, self._tag, self._position), f"the connection {self._tag!r} got {data[:40]!r}"
            self._position += len(data)

    async def _write(self, sock: AsyncSocket) -> None:
        while True:
            await sock.send(self._tag * 50)
            await turns(1)

    async def _moment(self) -> None:
        """Let a few turns go by."""
        await turns(self._chances.randrange(12))


@pytest.mark.parametrize("way", ALL_WAYS[:4], ids=lambda way: way.name)
async def test_R5_R13_R14_thousands_of_connections_come_and_go_and_no_byte_goes_astray(way: Way) -> None:
    tags = Tags()
    end = time.monotonic() + SECONDS
    opened = 0

    async def lane(number: int) -> None:
        nonlocal opened
        for rounds in itertools.count():
            if rounds >= ROUNDS and time.monotonic() > end:
                return
            await Client(random.Random(number * 1_000_000 + rounds)).run(server)
            opened += 1

    async with serve(tags, 0, LOOPBACK) as server:
        async with asyncio.TaskGroup() as lanes:
            for number in range(LANES):
                lanes.create_task(lane(number))
        await server.stop(drain=PATIENCE)
    assert tags.problems == []
    assert tags.received
    assert opened >= LANES * ROUNDS


async def test_listeners_come_and_go_and_no_client_lands_elsewhere(way: Way) -> None:
    end = time.monotonic() + SECONDS / 2

    async def greet(listener: AsyncSocket, port: int) -> None:
        while True:
            async with await listener.accept() as client:
                await client.send(b"%d\n" % port)

    async def lane(number: int) -> None:
        chances = random.Random(number)
        for rounds in itertools.count():
            if rounds >= ROUNDS and time.monotonic() > end:
                return
            async with AsyncSocket() as listener:
                listener.bind_addr(0, LOOPBACK)
                listener.listen()
                host, port = listener.local_addr
                accepting = [asyncio.create_task(greet(listener, port)) for _ in range(3)]
                for _ in range(chances.randrange(1, 4)):
                    async with await dial(host, port, timeout=PATIENCE) as client:
                        assert await client.recv_line(PATIENCE) == b"%d" % port
                accepting[0].cancel()
                await turns(chances.randrange(5))
                listener.close()
                ends = await asyncio.wait_for(asyncio.gather(*accepting, return_exceptions=True), PATIENCE)
                assert {type(end) for end in ends} <= {ClosedError, asyncio.CancelledError}

    async with asyncio.TaskGroup() as lanes:
        for number in range(4):
            lanes.create_task(lane(number))


@pytest.fixture
def descriptors() -> Iterator[int]:
    """As many descriptors as there are to be had."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class IdleClients:
    """``idle_clients.py`` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, server: Server, count: int) -> AsyncIterator[IdleClients]:
        """Have so many of them; they are gone at the end of the block."""
        words = [str(pathlib.Path(idle_clients.__file__)), *map(str, (*server.local_addr, count))]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            yield cls(process)
            assert process.stdin is not None
            process.stdin.close()
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def says(self) -> bytes:
        """The next line of its output."""
        assert self._process.stdout is not None
        return await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)

    def go(self) -> None:
        """Let each of them say its message."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")


@pytest.mark.long
async def test_ten_thousand_idle_connections_in_one_process_and_then_a_message_each(
    way: Way, descriptors: int
) -> None:
    count = 10_000 if descriptors == resource.RLIM_INFINITY else min(10_000, descriptors - 500)
    lines: list[int] = []

    async def answer(client: AsyncSocket, _: Address) -> None:
        line = await client.recv_line()
        lines.append(int(line))
        await client.send(line + b"\n")
        assert await client.recv_line() == b""

    async with serve(answer, 0, LOOPBACK) as server:
        async with IdleClients.of(server, count) as clients:
            assert await clients.says() == b"connected\n"
            await until(lambda: server.connections == count)
            busy = time.process_time()
            await asyncio.sleep(0.2)
            assert time.process_time() - busy < 0.1, "silent connections cost nothing"
            assert not lines
            clients.go()
            assert await clients.says() == b"%d\n" % count
            assert sorted(lines) == list(range(count))
        report = await server.stop(drain=PATIENCE)
        assert report.forced == 0
        assert not server.connections
