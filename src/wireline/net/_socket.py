"""The blocking flavour's socket: a stream, and what comes before it is one (connecting, accepting), and datagrams."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar, TypeVarTuple, cast

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.happy_eyeballs import AddrInfo
from wireline._core.stream import check_size
from wireline._os import datagram as _datagram
from wireline._os.datagram import Datagram, ReceivedInto
from wireline._os.descriptor import (
    CONNECTING,
    State,
    accept_now,
    is_failed_before_accept,
    reject_self_connect,
)
from wireline._os.resolver import resolve
from wireline._validation import Buffer, UnixPath, as_bytes_like, as_writable_view, check_peer_arguments
from wireline.address import Address, IpAddress, to_display_address, unix_path
from wireline.errors import SockAddr, SocketTimeout, WirelineError
from wireline.net._fd_guard import ALONE, Use
from wireline.net._poll import Latch, Readiness, start_deadline, wait_for_lookup
from wireline.net._stream import BlockingStream
from wireline.options import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    DONT_WAIT,
    NO_SIGNAL,
    SAFE_DISCONN,
    AcceptResult,
    SocketFlag,
    check_flags,
)

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["Accepted", "Socket"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# A Unix listener whose queue is full refuses a connect that may not wait, and no event tells when there is room.
# Seconds between two attempts; both are guesses: short beside a human, long beside a system call.
_UNIX_RETRY_FIRST, _UNIX_RETRY_LONGEST = 0.001, 0.05


class Socket(BlockingStream):
    """A blocking socket: TCP, UDP or Unix."""

    last_bytes_sent: int

    # Datagrams.

    def send_to(
        self,
        address: str | IpAddress,
        port: int,
        data: Buffer,
        flags: SocketFlag = SAFE_DISCONN,
        timeout: float | None = None,
    ) -> int:
        """Send one datagram.

        A timeout or a cancellation has sent nothing.

        Args:
            address: a name, of which the first address is used, or an address; on a Unix socket the path.
            port: 0 to 65535; not used on a Unix socket.
            data: ``bytes`` or another buffer, ``str`` is none. An empty one is a datagram too.
            flags: none makes a difference here.
            timeout: seconds for the whole call, finding the name included; None waits for ever, 0 never waits.

        Returns:
            How many bytes were sent: all of them.

        Raises:
            SocketTimeout: time ran out first.
            socket.gaierror: the name does not resolve.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: too large (``EMSGSIZE``), no route, or an earlier datagram was refused
                (``ConnectionRefusedError``); the socket keeps working.
            TypeError, ValueError: a stream socket; an argument is of the wrong type, or out of its range.
        """
        self.last_bytes_sent = 0
        payload = as_bytes_like(data)
        check_flags(flags)
        deadline = start_deadline(check_timeout(timeout))
        self._require("send_to", datagram=True)
        with self._use("send_to") as sock:
            target = self._destination(address, port, deadline)
            self.last_bytes_sent = sent = self._until_ready(
                "send_to", deadline, lambda: sock.sendto(payload, target), write=True
            )
        return sent

    def _destination(self, address: str | IpAddress, port: int, deadline: Deadline | None) -> SockAddr:
        """Where a datagram goes: a path, or the first address of the name."""
        if self._sock.family == AF_UNIX:
            return unix_path(str(address) if isinstance(address, IpAddress) else address)
        return self._resolve("send_to", *check_peer_arguments(address, port), deadline)[0][4]

    def recv_from(
        self, size: int, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> Datagram:
        """Receive one datagram and its sender.

        An empty datagram is a datagram, not an end. A timeout or a cancellation takes no datagram away.

        Args:
            size: bytes to keep of it at most; the rest of a larger one is gone, and ``truncated`` says so.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            A ``Datagram``: ``(data, address)``, and ``truncated``.

        Raises:
            SocketTimeout: time ran out before a datagram came.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or the like; the socket keeps
                working.
            TypeError, ValueError: a stream socket; an argument is of the wrong type, or negative.
        """
        return self._receive_one("recv_from", size, flags, timeout)

    def recv_from_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        flags: SocketFlag = SAFE_DISCONN,
        timeout: float | None = None,
    ) -> ReceivedInto:
        """Receive one datagram into the caller's buffer, as ``recv_from`` does.

        A timeout or a cancellation takes no datagram away and leaves the buffer as it was.

        Args:
            buffer: something writable and contiguous.
            size: bytes to keep of the datagram at most; None means the whole buffer.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            A ``ReceivedInto``: ``(size, address)``, and ``truncated``.

        Raises:
            SocketTimeout: time ran out before a datagram came.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or the like; the socket keeps
                working.
            TypeError: a stream socket, or the buffer cannot be written to.
            ValueError: ``size`` is negative or more than the buffer has, or ``timeout`` is negative.
        """
        return self._receive_into("recv_from_into", as_writable_view(buffer, size), flags, timeout)

    def _receive_one(self, operation: str, size: int, flags: SocketFlag, timeout: float | None) -> Datagram:
        size = check_size(size)
        return self._receive_datagram(operation, size, flags, timeout, _datagram.make_datagram)

    def _receive_into(
        self, operation: str, target: memoryview, flags: SocketFlag, timeout: float | None
    ) -> ReceivedInto:
        def put(*datagram: *_datagram.RawDatagram) -> ReceivedInto:
            return _datagram.store_datagram(target, *datagram)

        return self._receive_datagram(operation, len(target), flags, timeout, put)

    def _receive_datagram(
        self,
        operation: str,
        size: int,
        flags: SocketFlag,
        timeout: float | None,
        make: Callable[[*_datagram.RawDatagram], T],
    ) -> T:
        """Receive one datagram. It lies in ``_arrived`` until the caller has it: an exception loses nothing."""
        check_flags(flags)
        deadline = start_deadline(check_timeout(timeout))
        guard = self._guard
        arrived = self._arrived
        use = Use(guard, operation, alone=True)
        sock = use.__enter__()
        try:
            self._require(operation, datagram=True)
            peeks = SocketFlag.PEEK in flags
            if not arrived:
                if peeks:
                    arrived = []  # it stays in the kernel
                os_flags = flags.to_os_flags() | DONT_WAIT
                self._until_ready(
                    operation, deadline, lambda: _datagram.receive_raw(sock, size, os_flags, arrived)
                )
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

    def _send_datagram(self, operation: str, payload: bytes | memoryview, deadline: Deadline | None) -> int:
        with self._use(operation) as sock:
            if self._state is not State.CONNECTED:
                raise OSError(errno.EDESTADDRREQ, f"{operation}: the socket is unconnected, see send_to")
            return self._until_ready(operation, deadline, lambda: sock.send(payload, NO_SIGNAL), write=True)

    # Connecting.

    def connect(self, address: str | IpAddress, port: int = 0, timeout: float | None = None) -> None:
        """Connect to a host, to each of its addresses in turn until one answers.

        The addresses are those of the socket's own family; see ``dial`` for both, raced. A datagram socket sends
        nothing: it only learns whom ``send`` and ``recv`` are for. After an error, a timeout or a cancellation the
        socket is unconnected, keeps its options, and may be connected again.

        Args:
            address: a name or an address.
            port: 0 to 65535.
            timeout: seconds for the whole call, finding the name included; None waits for ever.

        Raises:
            SocketTimeout: time ran out first.
            socket.gaierror: the name does not resolve.
            BusyError: another thread or task is connecting this socket.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the last address's error (``ConnectionRefusedError``, ...), or the socket is connected or
                listening already.
            TypeError, ValueError: a Unix socket (see ``connect_unix``); an argument is of the wrong type, or out of
                its range.
        """
        host, port = check_peer_arguments(address, port)
        deadline = start_deadline(check_timeout(timeout))
        with self._alone("connect") as sock:
            if sock.family not in (AF_INET, AF_INET6):
                raise TypeError("connect needs an IP socket, this is a Unix socket: see connect_unix")
            self._may_connect("connect")
            secure = self._client_core(host, port)
            found = self._resolve("connect", host, port, deadline)
            self._connect_to_any("connect", [info[4] for info in found], secure, deadline)

    def connect_unix(self, path: UnixPath, timeout: float | None = None) -> None:
        """Connect to a Unix socket.

        After an error, a timeout or a cancellation the socket is unconnected and may be connected again.

        Args:
            path: a path, or on Linux an abstract name (a leading NUL).
            timeout: seconds for the whole call; None waits for ever.

        Raises:
            SocketTimeout: time ran out before the listener had room for one more.
            BusyError: another thread or task is connecting this socket.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: nobody listens there (``ConnectionRefusedError``), nothing is there (``FileNotFoundError``), or
                the socket is connected or listening already.
            TypeError, ValueError: an IP socket (see ``connect``); no path, an empty one or one that is too long.
        """
        where = unix_path(path)
        deadline = start_deadline(check_timeout(timeout))
        with self._alone("connect_unix") as sock:
            if sock.family != AF_UNIX:
                raise TypeError("connect_unix needs a Unix socket, this is an IP socket: see connect")
            self._may_connect("connect_unix")
            self._connect_to_any("connect_unix", [where], self._client_core("", 0), deadline)

    def _resolve(self, operation: str, host: str, port: int, deadline: Deadline | None) -> list[AddrInfo]:
        sock = self._sock
        lookup = resolve(host, port, sock.family, sock.type, sock.proto)
        found = wait_for_lookup(lookup, operation, deadline, self._guard.waker)
        self._raise_if_closed(operation)
        assert found is not None
        return found

    def _connect_to_any(
        self, operation: str, targets: Sequence[SockAddr], secure: TlsCore | None, deadline: Deadline | None
    ) -> None:
        """Try one address after the other, each on a fresh descriptor if the last one failed (C3)."""
        if self._spoiled:
            self._renew()
        target = targets[0]
        try:
            for position, target in enumerate(targets, 1):
                try:
                    self._connect_to(operation, target, deadline)
                    break
                except OSError as error:
                    error.add_note(f"while connecting to {target!r}")
                    # Without a number it is a signal handler's, which is not to be taken for the address's.
                    if position == len(targets) or isinstance(error, WirelineError) or error.errno is None:
                        raise
                    self._renew()
            self._connected(target, secure)
            if secure is not None:
                self._shake_hands_first(secure, operation, deadline)
        except BaseException:
            if not self._closing.locked():
                # What has failed is not fit for another try. Without a descriptor to be had that one begins with this.
                self._spoiled = True
                if (
                    self._state is State.CONNECTED
                ):  # an exception came when it was connected, and not returned yet
                    self._unconnected()
                with contextlib.suppress(OSError):
                    self._renew()
            raise

    def _connect_to(self, operation: str, target: SockAddr, deadline: Deadline | None) -> None:
        sock = self._sock
        pause = _UNIX_RETRY_FIRST
        while True:
            code = sock.connect_ex(target)
            if code in CONNECTING and sock.family != AF_UNIX:
                if not Readiness(sock.fileno(), write=True, waker=self._guard.waker).wait(deadline):
                    assert deadline is not None
                    raise SocketTimeout(operation, deadline.seconds)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._raise_if_closed(operation)
            if code == 0:
                reject_self_connect(sock)
                break
            if code not in CONNECTING:
                raise OSError(code, os.strerror(code))
            self._pause(operation, pause, deadline)
            pause = min(2 * pause, _UNIX_RETRY_LONGEST)

    def _shake_hands_first(self, secure: TlsCore, operation: str, deadline: Deadline | None) -> None:
        """Make the handshake before anybody may use the connection."""
        try:
            self._shake_hands(secure, operation, deadline)
        except BaseException:
            self._unconnected()
            raise
        self._published()

    def _pause(self, operation: str, seconds: float, deadline: Deadline | None) -> None:
        if deadline is not None:
            seconds = min(seconds, deadline.remaining(time.monotonic()))
            if not seconds:
                raise SocketTimeout(operation, deadline.seconds)
        self._guard.waker.wait_for(Latch(), seconds)

    # Accepting.

    def accept_addr(
        self, flags: SocketFlag = SAFE_DISCONN, inheritable: bool = False, timeout: float | None = None
    ) -> Accepted:
        """Accept a connection; return its socket and who it is.

        The new socket is buffered if this one is. A timeout or a cancellation accepts nobody: who has connected is
        there for the next call.

        Args:
            flags: with ``SAFE_DISCONN`` a client that went away before it was accepted is skipped.
            inheritable: whether a program that this process executes gets the new descriptor too.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            An ``Accepted``: ``(client, address)``. The address of a Unix client is its path, ``""`` as a rule, and
            port 0.

        Raises:
            SocketTimeout: time ran out before anybody connected.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """
        return self._accept("accept_addr", flags, inheritable, timeout)

    def accept(
        self, flags: SocketFlag = SAFE_DISCONN, inheritable: bool = False, timeout: float | None = None
    ) -> Socket:
        """Accept a connection and return its socket.

        The new socket is buffered if this one is. A timeout or a cancellation accepts nobody: who has connected is
        there for the next call.

        Args:
            flags: with ``SAFE_DISCONN`` a client that went away before it was accepted is skipped.
            inheritable: whether a program that this process executes gets the new descriptor too.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The client's socket.

        Raises:
            SocketTimeout: time ran out before anybody connected.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """
        return self._accept("accept", flags, inheritable, timeout).client

    def _accept(
        self, operation: str, flags: SocketFlag, inheritable: bool, timeout: float | None
    ) -> Accepted:
        check_flags(flags)
        deadline = start_deadline(check_timeout(timeout))
        client, address = self._accept_plain(operation, flags, inheritable, deadline)
        if self._tls is not None:
            with self._welcome(client):
                client._upgrade_by(client._server_core(self._tls), deadline, operation)
        return Accepted(client, address)

    def _accept_plain(
        self, operation: str, flags: SocketFlag, inheritable: bool, deadline: Deadline | None
    ) -> Accepted:
        with self._use(operation) as listener:
            self._require(operation, datagram=False)
            if self._state is not State.LISTENING:
                raise OSError(errno.EINVAL, f"{operation}: the socket is {self._state.value}, not listening")
            while True:
                try:
                    sock, sockaddr = self._until_ready(
                        operation, deadline, lambda: accept_now(listener, self._unclaimed)
                    )
                    break
                except OSError as error:
                    if isinstance(error, WirelineError) or not is_failed_before_accept(flags, error):
                        raise
        address = to_display_address(sockaddr)
        return Accepted(self._accepted(sock, address, inheritable), address)

    def try_accept_addr(self) -> tuple[AcceptResult, Socket | None, Address | None]:
        """Accept a connection if somebody has connected. It never waits.

        Returns:
            ``SUCCESS``, the client's socket and its address; or ``NO_CLIENT``, None and None. Of a TLS listener
            also ``NO_HANDSHAKE``, None and None: a client has come, and is handed out by a later call, when the
            handshake is done; or another thread is in this call. A client that takes more than 10 s is
            closed. 256 clients are kept at most, and a call looks only at those that have sent something. Further
            ones wait to be accepted, and take the place of a client that has been in its handshake for a second.

        Raises:
            ClosedError: this side closed the socket.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError: a datagram socket.
        """
        if self._tls is not None:
            return self._next_ready_client(
                cast("Callable[[], tuple[Self, Address] | None]", self._accept_now)
            )
        accepted = self._accept_now()
        if accepted is None:
            return AcceptResult.NO_CLIENT, None, None
        return AcceptResult.SUCCESS, accepted.client, accepted.address

    def _accept_now(self) -> Accepted | None:
        """A client that has connected; None if none has."""
        try:
            return self._accept_plain("try_accept_addr", SAFE_DISCONN, False, start_deadline(0))
        except SocketTimeout:
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Accepted(NamedTuple):
    """A connection that was accepted, and who made it."""

    client: Socket
    address: Address
