"""Connected sockets, for tests: both ends in this process."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from wireline import AF_INET, AF_INET6, Deadline, Timeout
from wireline.net import Socket

if TYPE_CHECKING:
    from wireline.asyncnet import AsyncSocket
    from wireline.tls import SslContext

__all__ = ["AsyncPair", "Kind", "Pair", "async_pair", "pair"]

Kind = Literal["tcp", "tcp6", "unix", "tls"]

# Seconds for the handshake of both ends. A guess: it takes milliseconds.
_HANDSHAKE_TIMEOUT = 10.0

_NAME = "localhost"


class Pair(NamedTuple):
    """Two connected sockets of the blocking flavour. As a context manager it closes both."""

    client: Socket
    server: Socket

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.server.close()


class AsyncPair(NamedTuple):
    """Two connected sockets of the async flavour. As an async context manager it closes both."""

    client: AsyncSocket
    server: AsyncSocket

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.server.close()


def pair(
    kind: Kind = "tcp",
    *,
    tls: SslContext | None = None,
    buffered: bool = True,
    timeout: Timeout = _HANDSHAKE_TIMEOUT,
) -> Pair:
    """Make two connected sockets of the blocking flavour.

    Args:
        kind: ``"tcp"`` and ``"tcp6"`` for connections over loopback, ``"unix"`` for a pair of Unix sockets, ``"tls"``
            for TLS over TCP with the handshake done.
        tls: for ``"tls"``, the context of both ends; the server's name is ``localhost``. By default the context of a
            `TestCA`, which needs the package ``trustme``.
        buffered: as for ``Socket``.
        timeout: seconds for the handshake; None means no limit.

    Raises:
        ValueError: the kind is unknown, or is not ``"tls"`` and ``tls`` was given; ``timeout`` is negative.
        SocketTimeout: the handshake took too long.
        OSError: no free descriptor, no such address, or the handshake failed.
        ImportError: ``trustme`` is not installed.
    """
    limit = Deadline(timeout)
    context = _context(kind, tls)
    client, server = _raw_pair(kind)
    made = Pair(Socket.from_socket(client, buffered=buffered), Socket.from_socket(server, buffered=buffered))
    if context is not None:
        try:
            _shake_hands(made, context, limit)
        except BaseException:
            made.__exit__(None, None, None)
            raise
    return made


async def async_pair(
    kind: Kind = "tcp",
    *,
    tls: SslContext | None = None,
    buffered: bool = True,
    timeout: Timeout = _HANDSHAKE_TIMEOUT,
) -> AsyncPair:
    """Make two connected sockets of the async flavour: ``async with await async_pair() as (client, server):``.

    Args:
        kind: as for ``pair``.
        tls: as for ``pair``.
        buffered: as for ``AsyncSocket``.
        timeout: as for ``pair``.

    Raises:
        ValueError, OSError, SocketTimeout, ImportError: as for ``pair``.
    """
    # Tests of the blocking flavour do not load asyncio.
    from wireline.asyncnet import AsyncSocket

    limit = Deadline(timeout)
    context = _context(kind, tls)
    client, server = _raw_pair(kind)
    made = AsyncPair(
        AsyncSocket.from_socket(client, buffered=buffered),
        AsyncSocket.from_socket(server, buffered=buffered),
    )
    if context is not None:
        try:
            await _shake_hands_async(made, context, limit)
        except BaseException:
            made.client.close()
            made.server.close()
            raise
    return made


def _context(kind: Kind, tls: SslContext | None) -> SslContext | None:
    if kind not in ("tcp", "tcp6", "unix", "tls"):
        raise ValueError(f"a pair is tcp, tcp6, unix or tls, not {kind!r}")
    if kind != "tls":
        if tls is not None:
            raise ValueError(f"tls= is for pair('tls'), not for {kind!r}")
        return None
    return tls or _test_context()


@functools.cache
def _test_context() -> SslContext:
    from wireline.testing._certificates import TestCA

    return TestCA().context()


def _raw_pair(kind: Kind) -> tuple[socket.socket, socket.socket]:
    if kind == "unix":
        return socket.socketpair()
    family, host = (AF_INET6, "::1") if kind == "tcp6" else (AF_INET, "127.0.0.1")
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        while True:
            server, address = listener.accept()
            if address == client.getsockname():
                for raw in (client, server):
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return client, server
            server.close()  # another program has connected to the port


def _shake_hands(made: Pair, context: SslContext, limit: Deadline) -> None:
    from wireline.tls import Handshake

    failures: list[Exception] = []

    def serve() -> None:
        try:
            context.wrap_connected_socket(made.server, Handshake.AS_SERVER)  # the client has the time limit
        except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread
            failures.append(error)
            # Close the server's end only: the client then fails by the alert or the end of the stream. Closing its own
            # end would replace that error by "closed while it waited".
            made.server.close()

    thread = threading.Thread(target=serve, name="wireline-pair", daemon=True)
    thread.start()
    try:
        context.wrap_connected_socket(made.client, Handshake.AS_CLIENT, _NAME, limit)
    except BaseException:
        made.server.close()
        raise
    finally:
        thread.join()
    for failure in failures:
        raise failure


async def _shake_hands_async(made: AsyncPair, context: SslContext, limit: Deadline) -> None:
    from wireline.asyncnet._port import running_tasks
    from wireline.tls import Handshake

    serving = running_tasks().spawn(
        context.wrap_connected_async(made.server, Handshake.AS_SERVER), "wireline-pair"
    )
    try:
        await context.wrap_connected_async(made.client, Handshake.AS_CLIENT, _NAME, limit)
    except BaseException:
        made.server.close()
        with contextlib.suppress(OSError):
            await serving
        raise
    await serving
