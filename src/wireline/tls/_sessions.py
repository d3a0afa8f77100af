"""TLS sessions of clients, and their cache.

OpenSSL does not check the host name when a session is resumed. So a session records its context and host, and is
offered to no other host and by no other context.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wireline._os.process import ProcessLock

from ._certificate import Certificate

if TYPE_CHECKING:
    from . import _openssl

__all__ = ["SessionCache", "SessionKey", "TlsSession", "has_space", "offer_session", "read_session"]

# A guess: a program talks to a handful of servers, and a crawler gains nothing from resumption.
_MAX_SERVERS = 128

# The number of parallel connections that can resume. A server of OpenSSL sends two tickets per connection.
_MAX_PER_SERVER = 4

SessionKey = tuple[str, int, tuple[str, ...]]
"""Host, port, and the protocols offered by ALPN."""


@dataclass(frozen=True, slots=True, eq=False)
class TlsSession:
    """A session that a client may resume with the same server.

    Attributes:
        session: the session itself: an ``ssl.SSLSession``, or a copy of OpenSSL's object.
        context: the ``ssl.SSLContext`` that verified the server.
        host: the name or address that the certificate was checked for.
        port: the server's port.
        alpn: the protocols that the client offered.
        version: the version of TLS.
        chain: the verified certificates of the server, leaf first; a resumed handshake sends none.
    """

    session: object = field(repr=False)
    context: ssl.SSLContext = field(repr=False)
    host: str
    port: int
    alpn: tuple[str, ...]
    version: str
    chain: tuple[Certificate, ...] = field(repr=False)

    @property
    def key(self) -> SessionKey:
        """The key of the session in a cache."""
        return self.host, self.port, self.alpn

    @property
    def once(self) -> bool:
        """Whether it is used for one connection only, as in TLS 1.3.

        An observer can correlate connections that use the same ticket (RFC 8446, C.4).
        """
        return self.version == "TLSv1.3"


class SessionCache:
    """Sessions by host, port and ALPN: at most 4 for each of at most 128 keys; the most recently used stay."""

    __slots__ = ("_lock", "_sessions")

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._sessions: OrderedDict[SessionKey, deque[TlsSession]] = OrderedDict()

    def put(self, session: TlsSession) -> None:
        """Add a session; the oldest ones are dropped."""
        with self._lock.here:
            kept = self._sessions.setdefault(session.key, deque(maxlen=_MAX_PER_SERVER))
            if not session.once:
                kept.clear()  # this one can be used any number of times
            kept.append(session)
            self._sessions.move_to_end(session.key)
            if len(self._sessions) > _MAX_SERVERS:
                self._sessions.popitem(last=False)

    def take(self, context: ssl.SSLContext, host: str, port: int, alpn: tuple[str, ...]) -> TlsSession | None:
        """Return a session to offer to this host, or None. A TLS 1.3 session is removed from the cache."""
        with self._lock.here:
            kept = self._sessions.get((host, port, alpn))
            if not kept or kept[-1].context is not context:
                return None
            return self._pop(kept) if kept[-1].once else kept[-1]

    def _pop(self, kept: deque[TlsSession]) -> TlsSession:
        session = kept.pop()
        if not kept:
            del self._sessions[session.key]
        return session

    def discard(self, session: TlsSession) -> None:
        """Remove a session, because a handshake that offered it has failed."""
        with self._lock.here:
            kept = self._sessions.get(session.key)
            if kept is not None and session in kept:
                kept.remove(session)
                if not kept:
                    del self._sessions[session.key]

    def clear(self) -> None:
        """Remove all sessions."""
        with self._lock.here:
            self._sessions.clear()

    def __len__(self) -> int:
        """Return the number of sessions."""
        with self._lock.here:
            return sum(map(len, self._sessions.values()))

    def __repr__(self) -> str:
        return f"<SessionCache with {len(self)} sessions>"


def has_space(cache: SessionCache, context: ssl.SSLContext, key: SessionKey) -> bool:
    """Whether one more session under ``key`` would push out no good one."""
    with cache._lock.here:
        kept = cache._sessions.get(key)
        return not kept or len(kept) < _MAX_PER_SERVER or kept[-1].context is not context


def read_session(obj: ssl.SSLObject) -> ssl.SSLSession | _openssl.SessionCopy | None:
    """Return the session of a client's connection; None if it cannot be resumed.

    CPython leaks a copy of the session, 6.5 kB and more, each time ``SSLObject.session`` is read (3.11 to 3.13 at
    least). So it is read only without the bridge.
    """
    from . import _openssl  # not at the top of the module: it loads ctypes

    session: ssl.SSLSession | _openssl.SessionCopy | None
    try:
        session = _openssl.get_session(obj)
    except NotImplementedError:
        try:
            session = obj.session
        except ValueError:
            return None  # too large for `ssl` to copy: the certificate has thousands of names
    if session is not None and obj.version() == "TLSv1.3" and not session.has_ticket:
        return None  # the server has sent no ticket
    return session


def offer_session(obj: ssl.SSLObject, session: object) -> None:
    """Offer a result of ``read_session`` to the same host, in the handshake of a new client."""
    from . import _openssl

    if not isinstance(session, _openssl.SessionCopy):
        obj.session = session  # type: ignore[assignment]
    elif _openssl.available():  # it may have been switched off since; then the handshake is a full one
        _openssl.set_session(obj, session)
