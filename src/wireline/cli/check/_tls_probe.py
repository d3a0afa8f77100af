"""The TLS part of a check: the handshakes that find all faults, and one more that resumes the session.

A handshake ends at the first fault. So the first one is fully verified. If the name is refused, a second one is made
without the name. If the chain is refused, another one is made without verification: OpenSSL still builds the chain,
which shows the certificate at fault. One more then trusts the certificate of the server itself, and so tells whether
its name matches. No application data is sent over any of them.
"""

from __future__ import annotations

import argparse
import contextlib
import ssl
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from wireline import SocketTimeout
from wireline.cli._certificate_capture import built_chain
from wireline.cli._outcome import ExitCode, Failure, HandshakeFailure, Stage, during
from wireline.cli._tls_failures import no_common_protocol
from wireline.cli._tls_handshakes import explain_missing_cas
from wireline.cli.check import _chain_faults
from wireline.cli.check._certificate_info import CertificateInfo, read
from wireline.cli.check._endpoints import Connectable
from wireline.cli.check._handshake_observer import HandshakeObserver
from wireline.cli.check._ocsp import read_staple
from wireline.cli.check._report import Findings, TlsReport
from wireline.cli.check._sessions import offer_session, wait_for_session
from wireline.cli.starttls import _starttls
from wireline.net import Socket
from wireline.tls import Certificate, Handshake, SslContext, TlsInfo, VerifyMode

_ANY_NAME = "localhost"
"""The name to send if none is checked."""


class HandshakeResult(NamedTuple):
    """A handshake that succeeded."""

    context: SslContext
    info: TlsInfo
    key_exchange: str
    seconds: float
    sent: tuple[Certificate, ...]
    chain: tuple[Certificate, ...]
    """The chain that OpenSSL built, up to the trusted CA if it found one; also without verification."""
    session: ssl.SSLSession | None
    refusal: ssl.SSLError | None
    """A later alert: in TLS 1.3 the client completes its handshake before the server checks its certificate."""


class TlsProbe:
    """The handshakes with one server."""

    def __init__(
        self, options: argparse.Namespace, findings: Findings, first: Socket, endpoint: Connectable
    ) -> None:
        """Prepare.

        Args:
            options: the options of the command.
            findings: receives the problems.
            first: an open connection to use first; closed afterwards.
            endpoint: the address for further connections.
        """
        self._options = options
        self._findings = findings
        self._socks = [first]
        self._endpoint = endpoint
        self._timeout: float = options.timeout
        self._checks_name = bool(options.sni or options.target)
        self._name: str = options.sni or (options.target.host if options.target else _ANY_NAME)
        self._observer = HandshakeObserver()
        self._reported_as_expired: int | None = None

    def run(self) -> TlsReport:
        """Make the handshakes, and add the problems to the findings.

        Raises:
            Failure: the files of the options cannot be used, or a connection failed before the handshake.
        """
        tls = TlsReport(self._name if self._checks_name else "", offered=tuple(self._options.alpn or ()))
        with during(Stage.SETUP, self._findings.target), explain_missing_cas(self._options):
            context = self._make_context(pinned=True)
        tried = self._handshake(context)
        if isinstance(tried, HandshakeResult):
            tls.chain_trusted = True
            tls.name_matches = True if self._checks_name else None
            result: HandshakeResult | None = tried
        else:
            result = self._diagnose(tls, tried)
        if result is None:
            shown = self._observer.sent
            if shown and not tls.chain:
                tls.chain = [read(shown[0], sent=True)]
        else:
            self._describe(tls, result)
            if not self._options.of_files:
                self._resume(tls, result)
        self._check_expiry(tls)
        return tls

    def _diagnose(self, tls: TlsReport, failure: HandshakeFailure) -> HandshakeResult | None:
        """Find all faults of the certificates; return a handshake without the failed checks, or None."""
        error = failure.error
        if not isinstance(error, ssl.SSLCertVerificationError):
            self._findings.add_error(failure)
            return self._without_pins(tls) if self._options.pin else None
        if error.verify_code in _chain_faults.NAME_REFUSED:
            tls.name_matches = False
            try:
                tried = self._handshake(self._make_context(check_hostname=False))
            except Failure:
                self._findings.add_error(failure)
                raise
            if isinstance(tried, HandshakeResult):
                tls.chain_trusted = True
                return tried
            if not isinstance(tried.error, ssl.SSLCertVerificationError):
                # A server with a limit may close a further connection: that must not hide the name.
                self._findings.add_error(failure)
                self._findings.add_error(tried)
                return None
            failure = tried
        try:
            unverified = self._handshake(self._make_context(verify=False))
        except Failure:
            self._add_chain_error(tls, failure, None)
            raise
        self._add_chain_error(tls, failure, unverified)
        if isinstance(unverified, HandshakeResult):
            return unverified
        self._findings.add_error(unverified)
        return None

    def _without_pins(self, tls: TlsReport) -> HandshakeResult | None:
        """Make the handshake again without pins, which are checked after all else."""
        tried = self._handshake(self._make_context())
        if not isinstance(tried, HandshakeResult):
            return None
        tls.chain_trusted = True
        tls.name_matches = True if self._checks_name else None
        return tried

    def _add_chain_error(
        self,
        tls: TlsReport,
        failure: HandshakeFailure,
        unverified: HandshakeResult | HandshakeFailure | None,
    ) -> None:
        """Report the certificate that made a handshake fail.

        Args:
            tls: the report.
            failure: of the handshake.
            unverified: the same handshake without verification; None if no further connection was possible.
        """
        error = failure.error
        if not isinstance(error, ssl.SSLCertVerificationError):
            self._findings.add_error(failure)
            return
        built: tuple[Certificate, ...] = ()
        if isinstance(unverified, HandshakeResult):
            built = unverified.chain
            tls.chain = _read_chain(unverified)
        elif failure.certificate is not None:
            tls.chain = [read(failure.certificate, sent=True)]
        code, words = error.verify_code, error.verify_message
        tls.chain_trusted, tls.chain_error = False, words
        tls.issuer_missing = code in _chain_faults.ISSUER_MISSING
        tls.at_fault = _chain_faults.index_at_fault(code, tls.chain, self._findings.now)
        if tls.at_fault is None:
            tls.at_fault = self._find_by_trust(code, built)
        if code == _chain_faults.EXPIRED:
            self._reported_as_expired = tls.at_fault
        of_files = self._options.of_files
        if tls.at_fault == 0 and not of_files:
            failure.at_fault = 0
            self._findings.add_error(failure)
        else:
            target = self._findings.target
            sentence = _chain_faults.sentence(code, words, tls.at_fault, tls.chain, target, of_files=of_files)
            self._findings.add_problem(ExitCode.HANDSHAKE, sentence)

    def _find_by_trust(self, code: int, chain: tuple[Certificate, ...]) -> int | None:
        """Find the certificate at fault: trust each issuer in turn, so that OpenSSL checks only those below it."""
        if len(chain) == 1:
            return 0
        for index, anchor in enumerate(chain[1:], 1):
            if self._verify_code(self._make_context(check_hostname=False, anchor=anchor)) == code:
                return _chain_faults.index_below(code, index, chain)
        return None

    def _describe(self, tls: TlsReport, result: HandshakeResult) -> None:
        tls.seconds = result.seconds
        tls.version, tls.cipher, tls.alpn = result.info.version, result.info.cipher, result.info.alpn
        tls.key_exchange, tls.group = result.key_exchange, result.info.group or ""
        if result.info.ocsp_response is not None:
            tls.ocsp = read_staple(result.info.ocsp_response)
            if tls.ocsp.status == "revoked":
                self._findings.add_warning(
                    f"the OCSP staple of {self._findings.target} says that its certificate was revoked"
                )
        tls.chain = tls.chain or _read_chain(result)
        if tls.name_matches is None and self._checks_name and result.chain:
            tls.name_matches = self._name_matches(result.chain[0])
        if tls.name_matches is False and tls.chain:
            self._add_name_error(tls, tls.chain[0])
        if tls.offered and tls.alpn is None:
            self._findings.add_problem(ExitCode.HANDSHAKE, no_common_protocol(self._findings.target))
        if result.refusal is not None:
            self._findings.add_error(HandshakeFailure(result.refusal, server=False, name=self._name))

    def _name_matches(self, leaf: Certificate) -> bool | None:
        """Ask OpenSSL whether a certificate matches the name, with that certificate as the only trusted one.

        Returns:
            None if OpenSSL refuses it for another reason before it checks the name.
        """
        code = self._verify_code(self._make_context(anchor=leaf))
        if code in _chain_faults.NAME_REFUSED:
            return False
        return True if code in _chain_faults.AFTER_THE_NAME else None

    def _verify_code(self, context: SslContext) -> int | None:
        """The code with which OpenSSL refuses the certificates, 0 if it does not; None if the handshake failed."""
        try:
            tried = self._handshake(context)
        except Failure:
            return None  # the server accepts no further connection: what was found before is reported
        return 0 if isinstance(tried, HandshakeResult) else getattr(tried.error, "verify_code", None)

    def _add_name_error(self, tls: TlsReport, leaf: CertificateInfo) -> None:
        names = _chain_faults.shortened(", ".join(leaf.names))
        tls.name_error = f"it is for {names or 'no name at all'}"
        sentence = (
            f"the certificate of {self._findings.target} is not for {self._name!r}: {tls.name_error}; "
            "if it should be for another name, give that with --sni NAME"
        )
        self._findings.add_problem(ExitCode.HANDSHAKE, sentence)

    def _check_expiry(self, tls: TlsReport) -> None:
        for index, info in enumerate(tls.chain):
            left = info.days_left(self._findings.now)
            if info.not_after is None or left is None:
                continue
            certificate = f"{_chain_faults.place(index, tls.chain)} of {self._findings.target}"
            if left < 0:
                if index != self._reported_as_expired:
                    sentence = f"{certificate} has expired on {info.not_after:%Y-%m-%d}; it must be renewed"
                    self._findings.add_problem(ExitCode.HANDSHAKE, sentence)
            elif left < self._findings.days:
                sentence = (
                    f"{certificate} expires on {info.not_after:%Y-%m-%d}: {left} days are fewer than the "
                    f"{self._findings.days} of --days; it must be renewed"
                )
                self._findings.add_problem(ExitCode.HANDSHAKE, sentence, is_early=True)

    def _resume(self, tls: TlsReport, result: HandshakeResult) -> None:
        """Connect once more, and offer the session."""
        if result.refusal is not None:
            tls.resumes_error = "the server refused our certificate"
            return
        if result.session is None:
            tls.resumes, tls.resumes_error = False, "the server sent no session"
            return
        offer_session(result.context, result.session)
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

    def _make_context(
        self,
        *,
        verify: bool = True,
        check_hostname: bool = True,
        pinned: bool = False,
        anchor: Certificate | None = None,
    ) -> SslContext:
        """Make the context of one connection, and of another one that resumes its session.

        Args:
            verify: without it OpenSSL builds the chain, and accepts it whatever it is.
            check_hostname: whether the name is checked, too.
            pinned: whether the pins are.
            anchor: the only certificate to trust.
        """
        options = self._options
        settings = options.settings.copy()
        if not pinned:
            settings.pop("pinned", None)
        context = SslContext(
            verify_mode=VerifyMode.PEER,
            cert_file=options.cert or "",
            key_file=options.key or "",
            ca_file="" if anchor else options.ca_file or "",
            ca_data=anchor and bytes(anchor),
            partial_chain=anchor is not None,
            alpn=options.alpn or (),
            **settings,
        )
        ssl_context = context.ssl_context(Handshake.AS_CLIENT)
        if not (verify and check_hostname and self._checks_name):
            ssl_context.check_hostname = False
        if not verify:
            ssl_context.verify_mode = ssl.CERT_NONE
        if anchor and check_hostname:
            ssl_context.set_ciphers("DEFAULT:@SECLEVEL=0")  # a weak key has a name all the same
        self._observer.watch(ssl_context)
        return context

    def _handshake(self, context: SslContext) -> HandshakeResult | HandshakeFailure:
        """Make a handshake, and return its result.

        Raises:
            Failure: the connection failed before the handshake.
        """
        with during(Stage.TALK, self._findings.target), self._connection() as sock:
            try:
                seconds = self._start_tls(sock, context)
            except ssl.SSLError as error:
                return HandshakeFailure(error, server=False, name=self._name, sent=self._observer.sent)
            handle = sock.ssl_handle
            assert handle is not None
            sent = tuple(sock.get_peer_certificates(verified=False))
            chain = tuple(map(Certificate, built_chain(handle))) or sent
            info = sock.tls_info
            exchange = self._observer.key_exchange(info.cipher)
            session, refusal = wait_for_session(sock, handle)
            return HandshakeResult(context, info, exchange, seconds, sent, chain, session, refusal)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Socket]:
        """The first connection, or a new one, after the dialogue of ``--starttls``."""
        sock = self._socks.pop() if self._socks else self._endpoint.connect(self._timeout)
        with sock:
            if self._options.starttls:
                _starttls.begin(sock, self._options.starttls, self._name, self._timeout)
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


def _read_chain(result: HandshakeResult) -> list[CertificateInfo]:
    return [read(certificate, sent=certificate in result.sent) for certificate in result.chain]
