"""``dial``: from a name and a port to a connected socket (RFC 8305), one task for all attempts."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
from wireline._os.descriptor import State, create_prepared
from wireline._os.keep_alive import DEFAULT_KEEP_ALIVE, KeepAlive
from wireline._os.resolver import resolve
from wireline._validation import SocketOption
from wireline.address import IpAddress
from wireline.asyncnet._connect_attempts import ConnectAttempts
from wireline.asyncnet._port import running_port
from wireline.asyncnet._socket import AsyncSocket
from wireline.asyncnet._sync import Notifier, wait_for_lookup
from wireline.errors import SocketTimeout
from wireline.options import AF_UNIX, IPPROTO_TCP, SAFE_DISCONN, SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline.tls import SslContext

__all__ = ["dial"]

Resolver = Callable[[str, int, int, int], Awaitable[Sequence[object]]]


async def dial(
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
) -> AsyncSocket:
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
    secure = arguments.tls_core(tls, hostname, shared=False)
    timeout = check_timeout(timeout)
    notifier = Notifier(running_port())
    deadline = None if timeout is None else CallDeadline(timeout, notifier.port.time())
    if notifier.port.raise_if_cancelled is not None:
        await notifier.port.raise_if_cancelled()
    if arguments.path is None:
        dialled = await _dial_host(arguments, deadline, buffered, notifier)
    else:
        dialled = await _dial_unix(arguments, deadline, buffered, notifier)
    if secure is not None:
        try:
            await dialled._upgrade(secure, deadline, "dial")
        except BaseException:
            dialled.close()
            raise
    return dialled


async def _dial_unix(
    arguments: DialArguments, deadline: CallDeadline | None, buffered: bool, notifier: Notifier
) -> AsyncSocket:
    assert arguments.path is not None
    began = notifier.port.time()
    sock = AsyncSocket(AF_UNIX, buffered=buffered, default_flags=arguments.default_flags)
    try:
        for level, option, value in arguments.options:
            sock.setsockopt(level, option, value)
        await sock.connect_unix(arguments.path, None if deadline is None else deadline.seconds)
    except OSError as error:
        sock.close()
        raise unix_error(arguments, error, notifier.port.time() - began) from error.__cause__
    except BaseException:
        sock.close()
        raise
    return sock


async def _dial_host(
    arguments: DialArguments, deadline: CallDeadline | None, buffered: bool, notifier: Notifier
) -> AsyncSocket:
    local = await _local_addresses(arguments, deadline, notifier)
    race = Race(interleave(await _resolve(arguments, deadline, notifier)))
    sock = await _race(race, deadline, functools.partial(arguments.prepare, local=local), notifier)
    if sock is None:
        raise dial_error(race, arguments, deadline)
    assert race.winner is not None
    return AsyncSocket._adopt(
        sock,
        buffered=buffered,
        default_flags=arguments.default_flags,
        state=State.CONNECTED,
        peer=race.candidates[race.winner][4],
    )


async def _resolve(
    arguments: DialArguments, deadline: CallDeadline | None, notifier: Notifier
) -> list[AddrInfo]:
    host, port, family = arguments.host, arguments.port, arguments.family
    resolver = arguments.resolver
    if resolver is None:
        lookup = resolve(host, port, family, arguments.sock_type, arguments.protocol)
        return of_family(arguments, await wait_for_lookup(lookup, "dial", deadline, notifier) or [])

    async def ask() -> list[AddrInfo]:
        return check_found(arguments, await resolver(host, port, family, arguments.sock_type))

    found = await notifier.port.move_on_at(None if deadline is None else deadline.at, ask())
    if found is None:
        assert deadline is not None
        raise SocketTimeout("dial", deadline.seconds)
    return found


async def _local_addresses(
    arguments: DialArguments, deadline: CallDeadline | None, notifier: Notifier
) -> LocalAddresses | None:
    if arguments.local is None:
        return None
    host, port = arguments.local
    if not host:
        return LocalAddresses.every_interface(port)
    lookup = resolve(host, port, arguments.family, arguments.sock_type, arguments.protocol)
    return LocalAddresses.of(await wait_for_lookup(lookup, "dial", deadline, notifier) or ())


async def _race(
    race: Race,
    deadline: CallDeadline | None,
    prepare: Callable[[socket.socket], object],
    notifier: Notifier,
) -> socket.socket | None:
    """Return the first socket that connects; None if none does, or the deadline passes. The others are closed."""
    now = notifier.port.time
    with contextlib.closing(ConnectAttempts(notifier)) as attempts:
        while not race.over:
            while (index := race.start_due(now())) is not None:
                info = race.candidates[index]
                try:
                    attempts.start(create_prepared(info, prepare), info[4], index)
                except OSError as error:
                    race.failed(index, error, now())
            for index, failed in attempts.results():
                if failed is not None:
                    race.failed(index, failed, now())
                elif race.won(index):
                    return attempts.take(index)
            if deadline is not None and deadline.passed(now()):
                break
            await _await_one(race, deadline, notifier)
    return None


async def _await_one(race: Race, deadline: CallDeadline | None, notifier: Notifier) -> None:
    """Wait until an attempt is over, the next one is due, or the deadline passes."""
    if race.over:
        return
    moments = [race.next_start(notifier.port.time()), deadline.at if deadline is not None else None]
    await notifier.wait(min((moment for moment in moments if moment is not None), default=None))
