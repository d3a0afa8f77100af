"""The TLS session of a check: waiting for it, and offering it in a second handshake."""

from __future__ import annotations

import ssl

from wireline import Deadline, SocketTimeout
from wireline.net import Socket
from wireline.tls import Handshake, SslContext, TruncatedError

_TICKET_TIMEOUT = 1.0
"""Seconds to wait for a session ticket. Servers send it right after the handshake of TLS 1.3, or never. A guess."""

_POLL_INTERVAL = 0.05
"""Seconds between two looks at the session: OpenSSL does not report that it has a new one."""


def wait_for_session(
    sock: Socket, handle: ssl.SSLObject
) -> tuple[ssl.SSLSession | None, ssl.SSLError | None]:
    """Send close_notify, and read until there is a session, an alert, or the end; return session and alert."""
    refusal = None
    deadline = Deadline(_TICKET_TIMEOUT)
    try:
        sock.shutdown_write(_POLL_INTERVAL)
        while not _can_be_offered(handle, _session(handle)) and not deadline.expired():
            try:
                if not sock.recv_some(timeout=_POLL_INTERVAL):
                    break
            except SocketTimeout:
                pass  # the deadline is checked above
    except TruncatedError:
        pass  # many servers close the connection after close_notify without sending their own
    except ssl.SSLError as error:
        refusal = error
    except OSError:
        pass  # others reset it
    session = _session(handle)
    return (session if _can_be_offered(handle, session) else None), refusal


def _session(handle: ssl.SSLObject) -> ssl.SSLSession | None:
    """The current session."""
    try:
        return handle.session
    except ValueError:
        return None  # too large to copy (its certificate has thousands of names): it cannot be offered


def _can_be_offered(handle: ssl.SSLObject, session: ssl.SSLSession | None) -> bool:
    """Whether a session can be offered to the server later."""
    if session is None:
        return False
    # In TLS 1.3 there is an incomplete session from the start, and it can be offered once it has a ticket.
    return session.has_ticket or (handle.version() != "TLSv1.3" and bool(session.id))


def offer_session(context: SslContext, session: ssl.SSLSession) -> None:
    """Offer a session in the next handshake of a context.

    The library keeps sessions for `dial` and `connect`, by host and port, and not for a connection that is upgraded
    later (STARTTLS).
    """

    class ResumingSSLObject(ssl.SSLObject):
        _session_to_offer: ssl.SSLSession | None = session

        def do_handshake(self) -> None:
            offered, self._session_to_offer = self._session_to_offer, None
            if offered is not None:
                self.session = offered
            super().do_handshake()

    context.ssl_context(Handshake.AS_CLIENT).sslobject_class = ResumingSSLObject
