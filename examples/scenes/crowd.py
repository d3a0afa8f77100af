"""A thousand clients in one chat: 999 receive each line.

The server is an example in a process of its own, the clients are a thousand tasks here; one thread each.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from examples.scenes.stage import PATIENCE, Failed, Stage, example
from wireline import Address
from wireline.asyncnet import dial

CLIENTS = 1000
SPEAKERS = range(0, CLIENTS, 20)
"""The numbers of the clients that speak: enough for 49,950 lines."""


def play(stage: Stage) -> None:
    """Let the speakers send all at once, and check that each other client has received every line."""
    with (
        _descriptors(CLIENTS + 200),
        example(stage, "async_chat.py", "0", "--patience", str(PATIENCE)) as server,
    ):
        host, _, port = server.listening_on(on_stdout=True).rpartition(":")
        crowd = Crowd(Address(host, int(port)))
        stage.show(f">>> await asyncio.gather(*[take_part(number) for number in range({CLIENTS})])")
        began = time.monotonic()
        heard = asyncio.run(crowd.chat())
        seconds = time.monotonic() - began
        server.terminate()
    stage.check(crowd.size == CLIENTS, f"{CLIENTS} clients were in the chat at once", crowd.size)
    wrong = [number for number, lines in enumerate(heard) if sorted(lines) != _lines_for(number)]
    arrived = [line for lines in heard for line in lines]
    claim = f"{len(arrived)} lines arrived, each at the right clients, in {seconds:.1f} s"
    stage.check(not wrong, claim, f"something else with clients {wrong[:10]}")
    stage.moved += sum(map(len, arrived))


class Crowd:
    """The clients.

    Attributes:
        size: the highest number that the server has counted.
    """

    def __init__(self, server: Address) -> None:
        """Connect nothing yet.

        Args:
            server: the chat server's address.
        """
        self._server = server
        self._all_connected = asyncio.Event()
        self.size = 0

    async def chat(self) -> list[list[bytes]]:
        """Connect all clients and return the lines that each has received."""
        return await asyncio.gather(*[self._take_part(number) for number in range(CLIENTS)])

    async def _take_part(self, number: int) -> list[bytes]:
        async with await dial(self._server.host, self._server.port, timeout=PATIENCE) as sock:
            welcome = await sock.recv_line(PATIENCE)
            self.size = max(self.size, int(welcome.rpartition(b" ")[2]))
            if self.size == CLIENTS:
                self._all_connected.set()
            async with asyncio.timeout(PATIENCE):
                await self._all_connected.wait()
            if number in SPEAKERS:
                await sock.send(_line(number) + b"\r\n", timeout=PATIENCE)
            return [await sock.recv_line(PATIENCE) for _ in _lines_for(number)]


def _line(number: int) -> bytes:
    return b"this is number %03d" % number


def _lines_for(number: int) -> list[bytes]:
    """The lines that this client should receive."""
    return [_line(speaker) for speaker in SPEAKERS if speaker != number]


@contextlib.contextmanager
def _descriptors(count: int) -> Iterator[None]:
    """Raise the limit of descriptors of this process and its children. Do nothing where there is no limit."""
    try:
        import resource
    except ImportError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Failed(f"this needs {count} descriptors, and the limit is {hard}")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
