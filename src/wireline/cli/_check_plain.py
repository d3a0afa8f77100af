"""The report of a check for pipes and files: a line a fact, nothing to decode."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from wireline.cli._check_reach import Attempt
from wireline.cli._check_report import Report, Tls, words_of

if TYPE_CHECKING:
    from wireline.cli._check_certificate import Facts


class Row(NamedTuple):
    """One fact with its name; ``good`` is None for what is neither good nor bad."""

    label: str
    value: str
    good: bool | None = None


def write(report: Report) -> str:
    """The report as text."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield str(report.target)
    if report.attempts:
        yield "addresses"
        width = max(len(str(attempt.place)) for attempt in report.attempts)
        for attempt in report.attempts:
            yield f"  {attempt.place!s:{width}}  {milliseconds(attempt.seconds):>9}  {result(attempt, report)}"
    if report.tls is not None:
        yield f"TLS after STARTTLS ({report.starttls})" if report.starttls else "TLS"
        for row in tls_rows(report.tls):
            yield f"  {row.label:13} {row.value}"
        if report.tls.chain:
            yield "certificates"
        for depth, (title, rows) in enumerate(certificates(report)):
            margin = "  " * (depth + 1)
            yield f"{margin}{title}"
            for row in rows:
                yield f"{margin}  {row.label:10} {row.value}"


def milliseconds(seconds: float) -> str:
    """A time as people compare them."""
    return f"{seconds * 1000:.1f} ms"


def result(attempt: Attempt, report: Report) -> str:
    """What came of an attempt."""
    if attempt.error is not None:
        return words_of(attempt.error)
    return "connected, and used" if report.tls and attempt.place == report.used else "connected"


def tls_rows(tls: Tls) -> list[Row]:
    """What is known of the connection."""
    unknown = "not known"
    if tls.offered:
        alpn = Row("ALPN", tls.alpn or f"none of {', '.join(tls.offered)}", tls.alpn is not None)
    else:
        alpn = Row("ALPN", "not offered (--alpn)")
    rows = [
        Row("version", tls.version or unknown),
        Row("cipher", tls.cipher or unknown),
        Row("key exchange", tls.key_exchange or unknown),
        alpn,
        Row("handshake", milliseconds(tls.seconds) if tls.version else "none"),
        Row("name", _held(tls.name_holds, tls.name, tls.name_error), tls.name_holds),
        Row("chain", _held(tls.chain_holds, "", tls.chain_error), tls.chain_holds),
    ]
    resumes = {True: "yes", False: "no", None: unknown}[tls.resumes]
    return [*rows, Row("resumes", f"{resumes}: {tls.resumes_error}" if tls.resumes_error else resumes)]


def _held(holds: bool | None, what: str, error: str) -> str:
    words = {True: "holds", False: "does not hold", None: "not known"}[holds]
    return f"{words}: {'; '.join(filter(None, (what, error)))}" if what or error else words


def certificates(report: Report) -> Iterator[tuple[str, list[Row]]]:
    """Each certificate with its facts, the one that signed before the one that it signed.

    Where the one that signed is missing, its name stands in its place.
    """
    assert report.tls is not None
    chain = report.tls.chain
    if chain and not chain[-1].self_signed and chain[-1].issuer and not report.tls.chain_holds:
        why = "not sent, and not trusted here" if report.tls.issuer_missing else "not sent"
        yield f"{chain[-1].issuer} [{why}]", []
    for facts in reversed(chain):
        where = "" if facts.sent else " [not sent, trusted here]"
        yield f"{facts.subject or 'no subject'}{where}", list(_certificate(facts, report.now, report.days))


def _certificate(facts: Facts, now: datetime, days: int) -> Iterator[Row]:
    if facts.names:
        yield Row("names", ", ".join(facts.names))
    if facts.key:
        yield Row("key", facts.key)
        yield Row("signature", facts.signature)
    left = facts.days_left(now)
    if left is not None and facts.not_before is not None and facts.not_after is not None:
        span = f"{facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d}"
        if now < facts.not_before:
            yield Row("valid", f"{span}, not yet", False)
        else:
            yield Row("valid", f"{span}, {_left(left)}", left >= 0 and left >= days)
    yield Row("SHA-256", facts.sha256)


def _left(days: int) -> str:
    if days < 0:
        return f"expired {-days} {'day' if days == -1 else 'days'} ago"
    return f"{days} {'day' if days == 1 else 'days'} left"
