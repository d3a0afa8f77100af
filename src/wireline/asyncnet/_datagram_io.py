"""How an async socket sends and receives datagrams.

A datagram that has arrived, or that may be sent at once, passes through plain functions only (``receive_now``,
``send_now``): a coroutine takes as long as half a system call. The budget of the loop counts it all the same.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.sizes import check_size
from wireline._os.datagram import Datagram, Raw, ReceivedInto, data_of, store_datagram
from wireline._os.descriptor import State
from wireline._os.inbox import ANY_DATAGRAM, Inbox
from wireline._os.outbox import Batch, Outgoing, Targets, check_outgoing, is_refusal
from wireline._os.passed_fds import Ancillary, PassedFds, ReceivedFds
from wireline._socket_base import BaseSocket, annotated, require_open, require_peer
from wireline._stream_common import NOW
from wireline._validation import check_peer_arguments
from wireline.address import IpAddress
from wireline.asyncnet._connect import resolve
from wireline.asyncnet._fd_on_loop import FdOnLoop
from wireline.asyncnet._operations import ReceiveDatagrams, SendDatagram, SendFds
from wireline.errors import BusyError, ClosedError, SockAddr, SocketTimeout
from wireline.options import AF_UNIX, DEFAULT_FLAGS, SocketFlag, check_flags
from wireline.timing import Timeout

__all__ = ["DatagramIO"]

T = TypeVar("T")


class DatagramIO:
    """The datagrams of one socket. As of ``StreamIO``, the socket is an argument of the calls.

    Attributes:
        inbox: receives, and keeps what the system has given and no caller has.
        sent: bytes of payload.
    """

    __slots__ = ("_fd", "_targets", "inbox", "sent")

    def __init__(self, fd: FdOnLoop) -> None:
        self._fd = fd
        self._targets = Targets()
        self.inbox = Inbox()
        self.sent = 0

    # Receiving.

    def receive_now(self, owner: BaseSocket, operation: str, size: int) -> Datagram | None:
        """Receive one datagram, cut to ``size``, in a plain call; None if the call may have to wait, or is refused."""
        fd = self._fd
        port = fd.port
        left = port.budget
        queue = fd.read_queue
        if (
            left <= 0
            or type(size) is not int
            or size < 0
            or fd.write_lock.closed
            or port.loop is not port.running_loop()
            or (queue is not None and (queue.busy or queue.in_flight))
        ):
            return None
        port.budget = left - 1
        inbox = self.inbox
        try:
            return inbox.take(fd.sock, size, inbox.make)
        except BlockingIOError:
            return None
        except OSError as error:
            fd.raise_if_closed(operation)
            raise annotated(error, operation, owner) from error.__cause__

    async def receive(
        self, owner: BaseSocket, operation: str, size: int, flags: SocketFlag, timeout: Timeout
    ) -> Datagram:
        """Receive one datagram, cut to ``size`` bytes."""
        return await self._receive_one(owner, operation, size, flags, timeout, self.inbox.make)

    async def receive_data(
        self, owner: BaseSocket, operation: str, size: int, flags: SocketFlag, timeout: Timeout
    ) -> bytes:
        """Receive the data of one datagram, cut to ``size`` bytes."""
        return await self._receive_one(owner, operation, size, flags, timeout, data_of)

    async def receive_into(
        self, owner: BaseSocket, operation: str, target: memoryview, flags: SocketFlag, timeout: Timeout
    ) -> ReceivedInto:
        """Receive one datagram into a buffer."""
        store = functools.partial(store_datagram, target)
        return await self._receive_one(owner, operation, len(target), flags, timeout, store)

    async def receive_many(
        self, owner: BaseSocket, operation: str, size: int, count: int, timeout: Timeout
    ) -> list[Datagram]:
        """Receive the datagrams that have arrived, cut to ``size`` and at most ``count``; wait for the first."""
        inbox = self.inbox
        sock = self._fd.sock
        received = await self._receive(
            owner, operation, DEFAULT_FLAGS, timeout, lambda: inbox.take_many(sock, size, count, inbox.make)
        )
        self._fd.port.budget -= len(received)
        return received

    async def receive_fds(self, owner: BaseSocket, size: int, max_fds: int, timeout: Timeout) -> ReceivedFds:
        """Receive one datagram, cut to ``size`` bytes, with its descriptors."""
        inbox = self.inbox
        sock = self._fd.sock
        if inbox.passed is None:
            inbox.passed = self._fd.passed = PassedFds(sock)
        # An operation of the loop drops the descriptors.
        return await self._receive(
            owner, "recv_fds", DEFAULT_FLAGS, timeout, lambda: inbox.take_fds(sock, size, max_fds)
        )

    def try_receive(self, owner: BaseSocket, operation: str, size: int) -> bytes | None:
        """Receive the data of one datagram, cut to ``size`` bytes; None if none has arrived."""
        require_open(owner, operation)
        fd = self._fd
        fd.enter(owner)
        queue = fd.open_read_queue()
        if queue.busy:
            raise BusyError(f"{operation}: another task is using this socket")
        orphan = queue.take_orphan()
        try:
            if orphan is not None:
                self.inbox.put(cast("tuple[bytes, SockAddr]", orphan.result()), ANY_DATAGRAM)
            return None if queue.in_flight else self.inbox.take(fd.sock, size, data_of)
        except BlockingIOError:
            return None
        except OSError as error:
            raise annotated(error, operation, owner) from error.__cause__

    async def _receive_one(
        self,
        owner: BaseSocket,
        operation: str,
        size: int,
        flags: SocketFlag,
        timeout: Timeout,
        make: Callable[[Raw, int], T],
    ) -> T:
        size = check_size(size)
        check_flags(flags)
        sock = self._fd.sock
        take = self.inbox.peek if SocketFlag.PEEK in flags else self.inbox.take
        return await self._receive(owner, operation, flags, timeout, lambda: take(sock, size, make))

    async def _receive(
        self,
        owner: BaseSocket,
        operation: str,
        flags: SocketFlag,
        timeout: Timeout,
        take: Callable[[], T],
    ) -> T:
        fd = self._fd
        deadline = await fd.begin(owner, operation, timeout)
        queue = fd.open_read_queue()
        if queue.busy:
            raise BusyError(f"{operation}: another task is using this socket")
        receive = ReceiveDatagrams(fd.sock, self.inbox, take)
        try:
            if fd.port.completions is not None and (SocketFlag.PEEK in flags or self.inbox.packet_info):
                # An operation of the loop takes the datagram out of the kernel, without its packet information: it
                # cannot leave it for the next call.
                return await fd.retry_with_backoff(receive, operation, deadline)
            return await queue.perform(receive, operation, deadline)
        except OSError as error:
            raise annotated(error, operation, owner) from error.__cause__

    # Sending.

    def send_now(
        self, owner: BaseSocket, address: str | IpAddress, port: int, payload: bytes | memoryview
    ) -> int | None:
        """Send one datagram in a plain call; None if the call may have to wait, or is refused."""
        fd = self._fd
        loop_port = fd.port
        left = loop_port.budget
        if left <= 0 or fd.write_lock.closed or loop_port.loop is not loop_port.running_loop():
            return None
        target = self._targets.find(fd.sock, address, port)
        if target is None:
            return None
        loop_port.budget = left - 1
        try:
            sent = fd.sock.sendto(payload, NOW, target)
            self.sent += sent
            return sent
        except BlockingIOError:
            return None
        except OSError as error:
            fd.raise_if_closed("send_to")
            raise annotated(error, "send_to", owner) from error.__cause__

    async def send(
        self, owner: BaseSocket, operation: str, payload: bytes | memoryview, timeout: Timeout
    ) -> int:
        """Send one datagram to the peer of a connected socket; return its size."""
        require_open(owner, operation)
        self._fd.enter(owner)
        require_peer(self._fd.state, operation)
        deadline = self._fd.deadline(owner, check_timeout(timeout))
        sent = await self._send(owner, operation, payload, None, deadline)
        self.sent += sent
        return sent

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
            sent = await fd.try_or_wait(SendFds(fd.sock, payload, ancillary), "send_fds", deadline)
            self.sent += sent
            return sent
        except SocketTimeout as error:
            raise SocketTimeout("send_fds", error.seconds, 0) from None
        except OSError as error:
            fd.raise_if_closed("send_fds")
            raise annotated(error, "send_fds", owner) from error.__cause__

    async def send_to(
        self,
        owner: BaseSocket,
        address: str | IpAddress,
        port: int,
        payload: bytes | memoryview,
        timeout: float | None,
    ) -> int:
        """Send one datagram to an address, or to the first address of a name; return its size."""
        require_open(owner, "send_to")
        fd = self._fd
        fd.enter(owner)
        deadline = fd.deadline(owner, timeout)
        target = self._targets.find(fd.sock, address, port)
        if target is None:
            target = await self._resolve(owner, "send_to", address, port, deadline)
        sent = await self._send(owner, "send_to", payload, target, deadline)
        self.sent += sent
        return sent

    async def send_many_to(self, owner: BaseSocket, datagrams: Iterable[Outgoing], timeout: Timeout) -> int:
        """Send several datagrams; return how many were sent."""
        fd = self._fd
        outgoing = check_outgoing(fd.sock, self._targets, datagrams)
        fd.enter(owner)
        deadline = fd.deadline(owner, check_timeout(timeout))
        found = [self._targets.find(fd.sock, address, port) for _, address, port in outgoing]
        targets = [
            target or await self._resolve(owner, "send_many_to", address, port, deadline)
            for target, (_, address, port) in zip(found, outgoing, strict=True)
        ]
        batch = Batch(fd.sock, [payload for payload, _, _ in outgoing], targets)
        try:
            while (following := batch.next) is not None:
                await self._send_some(owner, batch, *following, deadline)
        except OSError as error:
            if not batch.sent or isinstance(error, ClosedError):
                raise
            if is_refusal(error, fd.sock):
                self.inbox.put_error(error)
        finally:
            owner.last_bytes_sent = sum(batch.sent)
            self.sent += owner.last_bytes_sent
        return len(batch.sent)

    async def _send_some(
        self,
        owner: BaseSocket,
        batch: Batch,
        payload: bytes | memoryview,
        target: SockAddr,
        deadline: CallDeadline | None,
    ) -> None:
        """Send some of a batch: what can be sent at once, or else its next datagram, which is given."""
        fd = self._fd
        await fd.spend_budget()
        fd.raise_if_closed("send_many_to")
        before = len(batch.sent)
        try:
            batch.send_chunk()
        except BlockingIOError:
            batch.sent.append(await self._send(owner, "send_many_to", payload, target, deadline))
        except OSError as error:
            fd.raise_if_closed("send_many_to")
            raise annotated(error, "send_many_to", owner) from error.__cause__
        fd.port.budget -= len(batch.sent) - before - 1

    async def _resolve(
        self,
        owner: BaseSocket,
        operation: str,
        address: str | IpAddress,
        port: int,
        deadline: CallDeadline | None,
    ) -> SockAddr:
        peer = check_peer_arguments(address, port)
        return (await resolve(owner, self._fd, operation, *peer, deadline))[0][4]

    async def _send(
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

    def try_send(self, payload: bytes | memoryview) -> int:
        """Send one datagram to the peer of a connected socket without waiting; return its size, or 0."""
        if self._fd.state is not State.CONNECTED:
            return 0
        with contextlib.suppress(OSError):
            return self._send_now(payload)
        return 0

    def try_send_some(self, owner: BaseSocket, payload: bytes | memoryview) -> int:
        """Do the same, and raise the error of the system."""
        require_open(owner, "try_send_some")
        require_peer(self._fd.state, "try_send_some")
        try:
            return self._send_now(payload)
        except OSError as error:
            self._fd.raise_if_closed("try_send_some")
            raise annotated(error, "try_send_some", owner) from error.__cause__

    def _send_now(self, payload: bytes | memoryview) -> int:
        queue = self._fd.write_queue
        if queue is not None and queue.busy:
            return 0
        try:
            sent = self._fd.sock.send(payload, NOW)
        except BlockingIOError:
            return 0
        self.sent += sent
        return sent
