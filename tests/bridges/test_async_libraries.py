"""Async libraries on ``as_streams`` and ``as_transport``, each with a real server."""

from __future__ import annotations

import asyncio
import functools
import smtplib
import ssl
from collections.abc import Callable
from typing import Any

import aiosmtpd.smtp
import asyncpg
import httpx
import pytest
import redis.asyncio
import uvloop
import websockets.asyncio.client
import websockets.asyncio.server

from tests.bridges.loops import on_every_loop
from tests.bridges.servers import Postgres, Tcp
from tests.interop.responder import PAGES
from tests.tls import certificates
from wireline.adapters.httpcore import AsyncNetworkBackend, NetworkBackend
from wireline.asyncnet import AsyncSocket, Server, as_streams, as_transport, dial, serve
from wireline.tls import SslContext

pytestmark = pytest.mark.interop

PATIENCE = 10.0

in_clear_and_over_tls = pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "tls"])


# Redis


@in_clear_and_over_tls
@on_every_loop
async def test_redis(redis_server: Tcp, trusting: SslContext, encrypted: bool) -> None:
    class Connection(redis.asyncio.Connection):
        async def _connect(self) -> None:
            port = redis_server.tls_port if encrypted else redis_server.port
            tls = trusting if encrypted else None
            self._reader, self._writer = as_streams(await dial("127.0.0.1", port, tls=tls, timeout=PATIENCE))

    pool = redis.asyncio.ConnectionPool(connection_class=Connection)
    client = redis.asyncio.Redis(connection_pool=pool)
    large = bytes(range(256)) * 8192
    try:
        await client.flushall()
        assert await client.set("key", large)
        assert await client.get("key") == large
        async with client.pipeline() as pipeline:
            for number in range(1000):
                pipeline.set(f"key{number}", number).get(f"key{number}")
            assert await pipeline.execute() == [each for n in range(1000) for each in (True, b"%d" % n)]
        counted = await asyncio.gather(*(client.incr("counter") for _ in range(50)))  # on as many connections
        assert sorted(counted) == list(range(1, 51))
        async with client.pubsub() as subscriber:
            await subscriber.subscribe("news")
            assert (await subscriber.get_message(timeout=PATIENCE))["type"] == "subscribe"
            assert await subscriber.get_message(timeout=0.01) is None
            await client.publish("news", "hello")
            assert (await subscriber.get_message(timeout=PATIENCE))["data"] == b"hello"
    finally:
        await client.aclose()
        await pool.disconnect()


# Libraries that call `loop.create_connection`


async def create_connection(
    factory: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    *,
    ssl: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    **_: Any,
) -> tuple[asyncio.Transport, asyncio.Protocol]:
    """The recipe of the documentation."""
    tls = None if ssl is None else SslContext.from_ssl(ssl)
    sock = await dial(host, port, tls=tls, hostname=server_hostname)
    protocol = factory()
    transport = as_transport(sock, protocol)
    await asyncio.sleep(0)  # the protocol is connected then, as asyncio's own method has it
    return transport, protocol


@on_every_loop
async def test_asyncpg(postgres: Postgres) -> None:
    asyncio.get_running_loop().create_connection = create_connection  # type: ignore[method-assign,assignment]
    connection = await asyncpg.connect(
        host="127.0.0.1", port=postgres.port, user="postgres", password=postgres.password, ssl=False
    )
    try:
        assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
        await connection.execute("CREATE TEMPORARY TABLE t (number INT, name TEXT)")
        rows = [(number, f"name {number}" * 20) for number in range(20_000)]
        assert await connection.copy_records_to_table("t", records=rows) == "COPY 20000"
        found = await connection.fetch("SELECT * FROM t ORDER BY number")
        assert [tuple(row) for row in found] == rows
        with pytest.raises(asyncpg.UndefinedColumnError):
            await connection.execute("SELECT nonsense")
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(30)", timeout=0.1)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.add_listener("news", lambda *_: None)
    finally:
        await connection.close()


def test_asyncpg_starts_its_own_tls(postgres: Postgres) -> None:
    """``loop.start_tls`` of asyncio takes the transport; uvloop's takes none but its own."""
    context = ssl.create_default_context(cafile=certificates.ca_file())

    async def main() -> None:
        asyncio.get_running_loop().create_connection = create_connection  # type: ignore[method-assign,assignment]
        connection = await asyncpg.connect(
            host="localhost", port=postgres.port, user="postgres", password=postgres.password, ssl=context
        )
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await connection.fetchval(query)
        assert len(await connection.fetchval("SELECT repeat('x', 1000000)")) == 1_000_000
        await connection.close()

    asyncio.run(main())


def test_uvloop_does_not_start_tls_on_a_transport_that_is_not_its_own(postgres: Postgres) -> None:
    context = ssl.create_default_context(cafile=certificates.ca_file())

    async def main() -> None:
        asyncio.get_running_loop().create_connection = create_connection  # type: ignore[method-assign,assignment]
        with pytest.raises(TypeError, match="transport"):
            await asyncpg.connect(
                host="localhost",
                port=postgres.port,
                user="postgres",
                password=postgres.password,
                ssl=context,
            )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@in_clear_and_over_tls
@on_every_loop
async def test_websockets_as_client(trusting: SslContext, encrypted: bool) -> None:
    async def handler(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(*certificates.server())
    server = await websockets.asyncio.server.serve(
        handler, "127.0.0.1", 0, ssl=own if encrypted else None, max_size=2**22
    )
    port = next(iter(server.sockets)).getsockname()[1]
    asyncio.get_running_loop().create_connection = create_connection  # type: ignore[method-assign,assignment]
    uri = f"wss://localhost:{port}/" if encrypted else f"ws://localhost:{port}/"
    tls = {"ssl": trusting.context} if encrypted else {}
    async with (
        server,
        websockets.asyncio.client.connect(uri, proxy=None, max_size=2**22, **tls) as client,
    ):
        for message in ("hello", bytes(range(256)) * 10_000, ""):
            await client.send(message)
            assert await client.recv() == message
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.recv(), 0.02)
        await client.send("after the timeout")
        assert await client.recv() == "after the timeout"


async def run(sock: AsyncSocket, protocol: Any) -> None:
    """Run an asyncio protocol on a client of ``serve`` until it is over; the recipe of the documentation."""
    over = asyncio.get_running_loop().create_future()
    connection_lost = protocol.connection_lost

    def connection_lost_and_over(error: Exception | None) -> None:
        connection_lost(error)
        over.set_result(None)

    protocol.connection_lost = connection_lost_and_over
    as_transport(sock, protocol)
    await over


class LoopServer:
    """What websockets needs of the server of a loop."""

    sockets = ()

    def __init__(self, server: Server) -> None:
        self.server = server

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def is_serving(self) -> bool:
        return True

    def close(self) -> None:
        self.server.request_stop(PATIENCE)

    async def wait_closed(self) -> None:
        await self.server.wait()


@in_clear_and_over_tls
@on_every_loop
async def test_websockets_as_server(encrypted: bool) -> None:
    leaf = certificates.server()
    tls = SslContext(cert_file=leaf.cert, key_file=leaf.key) if encrypted else None

    async def create_server(factory: Callable[[], Any], *_: Any) -> LoopServer:
        return LoopServer(await serve(lambda sock, _: run(sock, factory()), 0, "127.0.0.1", tls=tls))

    async def handler(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    asyncio.get_running_loop().create_server = create_server  # type: ignore[method-assign,assignment]
    own = ssl.create_default_context(cafile=certificates.ca_file())
    async with websockets.asyncio.server.serve(handler) as library:
        where = f"localhost:{library.server.server.local_addr.port}/"
        uri = f"wss://{where}" if encrypted else f"ws://{where}"
        async with websockets.asyncio.client.connect(
            uri, proxy=None, **({"ssl": own} if encrypted else {})
        ) as client:
            for message in ("hello", bytes(range(256)) * 3000):
                await client.send(message)
                assert await client.recv() == message


# Mail


class Mailbox:
    """What aiosmtpd hands over."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.mails.append(envelope.content)
        return "250 OK"


@pytest.mark.parametrize("encrypted", ["never", "by aiosmtpd", "by wireline"])
@on_every_loop
async def test_aiosmtpd(encrypted: str) -> None:
    mailbox = Mailbox()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificates.server())
    body = "\r\n".join(f"line {number}" for number in range(2000))

    async def handle(sock: AsyncSocket, _: object) -> None:
        await run(
            sock, aiosmtpd.smtp.SMTP(mailbox, tls_context=context if encrypted == "by aiosmtpd" else None)
        )

    own = ssl.create_default_context(cafile=certificates.ca_file())

    def send() -> None:
        where = ("localhost", server.local_addr.port)
        kind = {"by wireline": functools.partial(smtplib.SMTP_SSL, context=own)}.get(encrypted, smtplib.SMTP)
        with kind(*where, timeout=PATIENCE) as client:
            if encrypted == "by aiosmtpd":
                client.starttls(context=own)
            client.sendmail("a@example.org", ["b@example.org"], f"Subject: x\r\n\r\n{body}")

    leaf = certificates.server()
    tls = SslContext(cert_file=leaf.cert, key_file=leaf.key) if encrypted == "by wireline" else None
    async with serve(handle, 0, "127.0.0.1", tls=tls) as server:
        await asyncio.to_thread(send)
    (mail,) = mailbox.mails
    assert mail.endswith(body.encode() + b"\r\n")


# httpx


def test_httpx_over_tls(nginx_over_tls: int) -> None:
    with httpx.Client(transport=with_backend(httpx.HTTPTransport, NetworkBackend())) as client:
        for _ in range(3):
            for path, body in PAGES.items():
                answer = client.get(f"https://localhost:{nginx_over_tls}{path}")
                assert (answer.status_code, answer.content) == (200, body)
        stream = answer.extensions["network_stream"]
        assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert stream.get_extra_info("server_addr")[1] == nginx_over_tls


@on_every_loop
async def test_async_httpx_over_tls(nginx_over_tls: int) -> None:
    transport = with_backend(httpx.AsyncHTTPTransport, AsyncNetworkBackend())
    async with httpx.AsyncClient(transport=transport) as client:

        async def get(path: str) -> bytes:
            return (await client.get(f"https://localhost:{nginx_over_tls}{path}")).content

        for _ in range(3):
            assert await asyncio.gather(*map(get, PAGES)) == list(PAGES.values())


def with_backend(kind: Any, backend: Any) -> Any:
    """The recipe of the documentation: a transport of httpx whose pool uses the backend."""
    transport = kind(verify=ssl.create_default_context(cafile=certificates.ca_file()))
    transport._pool._network_backend = backend
    return transport
