"""The report of a check for pipes and files: one fact per line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from wireline.cli.check._endpoints import Attempt
from wireline.cli.check._report import Report, TlsReport, error_text, milliseconds

if TYPE_CHECKING:
    from wireline.cli.check._certificate_info import CertificateInfo
    from wireline.cli.check._ocsp import OcspStaple


class Row(NamedTuple):
    """A fact with its name; ``good`` is None if the fact is neither good nor bad."""

    label: str
    value: str
    good: bool | None = None


def format_plain(reports: list[Report]) -> str:
    """The reports as text."""
    if len(reports) == 1:
        return "\n".join(_lines(reports[0]))
    lines = [verdict_of_all(reports)]
    for report in reports:
        lines += [report.verdict] if is_brief(report) else ["", *_lines(report)]
    return "\n".join(lines)


def is_brief(report: Report) -> bool:
    """Whether the verdict is enough among several targets: there is one address at most, and no TLS."""
    return len(report.attempts) <= 1 and not report.tls


def verdict_of_all(reports: list[Report]) -> str:
    """The first line about several targets."""
    failed = sum(bool(report.problems) for report in reports)
    if failed:
        return f"FAILED: {failed} of {len(reports)} targets"
    warned = sum(bool(report.warnings) for report in reports)
    return f"WARNING: {warned} of {len(reports)} targets" if warned else f"OK: {len(reports)} targets"


def _lines(report: Report) -> Iterator[str]:
    yield report.verdict
    for title, sentences in remarks(report):
        yield title
        for sentence in sentences:
            yield f"  {sentence}"
    if report.attempts and not report.of_files:
        yield "addresses"
        width = max(len(str(attempt.endpoint)) for attempt in report.attempts)
        for attempt in report.attempts:
            time = milliseconds(attempt.seconds)
            yield f"  {attempt.endpoint!s:{width}}  {time:>9}  {attempt_result(attempt, report)}"
    for addresses, tls in report.tls_groups():
        yield tls_title(addresses, report)
        for row in tls_rows(addresses, tls, report):
            yield f"  {row.label:13} {row.value}"
        yield from _chain(tls, report)


def _chain(tls: TlsReport, report: Report) -> Iterator[str]:
    if tls.chain:
        yield CERTIFICATES
    for depth, (title, rows) in enumerate(certificates(tls, report)):
        margin = "  " * (depth + 1)
        yield f"{margin}{title}"
        for row in rows:
            yield f"{margin}  {row.label:10} {row.value}"


DIGEST = "SHA-256"
CERTIFICATES = "certificates"
"""Title of the chain."""


def remarks(report: Report) -> Iterator[tuple[str, list[str]]]:
    """The titles and sentences of problems and warnings that the verdict does not show."""
    shown = 1
    for title, found in (("problems", report.problems), ("warnings", report.warnings)):
        if len(found) > shown:
            yield title, [each.sentence for each in found]
        if found:
            shown = 0  # the verdict shows the first problem, or else the first warning


def tls_title(addresses: list[str], report: Report) -> str:
    """The title of the facts about TLS with some addresses."""
    if report.of_files:
        return "for clients"
    title = f"TLS after STARTTLS ({report.starttls})" if report.starttls else "TLS"
    return title if len(addresses) == len(report.attempts) else f"{title} with {', '.join(addresses)}"


def attempt_result(attempt: Attempt, report: Report) -> str:
    """The result of an attempt in a few words."""
    if attempt.error is not None:
        return error_text(attempt.error)
    return (
        "connected, TLS not tested" if report.tls and str(attempt.endpoint) not in report.tls else "connected"
    )


def tls_rows(addresses: list[str], tls: TlsReport, report: Report) -> list[Row]:
    """The facts about connections to addresses that have the same."""
    unknown = "not known"
    if tls.offered:
        alpn = Row("ALPN", tls.alpn or f"none of {', '.join(tls.offered)}", tls.alpn is not None)
    else:
        alpn = Row("ALPN", "not offered (--alpn)")
    name = {True: "matches", False: "does not match", None: unknown}[tls.name_matches]
    chain = {True: "trusted", False: "not trusted", None: unknown}[tls.chain_trusted]
    resumes = {True: "yes", False: "no", None: unknown}[tls.resumes]
    trust = [
        Row("name", _with_details(name, tls.name, tls.name_error), tls.name_matches)
        if tls.name
        else Row("name", "not checked (--sni)"),
        Row("chain", _with_details(chain, tls.chain_error), tls.chain_trusted),
    ]
    if report.of_files:
        return trust
    seconds = ", ".join(milliseconds(report.tls[address].seconds) for address in addresses)
    return [
        Row("version", tls.version or unknown),
        Row("cipher", tls.cipher or unknown),
        Row("key exchange", _key_exchange(tls) or unknown),
        alpn,
        Row("handshake", seconds if tls.version else "none"),
        *trust,
        _ocsp(tls.ocsp),
        Row("resumption", _with_details(resumes, tls.resumes_error)),
    ]


def _key_exchange(tls: TlsReport) -> str:
    is_known = tls.key_exchange and not tls.key_exchange.startswith("group ")
    name = tls.key_exchange if is_known else tls.group or tls.key_exchange
    return f"{name} (post-quantum)" if "ML-KEM" in name or "MLKEM" in name else name


def _ocsp(staple: OcspStaple | None) -> Row:
    if staple is None:
        return Row("OCSP staple", "none")
    until = f", until {staple.next_update:%Y-%m-%d}" if staple.next_update else ""
    return Row("OCSP staple", f"{staple.status}{until}", {"good": True, "revoked": False}.get(staple.status))


def _with_details(result: str, *details: str) -> str:
    given = "; ".join(filter(None, details))
    return f"{result}: {given}" if given else result


def certificates(tls: TlsReport, report: Report) -> Iterator[tuple[str, list[Row]]]:
    """Title and facts of each certificate, each issuer before the certificate that it signed.

    If the last issuer is missing, its name is the first title.
    """
    chain = tls.chain
    unsent = "not in the file" if report.of_files else "not sent"
    if chain and not chain[-1].self_signed and chain[-1].issuer and not tls.chain_trusted:
        why = f"{unsent}, and not trusted here" if tls.issuer_missing else unsent
        yield f"{chain[-1].issuer} [{why}]", []
    for index, info in reversed([*enumerate(chain)]):
        origin = "" if info.sent else f" [{unsent}, trusted here]"
        fault = " [at fault]" if index == tls.at_fault else ""
        rows = list(_certificate(info, report.now, report.days))
        yield f"{info.subject or 'no subject'}{origin}{fault}", rows


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
    yield Row(DIGEST, info.sha256)


def _remaining(days: int) -> str:
    if days < 0:
        return f"expired {-days} {'day' if days == -1 else 'days'} ago"
    return f"{days} {'day' if days == 1 else 'days'} left"
