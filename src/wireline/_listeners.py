"""The listening sockets of a server: bound to the addresses of a name or to a path, or taken over from the caller."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from wireline._core.happy_eyeballs import AddrInfo
from wireline._os.keep_alive import KeepAlive, check_keep_alive, set_default_keep_alive
from wireline._socket_base import BaseSocket
from wireline._validation import SocketOption, check_options, require_int, unix_target
from wireline.address import IpAddress, check_host, check_port
from wireline.options import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, SocketFlag, SockOpt, check_default_flags

__all__ = ["ListenConfig", "close_all"]

S = TypeVar("S", bound=BaseSocket)

# How often a free port is looked for that is free at every address of a name. asyncio leaves that to the caller. A
# guess: an ephemeral port that is taken at one address of a host and free at another is rare.
_PORT_TRIES = 10

_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})


class ListenConfig(NamedTuple):
    """Where a server listens, and how, checked.

    Attributes:
        host: a name or an address; ``""`` is every interface.
        port: 0 for any free one.
        path: of a Unix socket; None for a host.
        existing: sockets to take over instead.
        options: set on each socket before it is bound.
        mode: the permissions of the file at ``path``; None for those that the umask leaves.
        keep_alive: set on each TCP socket; accepted ones inherit it.
        backlog: as for ``listen``.
        reuse_port: let several processes listen on one port (``SO_REUSEPORT``).
        buffered: inherited by the accepted sockets.
        default_flags: likewise.
    """

    host: str
    port: int
    path: str | bytes | None
    existing: tuple[BaseSocket | socket.socket, ...]
    options: tuple[SocketOption, ...]
    mode: int | None
    keep_alive: KeepAlive | None
    backlog: int
    reuse_port: bool
    buffered: bool
    default_flags: SocketFlag

    @classmethod
    def check(
        cls,
        kind: type[BaseSocket],
        port: int,
        address: str | IpAddress,
        sock: object,
        options: Iterable[SocketOption],
        mode: int | None,
        keep_alive: KeepAlive | None,
        backlog: int,
        reuse_port: bool,
        buffered: bool,
        default_flags: SocketFlag,
    ) -> ListenConfig:
        """Check the arguments of ``serve``; ``kind`` is the flavour's socket class.

        Raises:
            TypeError, ValueError: an argument has the wrong type, is out of range, or does not fit the others.
        """
        path = unix_target(address)
        host = check_host(address) if path is None else ""
        port = check_port(port)
        checked = check_options(options)
        check_keep_alive(keep_alive)
        require_int("backlog", backlog)
        check_default_flags(default_flags)
        existing: tuple[BaseSocket | socket.socket, ...] = ()
        if sock is not None:
            existing = _check_existing(kind, sock)
            given = {"port": port, "address": host or path, "options": checked, "reuse_port": reuse_port}
            refused = [name for name, value in given.items() if value]
            if refused:
                raise ValueError(f"a socket that listens already has its own {refused[0]}: leave it out")
        if mode is not None:
            _check_mode(mode, path)
        return cls(
            host,
            port,
            path,
            existing,
            checked,
            mode,
            keep_alive,
            backlog,
            bool(reuse_port),
            buffered,
            default_flags,
        )

    @property
    def needs_lookup(self) -> bool:
        """Whether ``host`` has to be resolved before ``open``."""
        return self.host != ""

    def open(self, kind: type[S], found: Iterable[AddrInfo]) -> list[S]:
        """Return the listening sockets: at least one.

        Args:
            kind: the flavour's socket class.
            found: the addresses of ``host``, if it ``needs_lookup``.

        Raises:
            OSError: one of them cannot be bound; nothing is left behind.
        """
        if self.existing:
            return self._take_over(kind)
        if self.path is not None:
            return [self._open(kind, AF_UNIX, self.path, 0)]
        if not self.host:
            return [self._open_every_interface(kind)]
        addresses = list(dict.fromkeys((info[0], str(info[4][0])) for info in found))
        for _ in range(_PORT_TRIES - 1):
            with contextlib.suppress(_PortTakenElsewhere):
                return self._open_all(kind, addresses)
        return self._open_all(kind, addresses)

    def _take_over(self, kind: type[S]) -> list[S]:
        taken: list[S] = []
        try:
            for each in self.existing:
                if isinstance(each, socket.socket):
                    taken.append(
                        kind.from_socket(each, buffered=self.buffered, default_flags=self.default_flags)
                    )
                else:
                    # A new object, which knows no path: the file belongs to the program that has bound it.
                    fd = each.detach()
                    taken.append(kind.from_fd(fd, buffered=self.buffered, default_flags=self.default_flags))
                self._set_keep_alive(taken[-1])
        except BaseException:
            close_all(taken)
            raise
        return taken

    def _open_every_interface(self, kind: type[S]) -> S:
        """One socket for IPv6 and IPv4, or for IPv4 only where there is no IPv6."""
        try:
            return self._open(kind, AF_INET6, "", self.port, only_v6=False)
        except OSError as error:
            # The port is taken for IPv6: IPv4 alone would be only half of "every interface".
            if error.errno == errno.EADDRINUSE:
                raise
            try:
                return self._open(kind, AF_INET, "", self.port)
            except OSError:
                raise error from None

    def _open_all(self, kind: type[S], addresses: list[tuple[int, str]]) -> list[S]:
        """Open a socket for each address, with one port."""
        opened: list[S] = []
        port, missing = self.port, None
        # With IPv4 addresses beside it, an IPv6 socket must not take their port, too.
        only_v6 = len(addresses) > 1 or None
        try:
            for family, host in addresses:
                try:
                    opened.append(self._open(kind, family, host, port, only_v6=only_v6))
                except OSError as error:
                    if opened and not self.port and error.errno == errno.EADDRINUSE:
                        raise _PortTakenElsewhere(*error.args) from error
                    if not _is_missing(family, error):
                        raise
                    missing = missing or error
                else:
                    port = port or opened[0].local_addr.port
            if missing is not None and not opened:
                raise missing
        except BaseException:
            close_all(opened)
            raise
        return opened

    def _open(
        self, kind: type[S], family: int, host: str | bytes, port: int, *, only_v6: bool | None = None
    ) -> S:
        listener = kind(family, SOCK_STREAM, buffered=self.buffered, default_flags=self.default_flags)
        try:
            if family != AF_UNIX:
                self._prepare(listener, only_v6 if family == AF_INET6 else None)
            for option in self.options:
                listener.setsockopt(*option)
            if family == AF_UNIX:
                with _creating_mode(listener.fileno(), self.mode):
                    listener.bind_unix(host)
                if self.mode is not None:
                    os.chmod(host, self.mode)  # the umask may have removed some of it
            else:
                listener.bind_addr(port, os.fsdecode(host))
            listener.listen(self.backlog)
        except BaseException:
            listener.close()
            raise
        return listener

    def _prepare(self, listener: BaseSocket, only_v6: bool | None) -> None:
        if os.name == "posix":  # on Windows it would let another program take over the port
            listener.set_sock_opt(SockOpt.REUSE_ADDR, True)
        if self.reuse_port:
            listener.set_sock_opt(SockOpt.REUSE_PORT, True)
        if only_v6 is not None:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_v6))
        self._set_keep_alive(listener)

    def _set_keep_alive(self, listener: BaseSocket) -> None:
        """Switch keepalive on for the clients of a TCP listener, which inherit it on Linux."""
        set_default_keep_alive(listener._fd.sock, self.keep_alive)


class _PortTakenElsewhere(OSError):
    """The port that the operating system chose for the first address is in use at another one."""


def close_all(sockets: Iterable[BaseSocket]) -> None:
    """Close sockets; an error of one does not keep the others open."""
    with contextlib.ExitStack() as stack:
        for sock in sockets:
            stack.callback(sock.close)


def _check_mode(mode: int, path: str | bytes | None) -> None:
    require_int("mode", mode)
    if mode > 0o777:
        raise ValueError(f"mode is 0 to 0o777, got {mode:#o}")
    if path is None or os.fsencode(path).startswith(b"\0"):
        raise ValueError("mode is for the path of a Unix socket")


@contextlib.contextmanager
def _creating_mode(fd: int, mode: int | None) -> Iterator[None]:
    """Let the file that bind(2) creates have no more permissions than ``mode``."""
    if mode is None:
        yield
        return
    try:
        os.fchmod(fd, mode)  # Linux: the file gets the mode of the socket, less the umask
    except OSError:
        # Elsewhere only the umask counts, that of the process: files of other threads may get less, and never more.
        umask = os.umask(0o777)
        os.umask(umask | 0o777 & ~mode)
        try:
            yield
        finally:
            os.umask(umask)
        return
    yield


def _check_existing(kind: type[BaseSocket], sock: object) -> tuple[BaseSocket | socket.socket, ...]:
    """Return the sockets of the argument ``sock``."""
    listed: list[object] = list(sock) if isinstance(sock, list | tuple) else [sock]
    if not listed:
        raise ValueError("sock is an empty list")
    given: list[BaseSocket | socket.socket] = []
    for each in listed:
        if not isinstance(each, kind | socket.socket):
            raise TypeError(f"sock is a listening {kind.__name__} or socket.socket, got {each!r}")
        if each.is_ssl if isinstance(each, BaseSocket) else hasattr(each, "unwrap"):
            raise ValueError(f"the socket is wrapped for TLS: give tls= to serve instead, got {each!r}")
        _require_listening(each)
        given.append(each)
    if len({each.fileno() for each in given}) < len(given):
        raise ValueError("sock has one socket twice")
    return tuple(given)


def _require_listening(sock: BaseSocket | socket.socket) -> None:
    kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    if kind != SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"sock must be a listening stream socket, got {sock!r}")


def _is_missing(family: int, error: OSError) -> bool:
    """Whether a bind failed because this host does not have the address family."""
    if error.errno in _NO_SUCH_FAMILY:
        return True
    if error.errno != errno.EADDRNOTAVAIL:
        return False
    # The address of another host, or a family that is compiled in and switched off: then it has no loopback either.
    try:
        with socket.socket(family, SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1" if family == AF_INET else "::1", 0))
    except OSError:
        return True
    return False
