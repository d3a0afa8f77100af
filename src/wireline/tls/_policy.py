"""What is decided about one connection: before its handshake, during, and after.

The engine moves bytes and asks here. Nothing here trusts what OpenSSL does by itself where it is known not to do it:
a name that a client asks for may lead to a stricter context, and the certificate is then asked for; a resumed session
has no chain; a "verified" chain exists where nothing was verified.
"""

from __future__ import annotations

import logging
import ssl
import weakref
from typing import NamedTuple

from ._certificate import Certificate
from ._role_context import RoleContext
from ._sessions import TlsSession

_DER = 2  # `_ssl.ENCODING_DER`

_log = logging.getLogger("wireline")

__all__ = ["TlsInfo", "TlsPolicy", "on_server_name"]


# What a faulty class raises, in distinction to an exception of a program's own that a signal handler raises.
_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class TlsInfo(NamedTuple):
    """What a handshake came to."""

    version: str
    """``"TLSv1.2"`` or ``"TLSv1.3"``; ``""`` before the handshake."""
    cipher: str
    """OpenSSL's name of the cipher suite; ``""`` before the handshake."""
    alpn: str | None
    """The protocol that was agreed on, None if there is none."""
    resumed: bool
    """Whether an earlier session was resumed, or an external pre-shared key used in TLS 1.3."""
    server_name: str
    """The name or address that the client asked for; ``""`` if it did not say."""


class _Negotiated(NamedTuple):
    """What is known when a handshake is done."""

    version: str
    cipher: str
    alpn: str | None
    resumed: bool
    psk_identity: str
    chain: tuple[Certificate, ...]


class TlsPolicy:
    """The policy of one connection (``Policy`` of ``_core/tls_engine.py``)."""

    __slots__ = (
        "__weakref__",
        "_callback_error",
        "_host",
        "_negotiated",
        "_offered_session",
        "_port",
        "_psk_possible",
        "_role",
        "_selects_by_name",
        "_verify_mode",
    )

    def __init__(
        self, role: RoleContext, host: str = "", port: int = 0, offered: TlsSession | None = None
    ) -> None:
        self._role = role
        self._host = host
        self._port = port
        self._offered_session = offered
        self._psk_possible = role.psk
        self._selects_by_name = role.select_context is not None
        # As it is now: the certificate is asked for by this, whatever becomes of the context.
        self._verify_mode = role.context.verify_mode
        self._callback_error: BaseException | None = None
        self._negotiated: _Negotiated | None = None

    @property
    def ragged_eof(self) -> bool:
        """Whether the end of the TCP stream is an end of the TLS stream as well."""
        return self._role.ragged_eof

    # ------------------------------------------------------------------------------------------------ handshake

    def prepare(self, obj: ssl.SSLObject) -> None:
        """Do what has to be done to a connection before its handshake.

        Raises:
            NotImplementedError: this interpreter cannot set a session id context.
        """
        if self._role.server:
            self._set_session_id_context(obj)
            if obj.context.sni_callback is not None:
                _server_policies[obj] = self
        if self._role.psk:
            _take_psk_callback_error()  # of a handshake that nobody asked for its reason

    def check(self, obj: ssl.SSLObject) -> None:
        """Look at a finished handshake, and refuse a peer that OpenSSL alone would have let in.

        Raises:
            ssl.SSLError: the peer did not prove what it had to.
        """
        psk_used = self._psk_possible and _psk_was_used(obj)
        if self._role.psk and not self._role.server and not psk_used:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the server did not prove that it knows the pre-shared key")
        if self._verify_mode == ssl.CERT_REQUIRED and not psk_used and not obj.getpeercert(True):
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the peer has no certificate")
        if (
            self._selects_by_name
            and self._verify_mode != ssl.CERT_NONE
            and _ticket_was_used(obj)
            and not psk_used
        ):
            # It may have been made for another name, by a client that this one would not let in.
            raise ssl.SSLError(
                ssl.SSL_ERROR_SSL, "a session cannot stand for the certificate that this name asks for"
            )
        if self._role.require_alpn and obj.selected_alpn_protocol() is None:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "no application protocol in common (ALPN)")
        # It stays as it is, and is taken down because any thread may ask: OpenSSL may be at work in another one then,
        # and free what it is asked for (a client's session, when a ticket comes).
        self._negotiated = self._snapshot(obj)

    def annotate_error(self, error: ssl.SSLError) -> ssl.SSLError:
        """Say more about a handshake that failed: what a callback raised, and which name was asked for."""
        cause, self._callback_error = self._callback_error, None
        if cause is None and self._psk_possible:
            cause = _take_psk_callback_error()
        if cause is not None:
            error.__cause__ = cause
        if self._host and not self._role.server and isinstance(error, ssl.SSLCertVerificationError):
            error.add_note(f"the certificate was checked for {self._host!r}")
        if self._offered_session is not None and self._role.sessions is not None:
            self._role.sessions.discard(self._offered_session)
        return error

    def wants_every_ticket(self, obj: ssl.SSLObject) -> bool:
        """Whether each session ticket is to be kept as it comes: each is good for one connection."""
        return obj.version() == "TLSv1.3" and self._wants_session(obj)

    def store_session(self, obj: ssl.SSLObject) -> None:
        """Keep the session of a client for the next connection to the same host and port.

        No error of a cache is raised: the caller is a read, whose data would be lost.
        """
        try:
            if self._wants_session(obj):
                self._put_session(obj)
        except TimeoutError:
            raise  # that of a signal handler: no cache waits
        except _FAULTS:
            # A program's own class of cache may have faults, and the read that calls must not fail by them. Other
            # exceptions are those of signal handlers, and belong to the caller.
            _log.exception("the TLS session with %s, port %d, was not kept", self._host, self._port)

    def _wants_session(self, obj: ssl.SSLObject) -> bool:
        """Whether ``obj.session`` is to be asked for.

        CPython (3.11 to 3.13, at least) leaks a copy of the session, 6.5 kB and more, each time the attribute is read.
        So it is read only for a client with a cache that has room for one more session with this server. What is left
        of the leak: one copy for each ticket that is kept (TLS 1.3), and one for each handshake that was not resumed
        (TLS 1.2).
        """
        role = self._role
        if role.sessions is None or role.server or not (self._host and self._port):
            return False
        if obj.version() == "TLSv1.3":
            return role.sessions._has_room(role.context, self._host, self._port, role.alpn)
        return not obj.session_reused  # else it may be used again, and is still there

    def _put_session(self, obj: ssl.SSLObject) -> None:
        role = self._role
        assert role.sessions is not None
        try:
            session = obj.session
        except ValueError:
            return  # too large to be copied, with a certificate of some thousand names
        version = obj.version() or ""
        if session is None or (version == "TLSv1.3" and not session.has_ticket):
            return  # the server has not sent one
        role.sessions.put(
            TlsSession(
                session,
                role.context,
                self._host,
                self._port,
                role.alpn,
                version,
                tuple(self.certificates(obj)),
            )
        )

    # ------------------------------------------------------------------------------------------- what came of it

    def certificates(self, obj: ssl.SSLObject) -> list[Certificate]:
        """Return the peer's certificates, leaf first; empty unless they were verified.

        A resumed handshake sends none: a client knows them from its session, a server only the leaf.
        """
        return list(self._negotiated.chain if self._negotiated else self._chain(obj))

    def psk_identity(self, obj: ssl.SSLObject) -> str:
        """Return the identity whose pre-shared key was proved (a server's peer; a client's own), else ``""``."""
        return self._negotiated.psk_identity if self._negotiated else self._identity(obj)

    def info(self, obj: ssl.SSLObject) -> TlsInfo:
        """Return version, cipher, protocol, whether it was resumed, and the name asked for."""
        negotiated = self._negotiated or self._snapshot(obj)
        # To look for a name takes ten times as long as the rest, and a server's session is not replaced.
        name = _name_asked_for(obj) if self._role.server and not self._host else self._host
        return TlsInfo(negotiated.version, negotiated.cipher, negotiated.alpn, negotiated.resumed, name)

    def _snapshot(self, obj: ssl.SSLObject) -> _Negotiated:
        version, cipher = obj.version(), obj.cipher()
        return _Negotiated(
            version if version and cipher else "",
            cipher[0] if cipher else "",
            obj.selected_alpn_protocol(),
            obj.session_reused or False,
            self._identity(obj),
            tuple(self._chain(obj)),
        )

    def _chain(self, obj: ssl.SSLObject) -> list[Certificate]:
        if self._verify_mode == ssl.CERT_NONE:
            return []  # OpenSSL builds a "verified" chain then as well
        try:
            leaf = obj.getpeercert(True)
        except ValueError:  # before the handshake
            return []
        if not leaf:  # to ask for the chain of a peer that has none is an `AttributeError` on 3.13
            return []
        chain = _verified_chain(obj)
        if not chain and obj.session_reused and self._offered_session is not None:
            chain = list(self._offered_session.chain)
        return chain or [Certificate(leaf)]

    def _identity(self, obj: ssl.SSLObject) -> str:
        if not self._psk_possible:
            return ""
        from . import _psk

        return _psk.identity(obj)

    def pointer(self, obj: ssl.SSLObject) -> int:
        """Return OpenSSL's ``SSL*``. It belongs to the connection: never free it, never use it beside a call.

        Raises:
            NotImplementedError: this interpreter does not let anybody at it; the message says why.
        """
        from . import _openssl

        return _openssl.ssl_pointer(obj)

    # ------------------------------------------------------------------------------------------------------- SNI

    def server_name(self, obj: ssl.SSLObject, name: str | None) -> int | None:
        """Go on with the context that belongs to the name a client asks for. An error is an alert, kept for later."""
        self._host = name or ""
        try:
            chosen = self._role.select_context(name) if self._role.select_context else None
            if chosen is not None and chosen.context is not obj.context:
                self._switch(obj, chosen)
        except BaseException as error:  # noqa: BLE001 - OpenSSL called: it goes to whoever waits for the handshake
            self._callback_error = error
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        return None

    def _switch(self, obj: ssl.SSLObject, chosen: RoleContext) -> None:
        obj.context = chosen.context
        wanted = chosen.context.verify_mode
        if wanted != self._verify_mode:
            self._set_verify_mode(obj, wanted)
        self._role = chosen
        self._psk_possible = self._psk_possible or chosen.psk
        self._set_session_id_context(obj)

    def _set_verify_mode(self, obj: ssl.SSLObject, wanted: ssl.VerifyMode) -> None:
        """Ask for certificates as the new context does: to switch alone does not, in any version of OpenSSL.

        Raises:
            NotImplementedError: it asks for more than the old one, and this interpreter cannot be made to.
        """
        from . import _openssl

        try:
            _openssl.set_verify(obj, wanted)
        except NotImplementedError as error:
            if wanted > self._verify_mode:
                raise NotImplementedError(
                    "server_name_callback leads to a context that asks for more client certificates, and this "
                    f"interpreter cannot change that in a handshake: {error}"
                ) from error
            return  # stricter than asked for
        self._verify_mode = wanted

    def _set_session_id_context(self, obj: ssl.SSLObject) -> None:
        if self._role.session_id_context:
            from . import _openssl

            # Of the connection and not of the context: from 3.13 on `ssl` sets its own for each (gh-105293).
            _openssl.set_session_id_context(obj, self._role.session_id_context)


_server_policies: weakref.WeakKeyDictionary[ssl.SSLObject, TlsPolicy] = weakref.WeakKeyDictionary()
"""The servers' connections. OpenSSL's callback for names is one a context, and knows the connection only."""


def _name_asked_for(obj: ssl.SSLObject) -> str:
    from . import _openssl

    return _openssl.server_name(obj) if _openssl.available() else ""


def on_server_name(obj: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
    """Take the name that a client asks for: the ``sni_callback`` of every context that we make for servers."""
    connection = _server_policies.get(obj)
    return connection.server_name(obj, name) if connection is not None else None


def _verified_chain(obj: ssl.SSLObject) -> list[Certificate]:
    """The chain from leaf to root; empty after a resumption."""
    # Public from 3.13 on, and private with the same meaning since 3.10.
    chain = obj._sslobj.get_verified_chain()  # type: ignore[attr-defined]
    return [Certificate(each.public_bytes(_DER)) for each in chain or ()]


def _ticket_was_used(obj: ssl.SSLObject) -> bool:
    return bool(obj.session_reused) and obj.version() == "TLSv1.3"


def _psk_was_used(obj: ssl.SSLObject) -> bool:
    from . import _psk

    return _psk.was_used(obj)


def _take_psk_callback_error() -> BaseException | None:
    from . import _psk

    return _psk.take_callback_error()
