"""One server's TLS, looked at from all sides: with every check, without, and once more to resume.

A connection ends at the first thing that is wrong, and OpenSSL asks for the name before it looks at the dates. So up to
three connections say what holds: with all checks; if only the name was refused, without the name; and if the chain was,
without any check, only to look. Nothing is ever sent over the last two.
"""

from __future__ import annotations

import argparse
import contextlib
import ssl
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from wireline import SocketTimeout
from wireline.cli import _starttls
from wireline.cli._check_certificate import Facts, is_for, read
from wireline.cli._check_onlooker import Onlooker, sent_chain
from wireline.cli._check_reach import Place
from wireline.cli._check_report import Report, Tls
from wireline.cli._outcome import ExitCode, HandshakeFailure, Stage, during
from wireline.cli._tls import told_of_missing_cas
from wireline.net import Socket
from wireline.tls import Certificate, Handshake, SslContext, TlsInfo, TruncatedError, VerifyMode

_NAME_REFUSED = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""

_NO_ISSUER = frozenset({2, 20, 21})
"""X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, ..._LOCALLY, and X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE."""

_TICKET_PATIENCE = 1.0
"""Seconds to wait for a session after a handshake of TLS 1.3. It comes right behind it, or not at all. A guess."""

_SLICE = 0.05
"""Seconds after which it is looked whether the session has come: OpenSSL does not say when."""


class Seen(NamedTuple):
    """One handshake that was made."""

    context: SslContext
    info: TlsInfo
    key_exchange: str
    seconds: float
    sent: tuple[Certificate, ...]
    verified: tuple[Certificate, ...]
    session: ssl.SSLSession | None
    refusal: ssl.SSLError | None
    """What the server said after it: in TLS 1.3 a client is done before the server has looked at its certificate."""


class Examiner:
    """Looks at one server."""

    def __init__(self, options: argparse.Namespace, report: Report, first: Socket, place: Place) -> None:
        """Prepare.

        Args:
            options: what the command line says.
            report: gets what is found.
            first: a connection to use, closed at the end.
            place: where to connect to for others.
        """
        self._options = options
        self._report = report
        self._socks = [first]
        self._place = place
        self._timeout: float = options.timeout
        self._name: str = options.sni or options.target.host
        self._onlooker = Onlooker()
        self._refused_for = 0

    def run(self) -> Tls:
        """Look, and add to the report what is wrong.

        Raises:
            Failure: the files on our side are no good, or the server did not get as far as a handshake.
        """
        tls = Tls(self._name, offered=tuple(self._options.alpn or ()))
        with during(Stage.SETUP, self._report.target), told_of_missing_cas(self._options):
            context = self._context(VerifyMode.PEER)
        tried = self._shake_hands(context)
        if isinstance(tried, Seen):
            tls.name_holds = tls.chain_holds = True
            seen: Seen | None = tried
        else:
            seen = self._look_closer(tls, tried)
        if seen is None:
            shown = self._onlooker.certificate
            tls.chain = [] if shown is None else [read(shown, sent=True)]
        else:
            self._describe(tls, seen)
            self._resume(tls, seen)
        self._judge_days(tls)
        return tls

    def _look_closer(self, tls: Tls, failure: HandshakeFailure) -> Seen | None:
        """Find out all that is wrong; return a handshake without checks, or None if there is none."""
        error = failure.error
        if not isinstance(error, ssl.SSLCertVerificationError):
            self._report.failed(Stage.CONNECT, failure)
            return None
        if error.verify_code in _NAME_REFUSED:
            tls.name_holds = False
            seen = self._shake_hands(self._context(VerifyMode.PEER, check_hostname=False))
            if isinstance(seen, Seen):
                tls.chain_holds = True
                return seen
            failure = seen
        self._refuse_chain(tls, failure)
        looked = self._shake_hands(self._context(VerifyMode.NONE))
        if isinstance(looked, Seen):
            return looked
        self._report.failed(Stage.CONNECT, looked)
        return None

    def _refuse_chain(self, tls: Tls, failure: HandshakeFailure) -> None:
        tls.chain_holds = False
        tls.chain_error = getattr(failure.error, "verify_message", "") or str(failure.error)
        self._refused_for = getattr(failure.error, "verify_code", 0)
        tls.issuer_missing = self._refused_for in _NO_ISSUER
        self._report.failed(Stage.CONNECT, failure)

    def _describe(self, tls: Tls, seen: Seen) -> None:
        tls.seconds = seen.seconds
        tls.version, tls.cipher, tls.alpn = seen.info.version, seen.info.cipher, seen.info.alpn
        tls.key_exchange = seen.key_exchange
        tls.chain = [
            read(certificate, sent=certificate in seen.sent) for certificate in seen.verified or seen.sent
        ]
        if tls.name_holds is not True and tls.chain:
            self._judge_name(tls, tls.chain[0])
        if tls.offered and tls.alpn is None:
            words = "agrees on none of the protocols that --alpn offers"
            self._report.found(ExitCode.HANDSHAKE, f"{self._report.target} {words}")
        if seen.refusal is not None:
            self._report.failed(Stage.CONNECT, HandshakeFailure(seen.refusal, server=False, name=self._name))

    def _judge_name(self, tls: Tls, leaf: Facts) -> None:
        if tls.name_holds is None:  # the chain was refused before anybody asked
            tls.name_holds = is_for(leaf.names, self._name)
        if not tls.name_holds:
            tls.name_error = f"it is for {', '.join(leaf.names) or 'no name at all'}"
            sentence = (
                f"the certificate of {self._report.target} is not for {self._name!r}: {tls.name_error}; "
                "--sni NAME says what it should be for, if that is another one"
            )
            self._report.found(ExitCode.HANDSHAKE, sentence)

    def _judge_days(self, tls: Tls) -> None:
        for facts in tls.chain:
            left = facts.days_left(self._report.now)
            if facts.not_after is None or left is None:
                continue
            certificate = f"the certificate {facts.subject or 'without a subject'} of {self._report.target}"
            if left < 0:
                if self._refused_for != _EXPIRED:  # else that has been said
                    sentence = (
                        f"{certificate} has expired on {facts.not_after:%Y-%m-%d}; it has to be renewed"
                    )
                    self._report.found(ExitCode.HANDSHAKE, sentence)
            elif left < self._report.days:
                sentence = (
                    f"{certificate} ends on {facts.not_after:%Y-%m-%d}, and {left} days are fewer than the "
                    f"{self._report.days} of --days; renew it"
                )
                self._report.found(ExitCode.HANDSHAKE, sentence)

    def _resume(self, tls: Tls, seen: Seen) -> None:
        """Connect once more, and offer the session."""
        if seen.refusal is not None:
            tls.resumes_error = "the server refused us"
            return
        if seen.session is None:
            tls.resumes, tls.resumes_error = False, "the server gives no session"
            return
        _offer(seen.context, seen.session)
        try:
            with self._connection() as sock:
                self._upgrade(sock, seen.context)
                tls.resumes = sock.tls_info.resumed
        except OSError as error:
            tls.resumes_error = f"the second connection failed: {error.strerror or error}"
            return
        if not tls.resumes:
            tls.resumes_error = "the server made a new session"

    # ----------------------------------------------------------------------------------------------- connections

    def _context(self, verify: VerifyMode, *, check_hostname: bool = True) -> SslContext:
        """Make a context. Each is for one connection, and for another one that resumes."""
        options = self._options
        context = SslContext(
            verify_mode=verify,
            cert_file=options.cert or "",
            key_file=options.key or "",
            ca_file=options.ca_file or "",
            alpn=options.alpn or (),
        )
        underneath = context.ssl_context(Handshake.AS_CLIENT)
        if not check_hostname:
            underneath.check_hostname = False
        self._onlooker.watch(underneath)
        return context

    def _shake_hands(self, context: SslContext) -> Seen | HandshakeFailure:
        """Make a handshake, and look at what came of it.

        Raises:
            Failure: there was none that could fail or not.
        """
        with during(Stage.TALK, self._report.target), self._connection() as sock:
            try:
                seconds = self._upgrade(sock, context)
            except ssl.SSLError as error:
                certificate = self._onlooker.certificate
                return HandshakeFailure(error, server=False, name=self._name, certificate=certificate)
            handle = sock.ssl_handle
            assert handle is not None
            sent = tuple(map(Certificate, sent_chain(handle)))
            verified = tuple(sock.get_peer_certificates())
            info = sock.tls_info
            exchange = self._onlooker.key_exchange(info.cipher)
            session, refusal = _wait_for_session(sock, handle)
            return Seen(context, info, exchange, seconds, sent, verified, session, refusal)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Socket]:
        """A connection that is ready for the handshake: the one that there was, or a new one."""
        sock = self._socks.pop() if self._socks else self._place.connect(self._timeout)
        with sock:
            if self._options.starttls:
                _starttls.begin(sock, self._options.starttls, self._timeout)
            yield sock

    def _upgrade(self, sock: Socket, context: SslContext) -> float:
        """Shake hands; return how long it took.

        Raises:
            TimeoutError: too long.
            ssl.SSLError: no TLS came of it.
        """
        self._onlooker.forget()
        began = monotonic()
        try:
            context.wrap_connected_socket(sock, Handshake.AS_CLIENT, self._name, self._timeout)
        except SocketTimeout as error:
            raise TimeoutError(f"no TLS handshake within {error.seconds:g} s") from error
        return monotonic() - began


def _wait_for_session(
    sock: Socket, handle: ssl.SSLObject
) -> tuple[ssl.SSLSession | None, ssl.SSLError | None]:
    """Say goodbye, and read until a session has come, the server refused us after all, or nothing more will come."""
    refusal = None
    deadline = monotonic() + _TICKET_PATIENCE
    try:
        sock.shutdown_write(_SLICE)
        while not _is_good(handle, _session(handle)) and monotonic() < deadline:
            try:
                if not sock.recv_some(timeout=_SLICE):
                    break
            except SocketTimeout:
                pass  # there is time for another slice
    except TruncatedError:
        pass  # it went away without a word: many do, once they were told goodbye
    except ssl.SSLError as error:
        refusal = error
    except OSError:
        pass  # the same, less politely
    session = _session(handle)
    return (session if _is_good(handle, session) else None), refusal


def _session(handle: ssl.SSLObject) -> ssl.SSLSession | None:
    """The session as it is now."""
    try:
        return handle.session
    except ValueError:
        return None  # too large to be copied, with a certificate of some thousand names: it cannot be offered later


def _is_good(handle: ssl.SSLObject, session: ssl.SSLSession | None) -> bool:
    """Whether a session can be offered to the server later."""
    if session is None:
        return False
    # In TLS 1.3 there is something of a session from the beginning; what counts is the ticket.
    return session.has_ticket or (handle.version() != "TLSv1.3" and bool(session.id))


def _offer(context: SslContext, session: ssl.SSLSession) -> None:
    """Have the next connection of a context offer a session.

    The library keeps sessions by itself for `dial` and `connect`, by host and port, and not for a connection that is
    upgraded later (STARTTLS).
    """

    class Resuming(ssl.SSLObject):
        _to_offer: ssl.SSLSession | None = session

        def do_handshake(self) -> None:
            offered, self._to_offer = self._to_offer, None
            if offered is not None:
                self.session = offered
            super().do_handshake()

    context.ssl_context(Handshake.AS_CLIENT).sslobject_class = Resuming
