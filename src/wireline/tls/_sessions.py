"""Sessions of a client, to be resumed: who they belong to, and where they are kept.

OpenSSL does not look at the name again when a session is resumed. So a session says which context and host it was
made with, and is offered to no other.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from wireline._os.process import ProcessLock

from ._certificate import Certificate

__all__ = ["SessionCache", "SessionKey", "TlsSession"]

_MOST_PEERS = 128  # a guess: a program talks to a handful of servers, a crawler gains nothing from resuming
_MOST_EACH = (
    4  # connections at the same time that can resume; OpenSSL's servers send two tickets a connection
)

SessionKey = tuple[str, int, tuple[str, ...]]
"""Host, port, and the protocols that were offered by ALPN."""


@dataclass(frozen=True, slots=True, eq=False)
class TlsSession:
    """A session that a client may resume, with the server that it was made with and with no other.

    Attributes:
        session: what ``ssl`` needs to resume it.
        context: the ``ssl.SSLContext`` that verified the server.
        host: the name or address that the certificate was checked for.
        port: the server's port.
        alpn: the protocols that were offered.
        version: the version of TLS.
        chain: the certificates that were verified, leaf first; a resumed handshake sends none.
    """

    session: ssl.SSLSession = field(repr=False)
    context: ssl.SSLContext = field(repr=False)
    host: str
    port: int
    alpn: tuple[str, ...]
    version: str
    chain: tuple[Certificate, ...] = field(repr=False)

    @property
    def key(self) -> SessionKey:
        """What the session is kept under."""
        return self.host, self.port, self.alpn

    @property
    def once(self) -> bool:
        """Whether it may be used once only: an observer can tell connections with the same TLS 1.3 ticket apart."""
        return self.version == "TLSv1.3"


class SessionCache:
    """Sessions by host, port and ALPN: at most 4 of each of at most 128, the ones used last."""

    __slots__ = ("_lock", "_sessions")

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._sessions: OrderedDict[SessionKey, deque[TlsSession]] = OrderedDict()

    def put(self, session: TlsSession) -> None:
        """Keep a session; the oldest ones go."""
        with self._lock.here:
            kept = self._sessions.setdefault(session.key, deque(maxlen=_MOST_EACH))
            if not session.once:
                kept.clear()  # one is enough where one can be used again
            kept.append(session)
            self._sessions.move_to_end(session.key)
            if len(self._sessions) > _MOST_PEERS:
                self._sessions.popitem(last=False)

    def _has_room(self, context: ssl.SSLContext, host: str, port: int, alpn: tuple[str, ...]) -> bool:
        """Whether one more session with this host would not drive out another good one."""
        with self._lock.here:
            kept = self._sessions.get((host, port, alpn))
            return not kept or len(kept) < _MOST_EACH or kept[-1].context is not context

    def take(self, context: ssl.SSLContext, host: str, port: int, alpn: tuple[str, ...]) -> TlsSession | None:
        """Return a session to offer to this host, or None. One of TLS 1.3 is returned once."""
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
        """Forget a session: a handshake that offered it has failed."""
        with self._lock.here:
            kept = self._sessions.get(session.key)
            if kept is not None and session in kept:
                kept.remove(session)
                if not kept:
                    del self._sessions[session.key]

    def clear(self) -> None:
        """Forget every session."""
        with self._lock.here:
            self._sessions.clear()

    def __len__(self) -> int:
        """Count the sessions."""
        with self._lock.here:
            return sum(map(len, self._sessions.values()))

    def __repr__(self) -> str:
        return f"<SessionCache with {len(self)} sessions>"
