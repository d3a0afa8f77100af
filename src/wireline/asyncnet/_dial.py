"""``dial``: from a name and a port to a connected socket (RFC 8305), one task for all attempts."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.happy_eyeballs import Race, interleave
from wireline._dial_common import client_tls_core, dial_error
from wireline._os.descriptor import State, create
from wireline._os.resolver import resolve
from wireline._validation import check_dial_arguments
from wireline.address import IpAddress
from wireline.asyncnet._connect_attempts import ConnectAttempts
from wireline.asyncnet._port import running_port
from wireline.asyncnet._socket import AsyncSocket
from wireline.asyncnet._sync import Notifier, wait_for_lookup
from wireline.options import IPPROTO_TCP
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline.tls import SslContext

__all__ = ["dial"]


async def dial(
    address: str | IpAddress,
    port: int,
    protocol: int = IPPROTO_TCP,
    *,
    buffered: bool = True,
    timeout: Timeout = None,
    tls: SslContext | None = None,
    hostname: str | None = None,
) -> AsyncSocket:
    """Connect to a name: race its addresses and return a socket connected to the first that answers.

    The addresses are tried with IPv6 and IPv4 in turn; the next attempt starts after 250 ms, or at once when the one
    before has failed (RFC 8305). The name is resolved once. A timeout or a cancellation leaves nothing behind: every
    attempt under way is closed.

    Args:
        address: a name or an address.
        port: 0 to 65535.
        protocol: ``IPPROTO_TCP``, or ``IPPROTO_UDP`` for a connected datagram socket.
        buffered: whether the socket reads from the kernel in large pieces, see ``Socket``.
        timeout: seconds for the whole call, name resolution and TLS handshake included; None means no limit.
        tls: a ``wireline.tls.SslContext``: do a TLS handshake, and check the peer's certificate and its name.
        hostname: the name that the peer's certificate must have, and that is sent to the peer; by default ``address``.

    Returns:
        The connected socket.

    Raises:
        DialError: no address could be connected; its ``attempts`` have the error and the time of each one.
        SocketTimeout: the timeout expired while an address could still have answered, or during the handshake.
        ssl.SSLError: the handshake failed; ``ssl.SSLCertVerificationError`` if the certificate was not accepted.
        socket.gaierror: the name does not resolve.
        TypeError, ValueError: an argument has the wrong type, or is out of range.
    """
    host, port, sock_type = check_dial_arguments(address, port, protocol)
    secure = client_tls_core(tls, hostname, host, port, sock_type, shared=False)
    timeout = check_timeout(timeout)
    notifier = Notifier(running_port())
    deadline = None if timeout is None else CallDeadline(timeout, notifier.port.time())
    if notifier.port.raise_if_cancelled is not None:
        await notifier.port.raise_if_cancelled()
    lookup = resolve(host, port, 0, sock_type, protocol)
    found = await wait_for_lookup(lookup, "dial", deadline, notifier)
    race = Race(interleave(found or ()))
    sock = await _race(race, deadline, notifier)
    if sock is None:
        raise dial_error(race, f"{host!r} port {port}", deadline)
    assert race.winner is not None
    dialled = AsyncSocket._adopt(
        sock, buffered=buffered, state=State.CONNECTED, peer=race.candidates[race.winner][4]
    )
    if secure is not None:
        try:
            await dialled._upgrade(secure, deadline, "dial")
        except BaseException:
            dialled.close()
            raise
    return dialled


async def _race(race: Race, deadline: CallDeadline | None, notifier: Notifier) -> socket.socket | None:
    """Return the first socket that connects; None if none does, or the deadline passes. The others are closed."""
    now = notifier.port.time
    with contextlib.closing(ConnectAttempts(notifier)) as attempts:
        while not race.over:
            while (index := race.start_due(now())) is not None:
                family, sock_type, protocol, _, sockaddr = race.candidates[index]
                try:
                    attempts.start(create(family, sock_type, protocol), sockaddr, index)
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
