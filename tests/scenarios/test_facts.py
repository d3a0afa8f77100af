"""What a socket says about its connection: certificates, and the bytes that it has carried."""

from __future__ import annotations

import time
from ssl import TLSVersion

import pytest

from tests.scenarios import tasks, tls
from tests.scenarios.flavours import Face, Sock, in_thread
from tests.scenarios.scene import Pair, Scene, in_clear, over, over_every_stream, soon
from wireline import SocketFlag
from wireline.tls import Handshake, SslContext

pytestmark = [pytest.mark.anyio, over_every_stream]


async def test_T8_certificates_that_were_sent_can_be_asked_for(scene: Scene) -> None:
    """FB7."""
    client, server = await scene.pair()
    assert server.get_peer_certificates(verified=False) == server.get_peer_certificates() == []
    sent = client.get_peer_certificates(verified=False)
    if scene.transport.tls is None:
        assert sent == []
    else:
        assert sent
        assert client.get_peer_certificates()[: len(sent)] == sent


async def test_stats_count_payload_and_wire_in_both_directions(pair: Pair, scene: Scene) -> None:
    client, server = pair
    before = client.stats
    assert (before.bytes_received, before.bytes_sent) == (0, 0)
    assert before.opened_at is not None
    assert 0 <= time.monotonic() - before.opened_at < 60
    await client.send(b"x" * 100_000 + b"\n")
    await client.send_some(b"some")
    assert client.try_send(b"tri")
    assert client.try_send_some(b"ed") == 2
    await client.send_many([b"one", b"two"])
    assert len(await soon(server.recv_exactly(99_000))) == 99_000
    assert await soon(server.recv_some(10, flags=SocketFlag.PEEK)) == b"x" * 10
    assert len(await soon(server.recv_line())) == 1000
    server.unread(b"put back")
    assert await soon(server.recv_exactly(8)) == b"put back"
    assert await soon(server.recv_until(b"onetwo")) == b"sometriedonetwo"
    await server.send(b"answer\n")
    assert await soon(client.recv_line()) == b"answer"
    size = 100_001 + 4 + 5 + 6
    ours, theirs = client.stats, server.stats
    assert (ours.bytes_sent, ours.bytes_received) == (size, 7)
    assert (theirs.bytes_received, theirs.bytes_sent) == (size, 7)
    assert ours.wire_bytes_sent == theirs.wire_bytes_received
    assert ours.wire_bytes_received == theirs.wire_bytes_sent
    if scene.transport.tls is None:
        assert ours.wire_bytes_sent == size
    else:
        assert before.wire_bytes_sent > 200, "the handshake counts"
        assert size + 8 * 20 < ours.wire_bytes_sent < size + 3000
    client.close()
    closed = client.stats
    assert (closed.bytes_sent, closed.bytes_received, closed.opened_at) == (size, 7, ours.opened_at)


@in_clear
async def test_stats_of_an_upgraded_connection_continue(scene: Scene) -> None:
    """The bytes before STARTTLS are payload, and were on the wire."""
    client, server = await scene.pair()
    await client.send(b"STARTTLS\n")
    assert await soon(server.recv_line()) == b"STARTTLS"
    await upgraded(client, server)
    await client.send(b"secret")
    assert await soon(server.recv_exactly(6)) == b"secret"
    assert client.stats.bytes_sent == server.stats.bytes_received == 15
    assert client.stats.wire_bytes_sent == server.stats.wire_bytes_received > 215


async def upgraded(client: Sock, server: Sock) -> None:
    context = tls.context(TLSVersion.TLSv1_3)
    await tasks.gather(
        wrapped(context, client, Handshake.AS_CLIENT), wrapped(context, server, Handshake.AS_SERVER)
    )


async def wrapped(context: SslContext, sock: Sock, handshake: Handshake) -> None:
    if isinstance(sock, Face):
        await in_thread(context.wrap_connected_socket, sock._sock, handshake, "localhost", 10)
    else:
        await context.wrap_connected_async(sock, handshake, "localhost", 10)


@over("udp4", "unixgram")
async def test_stats_count_datagrams(scene: Scene) -> None:
    receiver, sender = scene.bound(), scene.bound()
    where = receiver.local_addr
    assert receiver.stats.opened_at is None
    await sender.send_to(where.host, where.port, b"datagram")
    await sender.send_to(where.host, where.port, b"")
    await sender.send_to(where.host, where.port, b"cut off")
    assert (await soon(receiver.recv_from(100, SocketFlag.PEEK))).data == b"datagram"
    assert (await soon(receiver.recv_from(100))).data == b"datagram"
    assert (await soon(receiver.recv_from_into(bytearray(5)))).size == 0
    assert (await soon(receiver.recv_from_into(bytearray(3)))).size == 3
    assert sender.stats.bytes_sent == sender.stats.wire_bytes_sent == 15
    assert receiver.stats.bytes_received == receiver.stats.wire_bytes_received == 11
    receiver.close()
    assert receiver.stats.bytes_received == 11
