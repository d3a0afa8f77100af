"""The default check of a pool: over every kind of stream, a connection is used again only if nothing is to be read."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.pooled import Item
from tests.scenarios.flavours import in_thread
from tests.scenarios.scene import Scene, arrived, over_every_stream, readable, soon
from wireline import Deadline, asyncnet, net

pytestmark = [pytest.mark.anyio, over_every_stream]


class Borrowing:
    """A pool of one flavour, which holds one socket; it makes an ``Item`` in its place when that is refused."""

    def __init__(self, scene: Scene, sock: Any) -> None:
        self._given = [sock]
        self._is_blocking = scene.flavour.name == "blocking"
        self.pool: Any = net.Pool(self._connect) if self._is_blocking else asyncnet.Pool(self._connect_async)

    def _connect(self, _: Deadline) -> Any:
        return self._given.pop() if self._given else Item()

    async def _connect_async(self, deadline: Deadline) -> Any:
        return self._connect(deadline)

    def _borrow(self) -> Any:
        with self.pool.acquire(5) as item:
            return item

    async def borrow(self) -> Any:
        """What a block gets."""
        if self._is_blocking:
            return await in_thread(self._borrow)
        async with self.pool.acquire(5) as item:
            return item


async def test_a_connection_is_used_again_while_there_is_nothing_to_read(scene: Scene) -> None:
    for harm in ("nothing", "data", "buffered", "end", "reset"):
        wire = await scene.wire()
        await soon(wire.sock.send(b"request"))
        assert wire.peer.recv(7) == b"request"
        wire.peer.sendall(b"answer")  # over TLS 1.3 after the tickets
        assert await soon(wire.sock.recv_exactly(6)) == b"answer"
        sock = getattr(wire.sock, "_sock", wire.sock) if scene.flavour.name == "blocking" else wire.sock
        borrowing = Borrowing(scene, sock)
        with contextlib.closing(borrowing.pool):
            assert await borrowing.borrow() is sock
            assert await borrowing.borrow() is sock
            if harm == "data":
                wire.peer.sendall(b"unasked")
                await arrived(wire.sock, 7)
            elif harm == "buffered":
                wire.peer.sendall(b"line\nrest")
                await arrived(wire.sock, 9)
                assert await soon(wire.sock.recv_line()) == b"line"
            elif harm == "end":
                wire.peer.close()
                await readable(wire.sock)
            elif harm == "reset":
                await scene.reset(wire)
                await readable(wire.sock)
            assert (await borrowing.borrow() is sock) is (harm == "nothing")
            assert sock.is_closed is (harm != "nothing")
