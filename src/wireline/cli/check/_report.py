"""The report of a check, as values and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from wireline.cli._outcome import ExitCode, Failure, Stage, classify
from wireline.cli._printable import sanitize_for_terminal
from wireline.cli.check._endpoints import Attempt

if TYPE_CHECKING:
    from wireline.cli.check._certificate_info import CertificateInfo
    from wireline.cli.check._ocsp import OcspStaple

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_FORMAT = 2
"""Version of the JSON. It grows when a key is removed or changes its meaning, not when one is added."""


@dataclass
class TlsReport:
    """The report about TLS with one address. None, and ``""``, means not known."""

    name: str
    """The name that the certificate is checked for."""
    seconds: float = 0.0
    version: str = ""
    cipher: str = ""
    key_exchange: str = ""
    group: str = ""
    """OpenSSL's name of the group of the key exchange."""
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
    ocsp: OcspStaple | None = None
    resumes: bool | None = None
    resumes_error: str = ""
    chain: list[CertificateInfo] = field(default_factory=list)
    """The certificate of the server first."""


class Problem(NamedTuple):
    """Something that a check found, with the exit code that it would have alone."""

    code: ExitCode
    sentence: str
    addresses: tuple[str, ...] = ()
    """Those that have it; empty: all."""
    is_early: bool = False
    """Whether it is only a certificate that expires within ``--days``."""


@dataclass
class Findings:
    """What the check of one address found."""

    target: str
    now: datetime
    days: int
    """A certificate that expires in fewer days is a problem."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    cause: Exception | None = None
    """The first error, for ``--debug``."""

    def __post_init__(self) -> None:
        self.target = sanitize_for_terminal(self.target)

    def add_problem(self, code: ExitCode, sentence: str, *, is_early: bool = False) -> None:
        """Add a problem. The first one is the exit code."""
        self.problems.append(Problem(code, sanitize_for_terminal(sentence), is_early=is_early))

    def add_error(self, error: Exception) -> None:
        """Add an error of the TLS handshake."""
        self.add_problem(*classify(Failure(Stage.CONNECT, error, self.target)))
        self.cause = self.cause or error

    def add_warning(self, sentence: str) -> None:
        """Add a warning, which does not change the exit code."""
        self.warnings.append(Problem(ExitCode.CLEAN, sentence))


@dataclass
class Report(Findings):
    """Everything that the check of one target found."""

    starttls: str | None = None
    of_files: bool = False
    """Whether the target is a certificate that is not deployed yet."""
    attempts: list[Attempt] = field(default_factory=list)
    tls: dict[str, TlsReport] = field(default_factory=dict)
    """By address."""

    def merge(self, found: Mapping[str, Findings]) -> None:
        """Add what was found at each address; what is the same at all of them is added once."""
        for findings in found.values():
            self.cause = self.cause or findings.cause
        self.problems += _merged({address: each.problems for address, each in found.items()})
        self.warnings += _merged({address: each.warnings for address, each in found.items()})

    @property
    def code(self) -> ExitCode:
        """The exit code: that of the first problem."""
        return self.problems[0].code if self.problems else ExitCode.CLEAN

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if self.problems:
            return f"FAILED: {self.problems[0].sentence}{_and_more(len(self.problems), 'problem')}"
        if self.warnings:
            return f"WARNING: {self.warnings[0].sentence}{_and_more(len(self.warnings), 'warning')}"
        return f"OK: {self.target}: {self.summary}"

    @property
    def summary(self) -> str:
        """What was tested, in a few words."""
        count, left = len(self.attempts), self.days_left
        words = [f"{count} addresses"] if count > 1 else []
        if self.of_files:
            words.append("certificate and key belong together")
        else:
            words += dict.fromkeys(tls.version for tls in self.tls.values() if tls.version)
        if left is not None:
            words.append(f"certificates valid for {left} {'day' if left == 1 else 'days'}")
        return ", ".join(words) or f"connected in {milliseconds(self.attempts[0].seconds)}"

    @property
    def days_left(self) -> int | None:
        """Days until the first certificate expires; None without certificates."""
        days = [info.days_left(self.now) for tls in self.tls.values() for info in tls.chain]
        return min((left for left in days if left is not None), default=None)

    def tls_groups(self) -> list[tuple[list[str], TlsReport]]:
        """The reports about TLS, equal ones together with all addresses that have them."""
        groups: list[tuple[list[str], TlsReport]] = []
        for address, tls in self.tls.items():
            for addresses, known in groups:
                if replace(known, seconds=0.0) == replace(tls, seconds=0.0):
                    addresses.append(address)
                    break
            else:
                groups.append(([address], tls))
        return groups


def _merged(found: Mapping[str, list[Problem]]) -> list[Problem]:
    places: dict[Problem, list[str]] = {}
    for address, problems in found.items():
        for problem in dict.fromkeys(problems):
            places.setdefault(problem, []).append(address)
    return [
        problem
        if len(addresses) == len(found)
        else problem._replace(
            sentence=f"{', '.join(addresses)}: {problem.sentence}", addresses=tuple(addresses)
        )
        for problem, addresses in places.items()
    ]


def _and_more(count: int, word: str) -> str:
    if count == 1:
        return ""
    return f" (and {count - 1} more {word}{'s' if count > 2 else ''})"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{seconds * 1000:.1f} ms"


def error_text(error: OSError) -> str:
    """The error of an attempt, without its number."""
    return error.strerror or str(error)


def to_json(reports: list[Report]) -> str:
    """The reports as JSON; the reference of the command has the schema."""
    import json  # only --json needs it

    return json.dumps([_report(report) for report in reports], indent=2)


def _report(report: Report) -> Json:
    return {
        "format": _FORMAT,
        "target": report.target,
        "ok": not report.problems,
        "verdict": report.verdict,
        "exit_code": int(report.code),
        "problems": [
            {"exit_code": int(code), "message": sentence, "addresses": list(addresses)}
            for code, sentence, addresses, _ in report.problems
        ],
        "warnings": [
            {"message": sentence, "addresses": list(addresses)}
            for _, sentence, addresses, _ in report.warnings
        ],
        "addresses": [_attempt(attempt, report) for attempt in report.attempts],
        "starttls": report.starttls,
    }


def _attempt(attempt: Attempt, report: Report) -> Json:
    tls = report.tls.get(str(attempt.endpoint))
    return {
        "address": str(attempt.endpoint),
        "connected": attempt.error is None,
        "seconds": round(attempt.seconds, 6),
        "error": None if attempt.error is None else error_text(attempt.error),
        "tls": None if tls is None else _tls(tls, report.now),
    }


def _tls(tls: TlsReport, now: datetime) -> Json:
    return {
        "handshake_seconds": round(tls.seconds, 6),
        "version": tls.version or None,
        "cipher": tls.cipher or None,
        "key_exchange": tls.key_exchange or None,
        "group": tls.group or None,
        "alpn": tls.alpn,
        "name": tls.name or None,
        "name_matches": tls.name_matches,
        "name_error": tls.name_error or None,
        "chain_trusted": tls.chain_trusted,
        "chain_error": tls.chain_error or None,
        "at_fault": tls.at_fault,
        "ocsp": None if tls.ocsp is None else _ocsp(tls.ocsp),
        "resumes": tls.resumes,
        "resumes_error": tls.resumes_error or None,
        "chain": [_certificate(info, now) for info in tls.chain],
    }


def _ocsp(staple: OcspStaple) -> Json:
    return {
        "status": staple.status,
        "this_update": _timestamp(staple.this_update),
        "next_update": _timestamp(staple.next_update),
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
