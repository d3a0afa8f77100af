"""What a check found, as values, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from wireline import Target
from wireline.cli._check_reach import Attempt, Place
from wireline.cli._outcome import ExitCode, Failure, Outcome, Stage, judge

if TYPE_CHECKING:
    from wireline.cli._check_certificate import Facts

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_FORMAT = 1
"""Of the JSON. It grows when something that a program may rely on goes or changes, and not when something is added."""


@dataclass
class Tls:
    """What TLS with the server came to. None, and ``""``, is what is not known."""

    name: str
    """What the certificate was checked for."""
    seconds: float = 0.0
    version: str = ""
    cipher: str = ""
    key_exchange: str = ""
    offered: tuple[str, ...] = ()
    """The protocols that ALPN offered."""
    alpn: str | None = None
    name_holds: bool | None = None
    name_error: str = ""
    chain_holds: bool | None = None
    chain_error: str = ""
    issuer_missing: bool = False
    """Whether the chain ends at a certificate whose issuer was neither sent nor is trusted here."""
    resumes: bool | None = None
    resumes_error: str = ""
    chain: list[Facts] = field(default_factory=list)
    """The server's own certificate first."""


@dataclass
class Report:
    """All that a check found."""

    target: Target
    now: datetime
    days: int
    """Fewer days left than this is too near."""
    starttls: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    used: Place | None = None
    tls: Tls | None = None
    problems: list[Outcome] = field(default_factory=list)
    cause: Exception | None = None
    """The first error, for ``--debug``."""

    def found(self, code: ExitCode, sentence: str) -> None:
        """Add a problem. The first one is the exit code."""
        self.problems.append(Outcome(code, sentence))

    def failed(self, stage: Stage, error: Exception) -> None:
        """Add an error, judged as every command judges it."""
        self.problems.append(judge(Failure(stage, error, str(self.target))))
        self.cause = self.cause or error

    @property
    def code(self) -> ExitCode:
        """What all of it is worth."""
        return self.problems[0].code if self.problems else ExitCode.CLEAN


def words_of(error: OSError) -> str:
    """An error of an attempt in a few words."""
    return error.strerror or str(error)


def to_json(report: Report) -> str:
    """The report for programs; the reference of the command has the schema."""
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
    import json  # here and not above: most checks are for people

    return json.dumps(document, indent=2)


def _attempt(attempt: Attempt, report: Report) -> Json:
    return {
        "address": str(attempt.place),
        "connected": attempt.error is None,
        "seconds": round(attempt.seconds, 6),
        "error": None if attempt.error is None else words_of(attempt.error),
        "used": attempt.place == report.used,
    }


def _tls(tls: Tls, now: datetime) -> Json:
    return {
        "handshake_seconds": round(tls.seconds, 6),
        "version": tls.version or None,
        "cipher": tls.cipher or None,
        "key_exchange": tls.key_exchange or None,
        "alpn": tls.alpn,
        "name": tls.name,
        "name_holds": tls.name_holds,
        "name_error": tls.name_error or None,
        "chain_holds": tls.chain_holds,
        "chain_error": tls.chain_error or None,
        "resumes": tls.resumes,
        "resumes_error": tls.resumes_error or None,
        "chain": [_certificate(facts, now) for facts in tls.chain],
    }


def _certificate(facts: Facts, now: datetime) -> Json:
    return {
        "subject": facts.subject,
        "issuer": facts.issuer or None,
        "names": list(facts.names),
        "key": facts.key or None,
        "signature": facts.signature or None,
        "not_before": _moment(facts.not_before),
        "not_after": _moment(facts.not_after),
        "days_left": facts.days_left(now),
        "sha256": facts.sha256,
        "sent": facts.sent,
        "self_signed": facts.self_signed,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"
