"""``wireline check TARGET``."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime

from wireline import Target
from wireline.cli._check_reach import Attempt, failure, find, race
from wireline.cli._check_report import Report, to_json
from wireline.cli._outcome import ExitCode, Failure, Outcome, Stage, Verdict, during, judge, say
from wireline.cli._signals import Signals
from wireline.cli._stdio import Output
from wireline.net import Socket


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Look at a target, tell what was found, and what is wrong with it.

    Raises:
        Failure: something is, or it could not be told.
    """
    target: Target = options.target
    if options.tls:
        _require_cryptography(target)
    report = Report(target, datetime.now(UTC), options.days, starttls=options.starttls)
    try:
        _examine(options, report)
    except Failure as failed:
        if failed.stage is Stage.SETUP:
            raise  # nothing was looked at
        report.problems.append(_judged(failed, options.starttls))
        report.cause = failed
    _tell(report, as_json=options.json)
    for problem in report.problems:
        say(f"wireline: {problem.sentence}")
    if report.problems:
        raise Verdict(Outcome(report.code)) from report.cause


def _require_cryptography(target: Target) -> None:
    with during(Stage.SETUP, target):
        try:
            import cryptography  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "to look into certificates the package cryptography is needed: pip install 'wireline[cli]'"
            ) from error


def _examine(options: argparse.Namespace, report: Report) -> None:
    with during(Stage.CONNECT, report.target):
        places = find(report.target, options.timeout)
    report.attempts = race(places, options.timeout)
    answered = [attempt for attempt in report.attempts if attempt.sock is not None]
    if not answered:
        with during(Stage.CONNECT, report.target):
            raise failure(report.target, report.attempts)
    fastest = min(answered, key=lambda attempt: attempt.seconds)
    report.used = fastest.place
    sock = _keep(fastest, answered)
    with sock:
        if options.tls:
            # Most of the start-up time, for those who need it.
            from wireline.cli._check_tls import Examiner

            report.tls = Examiner(options, report, sock, fastest.place).run()


def _keep(fastest: Attempt, answered: list[Attempt]) -> Socket:
    """Close all connections but one."""
    for attempt in answered:
        if attempt is not fastest and attempt.sock is not None:
            attempt.sock.close()
    assert fastest.sock is not None
    return fastest.sock


def _judged(failed: Failure, starttls: str | None) -> Outcome:
    """What a check that ended early is worth."""
    if starttls:
        from wireline.cli._starttls import HungUpError, UpgradeRefusedError

        if isinstance(failed.cause, UpgradeRefusedError):
            return Outcome(ExitCode.HANDSHAKE, f"{failed.subject} {failed.cause}")
        if isinstance(failed.cause, HungUpError):
            advice = f"does it speak {starttls} there?"
            return Outcome(ExitCode.TRUNCATED, f"{failed.subject} {failed.cause}; {advice}")
    return judge(failed)


def _tell(report: Report, *, as_json: bool) -> None:
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
        from wireline.cli._check_tables import draw
    except ImportError:  # the extra is not installed
        return _plain(report)
    return draw(report)


def _plain(report: Report) -> str:
    from wireline.cli._check_plain import write

    return write(report)
