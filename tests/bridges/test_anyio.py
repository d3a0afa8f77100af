"""The adapter of anyio behaves as anyio's own sockets do: the same tests run with both."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSAttribute, TLSStream

from tests.tls import certificates
from wireline import AF_UNIX, SOCK_DGRAM, ClosedError
from wireline.adapters.anyio import ByteStream, Listener
from wireline.asyncnet import AsyncSocket, dial
from wireline.tls import SslContext

LARGE = bytes(range(256)) * 16384

LOOPS = {"asyncio": {"use_uvloop": False}, "uvloop": {"use_uvloop": True}}

every_loop = pytest.mark.parametrize("loop", LOOPS)

# The original on asyncio's loop: on uvloop it differs here and there.
_OURS = [(kind, loop) for kind in ("tcp", "tls") for loop in LOOPS]
every_transport = pytest.mark.parametrize(("transport", "loop"), [("original", "asyncio"), *_OURS])


def run(loop: str, main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(20):
            await main()

    anyio.run(bounded, backend_options=LOOPS[loop])


def listening() -> AsyncSocket:
    sock = AsyncSocket()
    sock.bind_addr(0, "127.0.0.1")
    sock.listen()
    return sock


@contextlib.asynccontextmanager
async def connected(transport: str, handler: Callable[[Any], Awaitable[None]]) -> AsyncIterator[Any]:
    """A stream whose peer is served by ``handler``."""
    async with contextlib.AsyncExitStack() as stack:
        if transport == "original":
            multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
            listener: Any = await stack.enter_async_context(multi)
        else:
            leaf = certificates.server()
            tls = SslContext(cert_file=leaf.cert, key_file=leaf.key) if transport == "tls" else None
            listener = await stack.enter_async_context(Listener(listening(), tls=tls))
        port = listener.extra(SocketAttribute.local_port)
        group = await stack.enter_async_context(anyio.create_task_group())
        group.start_soon(listener.serve, handler)
        if transport == "original":
            stream: Any = await anyio.connect_tcp("127.0.0.1", port)
        else:
            client = SslContext(ca_file=certificates.ca_file()) if transport == "tls" else None
            stream = ByteStream(await dial("localhost", port, tls=client))
        async with stream:
            yield stream
        group.cancel_scope.cancel()


async def echo(stream: Any) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)
        await stream.send_eof()


async def silence(stream: Any) -> None:
    async with stream:
        await anyio.sleep_forever()


@every_transport
def test_a_conversation(loop: str, transport: str) -> None:
    async def main() -> None:
        async with connected(transport, echo) as stream:
            await stream.send(b"hello")
            assert await stream.receive(2) == b"he"
            assert await stream.receive() == b"llo"
            buffered = BufferedByteReceiveStream(stream)
            async with anyio.create_task_group() as group:
                group.start_soon(stream.send, LARGE)
                assert await buffered.receive_exactly(len(LARGE)) == LARGE
            await stream.send_eof()
            for _ in range(2):
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()

    run(loop, main)


@every_transport
def test_errors(loop: str, transport: str) -> None:
    async def main() -> None:
        async with connected(transport, silence) as stream:
            async with anyio.create_task_group() as group:
                group.start_soon(receive, stream, anyio.ClosedResourceError)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError, match="reading from"):
                    await stream.receive()
                await stream.aclose()
            for call in (stream.receive(), stream.send(b"x")):
                with pytest.raises(anyio.ClosedResourceError):
                    await call
            await stream.aclose()

    async def receive(stream: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            await stream.receive()

    run(loop, main)


@pytest.mark.parametrize(
    ("transport", "loop"), [("original", "asyncio"), ("tcp", "asyncio"), ("tcp", "uvloop")]
)
def test_a_reset(loop: str, transport: str) -> None:
    async def reset(stream: Any) -> None:
        await stream.receive()
        raw = stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async def main() -> None:
        async with connected(transport, reset) as stream:
            await stream.send(b"x")
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()
            with pytest.raises(anyio.BrokenResourceError):
                for _ in range(10):
                    await stream.send(b"x")

    run(loop, main)


@every_transport
def test_a_cancellation_loses_nothing(loop: str, transport: str) -> None:
    async def main() -> None:
        async with connected(transport, echo) as stream:
            with anyio.move_on_after(0.02) as scope:
                await stream.receive()
            assert scope.cancelled_caught
            await stream.send(b"later")
            with anyio.CancelScope() as scope:
                scope.cancel()
                await stream.receive()
            assert scope.cancelled_caught
            assert await stream.receive() == b"later"
            with anyio.CancelScope() as scope:
                scope.cancel()
                await stream.send(b"never")
            assert scope.cancelled_caught
            await stream.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()

    run(loop, main)


@every_transport
def test_attributes(loop: str, transport: str) -> None:
    async def main() -> None:
        async with connected(transport, silence) as stream:
            host, port = stream.extra(SocketAttribute.remote_address)
            assert (host, port) == ("127.0.0.1", stream.extra(SocketAttribute.remote_port))
            assert stream.extra(SocketAttribute.local_address)[1] == stream.extra(SocketAttribute.local_port)
            assert stream.extra(SocketAttribute.family) == socket.AF_INET
            assert stream.extra(SocketAttribute.raw_socket).getpeername() == (host, port)
            if transport == "tls":
                assert stream.extra(TLSAttribute.tls_version) == "TLSv1.3"
                assert stream.extra(TLSAttribute.server_side) is False
                assert ("DNS", "localhost") in stream.extra(TLSAttribute.peer_certificate)["subjectAltName"]
                assert stream.extra(TLSAttribute.cipher)[1] == "TLSv1.3"
                assert stream.extra(TLSAttribute.alpn_protocol) is None
                stream.extra(TLSAttribute.shared_ciphers)
                assert isinstance(stream.extra(TLSAttribute.peer_certificate_binary), bytes)
                assert isinstance(stream.extra(TLSAttribute.ssl_object), ssl.SSLObject)
                assert stream.extra(TLSAttribute.standard_compatible) is True
            else:
                assert stream.extra(TLSAttribute.tls_version, None) is None

    run(loop, main)


@every_loop
def test_tls_of_anyio_on_top(loop: str) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*certificates.server())

    async def handler(stream: ByteStream) -> None:
        wrapped = await TLSStream.wrap(stream, server_side=True, ssl_context=server)
        await wrapped.send(await wrapped.receive())
        await wrapped.aclose()

    async def main() -> None:
        async with connected("tcp", handler) as stream:
            client = ssl.create_default_context(cafile=certificates.ca_file())
            wrapped = await TLSStream.wrap(stream, hostname="localhost", ssl_context=client)
            await wrapped.send(b"hello")
            assert await wrapped.receive() == b"hello"
            await wrapped.aclose()

    run(loop, main)


def test_unix_sockets(tmp_path: Any) -> None:
    async def main() -> None:
        listener = AsyncSocket(AF_UNIX)
        listener.bind_unix(str(tmp_path / "s"))
        listener.listen()
        sock = AsyncSocket(AF_UNIX)
        async with Listener(listener) as serving, anyio.create_task_group() as group:
            group.start_soon(serving.serve, echo, group)
            await sock.connect_unix(str(tmp_path / "s"))
            async with ByteStream(sock) as stream:
                assert stream.extra(SocketAttribute.remote_address) == str(tmp_path / "s")
                assert stream.extra(SocketAttribute.remote_port, None) is None
                await stream.send(b"hello")
                assert await stream.receive() == b"hello"
            group.cancel_scope.cancel()

    run("asyncio", main)


def test_a_silent_client_and_a_wrong_one_delay_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wireline")
    leaf = certificates.server()

    async def main() -> None:
        tls = SslContext(cert_file=leaf.cert, key_file=leaf.key)
        trusting = SslContext(ca_file=certificates.ca_file())
        async with Listener(listening(), tls=tls) as listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            port = listener.extra(SocketAttribute.local_port)
            async with await dial("127.0.0.1", port), await dial("127.0.0.1", port) as wrong:
                await wrong.send(b"this is no handshake\r\n" * 10)
                async with ByteStream(await dial("localhost", port, tls=trusting)) as stream:
                    await stream.send(b"hello")
                    assert await stream.receive() == b"hello"
                while await wrong.recv_some():
                    pass
            group.cancel_scope.cancel()

    run("asyncio", main)
    assert "handshake" in caplog.text


def test_a_listener_survives_without_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = listening()
    accept = listener.accept
    failures = [OSError(errno.EMFILE, "out of descriptors")] * 2

    async def failing() -> AsyncSocket:
        if failures:
            raise failures.pop()
        return await accept()

    monkeypatch.setattr(listener, "accept", failing)

    async def main() -> None:
        async with Listener(listener) as serving, anyio.create_task_group() as group:
            group.start_soon(serving.serve, echo)
            async with ByteStream(await dial(*listener.local_addr)) as stream:
                await stream.send(b"hello")
                assert await stream.receive() == b"hello"
            group.cancel_scope.cancel()

    run("asyncio", main)
    assert failures == []


def test_close_ends_serve() -> None:
    async def main() -> None:
        listener = Listener(listening())

        async def serve() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await listener.serve(silence, group)

        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            await anyio.wait_all_tasks_blocked()
            await listener.aclose()

    run("asyncio", main)


def test_what_it_refuses() -> None:
    leaf = certificates.server()

    async def main() -> None:
        for kind in (ByteStream, Listener):
            with pytest.raises(TypeError, match="AsyncSocket"):
                kind(None)
            with contextlib.closing(AsyncSocket(sock_type=SOCK_DGRAM)) as datagrams:
                with pytest.raises(TypeError, match="datagram"):
                    kind(datagrams)
            with pytest.raises(ClosedError):
                kind(datagrams)
        with contextlib.closing(AsyncSocket()) as unconnected:
            with pytest.raises(OSError, match="peer_addr") as caught:
                ByteStream(unconnected)
            assert caught.value.errno == errno.ENOTCONN
            with pytest.raises(ValueError, match="listens"):
                Listener(unconnected)
        with contextlib.closing(listening()) as sock:
            with pytest.raises(ValueError, match="negative"):
                Listener(sock, handshake_timeout=-1)
            SslContext(cert_file=leaf.cert, key_file=leaf.key).wrap_socket(sock)
            with pytest.raises(TypeError, match="tls="):
                Listener(sock)

    run("asyncio", main)
