"""How an async socket sends and receives datagrams."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import TypeVar

from wireline._core.deadline import CallDeadline
from wireline._os import datagram as _datagram
from wireline._os.datagram import Datagram, ReceivedInto
from wireline.asyncnet._fd_on_loop import FdOnLoop
from wireline.asyncnet._operations import ReceiveDatagram, SendDatagram, WeakAnnotator
from wireline.errors import BusyError, SockAddr, SocketTimeout
from wireline.options import AF_UNIX, SocketFlag

__all__ = ["DatagramIO"]

T = TypeVar("T")


class DatagramIO:
    """The datagrams of one socket. The socket has checked the arguments, and belongs to its loop."""

    __slots__ = ("_annotator", "_fd")

    def __init__(self, fd: FdOnLoop, annotator: WeakAnnotator) -> None:
        self._fd = fd
        self._annotator = annotator

    async def send(
        self,
        operation: str,
        payload: bytes | memoryview,
        target: SockAddr | None,
        deadline: CallDeadline | None,
    ) -> int:
        """Send one datagram, to the connected peer if ``target`` is None; return its size."""
        send = SendDatagram(self._fd.sock, payload, target)
        await self._fd.spend_budget()
        self._fd.raise_if_closed(operation)
        try:
            with contextlib.suppress(BlockingIOError):
                return send.try_once()
            if self._fd.sock.family == AF_UNIX:
                # It is writable even if the queue of the receiver is full.
                return await self._fd.retry_with_backoff(send, operation, deadline)
            return await self._fd.open_write_queue().wait(send, operation, deadline)
        except SocketTimeout as error:
            raise SocketTimeout(operation, error.seconds, 0) from None
        except OSError as error:
            self._fd.raise_if_closed(operation)
            raise self._annotator.annotate(error, operation) from error.__cause__

    async def receive(
        self, operation: str, size: int, flags: SocketFlag, deadline: CallDeadline | None
    ) -> Datagram:
        """Receive one datagram, cut to ``size`` bytes."""
        return await self._receive(
            operation,
            flags,
            deadline,
            lambda sock: _datagram.receive(sock, size, flags),
            lambda data, sender: _datagram.truncate(data, sender, size),
        )

    async def receive_into(
        self, operation: str, target: memoryview, flags: SocketFlag, deadline: CallDeadline | None
    ) -> ReceivedInto:
        """Receive one datagram into a buffer."""
        return await self._receive(
            operation,
            flags,
            deadline,
            lambda sock: _datagram.receive_into(sock, target, flags),
            lambda data, sender: _datagram.truncate_into(data, sender, target),
        )

    async def _receive(
        self,
        operation: str,
        flags: SocketFlag,
        deadline: CallDeadline | None,
        receive: Callable[[socket.socket], T],
        finish: Callable[[bytes, SockAddr], T],
    ) -> T:
        fd = self._fd
        await fd.spend_budget()
        fd.raise_if_closed(operation)
        queue = fd.open_read_queue()
        if queue.busy:
            raise BusyError(f"{operation}: another task is using this socket")
        datagram = ReceiveDatagram(fd.sock, receive, finish)
        try:
            if fd.port.completions is not None and SocketFlag.PEEK in flags:
                # An operation of the loop takes the datagram out of the kernel: it cannot leave it for the next call.
                return await fd.retry_with_backoff(datagram, operation, deadline)
            return await queue.perform(datagram, operation, deadline)
        except OSError as error:
            raise self._annotator.annotate(error, operation) from error.__cause__
