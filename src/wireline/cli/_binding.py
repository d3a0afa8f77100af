"""Where a listener listens, and how that is told."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wireline import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, Address, SockOpt, Target
from wireline.cli._outcome import Stage, during, say
from wireline.cli._signals import Signals
from wireline.net import Socket

if TYPE_CHECKING:
    from wireline.cli._tls import Server

_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@contextlib.contextmanager
def bound(target: Target, kind: int, signals: Signals, tls: Server | None = None) -> Iterator[Socket]:
    """A socket at the address, announced and, if it is a stream socket, listening. A signal closes it."""
    with signals.noted():  # a signal that comes now must not leave a socket file behind
        with during(Stage.LISTEN, target):
            sock = _open(target, kind)
        with sock, signals.ended_by(sock.close):
            announce(target, sock.local_addr, tls)
            yield sock


def announce(target: Target, address: Address, tls: Server | None = None) -> None:
    """Say where, in a spelling that ``wireline connect`` takes, and what else it needs."""
    spelling = _spelling(target, address)
    say(f"listening on {spelling}")
    if tls is not None:
        tls.announce(spelling)


def client_name(target: Target, address: Address) -> str:
    """What to call a client. Those of a Unix socket seldom have an address."""
    return f"a client of {target}" if target.path else str(Target("tcp", *address))


def _spelling(target: Target, address: Address) -> Target:
    if target.path:
        return target._replace(path=address.host)
    return target._replace(host=address.host, port=address.port)


def _open(target: Target, kind: int) -> Socket:
    *others, last = _families(target)
    for family in others:
        try:
            return _open_as(family, target, kind)
        except OSError as error:
            if not isinstance(error, socket.gaierror) and error.errno not in _NO_SUCH_FAMILY:
                raise
    return _open_as(last, target, kind)


def _families(target: Target) -> tuple[int, ...]:
    """The families to try. An IPv6 socket on every interface serves IPv4 as well, as with ``serve``."""
    if target.path:
        return (AF_UNIX,)
    if ":" in target.host:
        return (AF_INET6,)
    return (AF_INET, AF_INET6) if target.host else (AF_INET6, AF_INET)


def _open_as(family: int, target: Target, kind: int) -> Socket:
    sock = Socket(family, kind)
    try:
        if target.path:
            sock.bind_unix(target.path)
        else:
            # Connections of a listener before us may linger in TIME_WAIT. On Windows the option means something else.
            if kind == SOCK_STREAM and os.name == "posix":
                sock.set_sock_opt(SockOpt.REUSE_ADDR, True)
            sock.bind_addr(target.port, target.host)
        if kind == SOCK_STREAM:
            sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock
