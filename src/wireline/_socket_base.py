"""The base class of both sockets: all methods that never wait.

A flavour adds the methods that wait, and makes the two parts (``_parts``): the descriptor with the calls that use it,
and the stream. All decisions are made here or in the core.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

from wireline._core.stream import StreamCore
from wireline._local_end import LocalEnd
from wireline._os import multicast
from wireline._os.datagram import packet_info_option
from wireline._os.descriptor import (
    State,
    create,
    default_protocol,
    probe_state,
    require_kernel_waits,
    require_kind,
    set_no_delay,
)
from wireline._os.keep_alive import KeepAlive, keep_alive_options, require_tcp
from wireline._os.multicast import Interface
from wireline._os.passed_fds import can_pass_fds
from wireline._os.process import process
from wireline._os.resolver import getaddrinfo_now
from wireline._parts import Datagrams, Descriptor, Stream
from wireline._tls_facts import (
    certificates,
    psk_identity,
    repr_extra,
    require_tls_core,
    tls_core_of,
    tls_error,
)
from wireline._tls_role import TlsRole
from wireline._validation import Buffer, UnixPath, option_number, option_value, require_int
from wireline.address import (
    Address,
    IpAddress,
    check_host,
    check_port,
    format_address,
    to_display_address,
    unix_path,
)
from wireline.errors import ClosedError, SockAddr
from wireline.options import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    DEFAULT_FLAGS,
    IPPROTO_TCP,
    SAFE_DISCONN,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOMAXCONN,
    SocketFlag,
    SockOpt,
    check_default_flags,
    check_flags,
    effective_flags,
    is_disconnection_error,
)
from wireline.timing import FOREVER, check_seconds

if TYPE_CHECKING:
    import ssl

    from wireline._core.stats import SocketStats
    from wireline._core.tls import TlsCore
    from wireline._os.facts import PeerCredentials, TcpInfo
    from wireline.tls import Certificate, SslContext, TlsInfo


class BaseSocket:
    """The part of a socket that never waits."""

    _module: ClassVar[str] = "wireline"

    _fd: Descriptor
    _io: Stream
    _datagrams: Datagrams | None

    # Attributes of the class until they are needed: most connections have none of them.
    _local: LocalEnd | None = None
    _tls: TlsRole | None = None  # of a wrapped socket
    _needs_new_fd = False  # a connect failed

    last_bytes_sent: int
    """The number of bytes that the last sending call sent, also if it failed or was cancelled."""

    def __init__(
        self,
        domain: int = AF_INET,
        sock_type: int = SOCK_STREAM,
        protocol: int = IPPROTO_TCP,
        *,
        buffered: bool = True,
        inheritable: bool = False,
        packet_info: bool = False,
        default_flags: SocketFlag = SAFE_DISCONN,
    ) -> None:
        """Create a socket that is neither connected nor bound.

        Args:
            domain: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX``.
            sock_type: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
            protocol: the default means the usual protocol of ``domain`` and ``sock_type``.
            buffered: read from the kernel in large pieces, and keep the rest for the next read. An unbuffered socket
                never reads more from the kernel than it returns, and a line takes a system call per byte. Over TLS it
                reads one record at a time, in two system calls, and keeps what the record has beyond the result.
            inheritable: whether programs that this process executes inherit the descriptor.
            packet_info: for datagrams over IP: each received ``Datagram`` has its ``destination`` and ``interface``.
            default_flags: the default of every ``flags`` parameter of this socket, and of the clients that it accepts.
                Reads without that parameter follow it too: without ``SAFE_DISCONN`` a reset is a
                ``ConnectionResetError`` in each of them.

        Raises:
            TypeError, ValueError: an argument is not an int, or is negative; ``sock_type`` is not supported
                (``SOCK_SEQPACKET``, ``SOCK_RAW``, ...); ``packet_info`` with another kind of socket;
                ``default_flags`` has ``PEEK``.
            NotImplementedError: this platform has no packet information.
            OSError: the operating system does not support this kind of socket, or has no descriptor left.
        """
        for name, value in (("domain", domain), ("sock_type", sock_type), ("protocol", protocol)):
            require_int(name, value)
        require_kind(sock_type, exists=False)
        if packet_info and (sock_type != SOCK_DGRAM or domain not in (AF_INET, AF_INET6)):
            raise ValueError("packet_info is for datagram sockets of AF_INET and AF_INET6")
        check_default_flags(default_flags)
        sock = create(domain, sock_type, default_protocol(domain, sock_type, protocol))
        try:
            require_kind(sock_type)
            self._setup(sock, buffered, State.FRESH, default_flags=default_flags)
            if inheritable:
                sock.set_inheritable(True)
            if packet_info and self._datagrams is not None:
                self._local_end().set_option(sock, *packet_info_option(domain), 1)
                self._datagrams.inbox.add_packet_info()
        except BaseException:
            sock.close()
            raise

    def _setup(
        self,
        sock: socket.socket,
        buffered: bool,
        state: State,
        peer: SockAddr | None = None,
        *,
        default_flags: SocketFlag,
    ) -> None:
        """Take over ``sock``, of which the flavour has made the parts."""
        self._fd.state = state
        self._io.default_flags = default_flags
        self._buffered = bool(buffered)
        self._peer: Address | None = None
        # Acquired by the first `close`, and never released.
        self._closing = threading.Lock()
        self.last_bytes_sent = 0
        if state is State.CONNECTED:
            self._connected(peer)
        else:
            sock.setblocking(False)

    @classmethod
    def from_socket(
        cls, sock: socket.socket, *, buffered: bool = True, default_flags: SocketFlag = SAFE_DISCONN
    ) -> Self:
        """Take over a standard library socket, and leave ``sock`` detached.

        Blocking or non-blocking mode is set as needed. A connected socket may be used at once.

        Args:
            sock: a stream or a datagram socket.
            buffered: as for a new socket.
            default_flags: as for a new socket.

        Raises:
            TypeError: ``sock`` is not a ``socket.socket``, or it is an ``ssl.SSLSocket``; ``default_flags`` is not a
                ``SocketFlag``.
            ValueError: ``sock`` is neither a stream nor a datagram socket, or ``default_flags`` has ``PEEK``; ``sock``
                is left as it was.
            OSError: ``sock`` is closed.
        """
        check_default_flags(default_flags)
        if not isinstance(sock, socket.socket):
            raise TypeError(f"a socket.socket is needed, not {type(sock).__name__}")
        if hasattr(sock, "unwrap"):
            raise TypeError("an ssl.SSLSocket has TLS of its own; take over the socket before it is wrapped")
        require_kind(sock.type)
        sock.getsockname()  # a closed socket fails here with EBADF, before the descriptor is taken over
        return cls._adopt(
            socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach()),
            buffered=buffered,
            default_flags=default_flags,
        )

    @classmethod
    def from_fd(
        cls,
        fd: int,
        domain: int | None = None,
        sock_type: int | None = None,
        protocol: int | None = None,
        *,
        buffered: bool = True,
        default_flags: SocketFlag = SAFE_DISCONN,
    ) -> Self:
        """Take over a descriptor. Arguments that are None are read from the operating system.

        Args:
            fd: of a stream or a datagram socket.
            domain: as for a new socket.
            sock_type: as for a new socket.
            protocol: as for a new socket.
            buffered: as for a new socket.
            default_flags: as for a new socket.

        Raises:
            TypeError, ValueError: an argument has the wrong type, or is negative; ``default_flags`` has ``PEEK``.
            ValueError: ``fd`` is neither a stream nor a datagram socket; it is left as it was.
            OSError: ``fd`` is not an open socket.
        """
        require_int("fd", fd)
        for name, value in (("domain", domain), ("sock_type", sock_type), ("protocol", protocol)):
            if value is not None:
                require_int(name, value)
        check_default_flags(default_flags)
        known = [-1 if value is None else value for value in (domain, sock_type, protocol)]
        os.fstat(fd)  # fails with EBADF; `socket.socket` does not check if all three are given
        sock = socket.socket(known[0], known[1], known[2], fileno=fd)
        try:
            require_kind(sock.type)
        except ValueError:
            sock.detach()  # refused: the descriptor stays the caller's
            raise
        return cls._adopt(sock, buffered=buffered, default_flags=default_flags)

    @classmethod
    def _adopt(
        cls,
        sock: socket.socket,
        *,
        buffered: bool,
        default_flags: SocketFlag,
        state: State | None = None,
        peer: SockAddr | None = None,
    ) -> Self:
        """Make an object that owns ``sock``; on failure close ``sock``."""
        self = cls.__new__(cls)
        try:
            if state is None:
                state, peer = probe_state(sock)
            self._setup(sock, buffered, state, peer, default_flags=default_flags)
        except BaseException:
            sock.close()
            raise
        return self

    def _accepted(self, sock: socket.socket, sockaddr: SockAddr, inheritable: bool) -> Self:
        """Make an object from an accepted ``sock``; on failure close ``sock``."""
        try:
            set_no_delay(sock)
            if inheritable:
                sock.set_inheritable(True)
        except BaseException:
            sock.close()
            raise
        return self._adopt(
            sock,
            buffered=self._buffered,
            default_flags=self._io.default_flags,
            state=State.CONNECTED,
            peer=sockaddr,
        )

    # Processes.

    def adopt(self) -> None:
        """Make this process the owner of the socket, after a fork.

        A socket belongs to the process that made it. A forked child may drop or ``close`` its copy, which closes the
        child's descriptor and does nothing to the connection. A child that continues the connection (for example of a
        server that forks for each client) becomes the owner with its first call that reads or sends, or with
        ``adopt``; its ``close`` is then a full one. The parent must close its copy before, or not use it again: two
        owners break a TLS connection.

        Raises:
            ClosedError: the socket is closed.
        """
        inherit(self)
        if self._local is not None:
            self._local.own_file()

    # States.

    def _use(self, operation: str) -> AbstractContextManager[socket.socket]:
        """Hold the descriptor during one call: ``close`` does not close it before the end of the call."""
        require_open(self, operation)
        return contextlib.nullcontext(self._fd.sock)

    def _connected(self, peer: SockAddr | None, core: StreamCore | None = None) -> None:
        """Become a connected socket; with a ``core`` given, only the caller may use it until it is published."""
        fd, io = self._fd, self._io
        is_stream = fd.sock.type == SOCK_STREAM
        if io.kernel_waits:
            require_kernel_waits(fd.sock)
        fd.sock.setblocking(is_stream and io.kernel_waits)  # first, because it may fail
        fd.state = State.CONNECTED
        fd.opened_at = time.monotonic()
        self._peer = None if peer is None else to_display_address(peer)
        if is_stream:
            if core is None:
                io.open(self, StreamCore(buffered=self._buffered))
                io.publish(self)
            else:
                core.buffered = self._buffered
                io.open(self, core)

    def _unconnected(self) -> None:
        """Return to the state of an unconnected socket."""
        self._io.unconnected()
        self._fd.state = State.FRESH
        self._fd.opened_at = None
        self._peer = None

    def _replace_fd(self) -> None:
        """Replace a descriptor that failed by a fresh one with the same kind, options and local address (C3)."""
        old = self._fd.sock
        local = self._local
        fresh = create(old.family, old.type, old.proto)
        try:
            fresh.set_inheritable(old.get_inheritable())
            if local is not None:
                local.copy_options(fresh)
                local.remove_file()
        except BaseException:
            fresh.close()
            raise
        self._fd.replace(fresh)  # before the bind: it frees the address
        self._io.sender = fresh
        if local is not None:
            local.bind_again(fresh)
            self._remove_file_if_closed(local)
        self._needs_new_fd = False  # last: after a bind that fails, the next connect binds again

    def _may_connect(self, operation: str) -> None:
        """Raise the error of a ``connect`` in the wrong state."""
        require_open(self, operation)
        fd = self._fd
        if fd.state is State.LISTENING:
            raise OSError(errno.EINVAL, f"{operation}: the socket is listening")
        if fd.state is State.CONNECTED and fd.sock.type == SOCK_STREAM:
            raise OSError(errno.EISCONN, f"{operation}: the socket is connected already")

    # Addresses and binding.

    def bind_addr(self, port: int = 0, address: str | IpAddress = "") -> None:
        """Bind to a local address.

        Args:
            port: 0 lets the operating system choose.
            address: an address, or a name, which is resolved in this call; ``""`` is every interface of the socket's
                family. An IPv6 wildcard includes IPv4 if this is the operating system's default.

        Raises:
            TypeError, ValueError: a Unix socket (see ``bind_unix``); an argument has the wrong type, or is out of
                range.
            socket.gaierror: the name does not resolve.
            OSError: the address is in use, does not belong to this host, is not permitted, ...
        """
        port = check_port(port)
        host = check_host(address)
        with self._use("bind_addr") as sock:
            if sock.family == AF_UNIX:
                raise TypeError("bind_addr needs an IP socket, this is a Unix socket: see bind_unix")
            info = getaddrinfo_now(host, port, sock.family, sock.type, sock.proto, socket.AI_PASSIVE)
            self._local_end().bind(sock, info[0][4])

    def bind_unix(self, path: UnixPath) -> None:
        """Bind a Unix socket to a path, or on Linux to an abstract name (a leading NUL).

        A stale socket file, to which no socket is bound any more, is replaced; of several sockets that bind to it at
        the same time exactly one succeeds. ``close`` removes the file, in the process that owns the socket. A socket
        that is dropped without ``close``, or still open at the end of the program, leaves its file.

        Raises:
            TypeError: ``path`` is not a path, or this is not a Unix socket.
            ValueError: the path is empty or too long.
            OSError: ``EADDRINUSE`` if a socket is bound there, listening or not, if the file is not a socket file (a
                link to one is refused too), or if the directory of a stale one cannot be locked.
        """
        where = unix_path(path)
        with self._use("bind_unix") as sock:
            if sock.family != AF_UNIX:
                raise TypeError("bind_unix needs a Unix socket, this is an IP socket: see bind_addr")
            local = self._local_end()
            local.bind_to_path(sock, where)
            self._remove_file_if_closed(local)

    def _local_end(self) -> LocalEnd:
        # `setdefault` is atomic, so that two threads get the same object. No lock: a finalizer that runs here could
        # need it.
        local: LocalEnd = self._local or vars(self).setdefault("_local", LocalEnd())
        return local

    def _remove_file_if_closed(self, local: LocalEnd) -> None:
        """Do it for a ``close`` in another thread, which ran before there was a file to remove."""
        if self._closing.locked():
            local.remove_file()

    def listen(self, backlog: int = SOMAXCONN) -> None:
        """Listen for connections.

        Args:
            backlog: the most connections that wait to be accepted; the operating system has a limit of its own.

        Raises:
            TypeError: a datagram socket, or ``backlog`` is not an int.
            ValueError: ``backlog`` is negative.
            OSError: the socket is connected, or the address is in use.
        """
        require_int("backlog", backlog)
        with self._use("listen") as sock:
            check_kind(sock, "listen", datagram=False)
            if self._fd.state is State.CONNECTED:
                raise OSError(errno.EISCONN, "listen: the socket is connected")
            sock.listen(backlog)
            self._fd.state = State.LISTENING

    @property
    def local_addr(self) -> Address:
        """The local address of the socket; of a Unix socket the path, and port 0.

        Raises:
            ClosedError: the socket is closed.
        """
        with self._use("local_addr") as sock:
            return to_display_address(sock.getsockname())

    @property
    def peer_addr(self) -> Address:
        """The address of the peer, also after the peer has disconnected.

        Raises:
            ClosedError: the socket is closed.
            OSError: ``ENOTCONN``: the socket is not connected.
        """
        with self._use("peer_addr") as sock:
            if self._fd.state is not State.CONNECTED:
                raise OSError(errno.ENOTCONN, f"peer_addr: the socket is {self._fd.state.value}")
            return to_display_address(sock.getpeername()) if self._peer is None else self._peer

    # Options.

    def get_sock_opt(self, opt: SockOpt, level: int | None = None) -> bool:
        """Return a boolean option.

        Args:
            opt: the option.
            level: the protocol level; by default that of the option.

        Raises:
            TypeError: ``opt`` is not a ``SockOpt``.
            OSError: the operating system or this kind of socket does not have the option.
        """
        number, level = option_number(opt, level)
        with self._use("get_sock_opt") as sock:
            return bool(sock.getsockopt(level, number))

    def set_sock_opt(self, opt: SockOpt, value: bool, level: int | None = None) -> None:
        """Set a boolean option.

        Args:
            opt: the option.
            value: on or off.
            level: the protocol level; by default that of the option.

        Raises:
            TypeError: ``opt`` is not a ``SockOpt``.
            OSError: the operating system or this kind of socket does not have the option, or it cannot be set.
        """
        number, level = option_number(opt, level)
        with self._use("set_sock_opt") as sock:
            self._local_end().set_option(sock, level, number, int(bool(value)))

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        """Return an option by the numbers of the operating system, as ``socket.socket.getsockopt`` does.

        Args:
            level: the protocol level, for example ``socket.IPPROTO_TCP``.
            option: the option, for example ``socket.TCP_MAXSEG``.
            size: 0 for an option that is an int, else the most bytes to return.

        Returns:
            An int, or with a ``size`` bytes.

        Raises:
            ClosedError: the socket is closed.
            OSError: the operating system or this kind of socket does not have the option.
            TypeError, ValueError: an argument is not an int, or is out of range.
        """
        for name, value in (("level", level), ("option", option), ("size", size)):
            require_int(name, value)
        with self._use("getsockopt") as sock:
            return sock.getsockopt(level, option, size) if size else sock.getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: int | Buffer) -> None:
        """Set an option by the numbers of the operating system, as ``socket.socket.setsockopt`` does.

        The option is kept when ``connect`` has to replace the descriptor.

        Args:
            level: the protocol level, for example ``socket.IPPROTO_TCP``.
            option: the option, for example ``socket.TCP_USER_TIMEOUT``.
            value: an int, or the bytes of a structure.

        Raises:
            ClosedError: the socket is closed.
            OSError: the operating system or this kind of socket does not have the option, or refuses the value.
            TypeError, ValueError: an argument has the wrong type, or is out of range.
        """
        require_int("level", level)
        require_int("option", option)
        checked = option_value(value)
        with self._use("setsockopt") as sock:
            self._local_end().set_option(sock, level, option, checked)

    def set_keep_alive(self, keep_alive: KeepAlive | None) -> None:
        """Choose when the operating system asks a silent TCP peer whether it is still there.

        A peer that does not answer makes the next read or send fail with ``ETIMEDOUT``. The options are kept when
        ``connect`` has to replace the descriptor.

        Args:
            keep_alive: the times; None switches it off.

        Raises:
            ClosedError: the socket is closed.
            OSError: this is no TCP socket, or the platform cannot set one of the times.
            TypeError: ``keep_alive`` is neither a ``KeepAlive`` nor None.
        """
        options = list(keep_alive_options(keep_alive))
        with self._use("set_keep_alive") as sock:
            require_tcp(sock, "set_keep_alive")
            for level, option, value in options:
                self._local_end().set_option(sock, level, option, value)

    def tcp_info(self) -> TcpInfo:
        """Return the state of the TCP connection: round-trip time, retransmissions, congestion window.

        Raises:
            ClosedError: the socket is closed.
            OSError: this is no TCP socket.
            NotImplementedError: this platform has no ``TCP_INFO`` as Linux has.
        """
        from wireline._os.facts import tcp_info

        with self._use("tcp_info") as sock:
            return tcp_info(sock)

    def peer_credentials(self) -> PeerCredentials:
        """Return the process at the other end of a Unix socket, as it was when it connected or began to listen.

        Raises:
            ClosedError: the socket is closed.
            OSError: this is no Unix socket, or ``ENOTCONN``: it has no peer.
            NotImplementedError: this platform has no ``SO_PEERCRED``.
        """
        from wireline._os.facts import peer_credentials

        with self._use("peer_credentials") as sock:
            return peer_credentials(sock)

    @property
    def stats(self) -> SocketStats:
        """The bytes that the socket has received and sent, also after ``close``.

        The counts begin at 0 when the socket is connected, accepted or taken over.
        """
        from wireline._core.stats import SocketStats

        io, core, datagrams = self._io, self._io.core, self._datagrams
        received, sent = 0, io.payload_sent
        if core is not None:
            received = core.buffer.received
        elif datagrams is not None:
            received, sent = datagrams.inbox.received, datagrams.sent
        wire_received, wire_sent = (received, sent) if core is None else core.wire_traffic(sent)
        return SocketStats(
            bytes_received=received,
            bytes_sent=sent,
            wire_bytes_received=wire_received,
            wire_bytes_sent=wire_sent,
            opened_at=self._fd.opened_at,
        )

    # Multicast.

    def join_group(self, group: str | IpAddress, interface: Interface | None = None) -> None:
        """Receive the datagrams that are sent to a multicast group.

        The socket must be bound to the port, and to every interface (``bind_addr(port)``) or to the group itself.
        Several sockets may be bound to one port with ``SockOpt.REUSE_ADDR``. A socket may join several groups, and one
        group on several interfaces. The groups are kept when ``connect`` has to replace the descriptor.

        Args:
            group: a multicast address of the socket's family. The zone of an IPv6 address (``ff02::1%eth0``) is the
                interface if ``interface`` is None.
            interface: the name or the index of an interface, or for IPv4 one of its addresses; None lets the operating
                system choose.

        Raises:
            ClosedError: the socket is closed.
            OSError: there is no such interface, it cannot do multicast, or the socket is in the group already
                (``EADDRINUSE``).
            TypeError, ValueError: a stream or Unix socket; ``group`` is no multicast address, or one of the other
                family; ``interface`` has the wrong type, or is out of range.
        """
        with self._multicast("join_group") as sock:
            joined, on = _check_membership(sock, group, interface)
            self._local_end().join(sock, multicast.membership(joined, on, join=True))

    def leave_group(self, group: str | IpAddress, interface: Interface | None = None) -> None:
        """Stop receiving the datagrams of a multicast group. ``close`` leaves all groups.

        Args:
            group: as for ``join_group``.
            interface: as for ``join_group``.

        Raises:
            ClosedError: the socket is closed.
            OSError: the socket is not in that group on that interface (``EADDRNOTAVAIL``), or there is no such
                interface.
            TypeError, ValueError: as for ``join_group``.
        """
        with self._multicast("leave_group") as sock:
            left, on = _check_membership(sock, group, interface)
            leave, join = (multicast.membership(left, on, join=join) for join in (False, True))
            self._local_end().leave(sock, leave, join)

    @property
    def multicast_ttl(self) -> int:
        """The hop limit of multicast datagrams, 0 to 255. 1, the default, keeps them in the local network.

        Raises:
            ClosedError: the socket is closed.
            TypeError, ValueError: a stream or Unix socket; the value is not an int, or is out of range.
        """
        with self._multicast("multicast_ttl") as sock:
            return sock.getsockopt(*multicast.ttl_option(sock.family))

    @multicast_ttl.setter
    def multicast_ttl(self, value: int) -> None:
        require_int("multicast_ttl", value)
        if value > 255:
            raise ValueError(f"multicast_ttl is 0 to 255, got {value}")
        with self._multicast("multicast_ttl") as sock:
            self._local_end().set_option(sock, *multicast.ttl_option(sock.family), value)

    @property
    def multicast_loop(self) -> bool:
        """Whether the multicast datagrams that it sends also reach the receivers on this host; true by default.

        Raises:
            ClosedError: the socket is closed.
            TypeError: a stream or Unix socket.
        """
        with self._multicast("multicast_loop") as sock:
            return bool(sock.getsockopt(*multicast.loop_option(sock.family)))

    @multicast_loop.setter
    def multicast_loop(self, value: bool) -> None:
        with self._multicast("multicast_loop") as sock:
            self._local_end().set_option(sock, *multicast.loop_option(sock.family), int(bool(value)))

    @property
    def multicast_interface(self) -> Interface | None:
        """The interface that multicast datagrams are sent from; None, the default, is the operating system's choice.

        It may be set to a name, an index, or for IPv4 an address. Its value is a name, or the address that was set.

        Raises:
            ClosedError: the socket is closed.
            OSError: there is no such interface.
            TypeError, ValueError: a stream or Unix socket; the value has the wrong type, or is out of range.
        """
        with self._multicast("multicast_interface") as sock:
            known = None if self._local is None else self._local.get_option(*multicast.IPV4_INTERFACE)
            return multicast.read_outgoing_interface(sock, known)

    @multicast_interface.setter
    def multicast_interface(self, value: Interface | None) -> None:
        with self._multicast("multicast_interface") as sock:
            interface = multicast.check_interface(value, sock.family)
            self._local_end().set_option(sock, *multicast.outgoing_interface(sock.family, interface))

    @contextlib.contextmanager
    def _multicast(self, operation: str) -> Iterator[socket.socket]:
        """Hold the descriptor of a datagram socket during one call."""
        with self._use(operation) as sock:
            check_kind(sock, operation, datagram=True)
            multicast.require_ip_family(sock.family, operation)
            yield sock

    def get_socket_error(self) -> int:
        """Return and clear the pending error of the socket (``SO_ERROR``), an ``errno``; 0 if there is none."""
        with self._use("get_socket_error") as sock:
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def socket_error(
        self,
        err: int = -1,
        is_async: bool = False,
        last_error: int = -1,
        flags: SocketFlag = DEFAULT_FLAGS,
    ) -> None:
        """Raise the error of a system call that the program has made on ``fileno()``.

        Args:
            err: the return value of that call; the method returns at once unless it is negative.
            is_async: whether the call was non-blocking: ``EAGAIN`` and ``EWOULDBLOCK`` are then no errors.
            last_error: the ``errno`` of that call; by default the pending error of the socket.
            flags: with ``SAFE_DISCONN`` a disconnection is no error either.

        Raises:
            OSError: the error, with its ``errno``.
        """
        if err >= 0:
            return
        code = self.get_socket_error() if last_error < 0 else last_error
        if is_async and code in (errno.EAGAIN, errno.EWOULDBLOCK):
            return
        if is_disconnection_error(effective_flags(flags, self._io.default_flags), code):
            return
        raise OSError(code, os.strerror(code)) if code else OSError("the call failed and left no error code")

    # TLS.

    def _wrap(self, context: SslContext, hostname: str) -> None:
        """Make ``connect`` or ``accept`` do a handshake, for ``SslContext.wrap_socket``."""
        require_open(self, "wrap_socket")
        check_kind(self._fd.sock, "wrap_socket", datagram=False)
        if self._fd.state is State.CONNECTED:
            raise OSError(errno.EISCONN, "wrap_socket: the socket is connected, see wrap_connected_socket")
        self._tls = TlsRole(context, hostname, shared=self._io.shared)

    # Properties of the connection.

    @property
    def is_ssl(self) -> bool:
        """Whether the socket uses TLS, or will use it when it is connected."""
        return self._tls is not None or tls_core_of(self._io.core) is not None

    @property
    def got_handshake(self) -> bool:
        """Whether the TLS handshake is done.

        Raises:
            ssl.SSLError: the socket does not use TLS.
        """
        if not self.is_ssl:
            raise tls_error("got_handshake: the socket does not use TLS")
        tls_core = tls_core_of(self._io.core)
        return tls_core is not None and tls_core.engine.established

    def get_peer_certificates(self, *, verified: bool = True) -> list[Certificate]:
        """Return the peer's certificates, its own first.

        Args:
            verified: False returns the certificates that the peer has sent, in the order in which it sent them, even if
                they were not checked; for example for channel binding with ``VerifyMode.NONE``. They prove nothing.

        Returns:
            The verified chain up to the root; empty if the peer has sent none, or it was not verified. With
            ``verified=False`` the certificates that were sent, usually without the root; empty before the handshake and
            with a pre-shared key. In a resumed handshake none are sent: a server then returns only the client's own
            certificate, and a client those of the first connection, or only the server's own where sessions cannot be
            copied (``WIRELINE_NO_BRIDGE``).

        Raises:
            ClosedError: the socket is closed.
        """
        require_open(self, "get_peer_certificates")
        return certificates(self._io.core, verified=verified)

    def get_psk_identity(self) -> str:
        """Return the PSK identity that the handshake has verified; ``""`` if no pre-shared key was used.

        Raises:
            ClosedError: the socket is closed.
        """
        require_open(self, "get_psk_identity")
        return psk_identity(self._io.core)

    @property
    def tls_info(self) -> TlsInfo:
        """The result of the handshake: version, cipher, ALPN protocol, resumed or not, server name.

        Raises:
            ClosedError: the socket is closed.
            ssl.SSLError: the socket does not use TLS, or not yet.
        """
        tls_core = self._require_tls_core("tls_info")
        return tls_core.with_ssl_object(tls_core.engine.policy.info)

    @property
    def ssl_handle(self) -> ssl.SSLObject:
        """The ``ssl.SSLObject`` of the connection. Reading or writing through it breaks the socket.

        Raises:
            ClosedError: the socket is closed.
            ssl.SSLError: the socket does not use TLS, or not yet.
        """
        return self._require_tls_core("ssl_handle").engine.obj

    @property
    def ssl_pointer(self) -> int:
        """OpenSSL's ``SSL*`` as a number, for calls by ``ctypes`` or ``cffi``.

        The pointer is valid until the socket is closed. Never free it; use it only in the thread that is inside a call
        of this socket.

        Raises:
            ClosedError: the socket is closed.
            NotImplementedError: this interpreter gives no access to it; the text has the reason.
            ssl.SSLError: the socket does not use TLS, or not yet.
        """
        tls_core = self._require_tls_core("ssl_pointer")
        return tls_core.with_ssl_object(tls_core.engine.policy.pointer)

    def _require_tls_core(self, operation: str) -> TlsCore:
        require_open(self, operation)
        return require_tls_core(self._io.core, operation, wrapped=self._tls is not None)

    # Closing.

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed the socket."""
        return self._closing.locked()

    @property
    def has_data_buffered(self) -> bool:
        """Whether the buffer has data that a read can return without a read from the kernel."""
        return not self._closing.locked() and bool(self._io.core)

    def fileno(self) -> int:
        """Return the descriptor; -1 after ``close``.

        ``connect`` may replace it when an address fails.
        """
        return -1 if self._closing.locked() else self._fd.sock.fileno()

    def detach(self) -> int:
        """Release the descriptor and return it. The object is then closed, the connection is not.

        Raises:
            ClosedError: the socket is closed.
            OSError: ``EBUSY``: received bytes would be lost (see ``has_data_buffered``), or another call is using the
                socket.
            ssl.SSLError: the socket uses TLS.
        """
        require_open(self, "detach")
        if tls_core_of(self._io.core) is not None:
            raise tls_error("detach: the socket uses TLS, and its keys would be lost")
        if self.has_data_buffered:
            raise OSError(errno.EBUSY, "detach: received bytes are still unread, and would be lost")
        if self._fd.passed:
            raise OSError(errno.EBUSY, "detach: received descriptors would be lost, see recv_fds")
        self._io.detach()
        self._closing.acquire()
        if self._local is not None:
            self._local.keep_file()
        return self._fd.sock.detach()

    def close(self, flags: SocketFlag = DEFAULT_FLAGS, *, linger: float | None = None) -> None:
        """Close the socket. Every waiting call raises ``ClosedError`` at once. A second ``close`` has no effect.

        It never waits. Data that was sent before is still delivered, but a plain close while the peer is sending makes
        the operating system reset the connection, which may lose the end of that data: see ``linger``.

        Args:
            flags: accepted for symmetry with the other methods.
            linger: with a number of seconds the end of the stream is sent, and the peer may finish in the background
                for at most this time, so that the last reply is not lost. None closes like the operating system does,
                and means 2 s for a TLS connection. 0 aborts: the peer gets a reset, and unsent data is dropped.

        Raises:
            TypeError, ValueError: ``linger`` is not a number, or is negative; ``flags`` is not a ``SocketFlag``.
        """
        check_flags(flags)
        if linger is not None:
            seconds = check_seconds("linger", linger)
            linger = FOREVER if seconds is None else seconds
        first = self._closing.acquire(blocking=False)
        fd, io, local = self._fd, self._io, self._local
        if fd.is_foreign:
            if not fd.is_in_use():
                io.close()
                fd.abandon()
                return
            # A call in this process is using the socket: wake it and close in full. The path belongs to the parent.
            if local is not None:
                local.keep_file()
            fd.epoch = process.epoch
        if not first and fd.disposed:
            return
        io.close()
        if self._tls is not None:
            self._tls.close_clients()
        try:
            if local is not None:
                local.remove_file()
        finally:
            fd.begin_close(functools.partial(io.dispose, linger))

    def __repr__(self) -> str:
        sock = self._fd.sock
        kind = f"{_KINDS.get(sock.family, sock.family)} {_TYPES.get(sock.type, sock.type)}"
        name = f"{self._module}.{type(self).__name__}"
        if self._closing.locked():
            return f"<{name} {kind}, closed>"
        parts = [kind]
        with contextlib.suppress(OSError):
            parts.append(f"local={format_address(self.local_addr)}")
            parts.append(f"peer={format_address(self.peer_addr)}")
        if self.is_ssl:
            parts.append(repr_extra(self._io.core))
        return f"<{name} fd={self.fileno()} {', '.join(parts)}, {self._fd.state.value}>"

    def __del__(self) -> None:
        # `_setup` may have failed before or after it set `_closing`.
        closing = getattr(self, "_closing", None)
        if closing is not None and not closing.locked() and self._fd.sock.fileno() >= 0:
            # The file stays: without a `close` the socket may still be in use in another process, after a program has
            # gone to the background or for its workers. The next bind replaces a stale file.
            if self._local is not None:
                self._local.keep_file()
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()
        elif closing is not None and not self._fd.disposed:
            self.close()


def _check_membership(
    sock: socket.socket, group: str | IpAddress, interface: Interface | None
) -> tuple[IpAddress, Interface | None]:
    """Return a group and an interface that the socket can join."""
    ip, zone = multicast.check_group(group)
    if (ip.version == 4) is not (sock.family == AF_INET):
        raise ValueError(f"{ip} is a group of IPv{ip.version}, but the socket is of the other family")
    return ip, multicast.check_interface(zone if interface is None else interface, sock.family)


def require_open(sock: BaseSocket, operation: str) -> None:
    """Raise ``ClosedError`` if this side has closed the socket before the call."""
    if sock.is_closed:
        raise ClosedError(f"{operation}: the socket is closed")


def check_kind(sock: socket.socket, operation: str, *, datagram: bool) -> None:
    """Raise ``TypeError`` if the descriptor is of the other kind."""
    if (sock.type == SOCK_DGRAM) is not datagram:
        needs, is_a = ("datagram", "stream") if datagram else ("stream", "datagram")
        raise TypeError(f"{operation} needs a {needs} socket, this is a {is_a} socket")


def require_peer(state: State, operation: str) -> None:
    """Raise the error of a datagram to the connected peer, on a socket that has none."""
    if state is not State.CONNECTED:
        raise OSError(errno.EDESTADDRREQ, f"{operation}: the socket is unconnected, see send_to")


def require_fd_passing(sock: BaseSocket, operation: str) -> None:
    """Refuse to pass descriptors on a socket that cannot.

    Raises:
        ClosedError: the socket is closed.
        TypeError: it is no Unix socket.
        ssl.SSLError: it uses TLS.
        NotImplementedError: the platform has no ``sendmsg`` and ``recvmsg``.
    """
    require_open(sock, operation)
    plain = sock._fd.sock
    if plain.family != AF_UNIX:
        raise TypeError(f"{operation} needs a Unix socket, this is an IP socket")
    if sock.is_ssl:
        raise tls_error(
            f"{operation}: the socket uses TLS, which protects bytes and cannot carry descriptors"
        )
    if not can_pass_fds(plain):
        raise NotImplementedError(f"{operation}: this platform does not pass descriptors")


def refuse(sock: BaseSocket, operation: str) -> NoReturn:
    """Raise the error of a stream operation on a socket that is not a connected stream."""
    require_open(sock, operation)
    check_kind(sock._fd.sock, operation, datagram=False)
    state = sock._fd.state
    code = errno.EINVAL if state is State.LISTENING else errno.ENOTCONN
    raise OSError(code, f"{operation}: the socket is {state.value}")


def inherit(sock: BaseSocket) -> None:
    """Make this process the owner of a socket, if a fork has copied it; its Unix file stays the parent's."""
    require_open(sock, "adopt")
    if sock._fd.is_foreign:
        sock._io.inherit()
        if sock.is_closed:  # by another thread, during this call
            sock._io.close()


def closed_meanwhile(operation: str) -> ClosedError:
    """Return the error of a call that was waiting when this side closed the socket."""
    return ClosedError(f"{operation}: the socket was closed while it waited")


def raise_if_closed(sock: BaseSocket, operation: str) -> None:
    """Raise ``ClosedError`` if this side has closed the socket during a wait."""
    if sock.is_closed:
        raise closed_meanwhile(operation)


def annotated(error: OSError, operation: str, sock: BaseSocket) -> OSError:
    """Add the operation and the socket to an error, as a note, and return it."""
    error.add_note(f"during {operation} on {sock!r}")
    return error


_KINDS = {AF_INET: "IPv4", AF_INET6: "IPv6", AF_UNIX: "Unix"}
_TYPES = {SOCK_STREAM: "stream", SOCK_DGRAM: "datagram"}
