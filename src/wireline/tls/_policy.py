"""The policy of one connection: what is set up before its handshake, checked after it, and reported about it.

The engine moves bytes and calls this. Three things that OpenSSL does not do by itself are done here: SNI may lead to a
context that asks for client certificates, and then the connection must ask too; a resumed handshake has no chain, so a
client takes it from the session; OpenSSL's "verified" chain exists even if nothing was verified, and is then withheld.
"""

from __future__ import annotations

import logging
import ssl
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from ._certificate import Certificate
from ._role_context import RoleContext
from ._sessions import TlsSession, has_space, read_session

if TYPE_CHECKING:
    import _ssl

_DER: Final = 2  # `_ssl.ENCODING_DER`

_log = logging.getLogger("wireline")

__all__ = ["TlsInfo", "TlsPolicy", "on_server_name"]


# The exceptions of a programming error. Any other may be a program's own, raised by its signal handler.
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
    """The result of a handshake."""

    version: str
    """``"TLSv1.2"`` or ``"TLSv1.3"``; ``""`` before the handshake."""
    cipher: str
    """OpenSSL's name of the cipher suite; ``""`` before the handshake."""
    alpn: str | None
    """The negotiated protocol; None if there is none."""
    resumed: bool
    """Whether an earlier session was resumed, or (TLS 1.3) a pre-shared key was used."""
    server_name: str
    """The name or address that the client asked for; ``""`` if it sent none."""
    group: str | None = None
    """The group of the key exchange, such as ``"x25519"`` or ``"X25519MLKEM768"``; None where it cannot be known."""
    ocsp_response: bytes | None = None
    """The OCSP response that the server has stapled, as DER, not verified; None without one, and in a server."""


class _Negotiated(NamedTuple):
    """A copy of everything that the socket reports about its handshake."""

    version: str
    cipher: str
    alpn: str | None
    resumed: bool
    psk_identity: str
    chain: tuple[Certificate, ...]
    sent: tuple[_ssl.Certificate | bytes, ...]
    """References to OpenSSL's certificates: they are encoded only when they are asked for."""
    group: str | None
    ocsp_response: bytes | None


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
        # A copy: the connection keeps the mode of this moment, even if the context is changed later.
        self._verify_mode = role.context.verify_mode
        self._callback_error: BaseException | None = None
        self._negotiated: _Negotiated | None = None

    @property
    def ragged_eof(self) -> bool:
        """Whether the end of the TCP stream ends the TLS stream cleanly, without ``close_notify``."""
        return self._role.ragged_eof

    # ------------------------------------------------------------------------------------------------ handshake

    def prepare(self, obj: ssl.SSLObject) -> None:
        """Set up a connection before its handshake.

        Raises:
            NotImplementedError: this interpreter cannot set a session id context.
        """
        if self._role.server:
            self._set_session_id_context(obj)
            if obj.context.sni_callback is not None:
                _server_policies[obj] = self
        else:
            from . import _openssl

            if _openssl.available():
                _openssl.request_ocsp_response(obj)
        if self._role.psk:
            _take_psk_callback_error()  # drop the error of an earlier handshake of this thread

    def check(self, obj: ssl.SSLObject) -> None:
        """Check a finished handshake; some peers that OpenSSL accepts are refused.

        Raises:
            ssl.SSLError: the peer is refused.
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
            # The session may be one of another name, whose context accepts clients that this one would not.
            raise ssl.SSLError(
                ssl.SSL_ERROR_SSL,
                "a resumed session does not replace the client certificate that this server name requires",
            )
        self._check_pins(obj, psk_used)
        if self._role.require_alpn and obj.selected_alpn_protocol() is None:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "no application protocol in common (ALPN)")
        # Any thread may ask for the result later, while OpenSSL runs in another thread and may free parts of it (the
        # session of a client, when a ticket arrives). So it is copied now.
        self._negotiated = self._snapshot(obj)

    def _check_pins(self, obj: ssl.SSLObject, psk_used: bool) -> None:
        pins = self._role.pins
        if not pins or psk_used:
            return
        if self._verify_mode != ssl.CERT_NONE:
            # What the peer sent beside its verified chain does not count: anyone can send a pinned certificate along.
            pins.check(self._chain(obj))
        elif not self._role.server:
            leaf = obj.getpeercert(True)
            pins.check([leaf] if leaf else [])

    def annotate_error(self, error: ssl.SSLError) -> ssl.SSLError:
        """Add details to the error of a handshake: a callback's exception as cause, the host name as a note."""
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
        """Whether ``store_session`` is to be called for each ticket: in TLS 1.3 a ticket is used for one connection."""
        return obj.version() == "TLSv1.3" and self._wants_session(obj)

    def store_session(self, obj: ssl.SSLObject) -> None:
        """Put the session of a client into the cache, for the next connection to the same host and port.

        An error of the cache is logged and not raised: the caller is a read, whose data would be lost.
        """
        try:
            if self._wants_session(obj):
                self._put_session(obj)
        except TimeoutError:
            raise  # by a signal handler: a cache does not wait
        except _FAULTS:
            # A bug in a user's cache class must not fail the read. Other exceptions are those of signal handlers, and
            # are for the caller.
            _log.exception("the TLS session with %s, port %d, was not stored", self._host, self._port)

    def _wants_session(self, obj: ssl.SSLObject) -> bool:
        """Whether to read the session and store it.

        Only if this client has a cache with space for one more session with this server: without the bridge each read
        leaks memory (``read_session``).
        """
        role = self._role
        if role.sessions is None or role.server or not (self._host and self._port):
            return False
        if obj.version() == "TLSv1.3":
            return has_space(role.sessions, role.context, (self._host, self._port, role.alpn))
        return not obj.session_reused  # a resumed one is in the cache already, and may be used again

    def _put_session(self, obj: ssl.SSLObject) -> None:
        role = self._role
        assert role.sessions is not None
        session = read_session(obj)
        if session is None:
            return
        role.sessions.put(
            TlsSession(
                session,
                role.context,
                self._host,
                self._port,
                role.alpn,
                obj.version() or "",
                tuple(self.certificates(obj)),
            )
        )

    # ----------------------------------------------------------------------------------------------- the result

    def certificates(self, obj: ssl.SSLObject) -> list[Certificate]:
        """Return the peer's certificates, leaf first; ``[]`` unless they were verified.

        A resumed handshake sends no certificates: a client takes them from its session, a server has only the leaf.
        """
        return list(self._negotiated.chain if self._negotiated else self._chain(obj))

    def sent_certificates(self, obj: ssl.SSLObject) -> list[Certificate]:
        """Return the certificates that the peer has sent, in its order, verified or not.

        After a resumption OpenSSL has them only at a client, and only if the session was copied by the bridge; else
        there is just the leaf.
        """
        return list(map(_encode, self._negotiated.sent if self._negotiated else _sent_chain(obj)))

    def psk_identity(self, obj: ssl.SSLObject) -> str:
        """Return the client's identity if its pre-shared key was proved (at both ends), else ``""``."""
        return self._negotiated.psk_identity if self._negotiated else self._identity(obj)

    def info(self, obj: ssl.SSLObject) -> TlsInfo:
        """Return the result of the handshake; before it, what is known so far."""
        negotiated = self._negotiated or self._snapshot(obj)
        # A server's name is looked up only here: it takes ten times as long as the snapshot, and does not change.
        name = _name_asked_for(obj) if self._role.server and not self._host else self._host
        return TlsInfo(
            negotiated.version,
            negotiated.cipher,
            negotiated.alpn,
            negotiated.resumed,
            name,
            negotiated.group,
            negotiated.ocsp_response,
        )

    def _snapshot(self, obj: ssl.SSLObject) -> _Negotiated:
        version, cipher = obj.version(), obj.cipher()
        return _Negotiated(
            version if version and cipher else "",
            cipher[0] if cipher else "",
            obj.selected_alpn_protocol(),
            obj.session_reused or False,
            self._identity(obj),
            tuple(self._chain(obj)),
            _sent_chain(obj),
            *self._facts_of_openssl(obj),
        )

    def _facts_of_openssl(self, obj: ssl.SSLObject) -> tuple[str | None, bytes | None]:
        """The group and the OCSP response; None without the bridge."""
        from . import _openssl

        if not (_openssl.available() and obj.version()):
            return None, None
        return _openssl.group(obj), None if self._role.server else _openssl.ocsp_response(obj)

    def _chain(self, obj: ssl.SSLObject) -> list[Certificate]:
        if self._verify_mode == ssl.CERT_NONE:
            return []  # OpenSSL's "verified" chain exists here too
        leaf = _leaf(obj)
        if not leaf:  # `get_verified_chain` of a peer without a certificate is an AttributeError on 3.13
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
        """Return OpenSSL's ``SSL*``. The connection owns it: never free it, never use it during another call.

        Raises:
            NotImplementedError: the bridge is off; the message says why.
        """
        from . import _openssl

        return _openssl.ssl_pointer(obj)

    # ------------------------------------------------------------------------------------------------------- SNI

    def switch_context(self, obj: ssl.SSLObject, name: str | None) -> int | None:
        """Switch to the context of a server name. An exception sends an alert and is kept for ``annotate_error``."""
        self._host = name or ""
        try:
            chosen = self._role.select_context(name) if self._role.select_context else None
            if chosen is not None and chosen.context is not obj.context:
                self._switch(obj, chosen)
        except BaseException as error:  # noqa: BLE001 - OpenSSL is the caller; kept for `annotate_error`
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
        """Set the verify mode of the new context. No version of OpenSSL does this when the context is switched.

        Raises:
            NotImplementedError: the new mode is stricter, and without the bridge it cannot be set.
        """
        from . import _openssl

        try:
            _openssl.set_verify(obj, wanted)
        except NotImplementedError as error:
            if wanted > self._verify_mode:
                raise NotImplementedError(
                    "server_name_callback leads to a context that asks for more client certificates, and this "
                    f"interpreter cannot change that during a handshake: {error}"
                ) from error
            return  # the old mode is stricter, which is safe
        self._verify_mode = wanted

    def _set_session_id_context(self, obj: ssl.SSLObject) -> None:
        if self._role.session_id_context:
            from . import _openssl

            # On the connection, not on the context: from 3.13 on `ssl` sets its own for each connection (gh-105293).
            _openssl.set_session_id_context(obj, self._role.session_id_context)


_server_policies: weakref.WeakKeyDictionary[ssl.SSLObject, TlsPolicy] = weakref.WeakKeyDictionary()
"""The policies of servers, by connection: the SNI callback belongs to a context, and gets the connection only."""


def _name_asked_for(obj: ssl.SSLObject) -> str:
    from . import _openssl

    return _openssl.server_name(obj) if _openssl.available() else ""


def on_server_name(obj: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
    """Switch the context by the name that a client asks for: the ``sni_callback`` of our server contexts."""
    policy = _server_policies.get(obj)
    return policy.switch_context(obj, name) if policy is not None else None


def _leaf(obj: ssl.SSLObject) -> bytes | None:
    """Return the peer's own certificate; None if it has sent none."""
    try:
        return obj.getpeercert(True)
    except ValueError:  # before the handshake
        return None


# The two chains are methods of `SSLObject` from 3.13 on; before, of the private `_sslobj` only, with the same result
# since 3.10.


def _verified_chain(obj: ssl.SSLObject) -> list[Certificate]:
    """Return the chain from leaf to root; ``[]`` after a resumption."""
    chain = obj._sslobj.get_verified_chain()  # type: ignore[attr-defined]
    return list(map(_encode, chain or ()))


def _sent_chain(obj: ssl.SSLObject) -> tuple[_ssl.Certificate | bytes, ...]:
    """Return what the peer has sent, its own certificate first."""
    leaf = _leaf(obj)
    if not leaf:  # the chain of a peer that has sent none is `[None]`
        return ()
    chain = obj._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return tuple(chain or (leaf,))


def _encode(certificate: _ssl.Certificate | bytes) -> Certificate:
    return Certificate(certificate if isinstance(certificate, bytes) else certificate.public_bytes(_DER))


def _ticket_was_used(obj: ssl.SSLObject) -> bool:
    return bool(obj.session_reused) and obj.version() == "TLSv1.3"


def _psk_was_used(obj: ssl.SSLObject) -> bool:
    from . import _psk

    return _psk.was_used(obj)


def _take_psk_callback_error() -> BaseException | None:
    from . import _psk

    return _psk.take_callback_error()
