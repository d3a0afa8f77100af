"""``wait_readable`` and ``wait_writable``: a wait that takes nothing and sends nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.flavours import Sock
from tests.scenarios.scene import (
    A_MOMENT,
    DATAGRAMS,
    PLAIN_STREAMS,
    RawPeer,
    Scene,
    begin,
    over,
    over_every_stream,
    soon,
)
from tests.scenarios.test_frames import reset_by_peer
from wireline import BusyError, ClosedError, SocketTimeout

pytestmark = [pytest.mark.anyio, over_every_stream]


async def test_R4_wait_readable_takes_no_byte(scene: Scene) -> None:
    for buffered in (True, False):
        sock, peer = await scene.wire(buffered=buffered)
        for timeout in (0, A_MOMENT):
            with pytest.raises(SocketTimeout) as caught:
                await sock.wait_readable(timeout)
            assert caught.value.operation == "wait_readable"
        waiting = await begin(sock.wait_readable())
        with pytest.raises(BusyError):
            await sock.recv_some(timeout=0)
        peer.sendall(b"abc\n")
        assert await soon(waiting) is None
        if not buffered and not sock.is_ssl:
            assert not sock.has_data_buffered
        await sock.wait_readable(0)
        assert await soon(sock.recv(1)) == b"a"
        if buffered:
            await sock.wait_readable(0)  # of the buffer
        assert await soon(sock.recv_line()) == b"bc"
        with pytest.raises(SocketTimeout):
            await sock.wait_readable(0)
        peer.close()
        for _ in range(2):
            await soon(sock.wait_readable())
            assert await sock.recv_some() == b""


async def test_R4_an_error_counts_as_readable(scene: Scene) -> None:
    for buffered in (True, False):
        wire = await scene.wire(buffered=buffered)
        waiting = await begin(wire.sock.wait_readable())
        await reset_by_peer(wire)
        await soon(waiting)
        await soon(wire.sock.wait_readable())


async def test_C4_close_ends_both_waits(scene: Scene) -> None:
    for buffered in (True, False):
        sock, peer = await scene.wire(buffered=buffered)
        await fill(sock)
        waits = [await begin(sock.wait_readable()), await begin(sock.wait_writable())]
        sock.close(linger=0)
        for waiting in waits:
            with pytest.raises(ClosedError):
                await soon(waiting)
        for call in (sock.wait_readable, sock.wait_writable):
            with pytest.raises(ClosedError):
                await call()
        peer.close()


async def fill(sock: Sock) -> None:
    """Send until the kernel takes no more."""
    while sock.try_send(bytes(1 << 16)):
        pass


async def test_R4_wait_writable_is_for_room(scene: Scene) -> None:
    sock, peer = await scene.wire()
    await sock.wait_writable(0)
    await fill(sock)
    for timeout in (0, A_MOMENT):
        with pytest.raises(SocketTimeout) as caught:
            await sock.wait_writable(timeout)
        assert caught.value.operation == "wait_writable"
    waiting = await begin(sock.wait_writable())
    reading = asyncio.ensure_future(asyncio.to_thread(drain, peer))
    await soon(waiting)
    sock.close(linger=0)
    await soon(reading)


def drain(peer: RawPeer) -> None:
    try:
        while peer.recv(1 << 20):
            pass
    except OSError:
        return  # a reset, or an end in the middle of a record


@over(*PLAIN_STREAMS)
async def test_R4_a_listener_is_readable_when_a_client_can_be_accepted(scene: Scene) -> None:
    listener = scene.listener()
    with pytest.raises(SocketTimeout):
        await listener.wait_readable(0)
    waiting = await begin(listener.wait_readable())
    client = scene.raw_connect(listener.local_addr)
    await soon(waiting)
    (await soon(listener.accept())).close()
    client.close()
    waiting = await begin(listener.wait_readable())
    listener.close()
    with pytest.raises(ClosedError):
        await soon(waiting)


@over(*DATAGRAMS)
async def test_R4_a_datagram_socket_is_readable_when_a_datagram_is_there(scene: Scene) -> None:
    server = scene.bound()
    client = await scene.connected(server.local_addr)
    with pytest.raises(SocketTimeout):
        await server.wait_readable(0)
    waiting = await begin(server.wait_readable())
    with pytest.raises(BusyError):
        await server.recv_from(1, timeout=1)
    await client.wait_writable()
    await client.send(b"datagram")
    await soon(waiting)
    await server.wait_readable(0)
    assert (await server.recv_from(20)).data == b"datagram"
    waiting = await begin(server.wait_readable())
    server.close()
    with pytest.raises(ClosedError):
        await soon(waiting)
