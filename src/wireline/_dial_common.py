"""What ``dial`` decides before it waits, and how one that failed is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wireline._core.deadline import Deadline
from wireline._core.happy_eyeballs import Race
from wireline._validation import require_context
from wireline.errors import DialError, SocketTimeout
from wireline.options import SOCK_STREAM

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore
    from wireline.tls import SslContext

__all__ = ["client_tls_core", "dial_error"]


def client_tls_core(
    tls: SslContext | None,
    hostname: str | None,
    host: str,
    port: int,
    sock_type: int,
    *,
    buffered: bool,
    shared: bool,
) -> TlsCore | None:
    """What the connection needs if it is to be TLS; ``shared``: by a reader and a writer that are threads.

    Raises:
        TypeError, ValueError: the arguments do not go together.
        OSError: the context cannot be used: no CA is found, ...
    """
    if tls is None:
        if hostname is not None:
            raise ValueError("hostname is the name that the certificate is checked for: it needs tls=")
        return None
    require_context(tls)
    if sock_type != SOCK_STREAM:
        raise ValueError("TLS needs a stream: there is none over UDP")
    name = host if hostname is None else hostname
    return tls._client_core(name, port, buffered=buffered, shared=shared)


def dial_error(race: Race, target: str, deadline: Deadline | None) -> DialError | SocketTimeout:
    """The exception for a race that nobody won: it was lost, or its time was up before."""
    if race.over or deadline is None:
        return DialError(target, race.attempts)
    timeout = SocketTimeout("dial", deadline.seconds)
    timeout.add_note(f"while dialing {target}")
    race.give_up(timeout, deadline.at)
    for sockaddr, error, seconds in race.attempts:
        timeout.add_note(f"{sockaddr!r}: {'no answer' if error is timeout else error} after {seconds:.3f} s")
    return timeout
