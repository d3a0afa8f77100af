"""A program: print the bytes that Python holds for one idle connection of a server, in a process that did nothing else.

    python -m tests.asyncnet.idle uvloop

How large the attributes of an object are depends on what was done before to others of its class: one that gets an
attribute late makes those larger that are made after it.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import tracemalloc
from contextlib import ExitStack

from tests.asyncnet.loops import WAYS
from wireline import Address
from wireline.asyncnet import AsyncSocket, serve

COUNT = 200


async def idle_connections() -> int:
    """Make connections that have read, sent and wait for more; return the bytes that one holds."""
    connected = asyncio.Event()

    async def echo(sock: AsyncSocket, _: Address) -> None:
        if server.connections == COUNT:
            connected.set()
        while data := await sock.recv_some():
            await sock.send(data)

    async with serve(echo, 0, "127.0.0.1") as server:
        with ExitStack() as stack:
            peers = [stack.enter_context(socket.socket()) for _ in range(COUNT)]
            gc.collect()
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            for peer in peers:
                peer.connect(server.local_addr)
            await connected.wait()
            for peer in peers:
                peer.setblocking(False)
                peer.send(b"message")
                assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"message"
            gc.collect()
            return tracemalloc.get_traced_memory()[0] // COUNT


if __name__ == "__main__":
    (chosen,) = (way for way in WAYS if way.name == sys.argv[1])
    print(chosen.run(idle_connections))
