"""Connected sockets, for tests: both ends in this process."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from wireline import AF_INET, AF_INET6
from wireline.net import Socket

if TYPE_CHECKING:
    from wireline.asyncnet import AsyncSocket
    from wireline.tls import SslContext

__all__ = ["AsyncPair", "Kind", "Pair", "async_pair", "pair"]

Kind = Literal["tcp", "tcp6", "unix", "tls"]

# Seconds that both ends get for the handshake. A guess: it is a matter of milliseconds.
_PATIENCE = 10.0

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


def pair(kind: Kind = "tcp", *, tls: SslContext | None = None, buffered: bool = True) -> Pair:
    """Make two connected sockets of the blocking flavour.

    Args:
        kind: ``"tcp"`` and ``"tcp6"`` are connections of the loopback interface, ``"unix"`` is a pair of Unix
            sockets, ``"tls"`` is TLS over TCP, and the handshake is done.
        tls: for ``"tls"``, the configuration of both ends; the server's name is ``localhost``. Without it one of a
            `ThrowawayCA`, which needs the package ``trustme``.
        buffered: as of ``Socket``.

    Raises:
        ValueError: there is no such kind, or ``tls`` is not for it.
        OSError: there is no descriptor, or no such address, to be had; or the handshake failed.
        ImportError: ``trustme`` is not installed.
    """
    context = _context(kind, tls)
    client, server = _raw_pair(kind)
    made = Pair(Socket.from_socket(client, buffered=buffered), Socket.from_socket(server, buffered=buffered))
    if context is not None:
        try:
            _shake_hands(made, context)
        except BaseException:
            made.__exit__(None, None, None)
            raise
    return made


async def async_pair(
    kind: Kind = "tcp", *, tls: SslContext | None = None, buffered: bool = True
) -> AsyncPair:
    """Make two connected sockets of the async flavour: ``async with await async_pair() as (client, server):``.

    Args:
        kind: as for ``pair``.
        tls: as for ``pair``.
        buffered: as of ``AsyncSocket``.

    Raises:
        ValueError, OSError, ImportError: as for ``pair``.
    """
    # Who tests the blocking flavour loads no asyncio.
    from wireline.asyncnet import AsyncSocket

    context = _context(kind, tls)
    client, server = _raw_pair(kind)
    made = AsyncPair(
        AsyncSocket.from_socket(client, buffered=buffered),
        AsyncSocket.from_socket(server, buffered=buffered),
    )
    if context is not None:
        try:
            await _shake_hands_async(made, context)
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
            raise ValueError(f"tls= is for pair('tls'), and this is {kind!r}")
        return None
    return tls or _throwaway_context()


@functools.cache
def _throwaway_context() -> SslContext:
    from wireline.testing._certificates import ThrowawayCA

    return ThrowawayCA().context()


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
            server.close()  # somebody else on this machine has found the port


def _shake_hands(made: Pair, context: SslContext) -> None:
    from wireline.tls import Handshake

    failures: list[Exception] = []

    def serve() -> None:
        try:
            context.wrap_connected_socket(made.server, Handshake.AS_SERVER, timeout=_PATIENCE)
        except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread
            failures.append(error)
            # Its own end: the client then ends by what it was told, an alert or the end of the stream. Closing the
            # client's would put "closed while it waited" in the place of what the client found wrong itself.
            made.server.close()

    thread = threading.Thread(target=serve, name="wireline-pair", daemon=True)
    thread.start()
    try:
        context.wrap_connected_socket(made.client, Handshake.AS_CLIENT, _NAME, _PATIENCE)
    except BaseException:
        made.server.close()
        raise
    finally:
        thread.join()
    for failure in failures:
        raise failure


async def _shake_hands_async(made: AsyncPair, context: SslContext) -> None:
    from wireline.asyncnet._port import running_tasks
    from wireline.tls import Handshake

    serving = running_tasks().spawn(
        context.wrap_connected_async(made.server, Handshake.AS_SERVER, timeout=_PATIENCE), "wireline-pair"
    )
    try:
        await context.wrap_connected_async(made.client, Handshake.AS_CLIENT, _NAME, _PATIENCE)
    except BaseException:
        made.server.close()
        with contextlib.suppress(OSError):
            await serving
        raise
    await serving
