"""The report of a check, as values and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from wireline import Target
from wireline.cli._outcome import ExitCode, Failure, Outcome, Stage, classify
from wireline.cli.check._endpoints import Attempt, Endpoint

if TYPE_CHECKING:
    from wireline.cli.check._certificate_info import CertificateInfo

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_FORMAT = 2
"""Version of the JSON. It grows when a key is removed or changes its meaning, not when one is added."""


@dataclass
class TlsReport:
    """The report about TLS. None, and ``""``, means not known."""

    name: str
    """The name that the certificate is checked for."""
    seconds: float = 0.0
    version: str = ""
    cipher: str = ""
    key_exchange: str = ""
    offered: tuple[str, ...] = ()
    """The protocols offered with ALPN."""
    alpn: str | None = None
    name_matches: bool | None = None
    name_error: str = ""
    chain_trusted: bool | None = None
    chain_error: str = ""
    at_fault: int | None = None
    """The index in ``chain`` of the certificate for which the chain is not trusted."""
    issuer_missing: bool = False
    """Whether the issuer of the last certificate of the chain was neither sent nor is trusted here."""
    resumes: bool | None = None
    resumes_error: str = ""
    chain: list[CertificateInfo] = field(default_factory=list)
    """The certificate of the server first."""


@dataclass
class Report:
    """Everything that a check found."""

    target: Target
    now: datetime
    days: int
    """A certificate that expires in fewer days is a problem."""
    starttls: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    used: Endpoint | None = None
    tls: TlsReport | None = None
    problems: list[Outcome] = field(default_factory=list)
    cause: Exception | None = None
    """The first error, for ``--debug``."""

    def add_problem(self, code: ExitCode, sentence: str) -> None:
        """Add a problem. The first one is the exit code."""
        self.problems.append(Outcome(code, sentence))

    def add_error(self, error: Exception) -> None:
        """Add an error of the TLS handshake."""
        self.problems.append(classify(Failure(Stage.CONNECT, error, str(self.target))))
        self.cause = self.cause or error

    @property
    def code(self) -> ExitCode:
        """The exit code: that of the first problem."""
        return self.problems[0].code if self.problems else ExitCode.CLEAN


def error_text(error: OSError) -> str:
    """The error of an attempt, without its number."""
    return error.strerror or str(error)


def to_json(report: Report) -> str:
    """The report as JSON; the reference of the command has the schema."""
    document: dict[str, Json] = {
        "format": _FORMAT,
        "target": str(report.target),
        "ok": not report.problems,
        "exit_code": int(report.code),
        "problems": [{"exit_code": int(code), "message": sentence} for code, sentence in report.problems],
        "addresses": [_attempt(attempt, report) for attempt in report.attempts],
        "starttls": report.starttls,
        "tls": None if report.tls is None else _tls(report.tls, report.now),
    }
    import json  # only --json needs it

    return json.dumps(document, indent=2)


def _attempt(attempt: Attempt, report: Report) -> Json:
    return {
        "address": str(attempt.endpoint),
        "connected": attempt.error is None,
        "seconds": round(attempt.seconds, 6),
        "error": None if attempt.error is None else error_text(attempt.error),
        "used": attempt.endpoint == report.used,
    }


def _tls(tls: TlsReport, now: datetime) -> Json:
    return {
        "handshake_seconds": round(tls.seconds, 6),
        "version": tls.version or None,
        "cipher": tls.cipher or None,
        "key_exchange": tls.key_exchange or None,
        "alpn": tls.alpn,
        "name": tls.name,
        "name_matches": tls.name_matches,
        "name_error": tls.name_error or None,
        "chain_trusted": tls.chain_trusted,
        "chain_error": tls.chain_error or None,
        "at_fault": tls.at_fault,
        "resumes": tls.resumes,
        "resumes_error": tls.resumes_error or None,
        "chain": [_certificate(info, now) for info in tls.chain],
    }


def _certificate(info: CertificateInfo, now: datetime) -> Json:
    return {
        "subject": info.subject,
        "issuer": info.issuer or None,
        "names": list(info.names),
        "key": info.key or None,
        "signature": info.signature or None,
        "not_before": _timestamp(info.not_before),
        "not_after": _timestamp(info.not_after),
        "days_left": info.days_left(now),
        "sha256": info.sha256,
        "sent": info.sent,
        "self_signed": info.self_signed,
    }


def _timestamp(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"
