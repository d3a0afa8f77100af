"""The async flavour, as the scenarios run on it: on asyncio's loop, on uvloop's, in the portable way, and on trio.

Its sockets are awaited already, so they need no face.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock

from tests.scenarios import tasks
from wireline import RelayReport, asyncnet
from wireline.asyncnet import AsyncSocket, _asyncio


class Asynchronous:
    """``wireline.asyncnet``."""

    socket_type = AsyncSocket

    def __init__(self, name: str, *, uvloop: bool = False, portable: bool = False) -> None:
        self.name = name
        self.backend: tuple[str, dict[str, object]] = ("asyncio", {"use_uvloop": uvloop})
        self._portable = portable

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The setting of a running scenario."""
        with mock.patch.object(_asyncio, "FORCE_PORTABLE", self._portable):
            yield

    def socket(self, *args: Any, **options: Any) -> AsyncSocket:
        return AsyncSocket(*args, **options)

    def from_socket(self, sock: socket.socket, **options: Any) -> AsyncSocket:
        return AsyncSocket.from_socket(sock, **options)

    def from_fd(self, fd: int, *args: Any, **options: Any) -> AsyncSocket:
        return AsyncSocket.from_fd(fd, *args, **options)

    async def dial(self, *args: Any, **options: Any) -> AsyncSocket:
        return await asyncnet.dial(*args, **options)

    async def serve(self, handler: asyncnet.Handler, *args: Any, **options: Any) -> asyncnet.Server:
        return await asyncnet.serve(handler, *args, **options)

    async def relay(self, a: AsyncSocket, b: AsyncSocket, **options: Any) -> RelayReport:
        return await asyncnet.relay(a, b, **options)


class OnTrio(Asynchronous):
    """``wireline.asyncnet`` on trio, where a server lives in a block."""

    def __init__(self) -> None:
        super().__init__("trio")
        self.backend = ("trio", {})

    async def serve(self, handler: asyncnet.Handler, *args: Any, **options: Any) -> asyncnet.Server:
        """Serve in a task, whose block ends when the server is stopped."""
        started = tasks.current_loop().create_future()

        async def hold() -> None:
            try:
                async with asyncnet.serve(handler, *args, **options) as server:
                    started.set_result(server)
                    await server.wait()
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)

        tasks.ensure_future(hold())
        server: asyncnet.Server = await started
        return server


ASYNCHRONOUS = (
    Asynchronous("asyncio"),
    Asynchronous("uvloop", uvloop=True),
    Asynchronous("portable", portable=True),
    OnTrio(),
)
