"""The async flavour, as the scenarios run on it: on asyncio's loop, on uvloop's, and in the portable way.

Its sockets are awaited already, so they need no face.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock

from wireline import RelayReport, asyncnet
from wireline.asyncnet import AsyncSocket, _asyncio


class Asynchronous:
    """``wireline.asyncnet``."""

    socket_type = AsyncSocket

    def __init__(self, name: str, *, uvloop: bool = False, portable: bool = False) -> None:
        self.name = name
        self.backend = ("asyncio", {"use_uvloop": uvloop})
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


ASYNCHRONOUS = (
    Asynchronous("asyncio"),
    Asynchronous("uvloop", uvloop=True),
    Asynchronous("portable", portable=True),
)
