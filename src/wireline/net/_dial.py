"""``dial``: connect to the first address of a name that answers (RFC 8305), with one ``poll``."""

from __future__ import annotations

import functools
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.happy_eyeballs import AddrInfo, Race, interleave
from wireline._dial_common import (
    AF_UNSPEC,
    DialArguments,
    LocalAddresses,
    check_found,
    dial_error,
    of_family,
    unix_error,
)
from wireline._os.descriptor import State, begin_connect, connect_result
from wireline._os.keep_alive import DEFAULT_KEEP_ALIVE, KeepAlive
from wireline._os.resolver import resolve
from wireline._validation import SocketOption
from wireline.address import IpAddress
from wireline.errors import SocketTimeout
from wireline.net._poll import Waker, start_deadline, wait_for_lookup
from wireline.net._socket import Socket
from wireline.options import AF_UNIX, IPPROTO_TCP, SAFE_DISCONN, SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline.tls import SslContext

__all__ = ["dial"]

Resolver = Callable[[str, int, int, int], Sequence[object]]

# `poll` has no descriptor of its own: `dial` must work with the last free one.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)

# Seconds. A selector refuses a wait of much more than three weeks, and a deadline may be further away.
_LONGEST_WAIT = 86_400.0


def dial(
    address: str | IpAddress,
    port: int | None = None,
    protocol: int = IPPROTO_TCP,
    *,
    buffered: bool = True,
    timeout: Timeout = None,
    tls: SslContext | None = None,
    hostname: str | None = None,
    local_addr: tuple[str | IpAddress, int] | None = None,
    family: int = AF_UNSPEC,
    options: Iterable[SocketOption] = (),
    keep_alive: KeepAlive | None = DEFAULT_KEEP_ALIVE,
    resolver: Resolver | None = None,
    default_flags: SocketFlag = SAFE_DISCONN,
) -> Socket:
    """Connect to a name: race its addresses and return a socket connected to the first that answers.

    The addresses are tried with IPv6 and IPv4 in turn; the next attempt starts after 250 ms, or at once when the one
    before has failed (RFC 8305). The name is resolved once. A timeout or a cancellation leaves nothing behind: every
    attempt under way is closed.

    Args:
        address: a name or an address; or a Unix socket: ``"unix:/path"``, and on Linux ``"unix:@name"`` for an abstract
            name. A Unix socket is refused with ``port``, ``family``, ``local_addr`` or ``resolver``, so that a host and
            a port from a URL never reach a local socket.
        port: 0 to 65535; required, unless ``address`` is a Unix socket.
        protocol: ``IPPROTO_TCP``, or ``IPPROTO_UDP`` for a connected datagram socket.
        buffered: whether the socket reads from the kernel in large pieces, see ``Socket``.
        timeout: seconds for the whole call, name resolution and TLS handshake included; None means no limit.
        tls: a ``wireline.tls.SslContext``: do a TLS handshake, and check the peer's certificate and its name.
        hostname: the name that the peer's certificate must have, and that is sent to the peer; by default ``address``.
            A Unix socket needs one if the certificate is verified.
        local_addr: the host and port to connect from; the host ``""`` stands for any address, the port 0 for any port.
            Peer addresses of a family for which the host has no address fail.
        family: try addresses of one family only, ``AF_INET`` or ``AF_INET6``; 0, ``socket.AF_UNSPEC``, means both.
        options: tuples of level, option and value, set on every attempt before it connects.
        keep_alive: when a silent TCP peer is asked whether it is still there, by default after 15 s; None never asks.
        resolver: called once as ``resolver(host, port, family, type)`` in place of the system's resolver. It returns a
            list of tuples as ``socket.getaddrinfo`` does. In the async flavour it is a coroutine function. In the
            blocking flavour the timeout cannot interrupt it.
        default_flags: the default of every ``flags`` parameter of the socket, see ``Socket``.

    Returns:
        The connected socket.

    Raises:
        DialError: no address could be connected; its ``attempts`` have the error and the time of each one. A Unix
            socket is one address.
        SocketTimeout: the timeout expired while an address could still have answered, or during the handshake.
        ssl.SSLError: the handshake failed; ``ssl.SSLCertVerificationError`` if the certificate was not accepted.
        socket.gaierror: the name does not resolve.
        TypeError, ValueError: an argument has the wrong type, is out of range, or does not fit the others; the resolver
            has returned something other than addresses.
    """
    arguments = DialArguments.check(
        address, port, protocol, local_addr, family, options, keep_alive, resolver, default_flags
    )
    secure = arguments.tls_core(tls, hostname, shared=True)
    deadline = start_deadline(check_timeout(timeout))
    if arguments.path is None:
        dialled = _dial_host(arguments, deadline, buffered)
    else:
        dialled = _dial_unix(arguments, deadline, buffered)
    if secure is not None:
        try:
            dialled._upgrade(secure, deadline, "dial")
        except BaseException:
            dialled.close()
            raise
    return dialled


def _dial_unix(arguments: DialArguments, deadline: CallDeadline | None, buffered: bool) -> Socket:
    assert arguments.path is not None
    began = time.monotonic()
    sock = Socket(AF_UNIX, buffered=buffered, default_flags=arguments.default_flags)
    try:
        for level, option, value in arguments.options:
            sock.setsockopt(level, option, value)
        sock.connect_unix(arguments.path, None if deadline is None else deadline.seconds)
    except OSError as error:
        sock.close()
        raise unix_error(arguments, error, time.monotonic() - began) from error.__cause__
    except BaseException:
        sock.close()
        raise
    return sock


def _dial_host(arguments: DialArguments, deadline: CallDeadline | None, buffered: bool) -> Socket:
    local = _local_addresses(arguments, deadline)
    race = Race(interleave(_resolve(arguments, deadline)))
    sock = _run(race, deadline, functools.partial(arguments.prepare, local=local))
    if sock is None:
        raise dial_error(race, arguments, deadline)
    assert race.winner is not None
    return Socket._adopt(
        sock,
        buffered=buffered,
        default_flags=arguments.default_flags,
        state=State.CONNECTED,
        peer=race.candidates[race.winner][4],
    )


def _resolve(arguments: DialArguments, deadline: CallDeadline | None) -> list[AddrInfo]:
    host, port, family = arguments.host, arguments.port, arguments.family
    if arguments.resolver is None:
        lookup = resolve(host, port, family, arguments.sock_type, arguments.protocol)
        return of_family(arguments, wait_for_lookup(lookup, "dial", deadline, Waker()) or [])
    found = check_found(arguments, arguments.resolver(host, port, family, arguments.sock_type))
    if deadline is not None and deadline.passed(time.monotonic()):
        raise SocketTimeout("dial", deadline.seconds)
    return found


def _local_addresses(arguments: DialArguments, deadline: CallDeadline | None) -> LocalAddresses | None:
    if arguments.local is None:
        return None
    host, port = arguments.local
    if not host:
        return LocalAddresses.every_interface(port)
    lookup = resolve(host, port, arguments.family, arguments.sock_type, arguments.protocol)
    return LocalAddresses.of(wait_for_lookup(lookup, "dial", deadline, Waker()) or ())


def _run(
    race: Race, deadline: CallDeadline | None, prepare: Callable[[socket.socket], object]
) -> socket.socket | None:
    """Return a socket connected to the first address that answers; None if none does in time. Close the others."""
    attempts: list[socket.socket] = []
    winner: socket.socket | None = None
    try:
        winner = _race(race, deadline, prepare, attempts)
    finally:
        for sock in attempts:
            if sock is not winner:
                sock.close()
    return winner


def _race(
    race: Race,
    deadline: CallDeadline | None,
    prepare: Callable[[socket.socket], object],
    attempts: list[socket.socket],
) -> socket.socket | None:
    with _Selector() as selector:
        while not race.over:
            while (index := race.start_due(time.monotonic())) is not None:
                try:
                    sock, done = begin_connect(race.candidates[index], prepare)
                except OSError as error:
                    if error.errno is None:
                        raise  # a signal handler's, not that of the address
                    race.failed(index, error, time.monotonic())
                    continue
                if done and race.won(index):
                    return sock
                attempts.append(sock)
                selector.register(sock, selectors.EVENT_WRITE, index)
            now = time.monotonic()
            if race.over:
                break
            winner = _await_one(race, selector, deadline, now)
            if winner is not None:
                return winner
            if deadline is not None and deadline.passed(time.monotonic()):
                break
    return None


def _await_one(
    race: Race, selector: selectors.BaseSelector, deadline: CallDeadline | None, now: float
) -> socket.socket | None:
    """Wait until an attempt is over or the next one is due; return the winner if there is one."""
    moments = [race.next_start(now), deadline.at if deadline is not None else None, now + _LONGEST_WAIT]
    seconds = min(max(0.0, moment - now) for moment in moments if moment is not None)
    for key, _ in selector.select(seconds):
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        error = connect_result(sock)
        if error is None:
            if race.won(key.data):
                return sock
        else:
            selector.unregister(sock)
            sock.close()
            race.failed(key.data, error, time.monotonic())
    return None
