"""``as_transport`` behaves as asyncio's transports do: most tests run with the original too."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import struct
import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from tests.bridges.loops import FACTORIES, on_every_loop, run_async
from tests.tls import certificates
from wireline import SOCK_DGRAM, ClosedError
from wireline.asyncnet import AsyncSocket, as_streams, as_transport
from wireline.net import Socket, as_socket
from wireline.tls import Handshake, SslContext

PATIENCE = 10.0
LARGE = bytes(range(256)) * 4096
HUGE = LARGE * 8
"""More than the system takes of a peer that does not read."""

full = pytest.mark.full  # not in the sample, even of a test that is

# The original is that of asyncio: uvloop's differs from it here and there.
original = pytest.param("original", "asyncio", marks=full)
of_tcp = pytest.mark.parametrize(("transport", "loop"), [original, ("tcp", "asyncio"), ("tcp", "uvloop")])
every_transport = pytest.mark.parametrize(
    ("transport", "loop"), [original, *((kind, loop) for kind in ("tcp", "tls") for loop in FACTORIES)]
)
ours = pytest.mark.parametrize("transport", ["tcp", "tls"])


class Calls(asyncio.BaseProtocol):
    """What a transport calls, in its order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """Without repetitions: how often data is received is the system's affair."""
        self.counts: Counter[str] = Counter()
        self.data = b""
        self.error: BaseException | None = None
        self.keep_open = False
        self.fails: dict[str, Exception] = {}
        self._changed = asyncio.Event()
        self.transport: Any = None

    def _called(self, name: str) -> None:
        if self.calls[-1:] != [name]:
            self.calls.append(name)
        self.counts[name] += 1
        self._changed.set()
        if name in self.fails:
            raise self.fails[name]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def until_called(self, name: str) -> None:
        await self.until(lambda: name in self.calls)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._called("connection_made")

    def eof_received(self) -> bool:
        self._called("eof_received")
        return self.keep_open

    def connection_lost(self, error: Exception | None) -> None:
        self.error = error
        self._called("connection_lost")

    def pause_writing(self) -> None:
        self._called("pause_writing")

    def resume_writing(self) -> None:
        self._called("resume_writing")


class Recorder(Calls, asyncio.Protocol):
    """A protocol that gets bytes."""

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._called("data_received")


class BufferedRecorder(Calls, asyncio.BufferedProtocol):
    """A protocol with a buffer of its own, of 1,000 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(1000)
        self.updates = 0

    def get_buffer(self, sizehint: int) -> bytearray:
        self._called("get_buffer")
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.updates += 1
        self.data += self.buffer[:nbytes]
        self._called("buffer_updated")


def raw_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


async def async_pair(transport: str) -> tuple[AsyncSocket, socket.socket]:
    """A connected socket, and its peer, which blocks."""
    near, far = raw_pair()
    sock = AsyncSocket.from_socket(near)
    if transport != "tls":
        return sock, far
    leaf = certificates.server()
    peer = Socket.from_socket(far)
    server = SslContext(cert_file=leaf.cert, key_file=leaf.key)
    shake = asyncio.to_thread(server.wrap_connected_socket, peer, Handshake.AS_SERVER, timeout=PATIENCE)
    client = SslContext(ca_file=certificates.ca_file())
    await asyncio.gather(shake, client.wrap_connected_async(sock, Handshake.AS_CLIENT, "localhost", PATIENCE))
    return sock, as_socket(peer)


class Connection:
    """A transport with a ``Recorder``, and the peer, whose calls run in a thread."""

    def __init__(self, transport: str, kind: type[Calls] = Recorder) -> None:
        self.kind = transport
        self.protocol: Any = kind()
        self.transport: Any = None

    async def __aenter__(self) -> Connection:
        if self.kind == "original":
            near, self.far = raw_pair()
            loop = asyncio.get_running_loop()
            self.transport, _ = await loop.create_connection(lambda: self.protocol, sock=near)
        else:
            sock, self.far = await async_pair(self.kind)
            self.transport = as_transport(sock, self.protocol)
            await self.protocol.until_called("connection_made")
        self.far.settimeout(PATIENCE)
        return self

    async def __aexit__(self, *_: object) -> None:
        if "connection_lost" not in self.protocol.calls:
            self.transport.abort()
            await self.protocol.until_called("connection_lost")
        self.far.close()

    async def peer(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(call, *arguments)

    async def peer_reads(self, size: int) -> bytes:
        """Let the peer read so many bytes, or to the end."""

        def read() -> bytes:
            with self.far.makefile("rb") as file:
                return file.read(size)

        return await self.peer(read)


async def turns(count: int = 5) -> None:
    """Let the loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(sock, socket.socket) and hasattr(sock, "getpeercert"):
        sock.shutdown(socket.SHUT_RD)
    sock.close()


# A conversation


@pytest.mark.sampled
@every_transport
@run_async
async def test_the_order_of_the_calls(transport: str) -> None:
    async with Connection(transport) as connection:
        protocol = connection.protocol
        connection.transport.write(b"question")
        assert await connection.peer_reads(8) == b"question"
        await connection.peer(connection.far.sendall, b"answer")
        await protocol.until(lambda: protocol.data == b"answer")
        await connection.peer(connection.far.shutdown, socket.SHUT_WR)
        await protocol.until_called("connection_lost")
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert protocol.error is None
        assert connection.transport.is_closing()


def test_connection_made_is_called_in_the_next_turn() -> None:
    async def main() -> None:
        sock, far = await async_pair("tcp")
        protocol = Recorder()
        with far:
            transport = as_transport(sock, protocol)
            assert protocol.calls == []
            transport.write(b"early")
            await asyncio.sleep(0)
            assert protocol.calls == ["connection_made"]
            assert protocol.transport is transport
            assert far.recv(10) == b"early"
            transport.close()
            await protocol.until_called("connection_lost")
            assert sock.is_closed

    asyncio.run(main())


@pytest.mark.sampled
@every_transport
@run_async
async def test_a_write_that_is_not_drained_is_kept_and_arrives_whole(transport: str) -> None:
    async with Connection(transport) as connection:
        near, protocol = connection.transport, connection.protocol
        near.write(HUGE)
        assert 0 < near.get_write_buffer_size() <= len(HUGE)
        near.write(memoryview(b"more"))
        near.writelines([b"and ", bytearray(b"more")])
        assert protocol.calls == ["connection_made", "pause_writing"]
        near.close()
        assert near.is_closing()
        assert await connection.peer_reads(-1) == HUGE + b"more" + b"and more"
        await protocol.until_called("connection_lost")
        assert protocol.error is None
        assert near.get_write_buffer_size() == 0
        assert protocol.calls[1:] in (
            ["pause_writing", "resume_writing", "connection_lost"],
            ["pause_writing", "connection_lost"],
        )


@every_transport
@run_async
async def test_the_limits_of_the_write_buffer(transport: str) -> None:
    async with Connection(transport) as connection:
        near, protocol = connection.transport, connection.protocol
        near.set_write_buffer_limits(high=1000, low=10)
        assert near.get_write_buffer_limits() == (10, 1000)
        near.set_write_buffer_limits(low=100)
        assert near.get_write_buffer_limits() == (100, 400)
        near.set_write_buffer_limits(high=0)
        assert near.get_write_buffer_limits() == (0, 0)
        near.set_write_buffer_limits()
        assert near.get_write_buffer_limits() == (16384, 65536)
        for high, low in ((1, 2), (1, -1)):
            with pytest.raises(ValueError, match="must be >="):
                near.set_write_buffer_limits(high, low)
        near.set_write_buffer_limits(high=0)
        near.write(HUGE)
        assert protocol.calls[-1] == "pause_writing"
        assert await connection.peer_reads(len(HUGE)) == HUGE
        await protocol.until_called("resume_writing")
        assert near.get_write_buffer_size() == 0


@every_transport
@run_async
async def test_wrong_data(transport: str) -> None:
    async with Connection(transport) as connection:
        for data in ("text", None, 5):
            with pytest.raises(TypeError):
                connection.transport.write(data)
        connection.transport.write(b"")


# Reading


@pytest.mark.sampled
@every_transport
@run_async
async def test_pause_and_resume_reading(transport: str) -> None:
    async with Connection(transport) as connection:
        near, protocol = connection.transport, connection.protocol
        await turns()
        near.pause_reading()
        near.resume_reading()  # while it waits for data
        await turns()
        assert near.is_reading()
        near.pause_reading()
        near.pause_reading()
        assert not near.is_reading()
        await connection.peer(connection.far.sendall, b"hello")
        await connection.peer(connection.far.shutdown, socket.SHUT_WR)
        await asyncio.sleep(0.02)
        assert protocol.calls == ["connection_made"]
        near.resume_reading()
        assert near.is_reading()
        await protocol.until_called("connection_lost")
        assert protocol.data == b"hello"
        assert protocol.calls[1:] == ["data_received", "eof_received", "connection_lost"]


@ours
@on_every_loop
async def test_a_paused_transport_holds_its_peer_back(transport: str) -> None:
    async with Connection(transport) as connection:
        near, protocol = connection.transport, connection.protocol
        near.pause_reading()
        sending = asyncio.ensure_future(connection.peer(connection.far.sendall, HUGE))
        done, _ = await asyncio.wait([sending], timeout=0.1)
        assert not done
        near.resume_reading()
        await protocol.until(lambda: len(protocol.data) == len(HUGE))
        await sending
        assert protocol.data == HUGE


@every_transport
@run_async
async def test_nothing_is_delivered_after_close(transport: str) -> None:
    async with Connection(transport) as connection:
        near, protocol = connection.transport, connection.protocol
        near.pause_reading()
        await connection.peer(connection.far.sendall, b"hello")
        await turns()
        near.resume_reading()
        near.close()
        near.close()
        near.resume_reading()
        assert not near.is_reading()
        await protocol.until_called("connection_lost")
        assert protocol.calls == ["connection_made", "connection_lost"]
        near.write(b"dropped, as in asyncio")
        assert near.get_write_buffer_size() == 0


@every_transport
@run_async
async def test_a_protocol_with_a_buffer_of_its_own(transport: str) -> None:
    async with Connection(transport, BufferedRecorder) as connection:
        protocol = connection.protocol
        assert isinstance(protocol, BufferedRecorder)
        await connection.peer(connection.far.sendall, LARGE)
        await protocol.until(lambda: len(protocol.data) == len(LARGE))
        assert protocol.data == LARGE
        assert protocol.updates >= len(LARGE) / 1000


@every_transport
@run_async
async def test_another_protocol_takes_over(transport: str) -> None:
    async with Connection(transport) as connection:
        near = connection.transport
        assert near.get_protocol() is connection.protocol
        near.pause_reading()
        second = BufferedRecorder()
        near.set_protocol(second)
        assert near.get_protocol() is second
        await connection.peer(connection.far.sendall, b"hello")
        near.resume_reading()
        await second.until(lambda: second.data == b"hello")
        near.set_protocol(connection.protocol)
        assert connection.protocol.data == b""


@pytest.mark.parametrize("name", ["close", "abort", "pause_reading"])
@every_transport
@run_async
async def test_a_protocol_stops_from_inside_a_call(transport: str, name: str) -> None:
    class Stopping(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            getattr(self.transport, name)()

    async with Connection(transport, Stopping) as connection:
        protocol = connection.protocol
        await connection.peer(connection.far.sendall, b"x" * 5000)
        await protocol.until_called("buffer_updated")
        await turns()
        assert protocol.updates == 1
        if name == "pause_reading":
            connection.transport.resume_reading()
            await protocol.until(lambda: protocol.updates == 2)
        else:
            await protocol.until_called("connection_lost")
            assert protocol.error is None


# The end


@of_tcp
@run_async
async def test_half_close(transport: str) -> None:
    async with Connection(transport) as connection:
        near, protocol = connection.transport, connection.protocol
        assert near.can_write_eof()
        near.write(HUGE)
        near.write_eof()
        near.write_eof()
        with pytest.raises(RuntimeError):
            near.write(b"x")
        assert await connection.peer_reads(-1) == HUGE
        await connection.peer(connection.far.sendall, b"answer")
        await protocol.until(lambda: protocol.data == b"answer")
        near.close()
        await protocol.until_called("connection_lost")
        assert protocol.error is None


@on_every_loop
async def test_half_close_does_not_exist_over_tls() -> None:
    async with Connection("tls") as connection:
        assert not connection.transport.can_write_eof()
        with pytest.raises(NotImplementedError, match="TLS"):
            connection.transport.write_eof()


@of_tcp
@run_async
async def test_the_end_of_the_peer_may_leave_the_other_direction_open(transport: str) -> None:
    async with Connection(transport) as connection:
        near, protocol = connection.transport, connection.protocol
        protocol.keep_open = True
        await connection.peer(connection.far.shutdown, socket.SHUT_WR)
        await protocol.until_called("eof_received")
        if transport != "original":  # asyncio tells of the end again
            near.pause_reading()
            near.resume_reading()
        await turns()
        near.write(b"still here")
        assert await connection.peer_reads(10) == b"still here"
        assert protocol.calls == ["connection_made", "eof_received"]
        assert protocol.counts["eof_received"] == 1


@of_tcp
@run_async
async def test_a_reset_is_the_error_of_connection_lost(transport: str) -> None:
    async with Connection(transport) as connection:
        reset(connection.far)
        await connection.protocol.until_called("connection_lost")
        assert isinstance(connection.protocol.error, ConnectionResetError)
        assert connection.protocol.calls == ["connection_made", "connection_lost"]


@of_tcp
@run_async
async def test_a_reset_during_a_write(transport: str) -> None:
    async with Connection(transport) as connection:
        connection.transport.pause_reading()
        connection.transport.write(HUGE)
        reset(connection.far)
        await connection.protocol.until_called("connection_lost")
        assert isinstance(connection.protocol.error, ConnectionResetError | BrokenPipeError)


@on_every_loop
async def test_a_cut_of_a_tls_connection_is_no_end() -> None:
    async with Connection("tls") as connection:
        connection.far.shutdown(socket.SHUT_RD)
        os_level = connection.far._view  # type: ignore[attr-defined]
        os_level.shutdown(socket.SHUT_WR)
        await connection.protocol.until_called("connection_lost")
        assert "close_notify" in str(connection.protocol.error)
        assert connection.protocol.calls == ["connection_made", "connection_lost"]


@every_transport
@run_async
async def test_abort_during_a_write(transport: str) -> None:
    async with Connection(transport) as connection:
        near, protocol = connection.transport, connection.protocol
        near.write(HUGE)
        near.abort()
        near.abort()
        assert near.is_closing()
        assert near.get_write_buffer_size() == 0
        await protocol.until_called("connection_lost")
        assert protocol.error is None


@pytest.mark.sampled
@ours
@on_every_loop
async def test_the_peer_does_not_take_an_abort_for_the_end(transport: str) -> None:
    """If bytes were dropped. asyncio closes, and over TLS the cut is all that tells."""
    async with Connection(transport) as connection:
        connection.transport.write(HUGE)
        await turns()
        connection.transport.abort()
        await connection.protocol.until_called("connection_lost")
        with pytest.raises(OSError, match=r"reset|close_notify"):
            await connection.peer_reads(-1)


@ours
@on_every_loop
async def test_an_abort_that_drops_nothing_is_an_end(transport: str) -> None:
    async with Connection(transport) as connection:
        connection.transport.write(b"last words")
        connection.transport.abort()
        assert await connection.peer_reads(-1) == b"last words"


# Errors of the protocol


@contextlib.contextmanager
def reports() -> Any:
    """Collect what the loop's exception handler gets."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    try:
        yield reported
    finally:
        loop.set_exception_handler(handler)


@every_transport
@pytest.mark.parametrize("name", ["data_received", "eof_received", "get_buffer", "buffer_updated"])
@run_async
async def test_a_protocol_that_raises_loses_its_connection(transport: str, name: str) -> None:
    kind = BufferedRecorder if name in ("get_buffer", "buffer_updated") else Recorder
    async with Connection(transport, kind) as connection:
        protocol = connection.protocol
        protocol.fails[name] = mistake = ZeroDivisionError("a mistake")
        with reports() as reported:
            await connection.peer(connection.far.sendall, b"hello")
            with contextlib.suppress(OSError):  # the connection may be over already
                await connection.peer(connection.far.shutdown, socket.SHUT_WR)
            await protocol.until_called("connection_lost")
        assert protocol.error is mistake
        (context,) = reported
        assert context["exception"] is mistake
        assert context["protocol"] is protocol
        if transport != "original":
            assert context["transport"] is connection.transport
        protocol.fails.clear()


@ours
@on_every_loop
async def test_an_empty_buffer_is_a_mistake(transport: str) -> None:
    async with Connection(transport, BufferedRecorder) as connection:
        connection.protocol.buffer = bytearray()
        with reports() as reported:
            await connection.peer(connection.far.sendall, b"hello")
            await connection.protocol.until_called("connection_lost")
        assert isinstance(reported[0]["exception"], RuntimeError)


@every_transport
@run_async
async def test_a_protocol_that_raises_in_flow_control_loses_nothing(transport: str) -> None:
    async with Connection(transport) as connection:
        protocol = connection.protocol
        protocol.fails = {name: ZeroDivisionError(name) for name in ("pause_writing", "resume_writing")}
        with reports() as reported:
            connection.transport.write(HUGE)
            assert await connection.peer_reads(len(HUGE)) == HUGE
            await protocol.until_called("resume_writing")
            await turns()
        assert [str(each["exception"]) for each in reported] == ["pause_writing", "resume_writing"]


@ours
@on_every_loop
async def test_a_protocol_that_raises_at_the_end_leaves_no_descriptor(transport: str) -> None:
    async with Connection(transport) as connection:
        connection.protocol.fails["connection_lost"] = ZeroDivisionError("a mistake")
        with reports() as reported:
            connection.transport.close()
            await connection.protocol.until_called("connection_lost")
            await turns()
        assert len(reported) == 1
        assert connection.transport.get_extra_info("socket").fileno() == -1


# Facts


@ours
@on_every_loop
async def test_extra_information(transport: str) -> None:
    async with Connection(transport) as connection:
        info = connection.transport.get_extra_info
        assert info("peername") == connection.far.getsockname()
        assert info("sockname") == connection.far.getpeername()
        assert info("nothing", "default") == "default"
        sock = info("socket")
        assert (sock.family, sock.type, sock.proto) == (
            socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
        )
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.fileno() > 0
        assert sock.getpeername() == info("peername")
        assert sock.gettimeout() == 0
        sock.settimeout(0)
        sock.setblocking(False)
        for refused in (lambda: sock.settimeout(1), lambda: sock.setblocking(True)):
            with pytest.raises(OSError, match="event loop") as caught:
                refused()
            assert caught.value.errno == errno.EOPNOTSUPP
        if transport == "tls":
            assert info("ssl_object").version() == "TLSv1.3"
            assert info("sslcontext") is info("ssl_object").context
            assert ("DNS", "localhost") in info("peercert")["subjectAltName"]
            assert info("cipher")[1] == "TLSv1.3"
            assert info("compression", "default") is None
        else:
            assert info("ssl_object") is info("sslcontext") is None
        assert "wireline" in repr(connection.transport)


# What it refuses


@pytest.mark.sampled
def test_what_as_transport_refuses() -> None:
    async def main() -> None:
        sock, far = await async_pair("tcp")
        with far:
            for wrong in (None, 5, far):
                with pytest.raises(TypeError, match="AsyncSocket"):
                    as_transport(wrong, Recorder())  # type: ignore[arg-type]
            for wrong in (None, "protocol", Recorder):
                with pytest.raises(TypeError, match="protocol"):
                    as_transport(sock, wrong)  # type: ignore[arg-type]
            for limit, error in ((0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)):
                with pytest.raises(error):
                    as_streams(sock, limit)  # type: ignore[arg-type]
            sock.close()
            for call in (lambda: as_streams(sock), lambda: as_transport(sock, Recorder())):
                with pytest.raises(ClosedError):
                    call()
        async with AsyncSocket(sock_type=SOCK_DGRAM) as datagrams, AsyncSocket() as unconnected:
            with pytest.raises(TypeError, match="datagram"):
                as_streams(datagrams)
            with pytest.raises(OSError, match="peer_addr") as caught:
                as_transport(unconnected, Recorder())
            assert caught.value.errno == errno.ENOTCONN

    asyncio.run(main())


@pytest.mark.sampled
def test_it_needs_a_loop_of_asyncio() -> None:
    near, far = raw_pair()
    sock = AsyncSocket.from_socket(near)
    with far:
        with pytest.raises(RuntimeError, match="no running event loop"):
            as_streams(sock)

        async def main() -> None:
            with pytest.raises(RuntimeError, match=r"asyncio or uvloop.*trio"):
                as_streams(sock)

        trio.run(main)
        sock.close()


# Loops, processes, the collector


@pytest.mark.parametrize("writing", [False, True])
@on_every_loop
async def test_a_cancellation_of_all_tasks_ends_the_transport(writing: bool) -> None:
    async with Connection("tcp") as connection:
        if writing:  # and not reading
            await turns()
            reading = [task for task in asyncio.all_tasks() if task.get_name().endswith("-read")]
            connection.transport.pause_reading()
            await connection.peer(connection.far.sendall, b"hello")
            connection.transport.write(HUGE)
            await asyncio.wait(reading)
        await turns()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await connection.protocol.until_called("connection_lost")
        assert connection.protocol.error is None


@pytest.mark.parametrize("loop", FACTORIES)
def test_the_end_of_the_loop_ends_the_transport(loop: str) -> None:
    async def main() -> Recorder:
        connection = Connection("tcp")
        await connection.__aenter__()
        await turns()
        connection.far.close()
        connection.transport.pause_reading()
        connection.transport.write(HUGE)
        return connection.protocol

    with asyncio.Runner(loop_factory=FACTORIES[loop]) as runner:
        protocol = runner.run(main())
    assert protocol.calls[-1] == "connection_lost"
    gc.collect()


@on_every_loop
async def test_a_dropped_transport_lives_until_its_peer_closes() -> None:
    sock, far = await async_pair("tcp")
    protocol = Recorder()
    as_transport(sock, protocol)
    del sock
    await turns()
    protocol.transport = None
    gc.collect()
    with far:
        far.sendall(b"hello")
        await protocol.until(lambda: protocol.data == b"hello")
    await protocol.until_called("connection_lost")


@on_every_loop
async def test_a_transport_that_is_paused_and_dropped_warns_and_closes() -> None:
    sock, far = await async_pair("tcp")
    with far:
        protocol = Recorder()
        transport = as_transport(sock, protocol)
        transport.pause_reading()
        await turns()
        transport.resume_reading()
        transport.pause_reading()
        far.sendall(b"hello")
        await asyncio.sleep(0.02)
        gone = weakref.ref(transport)
        del sock
        held = [transport]
        del transport
        protocol.transport = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            held.clear()
            gc.collect()
        # The collector may finalize the descriptor first, which warns too.
        assert any("unclosed transport" in str(each.message) for each in caught)
        assert gone() is None
        far.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):  # "hello" was not read
            assert far.recv(1) == b""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start at once from Python 3.12 on")
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_with_tasks_that_start_at_once(transport: str) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with Connection(transport) as connection:
            connection.transport.write(HUGE)
            assert await connection.peer_reads(len(HUGE)) == HUGE
            for _ in range(3):
                connection.transport.write(HUGE)
                assert await connection.peer_reads(len(HUGE)) == HUGE
            if transport == "tcp":
                connection.transport.write_eof()
                assert await connection.peer_reads(1) == b""
            connection.transport.close()
            await connection.protocol.until_called("connection_lost")

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_may_drop_its_copy() -> None:
    async def main() -> None:
        async with Connection("tcp") as connection:
            await turns()
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    connection.transport.get_extra_info("socket")._sock.close()
                os._exit(0)
            assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
            connection.transport.write(b"still here")
            assert await connection.peer_reads(10) == b"still here"

    asyncio.run(main())


# Streams


@every_transport
@run_async
async def test_streams(transport: str) -> None:
    if transport == "original":
        near, far = raw_pair()
        reader, writer = await asyncio.open_connection(sock=near)
    else:
        sock, far = await async_pair(transport)
        reader, writer = as_streams(sock)
    far.settimeout(PATIENCE)
    with far, ThreadPoolExecutor(1) as pool:
        writer.write(b"question\n")
        await writer.drain()
        assert far.recv(100) == b"question\n"
        # A cancelled read loses nothing.
        reading = asyncio.ensure_future(reader.readline())
        far.sendall(b"half a ")
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        far.sendall(b"line\n")
        assert await reader.readline() == b"half a line\n"
        # `drain` waits for a peer that does not read.
        writer.write(HUGE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.02)
        received = asyncio.get_running_loop().run_in_executor(pool, far.makefile("rb").read, len(HUGE))
        await writer.drain()
        assert await received == HUGE
        writer.close()
        await writer.wait_closed()
        assert far.recv(1) == b""


@on_every_loop
async def test_streams_have_the_bytes_that_the_socket_has_received() -> None:
    sock, far = await async_pair("tcp")
    with far:
        far.sendall(b"first\nsecond\n")
        assert await sock.recv_line() == b"first"
        reader, writer = as_streams(sock, limit=1024)
        assert await reader.readline() == b"second\n"
        far.sendall(b"x" * 5000)
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
        reset(far)
        with pytest.raises(ConnectionResetError):
            while await reader.read(1000):
                pass
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_task_that_is_cancelled_closes_its_streams(transport: str) -> None:
    async def main() -> None:
        sock, far = await async_pair(transport)

        async def work() -> None:
            reader, writer = as_streams(sock)
            try:
                await reader.read(1)
            finally:
                writer.close()
                await writer.wait_closed()

        with far:
            far.settimeout(PATIENCE)
            task = asyncio.ensure_future(work())
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert sock.is_closed
            assert await asyncio.to_thread(far.recv, 1) == b""

    asyncio.run(main())


def is_awaitable(value: object) -> bool:
    return isinstance(value, Awaitable)


def test_they_are_plain_calls() -> None:
    async def main() -> None:
        sock, far = await async_pair("tcp")
        with far:
            transport = as_transport(sock, Recorder())
            assert isinstance(transport, asyncio.Transport)
            assert not is_awaitable(transport)
            transport.abort()
            await turns()

    asyncio.run(main())
