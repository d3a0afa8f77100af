"""The conversations of ``conversations.py``, with an ``AsyncSocket`` at our end.

The programs are the same, and talking to them blocks, so calls that wait for one run in a thread beside the loop.
"""

from __future__ import annotations

import asyncio
import re

from tests.interop.conversations import OURS, THEIRS
from tests.interop.programs import PATIENCE, Program
from wireline import Address
from wireline.asyncnet import AsyncSocket


async def says(program: Program, pattern: bytes, *, on_stdout: bool = False) -> re.Match[bytes]:
    """Wait until the program has said something."""
    return await asyncio.to_thread(program.says, pattern, on_stdout=on_stdout)


async def hold_a_conversation(program: Program, sock: AsyncSocket) -> None:
    """Lines in turn, then everything in both directions at once, then both half-close.

    Args:
        program: relays between its standard streams and ``sock``.
        sock: the other end.
    """
    for number in range(10):
        program.type(b"question %d\r\n" % number)
        assert await sock.recv_line(PATIENCE) == b"question %d" % number
        await sock.send(b"answer %d\n" % number, timeout=PATIENCE)
        assert await says(program, rb"^answer %d\n$" % number, on_stdout=True)
    async with asyncio.TaskGroup() as tasks:
        out = tasks.create_task(asyncio.to_thread(program.finish, THEIRS))
        tasks.create_task(_send(sock))
        received = tasks.create_task(read_to_the_end(sock))
    assert out.result() == OURS
    assert received.result() == THEIRS


async def _send(sock: AsyncSocket) -> None:
    await sock.send(OURS, timeout=PATIENCE)
    await sock.shutdown_write()


async def read_to_the_end(sock: AsyncSocket) -> bytes:
    """Everything until the peer is done."""
    pieces = []
    while piece := await sock.recv_some(timeout=PATIENCE):
        pieces.append(piece)
    return b"".join(pieces)


async def exchange_datagrams(program: Program, sock: AsyncSocket) -> Address:
    """Datagrams in turn; the program speaks first. Returns where it is."""
    peer: Address | None = None
    for number in range(5):
        program.type(b"question %d\n" % number)
        datagram = await sock.recv_from(1500, timeout=PATIENCE)
        assert datagram.data == b"question %d\n" % number
        assert peer in (None, datagram.address)
        peer = datagram.address
        answer = b"answer %d\n" % number
        assert await sock.send_to(peer.host, peer.port, answer, timeout=PATIENCE) == len(answer)
        assert await says(program, rb"^answer %d\n$" % number, on_stdout=True)
    assert peer is not None
    return peer


async def exchange_connected_datagrams(program: Program, sock: AsyncSocket) -> None:
    """The same with a socket from ``dial``."""
    for number in range(5):
        await sock.send(b"question %d\n" % number, timeout=PATIENCE)
        assert await says(program, rb"^question %d\n$" % number, on_stdout=True)
        program.type(b"answer %d\n" % number)
        assert await sock.recv_some(timeout=PATIENCE) == b"answer %d\n" % number
