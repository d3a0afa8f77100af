"""How an async socket sends and receives datagrams."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable
from typing import TypeVar, cast

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.sizes import check_size
from wireline._os import datagram as _datagram
from wireline._os.datagram import Datagram, ReceivedInto
from wireline._os.descriptor import State
from wireline._os.passed_fds import Ancillary, PassedFds, ReceivedFds
from wireline._socket_base import BaseSocket, annotated, require_open, require_peer
from wireline._stream_common import NOW
from wireline.asyncnet._fd_on_loop import FdOnLoop
from wireline.asyncnet._operations import ReceiveDatagram, SendDatagram, SendFds
from wireline.errors import BusyError, SockAddr, SocketTimeout
from wireline.options import AF_UNIX, DONT_WAIT, SAFE_DISCONN, SocketFlag, check_flags
from wireline.timing import Timeout

__all__ = ["DatagramIO"]

T = TypeVar("T")


class DatagramIO:
    """The datagrams of one socket. As of ``StreamIO``, the socket is an argument of the calls."""

    __slots__ = ("_fd",)

    def __init__(self, fd: FdOnLoop) -> None:
        self._fd = fd

    async def send(
        self, owner: BaseSocket, operation: str, payload: bytes | memoryview, timeout: Timeout
    ) -> int:
        """Send one datagram to the peer of a connected socket; return its size."""
        require_open(owner, operation)
        self._fd.enter(owner)
        require_peer(self._fd.state, operation)
        deadline = self._fd.deadline(owner, check_timeout(timeout))
        return await self.send_to(owner, operation, payload, None, deadline)

    async def send_to(
        self,
        owner: BaseSocket,
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
            raise annotated(error, operation, owner) from error.__cause__

    async def send_fds(
        self, owner: BaseSocket, payload: bytes | memoryview, ancillary: Ancillary, timeout: Timeout
    ) -> int:
        """Send one datagram with descriptors to the peer of a connected socket; return its size."""
        fd = self._fd
        fd.enter(owner)
        require_peer(fd.state, "send_fds")
        deadline = fd.deadline(owner, check_timeout(timeout))
        await fd.spend_budget()
        fd.raise_if_closed("send_fds")
        try:
            return await fd.try_or_wait(SendFds(fd.sock, payload, ancillary), "send_fds", deadline)
        except SocketTimeout as error:
            raise SocketTimeout("send_fds", error.seconds, 0) from None
        except OSError as error:
            fd.raise_if_closed("send_fds")
            raise annotated(error, "send_fds", owner) from error.__cause__

    def try_send(self, payload: bytes | memoryview) -> int | None:
        """Send one datagram to the peer of a connected socket without waiting; None if that is not possible."""
        queue = self._fd.write_queue
        if self._fd.state is not State.CONNECTED or (queue is not None and queue.busy):
            return None
        try:
            return self._fd.sock.send(payload, NOW)
        except OSError:
            return None

    async def receive(
        self, owner: BaseSocket, operation: str, size: int, flags: SocketFlag, timeout: Timeout
    ) -> Datagram:
        """Receive one datagram, cut to ``size`` bytes."""
        size = check_size(size)
        return await self._receive(
            owner,
            operation,
            flags,
            timeout,
            lambda sock: _datagram.receive(sock, size, flags),
            lambda data, sender: _datagram.truncate(data, sender, size),
        )

    async def receive_fds(self, owner: BaseSocket, size: int, max_fds: int, timeout: Timeout) -> ReceivedFds:
        """Receive one datagram, cut to ``size`` bytes, with its descriptors."""
        passed = self._fd.passed
        if passed is None:
            passed = self._fd.passed = PassedFds(self._fd.sock)
        return await self._receive(
            owner,
            "recv_fds",
            SAFE_DISCONN,
            timeout,
            functools.partial(_receive_fds, passed, size, max_fds),
            lambda data, _: ReceivedFds(
                data[:size], [], 0
            ),  # of a loop's own operation, which drops descriptors
        )

    def try_receive(self, owner: BaseSocket, operation: str, size: int) -> Datagram | None:
        """Receive one datagram, cut to ``size`` bytes; None if none has arrived."""
        require_open(owner, operation)
        fd = self._fd
        fd.enter(owner)
        queue = fd.open_read_queue()
        if queue.busy:
            raise BusyError(f"{operation}: another task is using this socket")
        orphan = queue.take_orphan()
        try:
            if orphan is not None:
                data, sender = cast("tuple[bytes, SockAddr]", orphan.result())
                return _datagram.truncate(data, sender, size)
            return None if queue.in_flight else _datagram.receive(fd.sock, size, SAFE_DISCONN)
        except BlockingIOError:
            return None
        except OSError as error:
            raise annotated(error, operation, owner) from error.__cause__

    async def receive_into(
        self, owner: BaseSocket, operation: str, target: memoryview, flags: SocketFlag, timeout: Timeout
    ) -> ReceivedInto:
        """Receive one datagram into a buffer."""
        return await self._receive(
            owner,
            operation,
            flags,
            timeout,
            lambda sock: _datagram.receive_into(sock, target, flags),
            lambda data, sender: _datagram.truncate_into(data, sender, target),
        )

    async def _receive(
        self,
        owner: BaseSocket,
        operation: str,
        flags: SocketFlag,
        timeout: Timeout,
        receive: Callable[[socket.socket], T],
        finish: Callable[[bytes, SockAddr], T],
    ) -> T:
        check_flags(flags)
        timeout = check_timeout(timeout)
        require_open(owner, operation)
        fd = self._fd
        fd.enter(owner)
        deadline = fd.deadline(owner, timeout)
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
            raise annotated(error, operation, owner) from error.__cause__


def _receive_fds(passed: PassedFds, size: int, max_fds: int, sock: socket.socket) -> ReceivedFds:
    """Receive one datagram with descriptors, without waiting; one that an exception has left comes first."""
    datagrams = passed.datagrams
    if not datagrams:
        _datagram.receive_raw(sock, size, DONT_WAIT, datagrams, with_fds=True)
    kept = passed.trim_datagram(max_fds)
    received = ReceivedFds(datagrams[0][0][:size], list(kept.fds), kept.truncated)
    del datagrams[0]  # from here to the `return` there is no place for a signal handler
    return received
