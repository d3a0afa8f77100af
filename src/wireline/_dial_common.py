"""The part of ``dial`` that both flavours share: the core for TLS, and the error of a dial that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wireline._core.deadline import CallDeadline
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
    shared: bool,
) -> TlsCore | None:
    """Make the core of a TLS connection; None without TLS.

    Args:
        tls: the context, if any.
        hostname: checked against the certificate and sent as SNI; ``host`` by default.
        host: the host that is dialed.
        port: the port that is dialed.
        sock_type: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
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
    if sock_type != SOCK_STREAM:
        raise ValueError("TLS needs a stream, and UDP has none: leave out tls=")
    name = host if hostname is None else hostname
    return tls._client_core(name, port, shared=shared)


def dial_error(race: Race, target: str, deadline: CallDeadline | None) -> DialError | SocketTimeout:
    """Return the error of a dial that failed: all attempts failed, or the timeout passed before."""
    if race.over or deadline is None:
        return DialError(target, race.attempts)
    timeout = SocketTimeout("dial", deadline.seconds)
    timeout.add_note(f"while dialing {target}")
    race.give_up(timeout, deadline.at)
    for sockaddr, error, seconds in race.attempts:
        timeout.add_note(f"{sockaddr!r}: {'no answer' if error is timeout else error} after {seconds:.3f} s")
    return timeout
