"""The base class of both sockets: all methods that never wait.

A flavour adds the methods that wait, and overrides methods of this module, for example ``_use`` (hold the descriptor
during one call), ``_opened`` (the socket became connected) and ``_retire`` (wake the waiting calls, close the
descriptor). All decisions are made here or in the core.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from wireline._core.deadline import FOREVER, check_timeout
from wireline._core.stream import Sender, StreamCore
from wireline._os import unix_file
from wireline._os.close import close_quietly
from wireline._os.descriptor import (
    State,
    create,
    default_protocol,
    probe_state,
    require_kernel_waits,
    require_kind,
    set_no_delay,
)
from wireline._os.linger import close_in_background
from wireline._os.process import process
from wireline._os.resolver import getaddrinfo_now
from wireline._pending_handshakes import IncomingClient, PendingHandshakes
from wireline._tls_facts import (
    begin_upgrade,
    certificates,
    closing_output,
    psk_identity,
    repr_extra,
    require_tls_core,
    tls_core_of,
    tls_error,
)
from wireline._validation import UnixPath, option_number, require_int
from wireline.address import (
    Address,
    IpAddress,
    check_host,
    check_port,
    format_address,
    to_display_address,
    unix_path,
)
from wireline.errors import ClosedError, SockAddr, copy_for_reraise
from wireline.options import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    DONT_WAIT,
    IPPROTO_TCP,
    NO_SIGNAL,
    SAFE_DISCONN,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOMAXCONN,
    AcceptResult,
    SocketFlag,
    SockOpt,
    check_flags,
    is_disconnection_error,
)

if TYPE_CHECKING:
    import ssl

    from wireline._core.tls import TlsCore
    from wireline.tls import Certificate, SslContext, TlsInfo

_NOW = DONT_WAIT | NO_SIGNAL


class BaseSocket:
    """The part of a socket that never waits."""

    _module: ClassVar[str] = "wireline"
    # Whether the descriptor of a connected stream is blocking, so that one system call may wait in the kernel.
    _kernel_waits: ClassVar[bool] = False

    # The options that were set: level and number, and the value, in the order of setting. None until the first one is
    # set: a dict per socket is much memory for ten thousand sockets.
    _options: dict[tuple[int, int], int] | None = None

    # The clients of a TLS listener that `try_accept_addr` has accepted and that are in their handshake.
    _pending_handshakes: PendingHandshakes[Any] | None = None

    _shared: ClassVar[bool] = False
    """Whether one thread may read while another writes."""

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
    ) -> None:
        """Create a socket that is neither connected nor bound.

        Args:
            domain: ``AF_INET``, ``AF_INET6`` or ``AF_UNIX``.
            sock_type: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
            protocol: the default means the usual protocol of ``domain`` and ``sock_type``.
            buffered: read from the kernel in large pieces, and keep the rest for the next read. An unbuffered socket
                never reads more from the kernel than it returns, and a line takes a system call per byte.
            inheritable: whether programs that this process executes inherit the descriptor.

        Raises:
            TypeError, ValueError: an argument is not an int, or is negative; ``sock_type`` is not supported
                (``SOCK_SEQPACKET``, ``SOCK_RAW``, ...).
            OSError: the operating system does not support this kind of socket, or has no descriptor left.
        """
        for name, value in (("domain", domain), ("sock_type", sock_type), ("protocol", protocol)):
            require_int(name, value)
        require_kind(sock_type, exists=False)
        sock = create(domain, sock_type, default_protocol(domain, sock_type, protocol))
        try:
            require_kind(sock_type)
            self._setup(sock, buffered, State.FRESH)
            if inheritable:
                sock.set_inheritable(True)
        except BaseException:
            sock.close()
            raise

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        """Take over ``sock``. All attributes of the instance are made here."""
        self._sock = sock
        self._state = state
        self._buffered = bool(buffered)
        self._core: StreamCore | None = None
        self._lines: list[bytes] = []
        self._tls: SslContext | None = None
        self._tls_name = ""
        self._handshaking: set[BaseSocket] | None = None  # accepted clients in their handshake
        self._peer: Address | None = None
        self._bound: SockAddr | None = None
        self._unix_file: unix_file.UnixFile | None = None
        self._write_shut = False
        self._spoiled = False  # a connect failed: the next one needs a fresh descriptor
        self._deaf = False  # shut down for reading, by `close`
        # Acquired by the first `close`, and never released.
        self._closing = threading.Lock()
        self._owner = process.epoch  # any other process may only close its descriptor
        self.last_bytes_sent = 0
        if state is State.CONNECTED:
            self._connected(peer)
        else:
            sock.setblocking(False)

    @classmethod
    def from_socket(cls, sock: socket.socket, *, buffered: bool = True) -> Self:
        """Take over a standard library socket, and leave ``sock`` detached.

        Blocking or non-blocking mode is set as needed. A connected socket may be used at once.

        Raises:
            TypeError: ``sock`` is not a ``socket.socket``, or it is an ``ssl.SSLSocket``.
            ValueError: ``sock`` is neither a stream nor a datagram socket; it is left as it was.
            OSError: ``sock`` is closed.
        """
        if not isinstance(sock, socket.socket):
            raise TypeError(f"a socket.socket is needed, not {type(sock).__name__}")
        if hasattr(sock, "unwrap"):
            raise TypeError("an ssl.SSLSocket has TLS of its own; take over the socket before it is wrapped")
        require_kind(sock.type)
        sock.getsockname()  # a closed socket fails here with EBADF, before the descriptor is taken over
        return cls._adopt(
            socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach()), buffered=buffered
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
    ) -> Self:
        """Take over a descriptor. Arguments that are None are read from the operating system.

        Raises:
            TypeError, ValueError: an argument is not an int, or is negative.
            ValueError: ``fd`` is neither a stream nor a datagram socket; it is left as it was.
            OSError: ``fd`` is not an open socket.
        """
        require_int("fd", fd)
        for name, value in (("domain", domain), ("sock_type", sock_type), ("protocol", protocol)):
            if value is not None:
                require_int(name, value)
        known = [-1 if value is None else value for value in (domain, sock_type, protocol)]
        os.fstat(fd)  # fails with EBADF; `socket.socket` does not check if all three are given
        sock = socket.socket(known[0], known[1], known[2], fileno=fd)
        try:
            require_kind(sock.type)
        except ValueError:
            sock.detach()  # refused: the descriptor stays the caller's
            raise
        return cls._adopt(sock, buffered=buffered)

    @classmethod
    def _adopt(
        cls,
        sock: socket.socket,
        *,
        buffered: bool,
        state: State | None = None,
        peer: SockAddr | None = None,
    ) -> Self:
        """Make an object that owns ``sock``; on failure close ``sock``."""
        self = cls.__new__(cls)
        try:
            if state is None:
                state, peer = probe_state(sock)
            self._setup(sock, buffered, state, peer)
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
        return self._adopt(sock, buffered=self._buffered, state=State.CONNECTED, peer=sockaddr)

    # Hooks of the flavours.

    def _use(self, operation: str) -> AbstractContextManager[socket.socket]:
        """Hold the descriptor during one call: ``close`` does not close it before the end of the call."""
        return contextlib.nullcontext(self._open_sock(operation))

    def _let_go(self, old: socket.socket) -> None:
        """Close a descriptor that ``connect`` has replaced."""
        close_quietly(old)

    def _opened(self) -> None:
        """Begin to use a connected stream; until ``_published`` only the connecting call uses it."""

    def _published(self) -> None:
        """Allow every call to read and write the connected stream."""

    def _retire(self, linger: float | None) -> None:
        """Wake the waiting calls and close the descriptor, for the first ``close``."""
        self._dispose(linger)

    def _is_disposed(self) -> bool:
        """Whether an earlier ``close`` is complete; one that an exception interrupted must be repeated."""
        return True

    def _abandon(self) -> None:
        """Close the descriptor only, in a process that does not own the socket.

        No ``shutdown``, no byte, no ``epoll_ctl``: each would act on the connection of the owner.
        """
        close_quietly(self._sock)

    def _is_in_use(self) -> bool:
        """Whether a call in this process, which does not own the socket, is using it."""
        return False

    def _inherit(self) -> None:
        """Drop the state of the parent process, before this process becomes the owner of the socket."""

    def _hold(self, operation: str) -> object:
        """Reserve reading and writing of the stream for the caller, until ``_published``.

        Returns:
            The reservation, which ends when the last reference to it is deleted.
        """
        self._open_sock(operation)
        return self._core

    def _send_output(self) -> None:
        """Send the output that a read has produced, unless another call is sending, which then sends it."""
        if self._core is not None:
            self._flush_now(self._core)

    def _write_in_flight(self) -> bool:
        """Whether a send is under way that cannot be cancelled."""
        return False

    # Processes.

    @property
    def _is_foreign(self) -> bool:
        """Whether another process owns the socket: this process is its child, and has not used the socket."""
        return self._owner is not process.epoch

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
        self._open_sock("adopt")
        if self._is_foreign:
            self._inherit()
            self._owner = process.epoch
        if self._unix_file is not None:
            self._unix_file = self._unix_file._replace(owner=process.epoch)

    # States.

    def _open_sock(self, operation: str) -> socket.socket:
        if self._closing.locked():
            raise ClosedError(f"{operation}: the socket is closed")
        return self._sock

    def _connected(self, peer: SockAddr | None, core: StreamCore | None = None) -> None:
        """Become a connected socket; with a ``core`` given, only the caller may use it until ``_published``."""
        is_stream = self._sock.type == SOCK_STREAM
        if self._kernel_waits:
            require_kernel_waits(self._sock)
        self._sock.setblocking(is_stream and self._kernel_waits)  # first, because it may fail
        self._state = State.CONNECTED
        self._peer = None if peer is None else to_display_address(peer)
        if is_stream:
            self._take_core(StreamCore(buffered=self._buffered) if core is None else core)
            self._opened()
            if core is None:
                self._published()

    def _take_core(self, core: StreamCore) -> None:
        """Use this core to read and send."""
        self._core = core
        self._lines = core.lines
        tls_core = tls_core_of(core)
        if tls_core is not None:
            send_output = weakref.WeakMethod(self._send_output)  # the core must not keep the socket alive
            tls_core.on_output = lambda: _invoke(send_output())
            assert tls_core.thread_safe or not self._shared, "threads need a core that has a lock"

    def _unconnected(self) -> None:
        """Return to the state of an unconnected socket."""
        self._state = State.FRESH
        self._core = self._peer = None
        self._lines = []

    def _renew(self) -> None:
        """Replace a descriptor that failed by a fresh one with the same kind, options and local address (C3)."""
        old = self._sock
        fresh = create(old.family, old.type, old.proto)
        try:
            fresh.set_inheritable(old.get_inheritable())
            for (level, number), value in self._remembered_options():
                fresh.setsockopt(level, number, value)
        except BaseException:
            fresh.close()
            raise
        self._sock = fresh
        self._spoiled = False
        self._remove_unix_file()
        self._let_go(old)  # before the bind: it frees the address
        if isinstance(self._bound, str | bytes):
            self._bind_to_path(fresh, self._bound)
        elif self._bound is not None:
            self._bind(fresh, self._bound)

    @property
    def _is_datagram(self) -> bool:
        return self._sock.type == SOCK_DGRAM

    def _require(self, operation: str, *, datagram: bool) -> None:
        """Raise ``TypeError`` if the socket is of the other kind."""
        if self._is_datagram is not datagram:
            needs, is_a = ("datagram", "stream") if datagram else ("stream", "datagram")
            raise TypeError(f"{operation} needs a {needs} socket, this is a {is_a} socket")

    def _refuse(self, operation: str) -> NoReturn:
        """Raise the error of a stream operation on a socket that is not a connected stream."""
        self._open_sock(operation)
        self._require(operation, datagram=False)
        code = errno.EINVAL if self._state is State.LISTENING else errno.ENOTCONN
        raise OSError(code, f"{operation}: the socket is {self._state.value}")

    def _may_connect(self, operation: str) -> None:
        self._open_sock(operation)
        if self._state is State.LISTENING:
            raise OSError(errno.EINVAL, f"{operation}: the socket is listening")
        if self._state is State.CONNECTED and not self._is_datagram:
            raise OSError(errno.EISCONN, f"{operation}: the socket is connected already")

    # Errors.

    def _is_real(self, error: OSError, flags: SocketFlag, operation: str) -> bool:
        """Whether the error of a send must be raised: not a disconnection with ``SAFE_DISCONN`` (W2)."""
        raise_if_closed(self, operation)
        self._note_reset(error)
        if is_disconnection_error(flags, error) and not self._write_shut:
            return False
        annotated(error, operation, self)
        return True

    def _note_reset(self, error: OSError) -> None:
        """Keep the reset that a send has reported, so that the reads report it too (R12)."""
        if isinstance(error, ConnectionResetError) and self._core is not None:
            # A copy: the frames of the one that is raised would keep the socket alive.
            self._core.pending_reset = copy_for_reraise(error)

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
            self._bind(sock, info[0][4])

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
            self._bind_to_path(sock, where)

    def _bind(self, sock: socket.socket, sockaddr: SockAddr) -> None:
        try:
            sock.bind(sockaddr)
        except OSError as error:
            error.add_note(f"while binding to {sockaddr!r}")
            raise
        self._bound = sockaddr

    def _bind_to_path(self, sock: socket.socket, path: str | bytes) -> None:
        try:
            self._unix_file = unix_file.bind(sock, path)
        except OSError as error:
            error.add_note(f"while binding to {path!r}")
            raise
        self._bound = path
        if self._closing.locked():  # closed by another thread, before there was a file to remove
            self._remove_unix_file()

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
            self._require("listen", datagram=False)
            if self._state is State.CONNECTED:
                raise OSError(errno.EISCONN, "listen: the socket is connected")
            sock.listen(backlog)
            self._state = State.LISTENING

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
            if self._state is not State.CONNECTED:
                raise OSError(errno.ENOTCONN, f"peer_addr: the socket is {self._state.value}")
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
            sock.setsockopt(level, number, int(bool(value)))
            options = self._options
            if options is None:
                # Atomic, so that two threads get the same dict. No lock: a finalizer that runs here could need it.
                options = vars(self).setdefault("_options", {})
            options.pop((level, number), None)
            options[level, number] = int(bool(value))

    def _remembered_options(self) -> list[tuple[tuple[int, int], int]]:
        while True:
            try:
                return list((self._options or {}).items())
            except RuntimeError:  # another thread set an option during the copy
                continue

    def get_socket_error(self) -> int:
        """Return and clear the pending error of the socket (``SO_ERROR``), an ``errno``; 0 if there is none."""
        with self._use("get_socket_error") as sock:
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def socket_error(
        self,
        err: int = -1,
        is_async: bool = False,
        last_error: int = -1,
        flags: SocketFlag = SAFE_DISCONN,
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
        if is_disconnection_error(flags, code) or (is_async and code in (errno.EAGAIN, errno.EWOULDBLOCK)):
            return
        raise OSError(code, os.strerror(code)) if code else OSError("the call failed and left no error code")

    # TLS.

    def _wrap(self, context: SslContext, hostname: str) -> None:
        """Make ``connect`` or ``accept`` do a handshake, for ``SslContext.wrap_socket``."""
        self._open_sock("wrap_socket")
        self._require("wrap_socket", datagram=False)
        if self._state is State.CONNECTED:
            raise OSError(errno.EISCONN, "wrap_socket: the socket is connected, see wrap_connected_socket")
        self._tls, self._tls_name = context, hostname

    def _client_core(self, host: str, port: int) -> TlsCore | None:
        """Make the TLS core for ``connect``; None if the socket is not wrapped."""
        if self._tls is None:
            return None
        name = self._tls_name or host
        return self._tls._client_core(name, port, buffered=self._buffered, shared=self._shared)

    def _server_core(self, context: SslContext) -> TlsCore:
        """Make the TLS core for an accepted client."""
        return context._server_core(buffered=self._buffered, shared=self._shared)

    def _begin_upgrade(self, tls_core: TlsCore, plaintext_core: StreamCore, leftover: str) -> None:
        """Use TLS. From here on nothing is sent in clear, even if the handshake fails."""
        begin_upgrade(tls_core, plaintext_core, leftover)
        self._take_core(tls_core)

    # Clients that are not returned before their handshake is done.

    @contextlib.contextmanager
    def _welcome(self, client: BaseSocket) -> Iterator[None]:
        """Track a handshake with an accepted client: close the client if it fails, or with the listener."""
        if self._handshaking is None:
            self._handshaking = set()
        self._handshaking.add(client)
        try:
            self._open_sock("accept")
            yield
        except BaseException:
            client.close()
            raise
        finally:
            self._handshaking.discard(client)

    def _next_ready_client(
        self, accept: Callable[[], tuple[Self, Address] | None]
    ) -> tuple[AcceptResult, Self | None, Address | None]:
        """Return the result of ``try_accept_addr`` on a TLS listener; ``accept`` returns a new client, or None."""
        self._open_sock("accept")
        # `setdefault` is atomic: two threads get the same object.
        pending: PendingHandshakes[Self] = self._pending_handshakes or vars(self).setdefault(
            "_pending_handshakes", PendingHandshakes()
        )
        result = pending.next_ready(lambda: self._incoming(accept()))
        if self._closing.locked():  # closed by another thread, before `_pending_handshakes` was set
            pending.close()
        return result

    def _incoming(self, accepted: tuple[Self, Address] | None) -> IncomingClient[Self] | None:
        """Prepare the handshake with a client that ``try_accept_addr`` has accepted."""
        if accepted is None:
            return None
        client, address = accepted
        try:
            assert self._tls is not None
            return IncomingClient(client, address, client._server_core(self._tls))
        except BaseException:
            client.close()
            raise

    def _step_handshake(self, tls_core: TlsCore) -> bool:
        """Continue a handshake as far as possible without waiting; return whether it is done."""
        while not tls_core.handshake():
            self._flush_now(tls_core)
            try:
                tls_core.feed(self._sock.recv(tls_core.recv_size, DONT_WAIT))
            except BlockingIOError:
                return False
            except OSError as error:
                tls_core.fail(error)
        self._flush_now(tls_core)
        return True

    def _close_pending_handshakes(self) -> None:
        for client in tuple(self._handshaking or ()):
            client.close()
        if self._pending_handshakes is not None:
            self._pending_handshakes.close()

    # Sending without waiting, for the call that holds the write lock.

    def _flush_now(self, core: StreamCore) -> bool:
        """Send pending ciphertext as far as the send buffer has space; return whether all was sent."""
        return not self._write_in_flight() and core.flush(self._sock.send, _NOW)

    def _send_available(self, core: StreamCore, sender: Sender, payload: bytes | memoryview) -> int:
        """Send as much as the send buffer has space for; return how many bytes count as sent. It raises no OSError.

        These are the bytes that the system has taken, and over TLS also the rest of the last chunk (up to 64 KiB), if
        the system has taken only a part of it or had no space for it. This rest is ``core.unsent``; the next sending
        call, even with ``b""``, or ``close`` sends it. A chunk that the system refused with an error does not count.
        """
        sent = 0
        try:
            if self._flush_now(core):
                # An operation of the event loop may be sending.
                while sent < len(payload) and not core.unsent and not self._write_in_flight():
                    sent += sender.send(memoryview(payload)[sent:] if sent else payload, _NOW)
        except OSError as error:
            self._note_reset(error)
        if sent == len(payload):
            core.message_incomplete = False
        return sent

    # Properties of the connection.

    @property
    def is_ssl(self) -> bool:
        """Whether the socket uses TLS, or will use it when it is connected."""
        return self._tls is not None or tls_core_of(self._core) is not None

    @property
    def got_handshake(self) -> bool:
        """Whether the TLS handshake is done.

        Raises:
            ssl.SSLError: the socket does not use TLS.
        """
        if not self.is_ssl:
            raise tls_error("got_handshake: the socket does not use TLS")
        tls_core = tls_core_of(self._core)
        return tls_core is not None and tls_core.engine.established

    def get_peer_certificates(self) -> list[Certificate]:
        """Return the peer's certificates, its own first, the root last.

        Returns:
            The verified chain; empty if the peer has sent none, or it was not verified. After a resumption a server
            has only the client's own certificate, and a client has the chain of the first connection.

        Raises:
            ClosedError: the socket is closed.
        """
        self._open_sock("get_peer_certificates")
        return certificates(self._core)

    def get_psk_identity(self) -> str:
        """Return the PSK identity that the handshake has verified; ``""`` if no pre-shared key was used.

        Raises:
            ClosedError: the socket is closed.
        """
        self._open_sock("get_psk_identity")
        return psk_identity(self._core)

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
        self._open_sock(operation)
        return require_tls_core(self._core, operation, wrapped=self._tls is not None)

    # Closing.

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed the socket."""
        return self._closing.locked()

    @property
    def has_data_buffered(self) -> bool:
        """Whether the buffer has data that a read can return without a read from the kernel."""
        return not self._closing.locked() and self._core is not None and bool(self._core)

    def fileno(self) -> int:
        """Return the descriptor; -1 after ``close``.

        ``connect`` may replace it when an address fails.
        """
        return -1 if self._closing.locked() else self._sock.fileno()

    def detach(self) -> int:
        """Release the descriptor and return it. The object is then closed, the connection is not.

        Raises:
            ClosedError: the socket is closed.
            OSError: ``EBUSY``: received bytes would be lost (see ``has_data_buffered``), or another call is using the
                socket.
            ssl.SSLError: the socket uses TLS.
        """
        self._open_sock("detach")
        if tls_core_of(self._core) is not None:
            raise tls_error("detach: the socket uses TLS, and what has been agreed on would be lost")
        if self.has_data_buffered:
            raise OSError(errno.EBUSY, "detach: received bytes are still unread, and would be lost")
        return self._give_up()

    def _give_up(self) -> int:
        """Release the descriptor, for ``detach``; a flavour extends this."""
        self._closing.acquire()
        self._unix_file = None
        return self._sock.detach()

    def close(self, flags: SocketFlag = SAFE_DISCONN, *, linger: float | None = None) -> None:
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
            seconds = check_timeout(linger)
            linger = FOREVER if seconds is None else seconds
        first = self._closing.acquire(blocking=False)
        if self._is_foreign:
            if not self._is_in_use():
                self._abandon()
                return
            # A call in this process is using the socket: wake it and close in full. The path belongs to the parent.
            self._unix_file = None
            self._owner = process.epoch
        if not first and self._is_disposed():
            return
        self._lines.clear()
        self._close_pending_handshakes()
        try:
            self._remove_unix_file()
        finally:
            self._retire(linger)

    def _dispose(self, linger: float | None) -> None:
        """Close the descriptor, when no call uses it any more."""
        linger, final_bytes = closing_output(self._core, linger)
        close_in_background(
            self._sock, linger if self._core is not None else None, final_bytes, read_shutdown=self._deaf
        )

    def _remove_unix_file(self) -> None:
        """Remove the file that this socket has created, while the descriptor is open."""
        made, self._unix_file = self._unix_file, None
        if made is not None:
            made.remove()

    def __repr__(self) -> str:
        kind = f"{_KINDS.get(self._sock.family, self._sock.family)} {_TYPES.get(self._sock.type, self._sock.type)}"
        name = f"{self._module}.{type(self).__name__}"
        if self._closing.locked():
            return f"<{name} {kind}, closed>"
        parts = [kind]
        with contextlib.suppress(OSError):
            parts.append(f"local={format_address(self.local_addr)}")
            parts.append(f"peer={format_address(self.peer_addr)}")
        if self.is_ssl:
            parts.append(repr_extra(self._core))
        return f"<{name} fd={self.fileno()} {', '.join(parts)}, {self._state.value}>"

    def __del__(self) -> None:
        # `_setup` may have failed before or after it set `_closing`.
        closing = getattr(self, "_closing", None)
        if closing is not None and not closing.locked() and self._sock.fileno() >= 0:
            # The file stays: without a `close` the socket may still be in use in another process, after a program has
            # gone to the background or for its workers. The next bind replaces a stale file.
            self._unix_file = None
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()
        elif closing is not None and not self._is_disposed():
            self.close()


def _invoke(method: Callable[[], object] | None) -> None:
    if method is not None:
        method()


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
