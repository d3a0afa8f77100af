"""The part of ``dial`` that both flavours share: arguments, the options of an attempt, and the errors."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from wireline._core.deadline import CallDeadline
from wireline._core.happy_eyeballs import AddrInfo, Race
from wireline._os.keep_alive import KeepAlive, check_keep_alive, set_default_keep_alive
from wireline._validation import (
    SocketOption,
    check_options,
    check_peer_arguments,
    dial_type,
    require_context,
    require_int,
    unix_target,
)
from wireline.address import IpAddress, check_host, check_port
from wireline.errors import DialError, SockAddr, SocketTimeout, WirelineError, rename_operation
from wireline.options import AF_INET, AF_INET6, SOCK_STREAM, SocketFlag, check_default_flags

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore
    from wireline.tls import SslContext

__all__ = [
    "AF_UNSPEC",
    "DialArguments",
    "LocalAddresses",
    "check_found",
    "dial_error",
    "of_family",
    "unix_error",
]

AF_UNSPEC: int = socket.AF_UNSPEC


class LocalAddresses(dict[int, SockAddr]):
    """The socket address to bind an attempt to, by address family."""

    @classmethod
    def every_interface(cls, port: int) -> LocalAddresses:
        """Fix the port only."""
        return cls({AF_INET: ("", port), AF_INET6: ("::", port)})

    @classmethod
    def of(cls, found: Iterable[AddrInfo]) -> LocalAddresses:
        """Take the first address of each family."""
        addresses = cls()
        for info in found:
            addresses.setdefault(info[0], info[4])
        return addresses

    def bind(self, sock: socket.socket) -> None:
        """Bind a socket to the address of its family.

        Raises:
            OSError: there is none; or from bind(2).
        """
        sockaddr = self.get(sock.family)
        if sockaddr is None:
            raise OSError(errno.EADDRNOTAVAIL, "local_addr has no address of this family")
        if sockaddr[1] and sock.type == SOCK_STREAM and os.name == "posix":
            # Attempts side by side, or one after a connection in TIME_WAIT, have the same port. The kernel refuses a
            # connection that exists already.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(sockaddr)
        except OSError as error:
            error.add_note(f"while binding to {sockaddr!r}")
            raise


class DialArguments(NamedTuple):
    """The arguments of ``dial`` that say where to connect and how, checked.

    Attributes:
        host: a name or an address; ``""`` with a ``path``.
        port: 0 with a ``path``.
        path: of a Unix socket; None for a host.
        sock_type: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
        protocol: of the network.
        family: ``AF_UNSPEC``, ``AF_INET`` or ``AF_INET6``.
        local: the host and port to bind to, or None.
        options: set on every attempt.
        keep_alive: set on every attempt of TCP.
        resolver: the caller's own, or None.
        default_flags: of the socket.
    """

    host: str
    port: int
    path: str | bytes | None
    sock_type: int
    protocol: int
    family: int
    local: tuple[str, int] | None
    options: tuple[SocketOption, ...]
    keep_alive: KeepAlive | None
    resolver: Callable[..., Any] | None
    default_flags: SocketFlag

    @classmethod
    def check(
        cls,
        address: str | IpAddress,
        port: int | None,
        protocol: int,
        local_addr: tuple[str | IpAddress, int] | None,
        family: int,
        options: Iterable[SocketOption],
        keep_alive: KeepAlive | None,
        resolver: Callable[..., Any] | None,
        default_flags: SocketFlag,
    ) -> DialArguments:
        """Check the arguments of ``dial``.

        Raises:
            TypeError, ValueError: an argument has the wrong type, is out of range, or does not fit the others.
        """
        sock_type = dial_type(protocol)
        require_int("family", family)
        if family not in (AF_UNSPEC, AF_INET, AF_INET6):
            raise ValueError(f"family is AF_UNSPEC, AF_INET or AF_INET6, got {family!r}")
        if resolver is not None and not callable(resolver):
            raise TypeError(f"resolver must be callable with host, port, family and type, got {resolver!r}")
        check_keep_alive(keep_alive)
        check_default_flags(default_flags)
        local = None if local_addr is None else _check_local(local_addr)
        path = unix_target(address)
        if path is None:
            if port is None:
                raise TypeError("dial needs a port, unless the address is unix:/path")
            host, port = check_peer_arguments(address, port)
        else:
            # A host from a URL must not reach a local socket: such a program has a port, too.
            given = {
                "port": port,
                "local_addr": local,
                "resolver": resolver,
                "family": family if family else None,
            }
            refused = [name for name, value in given.items() if value is not None]
            if refused or sock_type != SOCK_STREAM:
                raise ValueError(f"a Unix socket has no {(refused or ['protocol'])[0]}: got {address!r}")
            host, port = "", 0
        checked = check_options(options)
        return cls(
            host, port, path, sock_type, protocol, family, local, checked, keep_alive, resolver, default_flags
        )

    def __str__(self) -> str:
        if self.path is None:
            return f"{self.host!r} port {self.port}"
        return repr(f"unix:{os.fsdecode(self.path)}".replace("\0", "@", 1))

    def tls_core(self, tls: SslContext | None, hostname: str | None, *, shared: bool) -> TlsCore | None:
        """Make the core of a TLS connection; None without TLS.

        Args:
            tls: the context, if any.
            hostname: checked against the certificate and sent as SNI; the host by default.
            shared: a reader and a writer may be two threads.

        Raises:
            TypeError, ValueError: the arguments do not fit together.
            OSError: the context cannot be used, because no CA is found, say.
        """
        if tls is None:
            if hostname is not None:
                raise ValueError("hostname is checked against the certificate: it needs tls=")
            return None
        require_context(tls)
        if self.sock_type != SOCK_STREAM:
            raise ValueError("TLS needs a stream, and UDP has none: leave out tls=")
        name = self.host if hostname is None else hostname
        return tls._client_core(name, self.port, shared=shared)

    def prepare(self, sock: socket.socket, local: LocalAddresses | None) -> None:
        """Set the options of one attempt, and bind it.

        Raises:
            OSError: an option does not exist here, or is refused; the address is not this host's, or in use.
        """
        if self.sock_type == SOCK_STREAM:
            set_default_keep_alive(sock, self.keep_alive)
        for level, option, value in self.options:  # last: they may be among those of keepalive
            sock.setsockopt(level, option, value)
        if local is not None:
            local.bind(sock)


def _check_local(local_addr: object) -> tuple[str, int]:
    if not isinstance(local_addr, tuple) or len(local_addr) != 2:
        raise TypeError(f"local_addr is a tuple of host and port, got {local_addr!r}")
    return check_host(local_addr[0]), check_port(local_addr[1])


def check_found(arguments: DialArguments, found: object) -> list[AddrInfo]:
    """Check the addresses that the caller's resolver returned, and complete them.

    Raises:
        TypeError: they are not ``getaddrinfo`` tuples.
        socket.gaierror: there is none of the family that was asked for.
    """
    if not isinstance(found, list | tuple):
        raise TypeError(f"resolver must return a list of getaddrinfo tuples, got {found!r}")
    checked: list[AddrInfo] = []
    for each in found:
        if not isinstance(each, tuple) or len(each) != 5 or not isinstance(each[4], tuple):
            raise TypeError(f"resolver must return getaddrinfo tuples of five, got {each!r}")
        family, sock_type, protocol, name, sockaddr = each
        if arguments.family in (AF_UNSPEC, family):
            info = (
                int(family),
                sock_type or arguments.sock_type,
                protocol or arguments.protocol,
                name,
                sockaddr,
            )
            checked.append(info)
    if not checked:
        raise socket.gaierror(
            socket.EAI_NONAME, f"the resolver has found no address (host name {arguments.host!r})"
        )
    return checked


def of_family(arguments: DialArguments, found: list[AddrInfo]) -> list[AddrInfo]:
    """Leave out IPv4 addresses in IPv6 form, which the system adds for ``AF_INET6`` where there is no other.

    Raises:
        socket.gaierror: nothing else was found.
    """
    if arguments.family != AF_INET6 or ":" in arguments.host:
        return found
    own = [info for info in found if not str(info[4][0]).startswith("::ffff:")]
    if found and not own:
        raise socket.gaierror(socket.EAI_NONAME, f"it has no IPv6 address (host name {arguments.host!r})")
    return own


def dial_error(race: Race, target: object, deadline: CallDeadline | None) -> DialError | SocketTimeout:
    """Return the error of a dial that failed: all attempts failed, or the timeout passed before."""
    if race.over or deadline is None:
        return DialError(str(target), race.attempts)
    timeout = SocketTimeout("dial", deadline.seconds)
    timeout.add_note(f"while dialing {target}")
    race.give_up(timeout, deadline.at)
    for sockaddr, error, seconds in race.attempts:
        timeout.add_note(f"{sockaddr!r}: {'no answer' if error is timeout else error} after {seconds:.3f} s")
    return timeout


def unix_error(arguments: DialArguments, error: OSError, seconds: float) -> OSError:
    """Return the error of ``dial`` for that of a Unix socket: one attempt, unless it is the library's own."""
    rename_operation(error, "connect_unix", "dial")
    if isinstance(error, WirelineError) or error.errno is None:
        return error
    assert arguments.path is not None
    return DialError(str(arguments), ((arguments.path, error, seconds),))
