"""The async examples and their servers run on asyncio, uvloop and trio as they are."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio
import pytest

from examples import (
    async_echo,
    async_http_client,
    async_mutual_tls,
    async_psk_greeter,
    async_starttls,
    async_tls_echo,
    async_udp_echo,
)
from tests.tls import certificates
from wireline import Address
from wireline.asyncnet import AsyncSocket, Server, StartingServer, dial, serve
from wireline.tls import SslContext

LOOPS: dict[str, tuple[str, dict[str, object]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

pytestmark = pytest.mark.anyio


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def anyio_backend(loop: str) -> object:
    return LOOPS[loop]


@contextlib.asynccontextmanager
async def running(starting: StartingServer) -> AsyncIterator[Server]:
    with anyio.fail_after(10):
        async with starting as server:
            yield server


async def hello(client: AsyncSocket, _: Address) -> None:
    await client.recv_until(b"\r\n\r\n", timeout=5)
    await client.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    )


async def test_the_echo_servers(loop: str) -> None:
    leaf, trusting = certificates.server(), SslContext(ca_file=certificates.ca_file())
    servers = [(async_echo.start(0), None), (async_tls_echo.start(0, leaf.cert, leaf.key), trusting)]
    for starting, tls in servers:
        async with running(starting) as server:
            async with await dial("localhost", server.local_addr.port, tls=tls) as sock:
                await sock.send(b"hello\n")
                assert await sock.recv_line() == b"hello"


async def test_datagrams_and_http(loop: str) -> None:
    async with running(serve(hello, 0, "127.0.0.1")) as server:
        response = await async_http_client.get(f"http://127.0.0.1:{server.local_addr.port}/")
        assert response.body == b"hello"
    with contextlib.closing(async_udp_echo.listen(0)) as sock:
        async with anyio.create_task_group() as group:
            group.start_soon(async_udp_echo.echo, sock)
            assert await async_udp_echo.ask("127.0.0.1", sock.local_addr.port, b"anybody?") == b"anybody?"
            group.cancel_scope.cancel()


async def test_keys_certificates_and_starttls(loop: str) -> None:
    leaf, client, ca = certificates.server(), certificates.client(), certificates.ca_file()
    async with running(async_psk_greeter.start(0, {"me": b"a key of sixteen"})) as server:
        port = server.local_addr.port
        assert await async_psk_greeter.ask("localhost", port, "me", b"a key of sixteen") == "hello me"
    async with running(async_mutual_tls.start(0, ca, leaf.cert, leaf.key)) as server:
        greeting = await async_mutual_tls.ask(
            "localhost", server.local_addr.port, ca, client.cert, client.key
        )
        assert greeting.startswith("hello ")
    async with running(async_starttls.start(0, leaf.cert, leaf.key)) as server:
        assert await async_starttls.ask("localhost", server.local_addr.port, b"quiet", ca) == b"QUIET"
