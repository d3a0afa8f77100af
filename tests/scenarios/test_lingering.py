"""``close(linger=...)``: how a connection ends when the peer has not read, or not said, everything."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from tests.scenarios import tasks
from tests.scenarios.flavours import Sock, in_thread
from tests.scenarios.scene import (
    TOO_LONG,
    Scene,
    Stopwatch,
    Wire,
    all_of,
    arrived,
    eventually,
    over,
    over_one,
    pattern,
    read_exactly,
    soon,
)
from wireline import Address, ClosedError

pytestmark = pytest.mark.anyio

tcp = over("tcp4", "tcp6")

REPLY = pattern(200_000)
"""In the stacks that were tried 81,920 bytes of such a reply arrived."""


def lingerers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "wireline-linger"]


async def test_linger_unread_input_does_not_destroy_the_last_reply(scene: Scene) -> None:
    wire = await scene.wire()
    wire.peer.sendall(b"request\nand more than was read")
    assert await soon(wire.sock.recv(7)) == b"request"
    wire.peer.sendall(b"in the kernel")
    await arrived(wire.sock, 13)
    sending = in_thread(read_exactly, wire.peer, 1)  # so that `send` need not wait forever
    await soon(wire.sock.send(REPLY[:1]))
    assert await soon(sending) == REPLY[:1]
    reply = REPLY[1:]
    rest = in_thread(slowly, wire.peer)
    await soon(wire.sock.send(reply))
    wire.sock.close(linger=5)
    assert await soon(rest) == reply


def slowly(peer: socket.socket) -> bytes:
    """Read to the end, talking all the while, which a closed descriptor would answer with a reset."""
    data = bytearray()
    while piece := peer.recv(4096):
        data += piece
        peer.send(b"still talking")
    return bytes(data)


async def test_linger_closing_does_not_wait(wire: Wire) -> None:
    await soon(wire.sock.send(b"reply"))
    with Stopwatch() as took:
        wire.sock.close(linger=60)
    assert took.seconds < TOO_LONG
    assert wire.sock.is_closed
    assert wire.sock.fileno() == -1
    with pytest.raises(ClosedError):
        await wire.sock.recv(1)
    assert await soon(all_of(wire.peer)) == b"reply"
    wire.peer.close()
    await eventually(lambda: not lingerers())


async def test_linger_ends_when_the_peer_is_done(wire: Wire) -> None:
    wire.sock.close(linger=60)
    assert len(lingerers()) == 1
    wire.peer.shutdown(socket.SHUT_WR)
    await eventually(lambda: not lingerers())


async def test_linger_ends_when_the_time_is_up(wire: Wire) -> None:
    wire.sock.close(linger=0.05)
    with Stopwatch() as took:
        await eventually(lambda: not lingerers())
    assert took.seconds < TOO_LONG
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(100):
            wire.peer.send(b"anybody there?")
            await tasks.sleep(0)


@tcp
async def test_linger_zero_is_a_reset(wire: Wire) -> None:
    await soon(wire.sock.send(b"lost, or not"))
    wire.sock.close(linger=0)
    with pytest.raises(ConnectionResetError):
        await soon(all_of(wire.peer))


@over("unix")
async def test_linger_zero_of_a_unix_socket_is_an_end(wire: Wire) -> None:
    wire.sock.close(linger=0)
    assert await soon(all_of(wire.peer)) == b""


async def test_linger_without_a_connection_is_a_plain_close(scene: Scene) -> None:
    for linger in (0, 5):
        for sock in (scene.socket(), scene.listener()):
            sock.close(linger=linger)
            assert not lingerers()


async def test_linger_when_the_peer_has_gone_is_a_plain_close(scene: Scene) -> None:
    for linger in (0, 5):
        wire = await scene.wire()
        await scene.reset(wire)
        assert await soon(wire.sock.recv(1)) == b""
        wire.sock.close(linger=linger)
        await eventually(lambda: not lingerers())


@over_one
@pytest.mark.parametrize("linger", [-1, float("nan")])
async def test_linger_must_be_seconds(wire: Wire, linger: float) -> None:
    with pytest.raises(ValueError):
        wire.sock.close(linger=linger)
    with pytest.raises(TypeError):
        wire.sock.close(linger="2")
    assert not wire.sock.is_closed
    await soon(wire.sock.send(b"unharmed"))
    assert await soon(in_thread(read_exactly, wire.peer, 8)) == b"unharmed"


async def test_linger_in_a_server(scene: Scene) -> None:
    async def handler(client: Sock, _: Address) -> None:
        await client.recv_line()
        await client.send(REPLY)
        client.close(linger=5)

    server = await scene.serve(handler)
    peer = scene.raw_connect(server.local_addr)
    peer.sendall(b"request\n" + b"pipelined " * 1000)
    assert await soon(in_thread(slowly, peer)) == REPLY


async def test_linger_many_at_once_share_one_thread(scene: Scene) -> None:
    wires = [await scene.wire() for _ in range(10)]
    for sock, _ in wires:
        sock.close(linger=5)
    assert len(lingerers()) == 1
    for _, peer in wires:
        assert await soon(all_of(peer)) == b""
        peer.close()
    await eventually(lambda: not lingerers())


PROGRAM = """
    import os, socket
    from wireline.net import Socket
    sock = Socket({family})
    sock.connect_unix({host!r}) if {unix} else sock.connect({host!r}, {port})
    socket.socket(fileno=os.dup(sock.fileno())).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    sock.recv_line()
    sock.send(bytes({size}))
    sock.close(linger=2)
    # and that is the end of the program
"""


async def test_linger_the_end_of_the_interpreter_waits_for_unsent_bytes(scene: Scene) -> None:
    listener = scene.raw_listener()
    host, port = (listener.getsockname(), 0) if scene.transport.is_unix else listener.getsockname()[:2]
    program = textwrap.dedent(PROGRAM).format(
        family=int(scene.transport.family),
        unix=scene.transport.is_unix,
        host=host,
        port=port,
        size=len(REPLY),
    )
    child = await in_thread(subprocess.Popen, [sys.executable, "-c", program])
    try:
        peer = scene.raw_accept(listener)
        peer.sendall(b"request\n" + b"and more " * 100)
        with pytest.raises(subprocess.TimeoutExpired):
            await in_thread(child.wait, 0.3)
        assert len(await soon(in_thread(slowly, peer))) == len(REPLY)
    finally:
        assert await soon(in_thread(child.wait)) == 0
