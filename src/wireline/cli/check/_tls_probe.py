"""The TLS part of a check: up to three handshakes that find all faults, and one more that resumes the session.

A handshake ends at the first fault, and OpenSSL checks the name before the dates. So the first handshake is fully
verified. If the name is refused, a second one is made without the name; if the chain is refused, another one without
verification, only to read the certificates. No application data is sent over the last two.
"""

from __future__ import annotations

import argparse
import contextlib
import ssl
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from wireline import Deadline, SocketTimeout
from wireline.cli import _starttls
from wireline.cli._outcome import ExitCode, HandshakeFailure, Stage, during
from wireline.cli._tls_failures import no_common_protocol
from wireline.cli._tls_handshakes import explain_missing_cas
from wireline.cli.check._certificate_info import CertificateInfo, covers_name, read
from wireline.cli.check._endpoints import Endpoint
from wireline.cli.check._handshake_observer import HandshakeObserver
from wireline.cli.check._report import Report, TlsReport
from wireline.net import Socket
from wireline.tls import Certificate, Handshake, SslContext, TlsInfo, TruncatedError, VerifyMode

_NAME_REFUSED = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""

_NO_ISSUER = frozenset({2, 20, 21})
"""X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, ..._LOCALLY, and X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE."""

_TICKET_TIMEOUT = 1.0
"""Seconds to wait for a session ticket. Servers send it right after the handshake of TLS 1.3, or never. A guess."""

_POLL_INTERVAL = 0.05
"""Seconds between two looks at the session: OpenSSL does not report that it has a new one."""


class HandshakeResult(NamedTuple):
    """A handshake that succeeded."""

    context: SslContext
    info: TlsInfo
    key_exchange: str
    seconds: float
    sent: tuple[Certificate, ...]
    verified: tuple[Certificate, ...]
    session: ssl.SSLSession | None
    refusal: ssl.SSLError | None
    """A later alert: in TLS 1.3 the client completes its handshake before the server checks its certificate."""


class TlsProbe:
    """The handshakes with one server."""

    def __init__(
        self, options: argparse.Namespace, report: Report, first: Socket, endpoint: Endpoint
    ) -> None:
        """Prepare.

        Args:
            options: the options of the command.
            report: receives the problems.
            first: an open connection to use first; closed afterwards.
            endpoint: the address for further connections.
        """
        self._options = options
        self._report = report
        self._socks = [first]
        self._endpoint = endpoint
        self._timeout: float = options.timeout
        self._name: str = options.sni or options.target.host
        self._observer = HandshakeObserver()
        self._verify_code = 0

    def run(self) -> TlsReport:
        """Make the handshakes, and add the problems to the report.

        Raises:
            Failure: the files of the options cannot be used, or a connection failed before the handshake.
        """
        tls = TlsReport(self._name, offered=tuple(self._options.alpn or ()))
        with during(Stage.SETUP, self._report.target), explain_missing_cas(self._options):
            context = self._make_context(VerifyMode.PEER)
        tried = self._handshake(context)
        if isinstance(tried, HandshakeResult):
            tls.name_matches = tls.chain_trusted = True
            result: HandshakeResult | None = tried
        else:
            result = self._diagnose(tls, tried)
        if result is None:
            shown = self._observer.certificate
            tls.chain = [] if shown is None else [read(shown, sent=True)]
        else:
            self._describe(tls, result)
            self._resume(tls, result)
        self._check_expiry(tls)
        return tls

    def _diagnose(self, tls: TlsReport, failure: HandshakeFailure) -> HandshakeResult | None:
        """Find all faults of the certificate; return a handshake without the failed checks, or None."""
        error = failure.error
        if not isinstance(error, ssl.SSLCertVerificationError):
            self._report.add_error(failure)
            return None
        if error.verify_code in _NAME_REFUSED:
            tls.name_matches = False
            tried = self._handshake(self._make_context(VerifyMode.PEER, check_hostname=False))
            if isinstance(tried, HandshakeResult):
                tls.chain_trusted = True
                return tried
            failure = tried
        self._add_chain_error(tls, failure)
        unverified = self._handshake(self._make_context(VerifyMode.NONE))
        if isinstance(unverified, HandshakeResult):
            return unverified
        self._report.add_error(unverified)
        return None

    def _add_chain_error(self, tls: TlsReport, failure: HandshakeFailure) -> None:
        tls.chain_trusted = False
        tls.chain_error = getattr(failure.error, "verify_message", "") or str(failure.error)
        self._verify_code = getattr(failure.error, "verify_code", 0)
        tls.issuer_missing = self._verify_code in _NO_ISSUER
        self._report.add_error(failure)

    def _describe(self, tls: TlsReport, result: HandshakeResult) -> None:
        tls.seconds = result.seconds
        tls.version, tls.cipher, tls.alpn = result.info.version, result.info.cipher, result.info.alpn
        tls.key_exchange = result.key_exchange
        tls.chain = [
            read(certificate, sent=certificate in result.sent)
            for certificate in result.verified or result.sent
        ]
        if tls.name_matches is not True and tls.chain:
            self._check_name(tls, tls.chain[0])
        if tls.offered and tls.alpn is None:
            self._report.add_problem(ExitCode.HANDSHAKE, no_common_protocol(str(self._report.target)))
        if result.refusal is not None:
            self._report.add_error(HandshakeFailure(result.refusal, server=False, name=self._name))

    def _check_name(self, tls: TlsReport, leaf: CertificateInfo) -> None:
        if tls.name_matches is None:  # OpenSSL refused the chain, and did not check the name
            tls.name_matches = covers_name(leaf.names, self._name)
        if not tls.name_matches:
            tls.name_error = f"it is for {', '.join(leaf.names) or 'no name at all'}"
            sentence = (
                f"the certificate of {self._report.target} is not for {self._name!r}: {tls.name_error}; "
                "if it should be for another name, give that with --sni NAME"
            )
            self._report.add_problem(ExitCode.HANDSHAKE, sentence)

    def _check_expiry(self, tls: TlsReport) -> None:
        for info in tls.chain:
            left = info.days_left(self._report.now)
            if info.not_after is None or left is None:
                continue
            certificate = f"the certificate {info.subject or 'without a subject'} of {self._report.target}"
            if left < 0:
                if self._verify_code != _EXPIRED:  # otherwise it was reported
                    sentence = f"{certificate} has expired on {info.not_after:%Y-%m-%d}; it must be renewed"
                    self._report.add_problem(ExitCode.HANDSHAKE, sentence)
            elif left < self._report.days:
                sentence = (
                    f"{certificate} expires on {info.not_after:%Y-%m-%d}: {left} days are fewer than the "
                    f"{self._report.days} of --days; it must be renewed"
                )
                self._report.add_problem(ExitCode.HANDSHAKE, sentence)

    def _resume(self, tls: TlsReport, result: HandshakeResult) -> None:
        """Connect once more, and offer the session."""
        if result.refusal is not None:
            tls.resumes_error = "the server refused our certificate"
            return
        if result.session is None:
            tls.resumes, tls.resumes_error = False, "the server sent no session"
            return
        _offer_session(result.context, result.session)
        try:
            with self._connection() as sock:
                self._start_tls(sock, result.context)
                tls.resumes = sock.tls_info.resumed
        except OSError as error:
            tls.resumes_error = f"the second connection failed: {error.strerror or error}"
            return
        if not tls.resumes:
            tls.resumes_error = "the server started a new session"

    # ----------------------------------------------------------------------------------------------- connections

    def _make_context(self, verify: VerifyMode, *, check_hostname: bool = True) -> SslContext:
        """Make the context of one connection, and of another one that resumes its session."""
        options = self._options
        context = SslContext(
            verify_mode=verify,
            cert_file=options.cert or "",
            key_file=options.key or "",
            ca_file=options.ca_file or "",
            alpn=options.alpn or (),
        )
        ssl_context = context.ssl_context(Handshake.AS_CLIENT)
        if not check_hostname:
            ssl_context.check_hostname = False
        self._observer.watch(ssl_context)
        return context

    def _handshake(self, context: SslContext) -> HandshakeResult | HandshakeFailure:
        """Make a handshake, and return its result.

        Raises:
            Failure: the connection failed before the handshake.
        """
        with during(Stage.TALK, self._report.target), self._connection() as sock:
            try:
                seconds = self._start_tls(sock, context)
            except ssl.SSLError as error:
                certificate = self._observer.certificate
                return HandshakeFailure(error, server=False, name=self._name, certificate=certificate)
            handle = sock.ssl_handle
            assert handle is not None
            sent = tuple(sock.get_peer_certificates(verified=False))
            verified = tuple(sock.get_peer_certificates())
            info = sock.tls_info
            exchange = self._observer.key_exchange(info.cipher)
            session, refusal = _wait_for_session(sock, handle)
            return HandshakeResult(context, info, exchange, seconds, sent, verified, session, refusal)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Socket]:
        """The first connection, or a new one, after the dialogue of ``--starttls``."""
        sock = self._socks.pop() if self._socks else self._endpoint.connect(self._timeout)
        with sock:
            if self._options.starttls:
                _starttls.begin(sock, self._options.starttls, self._timeout)
            yield sock

    def _start_tls(self, sock: Socket, context: SslContext) -> float:
        """Make the handshake; return its duration in seconds.

        Raises:
            TimeoutError: it took too long.
            ssl.SSLError: it failed.
        """
        self._observer.reset()
        began = monotonic()
        try:
            context.wrap_connected_socket(sock, Handshake.AS_CLIENT, self._name, self._timeout)
        except SocketTimeout as error:
            raise TimeoutError(f"no TLS handshake within {error.seconds:g} s") from error
        return monotonic() - began


def _wait_for_session(
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


def _offer_session(context: SslContext, session: ssl.SSLSession) -> None:
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
