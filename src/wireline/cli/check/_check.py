"""``wireline check TARGET``."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime

from wireline import Target
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import (
    ExitCode,
    Failure,
    Outcome,
    ReportedFailure,
    Stage,
    classify,
    during,
    print_stderr,
)
from wireline.cli._stdio import Output
from wireline.cli.check._endpoints import Attempt, connect_all, dial_error, resolve
from wireline.cli.check._report import Report, to_json
from wireline.net import Socket


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Check a target, print the report, and one sentence for each problem.

    Raises:
        ReportedFailure: there are problems.
        Failure: the options cannot be used, or the report cannot be printed.
    """
    target: Target = options.target
    if options.tls:
        _require_cryptography(target)
    report = Report(target, datetime.now(UTC), options.days, starttls=options.starttls)
    try:
        _fill(report, options)
    except Failure as failure:
        if failure.stage is Stage.SETUP:
            raise  # nothing was checked
        report.problems.append(_classify(failure, options.starttls))
        report.cause = failure
    _print(report, as_json=options.json)
    for problem in report.problems:
        print_stderr(f"wireline: {problem.sentence}")
    if report.problems:
        raise ReportedFailure(Outcome(report.code)) from report.cause


def _require_cryptography(target: Target) -> None:
    with during(Stage.SETUP, target):
        try:
            import cryptography  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "check needs the package cryptography to read certificates: pip install 'wireline[cli]'"
            ) from error


def _fill(report: Report, options: argparse.Namespace) -> None:
    with during(Stage.CONNECT, report.target):
        endpoints = resolve(report.target, options.timeout)
    report.attempts = connect_all(endpoints, options.timeout)
    connected = [attempt for attempt in report.attempts if attempt.sock is not None]
    if not connected:
        with during(Stage.CONNECT, report.target):
            raise dial_error(report.target, report.attempts)
    fastest = min(connected, key=lambda attempt: attempt.seconds)
    report.used = fastest.endpoint
    with _keep_one(fastest, connected) as sock:
        if options.tls:
            # Imports ssl and cryptography: most of the start-up time.
            from wireline.cli.check._tls_probe import TlsProbe

            report.tls = TlsProbe(options, report, sock, fastest.endpoint).run()


def _keep_one(fastest: Attempt, connected: list[Attempt]) -> Socket:
    """Close all connections but one."""
    for attempt in connected:
        if attempt is not fastest and attempt.sock is not None:
            attempt.sock.close()
    assert fastest.sock is not None
    return fastest.sock


def _classify(failure: Failure, starttls: str | None) -> Outcome:
    """The exit code and the sentence of a check that ended early."""
    if starttls:
        from wireline.cli._starttls import DisconnectedError, UpgradeRefusedError

        if isinstance(failure.cause, UpgradeRefusedError):
            return Outcome(ExitCode.HANDSHAKE, f"{failure.subject} {failure.cause}")
        if isinstance(failure.cause, DisconnectedError):
            advice = f"check that it speaks {starttls} on this port"
            return Outcome(ExitCode.TRUNCATED, f"{failure.subject} {failure.cause}; {advice}")
    return classify(failure)


def _print(report: Report, *, as_json: bool) -> None:
    output = Output()
    if as_json:
        text = to_json(report)
    elif output.is_terminal and not os.environ.get("NO_COLOR"):
        text = _in_colour(report)
    else:
        text = _plain(report)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    output.write(f"{text.rstrip()}\n".encode(encoding, "backslashreplace"))


def _in_colour(report: Report) -> str:
    try:
        from wireline.cli.check._tables import format_tables
    except ImportError:  # the extra is not installed
        return _plain(report)
    return format_tables(report)


def _plain(report: Report) -> str:
    from wireline.cli.check._plain_text import format_plain

    return format_plain(report)
