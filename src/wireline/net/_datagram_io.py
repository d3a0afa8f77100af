"""Datagrams of the blocking flavour.

Each call registers with the ``FdGuard``, as ``Use`` does, but in its own lines: a context manager takes as long as to
receive a datagram. A receiving call ends without a call of Python between the result and the ``return``: a signal
handler that raises there would lose a datagram (``_os.inbox``).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TypeVar

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.sizes import check_size
from wireline._os.datagram import Datagram, Raw, ReceivedInto, store_datagram
from wireline._os.descriptor import is_readable
from wireline._os.inbox import Inbox
from wireline._os.outbox import Batch, Outgoing, Targets, check_outgoing, is_refusal
from wireline._os.passed_fds import Ancillary, PassedFds, ReceivedFds, send_first
from wireline._socket_base import BaseSocket, require_peer
from wireline._stream_common import NOW
from wireline._validation import check_peer_arguments
from wireline.address import IpAddress
from wireline.errors import ClosedError, SockAddr
from wireline.net._connect import resolve
from wireline.net._fd_guard import ALONE, FdGuard, Use
from wireline.net._poll import start_deadline
from wireline.net._retry import described, retry_when_ready, until_ready, wait_until
from wireline.options import DEFAULT_FLAGS, SocketFlag, check_flags
from wireline.timing import Timeout

__all__ = ["DatagramIO"]

T = TypeVar("T")
R = TypeVar("R")


class DatagramIO:
    """What threads do with a datagram socket. As of ``StreamIO``, the socket is an argument of the calls.

    Attributes:
        inbox: receives, and keeps what the system has given and no caller has.
        sent: bytes of payload.
    """

    __slots__ = ("_fd", "_targets", "inbox", "sent")

    def __init__(self, fd: FdGuard) -> None:
        self._fd = fd
        self._targets = Targets()
        self.inbox = Inbox()
        self.sent = 0

    # Receiving.

    def receive(
        self,
        owner: BaseSocket,
        operation: str,
        size: int,
        flags: SocketFlag,
        timeout: Timeout,
        make: Callable[[Raw, int], T],
    ) -> T:
        """Receive one datagram, cut to ``size``, and ``make`` the result of it."""
        if type(size) is not int or size < 0:
            size = check_size(size)
        if timeout is not None:
            timeout = check_timeout(timeout)
        take = self.inbox.take
        if flags is not DEFAULT_FLAGS:
            check_flags(flags)
            if SocketFlag.PEEK in flags:
                take = self.inbox.peek
        return self._take_alone(owner, operation, timeout, take, size, make)

    def receive_into(
        self, owner: BaseSocket, operation: str, target: memoryview, flags: SocketFlag, timeout: Timeout
    ) -> ReceivedInto:
        """Receive one datagram into ``target``."""

        def store(raw: Raw, size: int) -> ReceivedInto:
            return store_datagram(target, raw, size)

        return self.receive(owner, operation, len(target), flags, timeout, store)

    def receive_many(
        self, owner: BaseSocket, operation: str, size: int, count: int, timeout: Timeout
    ) -> list[Datagram]:
        """Receive the datagrams that have arrived, cut to ``size`` and at most ``count``; wait for the first."""
        inbox = self.inbox

        def take(sock: socket.socket, size: int, make: Callable[[Raw, int], Datagram]) -> list[Datagram]:
            return inbox.take_many(sock, size, count, make)

        return self._take_alone(owner, operation, check_timeout(timeout), take, size, inbox.make)

    def receive_fds(self, owner: BaseSocket, size: int, max_fds: int, timeout: Timeout) -> ReceivedFds:
        """Receive one datagram, cut to ``size``, with its descriptors."""
        inbox = self.inbox
        if inbox.passed is None:
            inbox.passed = self._fd.passed = PassedFds(self._fd.sock)

        def take(sock: socket.socket, size: int, _: Callable[[Raw, int], Datagram]) -> ReceivedFds:
            return inbox.take_fds(sock, size, max_fds)

        return self._take_alone(owner, "recv_fds", check_timeout(timeout), take, size, inbox.make)

    def wait_readable(self, owner: BaseSocket, timeout: Timeout) -> None:
        """Wait until there is a datagram, or an error."""

        def is_here(sock: socket.socket) -> bool:
            return self.inbox.has_kept or is_readable(sock)

        wait_until(owner, self._fd, "wait_readable", is_here, timeout, alone=True)

    def _take_alone(
        self,
        owner: BaseSocket,
        operation: str,
        timeout: float | None,
        take: Callable[[socket.socket, int, Callable[[Raw, int], T]], R],
        size: int,
        make: Callable[[Raw, int], T],
    ) -> R:
        """Repeat ``take`` until it need not wait, as the only call that receives or connects."""
        guard = self._fd
        users, alone = guard.users, guard.alone
        use = object()
        try:
            users[use] = None
            if guard.closing or alone.setdefault(ALONE, use) is not use:
                guard.enter_alone(use, operation)
            blocked = False
            try:
                result = take(guard.sock, size, make)
            except BlockingIOError:
                blocked = True
            except OSError as error:
                raise described(error, operation, owner) from error.__cause__
            if blocked:
                result = self._wait(owner, operation, timeout, take, size, make)
        except BaseException:
            guard.leave(use)
            raise
        # From here to the `return` there is no place for a signal handler: so this is `leave`, without the call.
        if ALONE in alone and alone[ALONE] is use:
            del alone[ALONE]
        if use in users:
            del users[use]
        if guard.closing:
            guard.close_if_unused()
        return result  # pyright: ignore[reportPossiblyUnboundVariable, reportReturnType] # `blocked` tells

    def _wait(
        self,
        owner: BaseSocket,
        operation: str,
        timeout: float | None,
        take: Callable[[socket.socket, int, Callable[[Raw, int], T]], R],
        size: int,
        make: Callable[[Raw, int], T],
    ) -> R:
        """Wait until ``take`` finds a datagram. In the method above the closure would make each access slower."""
        sock = self._fd.sock
        deadline = start_deadline(timeout)
        return retry_when_ready(owner, self._fd, operation, deadline, lambda: take(sock, size, make))

    # Sending.

    def send(self, owner: BaseSocket, operation: str, payload: bytes | memoryview, timeout: Timeout) -> int:
        """Send one datagram to the peer of a connected socket."""
        deadline = None if timeout is None else start_deadline(check_timeout(timeout))
        guard = self._fd
        use = object()
        try:
            guard.users[use] = None
            if guard.closing:
                raise ClosedError(f"{operation}: the socket is closed")
            require_peer(guard.state, operation)
            sock = guard.sock
            sent = self._send(owner, operation, deadline, lambda: sock.send(payload, NOW))
            self.sent += sent
            return sent
        finally:
            guard.leave(use)

    def send_fds(
        self,
        owner: BaseSocket,
        payload: bytes | memoryview,
        ancillary: Ancillary,
        deadline: CallDeadline | None,
    ) -> int:
        """Send one datagram with descriptors to the peer of a connected socket."""
        with Use(self._fd, "send_fds") as sock:
            require_peer(self._fd.state, "send_fds")

            def attempt() -> int:
                return sum(send_first(sock, payload, ancillary, NOW))

            sent = self._send(owner, "send_fds", deadline, attempt)
            self.sent += sent
            return sent

    def send_to(
        self,
        owner: BaseSocket,
        address: str | IpAddress,
        port: int,
        payload: bytes | memoryview,
        timeout: float | None,
    ) -> int:
        """Send one datagram to an address, or to the first address of a name."""
        deadline = start_deadline(timeout)
        guard = self._fd
        use = object()
        try:
            guard.users[use] = None
            if guard.closing:
                raise ClosedError("send_to: the socket is closed")
            sock = guard.sock
            target = self._targets.find(sock, address, port)
            if target is None:
                target = self._resolve(owner, "send_to", address, port, deadline)
            sent = self._send(owner, "send_to", deadline, lambda: sock.sendto(payload, NOW, target))
            self.sent += sent
            return sent
        finally:
            guard.leave(use)

    def send_many_to(self, owner: BaseSocket, datagrams: Iterable[Outgoing], timeout: Timeout) -> int:
        """Send several datagrams; return how many were sent."""
        deadline = start_deadline(check_timeout(timeout))
        with Use(self._fd, "send_many_to") as sock:
            outgoing = check_outgoing(sock, self._targets, datagrams)
            found = [self._targets.find(sock, address, port) for _, address, port in outgoing]
            targets = [
                target or self._resolve(owner, "send_many_to", address, port, deadline)
                for target, (_, address, port) in zip(found, outgoing, strict=True)
            ]
            batch = Batch(sock, [payload for payload, _, _ in outgoing], targets)
            try:
                while batch.next is not None:
                    self._send(owner, "send_many_to", deadline, batch.send_chunk)
            except OSError as error:
                if not batch.sent or isinstance(error, ClosedError):
                    raise
                if is_refusal(error, sock):
                    self.inbox.put_error(error)
            finally:
                owner.last_bytes_sent = sum(batch.sent)
                self.sent += owner.last_bytes_sent
        return len(batch.sent)

    def _resolve(
        self,
        owner: BaseSocket,
        operation: str,
        address: str | IpAddress,
        port: int,
        deadline: CallDeadline | None,
    ) -> SockAddr:
        return resolve(owner, self._fd, operation, *check_peer_arguments(address, port), deadline)[0][4]

    def _send(
        self, owner: BaseSocket, operation: str, deadline: CallDeadline | None, attempt: Callable[[], T]
    ) -> T:
        """Repeat ``attempt`` until it need not wait."""
        return until_ready(owner, self._fd, operation, deadline, attempt, write=True)
