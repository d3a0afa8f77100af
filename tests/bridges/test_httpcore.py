"""The network backends of httpcore: its interface, its errors, its pools."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest

from tests.bridges.loops import FACTORIES
from tests.tls import certificates
from wireline import Address
from wireline.adapters import httpcore as adapter
from wireline.net import Socket, dial, serve
from wireline.tls import SslContext

PATIENCE = 10.0


class Blocking:
    """The blocking backend behind the methods of the async one."""

    def __init__(self, **options: Any) -> None:
        self._backend = adapter.NetworkBackend(**options)

    async def connect_tcp(self, *arguments: Any, **named: Any) -> Stream:
        return Stream(self._backend.connect_tcp(*arguments, **named))

    async def connect_unix_socket(self, *arguments: Any, **named: Any) -> Stream:
        return Stream(self._backend.connect_unix_socket(*arguments, **named))

    async def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class Stream:
    """A blocking stream behind the methods of an async one."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self.get_extra_info = stream.get_extra_info

    async def read(self, *arguments: Any) -> bytes:
        return self._stream.read(*arguments)

    async def write(self, *arguments: Any) -> None:
        self._stream.write(*arguments)

    async def aclose(self) -> None:
        self._stream.close()

    async def start_tls(self, *arguments: Any) -> Stream:
        return Stream(self._stream.start_tls(*arguments))


BACKENDS: dict[str, Callable[..., Any]] = {"blocking": Blocking, "async": adapter.AsyncNetworkBackend}


@pytest.fixture(params=BACKENDS)
def flavour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(main: Callable[[], Awaitable[None]], loop: str = "asyncio") -> None:
    with asyncio.Runner(loop_factory=FACTORIES[loop]) as runner:

        async def bounded() -> None:
            async with asyncio.timeout(20):
                await main()

        runner.run(bounded())


@contextlib.contextmanager
def serving(handler: Callable[[Socket], object], *, tls: bool = False) -> Iterator[Address]:
    leaf = certificates.server()
    context = SslContext(cert_file=leaf.cert, key_file=leaf.key) if tls else None
    with serve(
        lambda sock, _: handler(sock), 0, "127.0.0.1", tls=context, on_error=lambda *_: None
    ) as server:
        yield server.local_addr


def echo(sock: Socket) -> None:
    while data := sock.recv_some():
        sock.send(data)


def own_context(ca_file: str | None = None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file or certificates.ca_file())


@pytest.mark.sampled
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_stream(flavour: str, transport: str) -> None:
    async def main() -> None:
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        stream = await BACKENDS[flavour]().connect_tcp(*where, timeout=PATIENCE, socket_options=options)
        assert stream.get_extra_info("ssl_object") is None
        if transport == "tls":
            stream = await stream.start_tls(own_context(), "localhost", PATIENCE)
            assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        await stream.write(b"")
        await stream.write(b"hello", PATIENCE)
        assert await stream.read(100, PATIENCE) == b"hello"
        await stream.write(b"more", PATIENCE)
        assert await stream.read(1, PATIENCE) == b"m"
        assert stream.get_extra_info("is_readable")  # what is in the buffer counts
        assert await stream.read(100, PATIENCE) == b"ore"
        assert stream.get_extra_info("server_addr") == tuple(where)
        assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
        raw = stream.get_extra_info("socket")
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert raw.getpeername() == tuple(where)
        assert stream.get_extra_info("nothing") is None
        await stream.aclose()
        assert stream.get_extra_info("is_readable")

    with serving(echo, tls=transport == "tls") as where:
        run(main)


def test_an_idle_connection_is_readable_when_its_peer_has_closed(flavour: str) -> None:
    closed = threading.Event()

    async def main() -> None:
        stream = await BACKENDS[flavour]().connect_tcp(*where)
        assert not stream.get_extra_info("is_readable")
        closed.set()
        assert await stream.read(1, PATIENCE) == b""
        assert stream.get_extra_info("is_readable")
        await stream.aclose()

    with serving(lambda _: closed.wait(PATIENCE)) as where:
        run(main)


def test_a_large_body_has_the_write_timeout_for_each_piece(flavour: str) -> None:
    body = bytes(range(256)) * 65536
    received = bytearray()

    def slow(sock: Socket) -> None:
        while data := sock.recv_some(4 << 20):
            received.extend(data)
            threading.Event().wait(0.05)

    async def main() -> None:
        stream = await BACKENDS[flavour]().connect_tcp(*where)
        await stream.write(body, 0.2)
        await stream.aclose()

    with serving(slow) as where:
        run(main)
        server_done = threading.Event()
        for _ in range(200):
            if len(received) == len(body):
                break
            server_done.wait(0.05)
    assert received == body


def test_unix_sockets(flavour: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def main() -> None:
        stream = await BACKENDS[flavour]().connect_unix_socket(path, timeout=PATIENCE)
        await stream.write(b"hello")
        assert await stream.read(10) == b"hello"
        await stream.aclose()
        with pytest.raises(httpcore.ConnectError):
            await BACKENDS[flavour]().connect_unix_socket(path + "nowhere")

    with serve(lambda sock, _: echo(sock), 0, f"unix:{path}"):
        run(main)


@pytest.mark.sampled
def test_errors_are_those_of_httpcore(flavour: str) -> None:
    async def main() -> None:
        backend = BACKENDS[flavour]()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(httpcore.ConnectError, match="refused") as caught:
                await backend.connect_tcp(*unused.getsockname())
            assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(httpcore.ConnectError):
            await backend.connect_tcp("name.invalid", 80, 5)
        with pytest.raises(httpcore.ConnectError):
            options = [(socket.SOL_SOCKET, 9999, 1)]
            await backend.connect_tcp(*where, socket_options=options)
        stream = await backend.connect_tcp(*where)
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(1, 0.01)
        with pytest.raises(httpcore.WriteTimeout):
            await stream.write(b"x" * (64 << 20), 0.01)
        await stream.aclose()
        with pytest.raises(httpcore.ReadError):
            await stream.read(1)
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"x")

    done = threading.Event()
    with serving(lambda _: done.wait(PATIENCE)) as where:
        try:
            run(main)
        finally:
            done.set()


def test_errors_of_a_handshake(flavour: str) -> None:
    async def main() -> None:
        backend = BACKENDS[flavour]()
        stream = await backend.connect_tcp(*where)
        with pytest.raises(httpcore.ConnectError, match="certificate verify failed"):
            await stream.start_tls(own_context(certificates.other_ca_file()), "localhost", PATIENCE)
        assert stream.get_extra_info("is_readable")  # it was closed
        stream = await backend.connect_tcp(*where)
        with pytest.raises(httpcore.ConnectError, match="localhost"):
            await stream.start_tls(own_context(), "not-localhost", PATIENCE)
        stream = await backend.connect_tcp(*silent.getsockname())
        with pytest.raises(httpcore.ConnectTimeout):
            await stream.start_tls(own_context(), "localhost", 0.02)

    with serving(echo, tls=True) as where, socket.create_server(("127.0.0.1", 0)) as silent:
        run(main)


def test_a_connection_has_the_given_local_address(flavour: str) -> None:
    options = {"local_addr": ("127.0.0.2", 0), "keep_alive": None}

    async def main() -> None:
        for backend, local, expected in (
            (BACKENDS[flavour](), "127.0.0.3", "127.0.0.3"),
            (BACKENDS[flavour](**options), None, "127.0.0.2"),
            (BACKENDS[flavour](**options), "127.0.0.3", "127.0.0.3"),
        ):
            stream = await backend.connect_tcp(*where, timeout=PATIENCE, local_address=local)
            assert stream.get_extra_info("client_addr")[0] == expected
            await stream.aclose()

    with serving(echo) as where:
        run(main)


@pytest.mark.sampled
def test_options_of_dial(flavour: str) -> None:
    for name in ("tls", "protocol", "hostname"):
        with pytest.raises(ValueError, match=f"^{name} cannot be an option"):
            BACKENDS[flavour](**{name: None})
    with pytest.raises(TypeError, match="nonsense"):
        BACKENDS[flavour](nonsense=1)

    async def main() -> None:
        backend = BACKENDS[flavour](buffered=False, timeout=0.02)
        with pytest.raises(httpcore.ConnectTimeout):
            await backend.connect_tcp(*full_listener.getsockname())
        with pytest.raises(httpcore.ConnectTimeout):
            await backend.connect_tcp(*full_listener.getsockname(), timeout=0.01)

    # The queue of this listener is full: a further connection stays without an answer.
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=0) as full_listener:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(full_listener.getsockname())
        run(main)


@pytest.mark.parametrize("loop", FACTORIES)
def test_pools_use_connections_again(loop: str) -> None:
    def http(sock: Socket) -> None:
        for line in sock.lines():
            if not line:
                sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    async def main() -> None:
        backend = adapter.AsyncNetworkBackend()
        async with httpcore.AsyncConnectionPool(network_backend=backend, max_connections=2) as pool:

            async def get() -> bytes:
                return (await pool.request("GET", f"http://127.0.0.1:{where.port}/")).content

            assert await asyncio.gather(*(get() for _ in range(20))) == [b"hello"] * 20
            assert len(pool.connections) == 2
        await backend.sleep(0)

    with serving(http) as where:
        run(main, loop)
        with httpcore.ConnectionPool(network_backend=adapter.NetworkBackend()) as pool:
            for _ in range(3):
                assert pool.request("GET", f"http://127.0.0.1:{where.port}/").content == b"hello"
            assert len(pool.connections) == 1


def answer_hello(sock: Socket) -> None:
    for line in sock.lines(timeout=PATIENCE):
        if not line:
            sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def proxy(sock: Socket) -> None:
    """An HTTP proxy that knows ``CONNECT``."""
    method, target, _ = sock.recv_line(PATIENCE).split()
    assert method == b"CONNECT"
    sock.recv_until(b"\r\n\r\n", timeout=PATIENCE)
    with dial("localhost", int(target.rpartition(b":")[2]), timeout=PATIENCE) as origin:
        sock.send(b"HTTP/1.1 200 OK\r\n\r\n")

        def relay(source: Socket, sink: Socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv_some():
                    sink.send(data)
                sink.shutdown_write()

        back = threading.Thread(target=relay, args=(origin, sock))
        back.start()
        relay(sock, origin)
        back.join(PATIENCE)


@pytest.mark.parametrize("loop", FACTORIES)
def test_T12_tls_to_a_server_through_a_proxy_with_tls(loop: str) -> None:
    with serving(answer_hello, tls=True) as origin, serving(proxy, tls=True) as where:
        through, url = f"https://localhost:{where.port}", f"https://localhost:{origin.port}/"
        contexts = {"ssl_context": own_context(), "proxy_ssl_context": own_context()}

        async def main() -> None:
            backend = adapter.AsyncNetworkBackend()
            async with httpcore.AsyncHTTPProxy(through, network_backend=backend, **contexts) as pool:
                for _ in range(3):
                    assert (await pool.request("GET", url)).content == b"hello"

        run(main, loop)
        with httpcore.HTTPProxy(through, network_backend=adapter.NetworkBackend(), **contexts) as pool:
            for _ in range(3):
                assert pool.request("GET", url).content == b"hello"


def test_a_cut_body_is_an_error_over_tls(flavour: str) -> None:
    """Where httpcore's own backend takes it for the end."""

    def cut(sock: Socket) -> None:
        sock.recv_some()
        sock.send(b"half")
        raw = socket.socket(fileno=sock.fileno())
        raw.shutdown(socket.SHUT_WR)
        raw.detach()
        sock.recv_some()

    async def main() -> None:
        stream = await BACKENDS[flavour]().connect_tcp(*where)
        stream = await stream.start_tls(own_context(), "localhost", PATIENCE)
        await stream.write(b"x")
        assert await stream.read(10, PATIENCE) == b"half"
        with pytest.raises(httpcore.ReadError, match="close_notify"):
            await stream.read(10, PATIENCE)
        await stream.aclose()

    with serving(cut, tls=True) as where:
        run(main)
