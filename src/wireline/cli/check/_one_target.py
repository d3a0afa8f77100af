"""The check of one target: all its addresses at the same time."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from wireline import Target
from wireline.cli._outcome import ExitCode, Failure, Stage, classify, during
from wireline.cli.check._endpoints import Attempt, connect_all, dial_error, resolve
from wireline.cli.check._report import Findings, Problem, Report, TlsReport


def check_target(options: argparse.Namespace) -> Report:
    """Check a target, or the files of ``--cert`` and ``--key``.

    Raises:
        Failure: the files of the options cannot be used; nothing was checked.
    """
    if options.of_files:
        from wireline.cli.check._files import check_files

        return check_files(options)
    target: Target = options.target
    report = Report(str(target), datetime.now(UTC), options.days, starttls=options.starttls)
    try:
        _fill(report, options)
    except Failure as failure:
        _add_failure(report, failure)
    return report


def _fill(report: Report, options: argparse.Namespace) -> None:
    with during(Stage.CONNECT, report.target):
        endpoints = resolve(options.target, options.timeout)
    report.attempts = connect_all(endpoints, options.timeout)
    connected = [attempt for attempt in report.attempts if attempt.sock is not None]
    if not connected:
        with during(Stage.CONNECT, report.target):
            raise dial_error(options.target, report.attempts)
    if options.first:
        connected = _keep_fastest(connected)
    else:
        _add_dead_addresses(report, are_problems=options.all_addresses)
    if options.tls:
        _add_tls(report, options, connected)
        return
    for attempt in connected:
        assert attempt.sock is not None
        attempt.sock.close()


def _keep_fastest(connected: list[Attempt]) -> list[Attempt]:
    """Close all connections but one."""
    fastest = min(connected, key=lambda attempt: attempt.seconds)
    for attempt in connected:
        if attempt is not fastest and attempt.sock is not None:
            attempt.sock.close()
    return [fastest]


def _add_dead_addresses(report: Report, *, are_problems: bool) -> None:
    for attempt in report.attempts:
        if attempt.error is None:
            continue
        address = str(attempt.endpoint)
        subject = f"{address}, an address of {report.target},"
        code, sentence = classify(Failure(Stage.CONNECT, attempt.error, subject))
        found = report.problems if are_problems else report.warnings
        found.append(Problem(code if are_problems else ExitCode.CLEAN, sentence, (address,)))
        if are_problems:
            report.cause = report.cause or attempt.error


def _add_tls(report: Report, options: argparse.Namespace, connected: list[Attempt]) -> None:
    with ThreadPoolExecutor(max_workers=len(connected)) as threads:
        probed = list(threads.map(lambda attempt: _probe(report, options, attempt), connected))
    addresses = [str(attempt.endpoint) for attempt in connected]
    report.tls = {
        address: tls for address, (tls, _) in zip(addresses, probed, strict=True) if tls is not None
    }
    report.merge({address: findings for address, (_, findings) in zip(addresses, probed, strict=True)})


def _probe(
    report: Report, options: argparse.Namespace, attempt: Attempt
) -> tuple[TlsReport | None, Findings]:
    # Imports ssl and cryptography: most of the start-up time. `_check` has done so by now.
    from wireline.cli.check._tls_probe import TlsProbe

    findings = Findings(report.target, report.now, report.days)
    assert attempt.sock is not None
    with attempt.sock as sock:
        try:
            return TlsProbe(options, findings, sock, attempt.endpoint).run(), findings
        except Failure as failure:
            _add_failure(findings, failure)
            return None, findings


def _add_failure(findings: Findings, failure: Failure) -> None:
    """Add the error that ended a check early.

    Raises:
        Failure: nothing was checked.
    """
    if failure.stage is Stage.SETUP:
        raise failure
    findings.add_problem(*classify(failure))
    findings.cause = failure
