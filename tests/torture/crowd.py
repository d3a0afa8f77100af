"""Many clients in a process of their own, on the standard library alone; and the handle by which a scene leads them.

Commands are lines on the input, answers are lines of JSON on the output:

    come N      N clients connect, and each exchanges a line; they stay
    say         each of those exchanges another line
    reset       all of those reset their connections, as fast as a process can
    leave       all of those close, and TLS ones send close_notify first
    ends        waits until the server has ended all connections, and counts them
    hurry N     N clients connect, send a line each, and leave at once without waiting for anything
    burst N     N clients connect; when all have, all send a line and leave at once
    chatter N   N clients connect, exchange a line, and from then on send without end
    silent N    N clients connect (without TLS, even if the server uses it), and send nothing; they stay
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.torture import certificates
from tests.torture.children import ROOT
from tests.torture.stage import Broken

AT_A_TIME = 100
"""Connections that are made side by side: more than that only fills the listener's queue."""

PATIENCE = 60.0
"""Seconds that one command may take."""

ADDRESSES = 8
"""Loopback addresses that connections are spread over: each has ephemeral ports of its own."""


class Crowd:
    """The process, from the scene's side; a context manager."""

    def __init__(self, kind: str, port: int, *, spread: bool = False) -> None:
        """Start the clients of a server at ``port``; with ``spread`` they use several addresses of this machine."""
        self._start(kind, str(port), str(ADDRESSES if spread else 0))

    def _start(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.crowd", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def begin(self, command: str) -> None:
        """Give a command; its answer is fetched by ``answer``."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the crowd has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, command: str) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.begin(command)
        return self.answer()

    def expect(self, command: str, number: int) -> None:
        """Give a command; ``Broken`` unless so many clients did as they were to."""
        said = self.ask(command)
        if said["good"] != number:
            raise Broken(
                f"of {number:,} clients {said['good']:,} could {command!r}; the others: {said['bad']}"
            )

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Host(Crowd):
    """A server in the process instead of clients: it sends lines back in capitals, at every loopback address."""

    def __init__(self, kind: str) -> None:
        self._start(kind, "serve", "0")
        self.port = int(self.answer()["port"])


class Client:
    """One client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def come(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection(host, port, ssl=context, limit=4096)

    async def say(self) -> None:
        """A line in both directions."""
        self.writer.write(b"hello\n")
        line = await self.reader.readline()
        if line != b"HELLO\n":
            raise ConnectionError(f"sent b'hello\\n', got {line!r} back")

    def reset(self) -> None:
        """Reset the connection."""
        transport = self.writer.transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    async def chatter(self) -> None:
        """Send without end, and read nothing."""
        try:
            while True:
                self.writer.write(b"chatter" * 1000)
                await self.writer.drain()
                await asyncio.sleep(0)
        except (ConnectionError, ssl.SSLError):
            return  # the server has had enough

    async def leave(self) -> None:
        """Close."""
        self.writer.close()

    async def end(self) -> None:
        """Wait until the server ends the connection."""
        try:
            while await self.reader.read(65536):
                continue
        except (ConnectionError, ssl.SSLError):
            return  # an end, too


class Leader:
    """The process with the clients."""

    def __init__(self, kind: str, port: int, addresses: int) -> None:
        self._context: ssl.SSLContext | None = None
        if kind.startswith("tls"):
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._port = port
        self._hosts = [f"127.0.0.{number + 2}" for number in range(addresses)] or ["127.0.0.1"]
        self._next = 0
        self._clients: list[Client] = []
        self._bare: list[socket.socket] = []
        self._chatting: list[asyncio.Future[None]] = []

    def _host(self) -> str:
        self._next += 1
        return self._hosts[self._next % len(self._hosts)]

    async def obey(self, command: str) -> dict[str, Any]:
        """Execute one command line."""
        match command.split():
            case ["come", number]:
                self._clients += [Client() for _ in range(int(number))]
                new = self._clients[-int(number) :]
                return await self._each(new, self._come)
            case ["say"]:
                return await self._each(self._clients, Client.say)
            case ["reset"]:
                for client in self._clients:
                    client.reset()
                return await self._done()
            case ["leave"]:
                await self._each(self._clients, Client.leave)
                return await self._done()
            case ["ends"]:
                said = await self._each(self._clients, Client.end)
                for sock in self._bare:
                    sock.settimeout(PATIENCE)
                    with contextlib.suppress(ConnectionError):
                        while await asyncio.to_thread(sock.recv, 65536):
                            continue
                    said["good"] += 1
                    sock.close()
                self._bare.clear()
                return said
            case ["burst", number]:
                clients = [Client() for _ in range(int(number))]
                said = await self._each(clients, self._connect)
                for client in clients:
                    if hasattr(client, "writer"):
                        client.writer.write(b"hello\n")
                        client.writer.close()
                return said
            case ["chatter", number]:
                said = await self.obey(f"come {number}")
                self._chatting += [asyncio.ensure_future(client.chatter()) for client in self._clients]
                return said
            case ["hurry", number]:
                return await self._each([Client() for _ in range(int(number))], self._hurry)
            case ["silent", number]:
                for _ in range(int(number)):
                    sock = socket.create_connection((self._host(), self._port), PATIENCE)
                    self._bare.append(sock)
                return {"good": int(number), "bad": {}}
        raise ValueError(command)

    async def _done(self) -> dict[str, Any]:
        number = len(self._clients)
        self._clients.clear()
        await asyncio.sleep(0)
        return {"good": number, "bad": {}}

    async def _connect(self, client: Client) -> None:
        await client.come(self._host(), self._port, self._context)

    async def _come(self, client: Client) -> None:
        await self._connect(client)
        await client.say()

    async def _hurry(self, client: Client) -> None:
        await client.come(self._host(), self._port, self._context)
        client.writer.write(b"hello\n")
        client.writer.close()

    async def _each(self, clients: list[Client], call: Callable[[Client], Awaitable[None]]) -> dict[str, Any]:
        room = asyncio.Semaphore(AT_A_TIME if call not in (Client.end, Client.leave) else len(clients) or 1)
        bad: dict[str, int] = {}
        began = time.monotonic()

        async def one(client: Client) -> int:
            async with room:
                try:
                    await asyncio.wait_for(call(client), PATIENCE)
                except (TimeoutError, OSError, EOFError) as error:
                    text = f"{type(error).__name__}: {error}"
                    bad[text] = bad.get(text, 0) + 1
                    return 0
            return 1

        good = sum(await asyncio.gather(*map(one, clients)))
        return {"good": good, "bad": bad, "seconds": time.monotonic() - began}


def many_descriptors() -> int:
    """Allow as many descriptors as this user may have; how many those are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Shouter:
    """The server."""

    def __init__(self) -> None:
        self._clients: set[asyncio.StreamWriter] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send lines back in capitals."""
        self._clients.add(writer)
        try:
            while line := await reader.readline():
                writer.write(line.upper())
        except (ConnectionError, ssl.SSLError):
            pass  # the client is gone
        finally:
            self._clients.discard(writer)
            writer.close()

    async def obey(self, command: str) -> dict[str, Any]:
        """Execute the command ``reset``."""
        clients = list(self._clients)
        for writer in clients:
            sock = writer.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await asyncio.sleep(0)
        return {"good": len(clients), "bad": {}}


async def _listen(kind: str, shouter: Shouter) -> asyncio.Server:
    context = None
    if kind.startswith("tls"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificates.server_files())
    return await asyncio.start_server(shouter.answer, "0.0.0.0", 0, ssl=context, backlog=4096, limit=4096)


async def main(kind: str, port: str, addresses: int) -> None:
    loop = asyncio.get_running_loop()
    # Transports that the other end reset: that is counted, not shown.
    loop.set_exception_handler(lambda *_: None)
    leader: Leader | Shouter
    async with contextlib.AsyncExitStack() as stack:
        if port == "serve":
            leader = Shouter()
            server = await stack.enter_async_context(await _listen(kind, leader))
            print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        else:
            leader = Leader(kind, int(port), addresses)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await leader.obey(line)), flush=True)


if __name__ == "__main__":
    many_descriptors()
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
