"""Datagrams of the blocking flavour."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.sizes import check_size
from wireline._os import datagram as _datagram
from wireline._os.datagram import Datagram, ReceivedInto
from wireline._os.descriptor import State
from wireline._socket_base import BaseSocket
from wireline.errors import SockAddr
from wireline.net._fd_guard import ALONE, FdGuard, Use
from wireline.net._poll import start_deadline
from wireline.net._retry import until_ready
from wireline.options import DONT_WAIT, NO_SIGNAL, SocketFlag, check_flags
from wireline.timing import Timeout

__all__ = ["DatagramIO"]

T = TypeVar("T")


class DatagramIO:
    """What threads do with a datagram socket. As of ``StreamIO``, the socket is an argument of the calls."""

    __slots__ = ("_arrived", "_fd", "received", "sent")

    def __init__(self, fd: FdGuard) -> None:
        self._fd = fd
        self.received = self.sent = 0  # bytes of payload, for `stats`
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

    def _receive(
        self,
        owner: BaseSocket,
        operation: str,
        size: int,
        flags: SocketFlag,
        timeout: Timeout,
        make: Callable[[*_datagram.RawDatagram], T],
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
                    lambda: _datagram.receive_raw(sock, size, os_flags, arrived),
                )
            raw = _datagram.parse_raw(arrived[0], size)
            received = 0 if peeks else len(raw[0])
            result = make(*raw)
        except BaseException:
            use.__exit__(None, None, None)
            raise
        # From here to the `return` there is no place for a signal handler: so this is `use.__exit__`, without the call.
        self.received += received
        if not peeks:
            del arrived[0]
        if ALONE in guard.alone and guard.alone[ALONE] is use:
            del guard.alone[ALONE]
        if use in guard.users:
            del guard.users[use]
        if guard.closing:
            guard.close_if_unused()
        return result

    def send(
        self, owner: BaseSocket, operation: str, payload: bytes | memoryview, deadline: CallDeadline | None
    ) -> int:
        """Send one datagram to the peer of a connected socket."""
        with Use(self._fd, operation) as sock:
            if self._fd.state is not State.CONNECTED:
                raise OSError(errno.EDESTADDRREQ, f"{operation}: the socket is unconnected, see send_to")
            sent = until_ready(
                owner, self._fd, operation, deadline, lambda: sock.send(payload, NO_SIGNAL), write=True
            )
            self.sent += sent
            return sent

    def send_to(
        self, owner: BaseSocket, payload: bytes | memoryview, target: SockAddr, deadline: CallDeadline | None
    ) -> int:
        """Send one datagram to an address."""
        sock = self._fd.sock
        sent = until_ready(
            owner, self._fd, "send_to", deadline, lambda: sock.sendto(payload, target), write=True
        )
        self.sent += sent
        return sent
