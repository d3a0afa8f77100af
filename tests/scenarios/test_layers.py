"""T12: TLS on top of whatever a stream is: in clear, or TLS already."""

from __future__ import annotations

import pathlib

import pytest

from tests.scenarios import tasks, tls
from tests.scenarios.flavours import in_thread
from tests.scenarios.scene import PATIENCE, Pair, Scene, Wire, begin, over_every_stream, pattern, soon
from tests.tls import certificates
from wireline import SocketFlag, SocketTimeout
from wireline.tls import Handshake, SslContext, SslError, TruncatedError

pytestmark = [pytest.mark.anyio, over_every_stream]

CLIENT, SERVER = Handshake


async def add_layer(pair: Pair) -> None:
    """Start TLS at both ends, inside of what is there, with other contexts than those that are there."""
    leaf = certificates.elsewhere()
    serving = tasks.ensure_future(
        pair.server.start_tls(
            SslContext(cert_file=leaf.cert, key_file=leaf.key, alpn=["inner"]), SERVER, timeout=PATIENCE
        )
    )
    trusting = SslContext(ca_file=certificates.ca_file(), alpn=["inner"])
    await pair.client.start_tls(trusting, hostname="elsewhere.test", timeout=PATIENCE)
    await serving


async def test_T12_start_tls_adds_a_layer_to_any_stream(pair: Pair, scene: Scene) -> None:
    handles = [sock.ssl_handle if scene.transport.tls else None for sock in pair]
    for _ in range(2):
        await add_layer(pair)
        for sock in pair:
            assert sock.is_ssl
            assert sock.got_handshake
            assert (sock.tls_info.alpn, sock.tls_info.server_name) == ("inner", "elsewhere.test")
            assert sock.ssl_handle not in handles
            handles.append(sock.ssl_handle)
        leaf, *_ = pair.client.get_peer_certificates()
        expected = await in_thread(pathlib.Path(certificates.elsewhere().cert).read_text)
        assert expected.startswith(leaf.to_pem())
        message = pattern(300_000)
        for one, other in (pair, pair[::-1]):
            sending = tasks.ensure_future(one.send(message, timeout=PATIENCE))
            assert await other.recv_exactly(len(message), PATIENCE) == message
            await sending


async def test_T12_a_layer_continues_the_counts(pair: Pair) -> None:
    for sent in range(3):
        before = pair.client.stats
        assert before.bytes_sent == sent
        await add_layer(pair)
        assert pair.client.stats.bytes_sent == sent
        await pair.client.send(b"x", timeout=PATIENCE)
        assert pair.client.last_bytes_sent == 1
        assert await pair.server.recv(1, PATIENCE) == b"x"
        ours, theirs = pair.client.stats, pair.server.stats
        assert ours.bytes_sent == theirs.bytes_received == sent + 1
        assert ours.wire_bytes_sent == theirs.wire_bytes_received > before.wire_bytes_sent + 200


@pytest.mark.full
async def test_T12_each_end_is_the_end_of_its_layer(pair: Pair) -> None:
    await add_layer(pair)
    await pair.client.send(b"question", timeout=PATIENCE)
    await pair.client.shutdown_write(PATIENCE)
    assert await pair.server.recv(100, PATIENCE) == b"question"
    await pair.server.send(b"answer", timeout=PATIENCE)
    pair.server.close()
    assert await pair.client.recv(100, PATIENCE) == b"answer"
    for _ in range(2):
        assert await pair.client.recv(100, PATIENCE, SocketFlag.NONE) == b""


@pytest.mark.full
async def test_T12_a_handshake_that_times_out_or_is_left_leaves_nothing_to_use(wire: Wire) -> None:
    """As on a plain stream: nothing is sent outside of the layer that was meant."""
    context = SslContext(ca_file=certificates.ca_file())
    with pytest.raises(SocketTimeout) as caught:
        await wire.sock.start_tls(context, hostname="localhost", timeout=0.02)
    assert caught.value.operation == "start_tls"
    for call in (
        wire.sock.send(b"x"),
        wire.sock.recv_some(),
        wire.sock.start_tls(context, CLIENT, "localhost"),
    ):
        with pytest.raises(SslError, match="was not finished"):
            await soon(call)
    wire.sock.close()


@pytest.mark.full
async def test_T12_a_peer_that_ends_the_stream_in_the_handshake_is_an_error(wire: Wire) -> None:
    context = SslContext(ca_file=certificates.ca_file())
    shaking = await begin(wire.sock.start_tls(context, hostname="localhost", timeout=PATIENCE))
    await in_thread(wire.peer.close)
    with pytest.raises((TruncatedError, ConnectionResetError)):
        await soon(shaking)
    with pytest.raises(SslError):
        await soon(wire.sock.send(b"x"))


@pytest.mark.full
async def test_T12_the_last_reply_arrives_though_the_request_was_not_read(pair: Pair) -> None:
    """T4 with two layers: unread input must not turn the close into a reset that takes the reply away."""
    await add_layer(pair)
    message = pattern(200_000)
    await pair.client.send(b"more than is read\n" * 1000, timeout=PATIENCE)
    assert await pair.server.recv_line(PATIENCE) == b"more than is read"
    sending = tasks.ensure_future(pair.server.send(message, timeout=PATIENCE))
    received = await pair.client.recv_some(1000, PATIENCE)
    received += await pair.client.recv_exactly(len(message) - len(received) - 1, PATIENCE)
    await sending
    pair.server.close()
    assert received + await pair.client.recv(10, PATIENCE) == message
    assert await pair.client.recv(10, PATIENCE) == b""


@pytest.mark.full
async def test_T12_a_reader_beside_a_writer_at_both_ends(pair: Pair) -> None:
    await add_layer(pair)
    message = pattern(2_000_000)

    async def send(sock: object) -> None:
        for start in range(0, len(message), 70_001):
            await sock.send(message[start : start + 70_001], timeout=PATIENCE)  # type: ignore[attr-defined]
        await sock.shutdown_write(PATIENCE)  # type: ignore[attr-defined]

    async def receive(sock: object) -> bytes:
        pieces = []
        while piece := await sock.recv_some(100_000, PATIENCE):  # type: ignore[attr-defined]
            pieces.append(piece)
        return b"".join(pieces)

    *_, one, other = await tasks.gather(*map(send, pair), *map(receive, pair))
    assert one == other == message


@pytest.mark.full
async def test_T12_an_unbuffered_socket_gets_a_layer_too(scene: Scene) -> None:
    pair = await scene.pair(buffered=False)
    await add_layer(pair)
    await pair.client.send(b"a line\nand a rest", timeout=PATIENCE)
    assert await pair.server.recv_line(PATIENCE) == b"a line"
    assert await pair.server.recv_exactly(10, PATIENCE) == b"and a rest"


@pytest.mark.full
async def test_T12_the_facts_of_a_socket_are_of_the_layer_of_the_running_handshake(
    pair: Pair, scene: Scene
) -> None:
    assert pair.client.is_ssl is (scene.transport.tls is not None)
    waiting = await begin(pair.server.start_tls(tls.context(tls.ssl.TLSVersion.TLSv1_3), SERVER))
    assert pair.server.is_ssl
    assert not pair.server.got_handshake
    pair.server.close()
    with pytest.raises(OSError, match="closed"):
        await soon(waiting)
