"""The example client of PostgreSQL in both flavours, and servers that are none or are hostile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import socket
import ssl
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from examples.postgres import Config, aio, blocking
from tests.tls import certificates

PATIENCE = 10.0


class InThread:
    """A blocking connection with the methods of an async one; what waits runs in a thread."""

    def __init__(self, connection: blocking.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._connection, name)
        return (
            functools.partial(asyncio.to_thread, member) if name in ("query", "script", "cancel") else member
        )

    async def copy_in(self, sql: str, rows: AsyncIterable[bytes], timeout: float | None = None) -> str:
        return await asyncio.to_thread(self._connection.copy_in, sql, without_waiting(rows), timeout)

    async def copy_out(self, sql: str, timeout: float | None = None) -> AsyncIterator[bytes]:
        for row in self._connection.copy_out(sql, timeout):
            yield row

    async def __aenter__(self) -> InThread:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._connection.close()


def without_waiting(rows: AsyncIterable[bytes]) -> Iterator[bytes]:
    """The rows of an async generator that never waits."""
    iterator = aiter(rows)
    while True:
        try:
            next(anext(iterator).__await__())
        except StopIteration as row:
            yield row.value
        except StopAsyncIteration:
            return


class InThreadPool:
    """The same for a pool."""

    def __init__(self, config: Config) -> None:
        self._pool = blocking.make_pool(config)

    @property
    def stats(self) -> Any:
        return self._pool.stats

    @contextlib.asynccontextmanager
    async def acquire(self, timeout: float | None = None) -> AsyncIterator[Any]:
        with self._pool.acquire(timeout) as connection:
            yield InThread(connection)

    async def __aenter__(self) -> InThreadPool:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._pool.close()


async def connect_blocking(config: Config, timeout: float | None = PATIENCE) -> Any:
    return InThread(await asyncio.to_thread(blocking.Connection.connect, config, timeout))


async def connect_async(config: Config, timeout: float | None = PATIENCE) -> Any:
    return await aio.Connection.connect(config, timeout)


Connect = Callable[..., Awaitable[Any]]
CONNECT: dict[str, Connect] = {"blocking": connect_blocking, "async": connect_async}
MAKE_POOL: dict[str, Callable[[Config], Any]] = {"blocking": InThreadPool, "async": aio.make_pool}


def in_both_flavours(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test whose parameter ``flavour`` is a key of ``CONNECT``."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(30):
                await test(*args, **kwargs)

        asyncio.run(main())

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined] # what pytest looks at
    decorated: Callable[..., None] = pytest.mark.parametrize("flavour", CONNECT)(run)
    return decorated


@contextlib.contextmanager
def server(*talks: Callable[[socket.socket], None]) -> Iterator[Config]:
    """A server of the standard library that treats each client by the next function; gives the way to it."""

    def serve() -> None:
        for talk in talks:
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                with client:
                    client.settimeout(PATIENCE)
                    talk(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Config("127.0.0.1", listener.getsockname()[1], password="secret")
        finally:
            thread.join()


def saying(*parts: bytes) -> Callable[[socket.socket], None]:
    """Say the first part after the start-up message, each further one after another message, and wait for the end."""

    def talk(sock: socket.socket) -> None:
        for part in parts:
            if not sock.recv(65536):
                return
            sock.sendall(part)
        while sock.recv(65536):
            pass

    return talk


def man_in_the_middle(port: int) -> Callable[[socket.socket], None]:
    """End TLS with a certificate that clients trust too, and pass all on to a server over another TLS connection."""

    def talk(client: socket.socket) -> None:
        request = client.recv(8)
        client.sendall(b"S")
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ours.load_cert_chain(*certificates.name_only())
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            upstream.sendall(request)
            assert upstream.recv(1) == b"S"
            theirs = ssl.create_default_context(cafile=certificates.ca_file())
            with ours.wrap_socket(client, server_side=True) as one:
                with theirs.wrap_socket(upstream, server_hostname="localhost") as other:
                    # What SCRAM needs: the client's two messages, and an answer to each.
                    for _ in range(3):
                        other.sendall(one.recv(65536))
                        one.sendall(other.recv(65536))
                    while data := one.recv(65536):
                        other.sendall(data)
                        one.sendall(other.recv(65536))

    return talk
