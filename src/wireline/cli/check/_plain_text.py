"""The report of a check for pipes and files: one fact per line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from wireline.cli.check._endpoints import Attempt
from wireline.cli.check._report import Report, TlsReport, error_text

if TYPE_CHECKING:
    from wireline.cli.check._certificate_info import CertificateInfo


class Row(NamedTuple):
    """A fact with its name; ``good`` is None if the fact is neither good nor bad."""

    label: str
    value: str
    good: bool | None = None


def format_plain(report: Report) -> str:
    """The report as text."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield str(report.target)
    if report.attempts:
        yield "addresses"
        width = max(len(str(attempt.endpoint)) for attempt in report.attempts)
        for attempt in report.attempts:
            time = milliseconds(attempt.seconds)
            yield f"  {attempt.endpoint!s:{width}}  {time:>9}  {attempt_result(attempt, report)}"
    if report.tls is not None:
        yield f"TLS after STARTTLS ({report.starttls})" if report.starttls else "TLS"
        for row in tls_rows(report.tls):
            yield f"  {row.label:13} {row.value}"
        yield from _chain(report.tls, report)


def _chain(tls: TlsReport, report: Report) -> Iterator[str]:
    if tls.chain:
        yield "certificates"
    for depth, (title, rows) in enumerate(certificates(report)):
        margin = "  " * (depth + 1)
        yield f"{margin}{title}"
        for row in rows:
            yield f"{margin}  {row.label:10} {row.value}"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{seconds * 1000:.1f} ms"


def attempt_result(attempt: Attempt, report: Report) -> str:
    """The result of an attempt in a few words."""
    if attempt.error is not None:
        return error_text(attempt.error)
    return "connected, and used" if report.tls and attempt.endpoint == report.used else "connected"


def tls_rows(tls: TlsReport) -> list[Row]:
    """The facts about the connection."""
    unknown = "not known"
    if tls.offered:
        alpn = Row("ALPN", tls.alpn or f"none of {', '.join(tls.offered)}", tls.alpn is not None)
    else:
        alpn = Row("ALPN", "not offered (--alpn)")
    name = {True: "matches", False: "does not match", None: unknown}[tls.name_matches]
    chain = {True: "trusted", False: "not trusted", None: unknown}[tls.chain_trusted]
    resumes = {True: "yes", False: "no", None: unknown}[tls.resumes]
    return [
        Row("version", tls.version or unknown),
        Row("cipher", tls.cipher or unknown),
        Row("key exchange", tls.key_exchange or unknown),
        alpn,
        Row("handshake", milliseconds(tls.seconds) if tls.version else "none"),
        Row("name", _with_details(name, tls.name, tls.name_error), tls.name_matches),
        Row("chain", _with_details(chain, tls.chain_error), tls.chain_trusted),
        Row("resumption", _with_details(resumes, tls.resumes_error)),
    ]


def _with_details(result: str, *details: str) -> str:
    given = "; ".join(filter(None, details))
    return f"{result}: {given}" if given else result


def certificates(report: Report) -> Iterator[tuple[str, list[Row]]]:
    """Title and facts of each certificate, each issuer before the certificate that it signed.

    If the last issuer is missing, its name is the first title.
    """
    assert report.tls is not None
    chain = report.tls.chain
    if chain and not chain[-1].self_signed and chain[-1].issuer and not report.tls.chain_trusted:
        why = "not sent, and not trusted here" if report.tls.issuer_missing else "not sent"
        yield f"{chain[-1].issuer} [{why}]", []
    for index, info in reversed([*enumerate(chain)]):
        origin = "" if info.sent else " [not sent, trusted here]"
        fault = " [at fault]" if index == report.tls.at_fault else ""
        yield (
            f"{info.subject or 'no subject'}{origin}{fault}",
            list(_certificate(info, report.now, report.days)),
        )


def _certificate(info: CertificateInfo, now: datetime, days: int) -> Iterator[Row]:
    if info.names:
        yield Row("names", ", ".join(info.names))
    if info.key:
        yield Row("key", info.key)
        yield Row("signature", info.signature)
    left = info.days_left(now)
    if left is not None and info.not_before is not None and info.not_after is not None:
        span = f"{info.not_before:%Y-%m-%d} to {info.not_after:%Y-%m-%d}"
        if now < info.not_before:
            yield Row("valid", f"{span}, not yet", False)
        else:
            yield Row("valid", f"{span}, {_remaining(left)}", left >= 0 and left >= days)
    yield Row("SHA-256", info.sha256)


def _remaining(days: int) -> str:
    if days < 0:
        return f"expired {-days} {'day' if days == -1 else 'days'} ago"
    return f"{days} {'day' if days == 1 else 'days'} left"
