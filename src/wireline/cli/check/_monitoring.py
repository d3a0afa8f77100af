"""The reports of a check for monitoring systems: Nagios and its relatives, and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wireline.cli._outcome import Outcome
from wireline.cli.check._plain_text import verdict_of_all
from wireline.cli.check._report import Report

OK, WARNING, CRITICAL, UNKNOWN = range(4)
"""Exit codes of a Nagios plugin."""

_STATUS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


def nagios_code(reports: list[Report]) -> int:
    """The exit code for Nagios: of the worst report."""
    return max(map(_nagios_code, reports))


def _nagios_code(report: Report) -> int:
    if report.problems:
        return WARNING if all(problem.is_early for problem in report.problems) else CRITICAL
    return WARNING if report.warnings else OK


def format_nagios(reports: list[Report]) -> str:
    """Status, verdict and performance data in one line, and further problems in lines of their own."""
    verdict = reports[0].verdict if len(reports) == 1 else verdict_of_all(reports)
    data = " ".join(part for report in reports for part in _performance(report, alone=len(reports) == 1))
    line = f"{_nagios_line(nagios_code(reports), verdict.partition(': ')[2])} | {data}"
    found = [each.sentence for report in reports for each in (*report.problems, *report.warnings)]
    return "\n".join([line, *map(_without_bar, found if len(reports) > 1 else found[1:])])


def format_nagios_unknown(outcome: Outcome) -> str:
    """The line about a check that could not be made."""
    return _nagios_line(UNKNOWN, outcome.sentence)


def _nagios_line(code: int, text: str) -> str:
    return f"WIRELINE {_STATUS[code]} - {_without_bar(text)}"


def _without_bar(text: str) -> str:
    """Replace the character after which Nagios reads data: text of a peer must not add some."""
    return text.replace("|", "/")


def _performance(report: Report, *, alone: bool) -> Iterator[str]:
    prefix = "" if alone else report.target.translate({ord("'"): "_", ord("="): "_", ord("|"): "_"}) + " "
    seconds = [attempt.seconds for attempt in report.attempts if attempt.error is None]
    if seconds and not report.of_files:
        yield f"'{prefix}time'={max(seconds):.6f}s;;;0"
    if report.days_left is not None:
        yield f"'{prefix}days'={report.days_left};{report.days}:;0:"


# name without its prefix: text for HELP
_METRICS = {
    "success": "Whether there are no problems.",
    "exit_code": "The exit code of wireline check for this target.",
    "warnings": "The number of warnings.",
    "address_connected": "Whether an address could be connected to.",
    "connect_seconds": "Seconds until the connection or the error.",
    "handshake_seconds": "Seconds of the TLS handshake.",
    "tls_info": "Version, cipher and key exchange.",
    "name_matches": "Whether the certificate matches the name.",
    "chain_trusted": "Whether the chain of certificates is trusted.",
    "certificate_at_fault": "Whether this certificate makes the chain untrusted.",
    "certificate_not_after_timestamp_seconds": "The time at which a certificate of the chain expires.",
}

_Sample = tuple[str, Mapping[str, str], float]


def format_prometheus(reports: list[Report]) -> str:
    """The reports in Prometheus' text format, for the textfile collector of the node exporter."""
    samples = [sample for report in reports for sample in _samples(report)]
    lines = []
    for name, description in _METRICS.items():
        values = [
            f"wireline_check_{name}{{{_labels(labels)}}} {_number(value)}"
            for known, labels, value in samples
            if known == name
        ]
        if values:
            lines += [
                f"# HELP wireline_check_{name} {description}",
                f"# TYPE wireline_check_{name} gauge",
                *values,
            ]
    return "\n".join(lines)


def _samples(report: Report) -> Iterator[_Sample]:
    target = {"target": report.target}
    yield "success", target, not report.problems
    yield "exit_code", target, report.code
    yield "warnings", target, len(report.warnings)
    for attempt in () if report.of_files else report.attempts:
        address = {**target, "address": str(attempt.endpoint)}
        yield "address_connected", address, attempt.error is None
        yield "connect_seconds", address, attempt.seconds
    for where in report.tls:
        yield from _tls_samples(report, where)


def _tls_samples(report: Report, where: str) -> Iterator[_Sample]:
    tls = report.tls[where]
    address = {"target": report.target, "address": where}
    if tls.version:
        facts = {"version": tls.version, "cipher": tls.cipher, "key_exchange": tls.key_exchange}
        yield "tls_info", {**address, **facts}, 1
        yield "handshake_seconds", address, tls.seconds
    if tls.name_matches is not None:
        yield "name_matches", {**address, "name": tls.name}, tls.name_matches
    if tls.chain_trusted is not None:
        yield "chain_trusted", address, tls.chain_trusted
    for index, info in enumerate(tls.chain):
        labels = {**address, "index": str(index), "subject": info.subject}
        yield "certificate_at_fault", labels, index == tls.at_fault
        if info.not_after is not None:
            yield "certificate_not_after_timestamp_seconds", labels, int(info.not_after.timestamp())


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else f"{value:.6f}"
