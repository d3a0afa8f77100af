"""The datagram socket of ``listen``, and the lines that announce the address of a server."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wireline import AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, Address, SockOpt, Target
from wireline.cli._datagram_targets import find_interface, group_of
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import Stage, during
from wireline.cli._stderr import print_stderr
from wireline.net import Socket

if TYPE_CHECKING:
    from wireline.cli._tls_handshakes import TlsServer

_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@contextlib.contextmanager
def bound(target: Target, signals: Signals, *, interface: str | int | None = None) -> Iterator[Socket]:
    """Bind a datagram socket, and announce its address. A signal closes it.

    A multicast group is joined, on ``interface``.
    """
    with signals.deferring_exit():  # otherwise a signal now would leave a socket file behind
        with during(Stage.LISTEN, target):
            sock = _bind(target, interface)
        with sock, signals.ended_by(sock.close):
            announce(target, sock.local_addr)
            yield sock


def announce(target: Target, address: Address, tls: TlsServer | None = None) -> None:
    """Print the address as an argument of ``wireline connect``, and what else a client needs."""
    bound_target = _with_address(target, address)
    print_stderr(f"listening on {bound_target}")
    if tls is not None:
        tls.announce(bound_target)


def target_at(address: Address) -> Target:
    """The target of a stream's address; that of a Unix socket has no port."""
    return Target("tcp", *address) if address.port else Target("unix", path=address.host)


def client_name(target: Target, address: Address) -> str:
    """The name of a client in messages. Clients of a Unix socket seldom have an address."""
    return str(target_at(address)) if address.port else f"a client of {target}"


def _with_address(target: Target, address: Address) -> Target:
    if target.path:
        return target._replace(path=address.host)
    # The system reports the zone as a number.
    host = target.host if "%" in target.host else address.host
    return target._replace(host=host, port=address.port)


def _bind(target: Target, interface: str | int | None) -> Socket:
    *others, last = _families(target)
    for family in others:
        try:
            return _bind_as(family, target, interface)
        except OSError as error:
            if not isinstance(error, socket.gaierror) and error.errno not in _NO_SUCH_FAMILY:
                raise
    return _bind_as(last, target, interface)


def _families(target: Target) -> tuple[int, ...]:
    """The address families to try. An IPv6 socket on all interfaces receives from IPv4 as well."""
    if target.path:
        return (AF_UNIX,)
    if ":" in target.host:
        return (AF_INET6,)
    return (AF_INET, AF_INET6) if target.host else (AF_INET6, AF_INET)


def _bind_as(family: int, target: Target, interface: str | int | None) -> Socket:
    is_group = group_of(target) is not None
    number = find_interface(interface)
    sock = Socket(family, SOCK_DGRAM)
    try:
        if target.path:
            sock.bind_unix(target.path)
        else:
            # A group has many listeners. On Windows the option means something else.
            if is_group and os.name == "posix":
                sock.set_sock_opt(SockOpt.REUSE_ADDR, True)
            sock.bind_addr(target.port, target.host)
            if is_group:
                sock.join_group(target.host, number)
    except BaseException:
        sock.close()
        raise
    return sock
