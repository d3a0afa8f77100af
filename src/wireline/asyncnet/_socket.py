"""The async flavour's socket: a stream, and what comes before it is one (connecting, accepting), and datagrams."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar, cast

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os.datagram import Datagram, Received
from wireline._os.descriptor import State, is_failed_before_accept, refuse_itself
from wireline._os.resolver import look_up
from wireline._validation import Buffer, UnixPath, peer_arguments, sendable, writable
from wireline.address import Address, IpAddress, display_address, unix_path
from wireline.asyncnet._operations import Accept, Connect, accept_now
from wireline.asyncnet._stream import AsyncStream
from wireline.asyncnet._sync import wait_for_lookup
from wireline.errors import BusyError, SockAddr, WirelineError
from wireline.options import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    SAFE_DISCONN,
    AcceptResult,
    SocketFlag,
    check_flags,
)

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["Accepted", "AsyncSocket"]

T = TypeVar("T")


class AsyncSocket(AsyncStream):
    """An asynchronous socket: TCP, UDP or Unix."""

    last_bytes_sent: int

    # Datagrams.

    async def send_to(
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
        payload = sendable(data)
        check_flags(flags)
        timeout = check_timeout(timeout)
        sock = self._open_sock("send_to")
        self._require("send_to", datagram=True)
        deadline = self._deadline(timeout)
        target: SockAddr
        if sock.family == AF_UNIX:
            target = unix_path(str(address) if isinstance(address, IpAddress) else address)
        else:
            target = (await self._resolve("send_to", *peer_arguments(address, port), deadline))[0][4]
        self.last_bytes_sent = await self._datagrams("send_to").send("send_to", payload, target, deadline)
        return self.last_bytes_sent

    async def recv_from(
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
        self._open_sock("recv_from")
        self._require("recv_from", datagram=True)
        return await self._receive("recv_from", size, flags, timeout)

    async def recv_from_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        flags: SocketFlag = SAFE_DISCONN,
        timeout: float | None = None,
    ) -> Received:
        """Receive one datagram into the caller's buffer, as ``recv_from`` does.

        A timeout or a cancellation takes no datagram away and leaves the buffer as it was.

        Args:
            buffer: something writable and contiguous.
            size: bytes to keep of the datagram at most; None means the whole buffer.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            A ``Received``: ``(size, address)``, and ``truncated``.

        Raises:
            SocketTimeout: time ran out before a datagram came.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or the like; the socket keeps
                working.
            TypeError: a stream socket, or the buffer cannot be written to.
            ValueError: ``size`` is negative or more than the buffer has, or ``timeout`` is negative.
        """
        target = writable(buffer, size)
        check_flags(flags)
        timeout = check_timeout(timeout)
        self._open_sock("recv_from_into")
        self._require("recv_from_into", datagram=True)
        deadline = self._deadline(timeout)
        return await self._datagrams("recv_from_into").receive_into("recv_from_into", target, flags, deadline)

    # Connecting.

    async def connect(self, address: str | IpAddress, port: int = 0, timeout: float | None = None) -> None:
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
        host, port = peer_arguments(address, port)
        timeout = check_timeout(timeout)
        sock = self._open_sock("connect")
        if sock.family not in (AF_INET, AF_INET6):
            raise TypeError("connect needs an IP socket, this is a Unix socket: see connect_unix")
        with self._connecting("connect"):
            secure = self._client_core(host, port)
            deadline = self._deadline(timeout)
            found = await self._resolve("connect", host, port, deadline)
            await self._connect_to_any("connect", [info[4] for info in found], secure, deadline)

    async def connect_unix(self, path: UnixPath, timeout: float | None = None) -> None:
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
        timeout = check_timeout(timeout)
        sock = self._open_sock("connect_unix")
        if sock.family != AF_UNIX:
            raise TypeError("connect_unix needs a Unix socket, this is an IP socket: see connect")
        with self._connecting("connect_unix"):
            secure = self._client_core("", 0)
            await self._connect_to_any("connect_unix", [where], secure, self._deadline(timeout))

    @contextlib.contextmanager
    def _connecting(self, operation: str) -> Iterator[None]:
        """Refuse a second task that connects."""
        self._may_connect(operation)
        if self._is_connecting:
            raise BusyError(f"{operation}: another task is connecting this socket")
        self._is_connecting = True
        try:
            yield
        finally:
            self._is_connecting = False

    async def _resolve(
        self, operation: str, host: str, port: int, deadline: Deadline | None
    ) -> list[AddrInfo]:
        sock = self._sock
        lookup = look_up(host, port, sock.family, sock.type, sock.proto)
        with self._notifier() as notifier:
            found = await wait_for_lookup(lookup, operation, deadline, notifier)
        self._raise_if_closed(operation)
        assert found is not None
        return found

    async def _connect_to_any(
        self, operation: str, targets: Sequence[SockAddr], secure: TlsCore | None, deadline: Deadline | None
    ) -> None:
        """Try one address after the other, each on a fresh descriptor if the last one failed (C3)."""
        if self._spoiled:
            self._renew()
        target = targets[0]
        try:
            for position, target in enumerate(targets, 1):
                try:
                    await self._connect_to(operation, target, deadline)
                    break
                except OSError as error:
                    error.add_note(f"while connecting to {target!r}")
                    if position == len(targets) or isinstance(error, WirelineError):
                        raise
                    self._renew()
            self._connected(target, secure)
            if secure is not None:
                await self._shake_hands_first(secure, operation, deadline)
        except BaseException:
            if not self._closing.locked():
                # What has failed is not fit for another try. Without a descriptor to be had that one begins with this.
                self._spoiled = True
                with contextlib.suppress(OSError):
                    self._renew()
            raise

    async def _connect_to(self, operation: str, target: SockAddr, deadline: Deadline | None) -> None:
        connect = Connect(self._sock, target)
        queue = self._write_queue()
        if self._sock.family == AF_UNIX:
            await self._fd.retry_with_backoff(connect, operation, deadline)
        else:
            # An operation of the loop begins the connection itself.
            begins = self._fd.port.completions is None
            await queue.perform(connect, operation, deadline, try_now=begins)
        self._raise_if_closed(operation)
        refuse_itself(self._sock)

    async def _shake_hands_first(self, secure: TlsCore, operation: str, deadline: Deadline | None) -> None:
        """Make the handshake before anybody may use the connection."""
        try:
            await self._shake_hands(secure, operation, deadline)
        except BaseException:
            self._unconnected()
            raise
        self._published()

    # Accepting.

    async def accept_addr(
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
        return await self._accept("accept_addr", flags, inheritable, timeout)

    async def accept(
        self, flags: SocketFlag = SAFE_DISCONN, inheritable: bool = False, timeout: float | None = None
    ) -> AsyncSocket:
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
        return (await self._accept("accept", flags, inheritable, timeout)).client

    async def _accept(
        self, operation: str, flags: SocketFlag, inheritable: bool, timeout: float | None
    ) -> Accepted:
        check_flags(flags)
        timeout = check_timeout(timeout)
        self._listener(operation)
        self._enter()
        deadline = self._deadline(timeout)
        while True:
            await self._fd.spend_budget()
            accept = Accept(self._listener(operation))
            try:
                sock, sockaddr = await self._read_queue().perform(accept, operation, deadline)
                break
            except OSError as error:
                if isinstance(error, WirelineError):
                    raise
                if not is_failed_before_accept(flags, error):
                    raise self._annotated(error, operation) from error.__cause__
        address = display_address(sockaddr)
        client = self._accepted(sock, address, inheritable)
        if self._tls is not None:
            with self._welcome(client):
                await client._upgrade_by(client._server_core(self._tls), deadline, operation)
        return Accepted(client, address)

    def try_accept_addr(self) -> tuple[AcceptResult, AsyncSocket | None, Address | None]:
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
            return self._first_guest(cast("Callable[[], tuple[Self, Address] | None]", self._accept_now))
        accepted = self._accept_now()
        if accepted is None:
            return AcceptResult.NO_CLIENT, None, None
        return AcceptResult.SUCCESS, accepted.client, accepted.address

    def _accept_now(self) -> Accepted | None:
        """A client that has connected; None if none has."""
        listener = self._listener("try_accept_addr")
        while True:
            try:
                queue = self._fd.read_queue
                orphan = None if queue is None else queue.take_orphan()
                sock, sockaddr = (
                    accept_now(listener)
                    if orphan is None
                    else cast("tuple[socket.socket, SockAddr]", orphan.result())
                )
            except BlockingIOError:
                return None
            except OSError as error:
                if not is_failed_before_accept(SAFE_DISCONN, error):
                    raise self._annotated(error, "try_accept_addr") from error.__cause__
            else:
                address = display_address(sockaddr)
                return Accepted(self._accepted(sock, address, False), address)

    def _listener(self, operation: str) -> socket.socket:
        listener = self._open_sock(operation)
        self._require(operation, datagram=False)
        if self._state is not State.LISTENING:
            raise OSError(errno.EINVAL, f"{operation}: the socket is {self._state.value}, not listening")
        return listener


class Accepted(NamedTuple):
    """A connection that was accepted, and who made it."""

    client: AsyncSocket
    address: Address
