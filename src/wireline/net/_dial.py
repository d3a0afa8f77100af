"""``dial``: connect to the first address of a name that answers (RFC 8305), with one ``poll``."""

from __future__ import annotations

import selectors
import socket
import time
from typing import TYPE_CHECKING

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.happy_eyeballs import Race, interleave
from wireline._dial_common import client_tls_core, dial_error
from wireline._os.descriptor import State, begin_connect, connect_result
from wireline._os.resolver import resolve
from wireline._validation import check_dial_arguments
from wireline.address import IpAddress
from wireline.net._poll import Waker, start_deadline, wait_for_lookup
from wireline.net._socket import Socket
from wireline.options import IPPROTO_TCP
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline.tls import SslContext

__all__ = ["dial"]

# `poll` has no descriptor of its own: `dial` must work with the last free one.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)

# Seconds. A selector refuses a wait of much more than three weeks, and a deadline may be further away.
_LONGEST_WAIT = 86_400.0


def dial(
    address: str | IpAddress,
    port: int,
    protocol: int = IPPROTO_TCP,
    *,
    buffered: bool = True,
    timeout: Timeout = None,
    tls: SslContext | None = None,
    hostname: str | None = None,
) -> Socket:
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
    secure = client_tls_core(tls, hostname, host, port, sock_type, shared=True)
    deadline = start_deadline(check_timeout(timeout))
    found = wait_for_lookup(resolve(host, port, 0, sock_type, protocol), "dial", deadline, Waker())
    race = Race(interleave(found or ()))
    sock = _run(race, deadline)
    if sock is None:
        raise dial_error(race, f"{host!r} port {port}", deadline)
    assert race.winner is not None
    dialled = Socket._adopt(
        sock, buffered=buffered, state=State.CONNECTED, peer=race.candidates[race.winner][4]
    )
    if secure is not None:
        try:
            dialled._upgrade(secure, deadline, "dial")
        except BaseException:
            dialled.close()
            raise
    return dialled


def _run(race: Race, deadline: CallDeadline | None) -> socket.socket | None:
    """Return a socket connected to the first address that answers; None if none does in time. Close the others."""
    attempts: list[socket.socket] = []
    winner: socket.socket | None = None
    try:
        winner = _race(race, deadline, attempts)
    finally:
        for sock in attempts:
            if sock is not winner:
                sock.close()
    return winner


def _race(race: Race, deadline: CallDeadline | None, attempts: list[socket.socket]) -> socket.socket | None:
    with _Selector() as selector:
        while not race.over:
            while (index := race.start_due(time.monotonic())) is not None:
                try:
                    sock, done = begin_connect(race.candidates[index])
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
