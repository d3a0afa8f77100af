"""Datagrams of the blocking flavour."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.sizes import check_size
from wireline._os import datagram as _datagram
from wireline._os.datagram import Datagram, ReceivedInto
from wireline._os.descriptor import is_readable
from wireline._os.passed_fds import Ancillary, PassedFds, ReceivedFds, send_first
from wireline._socket_base import BaseSocket, require_peer
from wireline.errors import SockAddr
from wireline.net._fd_guard import ALONE, FdGuard, Use
from wireline.net._poll import start_deadline
from wireline.net._retry import until_ready, wait_until
from wireline.options import DONT_WAIT, NO_SIGNAL, SAFE_DISCONN, SocketFlag, check_flags
from wireline.timing import Timeout

__all__ = ["DatagramIO"]

T = TypeVar("T")


class DatagramIO:
    """What threads do with a datagram socket. As of ``StreamIO``, the socket is an argument of the calls."""

    __slots__ = ("_arrived", "_fd")

    def __init__(self, fd: FdGuard) -> None:
        self._fd = fd
        self._arrived: list[tuple[Any, ...]] = []  # a datagram that the system gave, and no caller has

    def receive(
        self, owner: BaseSocket, operation: str, size: int, flags: SocketFlag, timeout: Timeout
    ) -> Datagram:
        """Receive one datagram, cut to ``size``."""
        return self._receive(owner, operation, check_size(size), flags, timeout, _datagram.make_datagram)

    def receive_into(
        self, owner: BaseSocket, operation: str, target: memoryview, flags: SocketFlag, timeout: Timeout
    ) -> ReceivedInto:
        """Receive one datagram into ``target``."""

        def put(*datagram: *_datagram.RawDatagram) -> ReceivedInto:
            return _datagram.store_datagram(target, *datagram)

        return self._receive(owner, operation, len(target), flags, timeout, put)

    def receive_fds(self, owner: BaseSocket, size: int, max_fds: int, timeout: Timeout) -> ReceivedFds:
        """Receive one datagram, cut to ``size``, with its descriptors."""
        passed = self._fd.passed
        if passed is None:
            passed = self._fd.passed = PassedFds(self._fd.sock, self._arrived)

        def make(data: bytes, _: bool, __: SockAddr | None) -> ReceivedFds:
            kept = passed.trim_datagram(max_fds)
            return ReceivedFds(data, list(kept.fds), kept.truncated)

        return self._receive(owner, "recv_fds", size, SAFE_DISCONN, timeout, make, with_fds=True)

    def _receive(
        self,
        owner: BaseSocket,
        operation: str,
        size: int,
        flags: SocketFlag,
        timeout: Timeout,
        make: Callable[[*_datagram.RawDatagram], T],
        *,
        with_fds: bool = False,
    ) -> T:
        """Receive one datagram. It lies in ``_arrived`` until the caller has it: an exception loses nothing."""
        check_flags(flags)
        deadline = start_deadline(check_timeout(timeout))
        guard = self._fd
        arrived = self._arrived
        use = Use(guard, operation, alone=True)
        sock = use.__enter__()
        try:
            peeks = SocketFlag.PEEK in flags
            if not arrived:
                if peeks:
                    arrived = []  # it stays in the kernel
                os_flags = flags.to_os_flags() | DONT_WAIT
                until_ready(
                    owner,
                    guard,
                    operation,
                    deadline,
                    lambda: _datagram.receive_raw(sock, size, os_flags, arrived, with_fds=with_fds),
                )
            elif guard.passed is not None and not with_fds and not peeks:
                guard.passed.trim_datagram(0)  # a `recv_fds` that was interrupted has left them
            result = make(*_datagram.parse_raw(arrived[0], size))
        except BaseException:
            use.__exit__(None, None, None)
            raise
        # From here to the `return` there is no place for a signal handler: so this is `use.__exit__`, without the call.
        if not peeks:
            del arrived[0]
        if ALONE in guard.alone and guard.alone[ALONE] is use:
            del guard.alone[ALONE]
        if use in guard.users:
            del guard.users[use]
        if guard.closing:
            guard.close_if_unused()
        return result

    def wait_readable(self, owner: BaseSocket, timeout: Timeout) -> None:
        """Wait until there is a datagram, or an error."""

        def is_here(sock: socket.socket) -> bool:
            return bool(self._arrived) or is_readable(sock)

        wait_until(owner, self._fd, "wait_readable", is_here, timeout, alone=True)

    def send(
        self, owner: BaseSocket, operation: str, payload: bytes | memoryview, deadline: CallDeadline | None
    ) -> int:
        """Send one datagram to the peer of a connected socket."""
        with Use(self._fd, operation) as sock:
            require_peer(self._fd.state, operation)
            return until_ready(
                owner, self._fd, operation, deadline, lambda: sock.send(payload, NO_SIGNAL), write=True
            )

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
                return sum(send_first(sock, payload, ancillary, NO_SIGNAL))

            return until_ready(owner, self._fd, "send_fds", deadline, attempt, write=True)

    def send_to(
        self, owner: BaseSocket, payload: bytes | memoryview, target: SockAddr, deadline: CallDeadline | None
    ) -> int:
        """Send one datagram to an address."""
        sock = self._fd.sock
        return until_ready(
            owner, self._fd, "send_to", deadline, lambda: sock.sendto(payload, target), write=True
        )
