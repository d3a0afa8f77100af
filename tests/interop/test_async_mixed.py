"""An ``AsyncSocket`` next to asyncio's own streams, subprocesses and datagrams, all on one loop."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from tests.interop.async_conversations import read_to_the_end
from tests.interop.conversations import OURS, THEIRS
from tests.interop.programs import PATIENCE
from wireline import SOCK_DGRAM, Address
from wireline.asyncnet import AsyncSocket, dial, serve

pytestmark = [pytest.mark.interop, pytest.mark.anyio]

SHOUT = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
"""A program that answers every line with the same in capitals."""


async def shout(client: AsyncSocket, _: Address) -> None:
    async for line in client.lines(timeout=PATIENCE):
        await client.send(line.upper() + b"\r\n", timeout=PATIENCE)


async def test_asyncio_streams_talk_to_serve() -> None:
    async def ask(where: Address, number: int) -> bytes:
        reader, writer = await asyncio.open_connection(*where)
        try:
            writer.write(b"line %d\n" % number * 1000)
            writer.write_eof()
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async with serve(shout, 0, "127.0.0.1") as server, asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*[ask(server.local_addr, number) for number in range(10)])
    assert answers == [b"LINE %d\r\n" % number * 1000 for number in range(10)]


async def test_dial_talks_to_an_asyncio_server() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def converse(where: tuple[str, int]) -> bytes:
        async with await dial(*where, timeout=PATIENCE) as sock:
            async with asyncio.TaskGroup() as tasks:
                received = tasks.create_task(read_to_the_end(sock))
                await sock.send(OURS, timeout=PATIENCE)
                await sock.shutdown_write()
            return received.result()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        where = server.sockets[0].getsockname()
        assert await asyncio.gather(*[converse(where) for _ in range(5)]) == [OURS] * 5


async def test_a_socket_is_the_standard_streams_of_a_subprocess() -> None:
    ours, theirs = socket.socketpair()
    async with AsyncSocket.from_socket(ours) as sock:
        with theirs:
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-c", SHOUT, stdin=theirs, stdout=theirs
            )
        for number in range(20):
            await sock.send(b"line %d\n" % number, timeout=PATIENCE)
            assert await sock.recv_line(PATIENCE) == b"LINE %d" % number
        await sock.shutdown_write()
        assert await sock.recv_line(PATIENCE) == b""
        assert await program.wait() == 0


async def test_all_of_them_in_one_program() -> None:
    """A line goes from an ``AsyncSocket`` through asyncio's streams into a subprocess, and all the way back."""

    async def hand_on(client: AsyncSocket, _: Address) -> None:
        """``serve`` -> a subprocess -> ``serve``."""
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SHOUT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert program.stdin is not None
        assert program.stdout is not None
        async for line in client.lines(timeout=PATIENCE):
            program.stdin.write(line + b"\n")
            await client.send(await program.stdout.readline(), timeout=PATIENCE)
        program.stdin.close()
        await program.stdin.wait_closed()
        assert await program.stdout.read() == b""
        assert await program.wait() == 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """``asyncio.start_server`` -> ``asyncio.open_connection`` to ``serve``."""
        onward_reader, onward_writer = await asyncio.open_connection(*server.local_addr)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(copy(reader, onward_writer))
                tasks.create_task(copy(onward_reader, writer))
        finally:
            for end in (onward_writer, writer):
                end.close()
                await end.wait_closed()
            over.release()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def ask(number: int) -> None:
        async with await dial("127.0.0.1", port, timeout=PATIENCE) as sock:
            for turn in range(5):
                await sock.send(b"line %d of %d\n" % (turn, number), timeout=PATIENCE)
                assert await sock.recv_line(PATIENCE) == b"LINE %d OF %d" % (turn, number)
            await sock.shutdown_write()
            assert await sock.recv_line(PATIENCE) == b""

    over = asyncio.Semaphore(0)
    async with serve(hand_on, 0, "127.0.0.1") as server, asyncio.timeout(PATIENCE):
        relaying = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with relaying:
            port = relaying.sockets[0].getsockname()[1]
            await asyncio.gather(*[ask(number) for number in range(3)])
            for _ in range(3):
                await over.acquire()


async def test_datagrams_of_asyncio_and_of_wireline() -> None:
    class Reverse(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data[::-1], addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Reverse, ("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")
    try:
        async with AsyncSocket(sock_type=SOCK_DGRAM) as sock:
            for data in (b"one", THEIRS[:9000], b"three"):
                await sock.send_to(host, port, data, timeout=PATIENCE)
                assert await sock.recv_from(10_000, timeout=PATIENCE) == (data[::-1], (host, port))
    finally:
        transport.close()
