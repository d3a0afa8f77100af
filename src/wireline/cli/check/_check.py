"""``wireline check TARGET...``."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import (
    ExitCode,
    Failure,
    Outcome,
    ReportedFailure,
    Stage,
    classify,
    during,
)
from wireline.cli._stderr import print_stderr
from wireline.cli._stdio import Output
from wireline.cli.check._one_target import check_target
from wireline.cli.check._report import Report, to_json

_AT_ONCE = 16
"""Targets that are checked at the same time: more would only wait for each other's computing. A guess."""


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Check the targets, print the reports, and one sentence for each problem.

    Raises:
        ReportedFailure: there are problems.
        Failure: the options cannot be used, or the report cannot be printed.
    """
    output = Output()
    if options.nagios:
        _run_for_nagios(options.checks, output)
        return
    reports = _check_all(options.checks)
    is_data = options.json or options.prometheus
    _print(_data(reports, options) if is_data else _text(reports, output), output)
    if is_data or not (output.is_terminal and os.isatty(2)):
        _print_problems(reports)
    failed = next((report for report in reports if report.problems), None)
    if failed is not None:
        raise ReportedFailure(Outcome(failed.code)) from failed.cause


def _run_for_nagios(checks: list[argparse.Namespace], output: Output) -> None:
    from wireline.cli.check import _monitoring

    try:
        reports = _check_all(checks)
    except Failure as failure:
        _print(_monitoring.format_nagios_unknown(classify(failure)), output)
        raise ReportedFailure(Outcome(ExitCode(_monitoring.UNKNOWN))) from failure
    _print(_monitoring.format_nagios(reports), output)
    code = _monitoring.nagios_code(reports)
    if code:
        cause = next((report.cause for report in reports if report.cause), None)
        raise ReportedFailure(Outcome(ExitCode(code))) from cause


def _check_all(checks: list[argparse.Namespace]) -> list[Report]:
    """Check the targets.

    Raises:
        Failure: the options cannot be used; nothing was checked.
    """
    if any(check.tls for check in checks):
        _require_cryptography()
        _read_settings(checks)
        # Here, and not in the threads: beside the sockets of others they may get no descriptor to load it.
        from wireline.cli.check import _tls_probe  # noqa: F401
    with ThreadPoolExecutor(max_workers=min(len(checks), _AT_ONCE)) as threads:
        return list(threads.map(check_target, checks))


def _read_settings(checks: list[argparse.Namespace]) -> None:
    """Read the TLS settings, which are the same for all targets, and the password once: a descriptor has it once."""
    from wireline.cli._tls_handshakes import read_settings  # imports ssl

    options = checks[0]
    with during(Stage.SETUP, ""):
        settings = read_settings(options)
        password = settings.get("password")
        if callable(password) and not options.of_files:
            # The question is asked here, before the first connection, and not in several threads.
            from wireline.tls import Handshake, SslContext, VerifyMode

            SslContext(
                verify_mode=VerifyMode.NONE,
                cert_file=options.cert,
                key_file=options.key or "",
                password=password,
            ).ssl_context(Handshake.AS_CLIENT)
    for check in checks:
        check.settings = settings


def _require_cryptography() -> None:
    with during(Stage.SETUP, ""):
        try:
            import cryptography  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "check needs the package cryptography to read certificates: pip install 'wireline[cli]'"
            ) from error


def _print_problems(reports: list[Report]) -> None:
    """Print each problem and warning to standard error, which a terminal with the report does not need."""
    for report in reports:
        for problem in report.problems:
            print_stderr(f"wireline: {problem.sentence}")
        for warning in report.warnings:
            print_stderr(f"wireline: warning: {warning.sentence}")


def _data(reports: list[Report], options: argparse.Namespace) -> str:
    if options.json:
        return to_json(reports)
    from wireline.cli.check._monitoring import format_prometheus

    return format_prometheus(reports)


def _text(reports: list[Report], output: Output) -> str:
    in_colour = output.is_terminal and not os.environ.get("NO_COLOR")
    return _in_colour(reports) if in_colour else _plain(reports)


def _print(text: str, output: Output) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    output.write(f"{text.rstrip()}\n".encode(encoding, "backslashreplace"))


def _in_colour(reports: list[Report]) -> str:
    try:
        from wireline.cli.check._tables import format_tables
    except ImportError:  # the extra is not installed
        return _plain(reports)
    return format_tables(reports)


def _plain(reports: list[Report]) -> str:
    from wireline.cli.check._plain_text import format_plain

    return format_plain(reports)
