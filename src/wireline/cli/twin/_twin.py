"""``wireline twin ASYNC SYNC``."""

from __future__ import annotations

import argparse
import difflib
import stat
from pathlib import Path

from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import ExitCode, Outcome, ReportedFailure, is_out_of_descriptors
from wireline.cli._stderr import print_stderr
from wireline.cli.twin import _convert, _files, _source
from wireline.cli.twin._source import Problem, ProblemsFound


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Make the twin, or compare it with the one that is there.

    Raises:
        ReportedFailure: the paths do not go together, something has no twin, files cannot be read or written, or, with
            ``--check``, the twin that is there is another one.
        OSError: there are no descriptors left.
    """
    renames = dict(options.rename)
    if len(renames) < len(options.rename):
        raise ReportedFailure(Outcome(ExitCode.USAGE, "--rename has one name more than once"))
    try:
        plan = _files.make_plan(Path(options.source), Path(options.target))
        made = _make(plan, renames)
        changed = {path: content for path, content in made.items() if _current(path) != content[0]}
        if options.check:
            _report_differences(changed, plan.stale)
            return
        with signals.deferring_exit():
            _files.write(changed, plan.stale)
    except _files.Refused as error:
        raise ReportedFailure(Outcome(ExitCode.USAGE, str(error))) from error
    except OSError as error:
        if is_out_of_descriptors(error):
            raise
        sentence = f"cannot make the twin: {error.filename or options.target}: {error.strerror}"
        raise ReportedFailure(Outcome(ExitCode.FAILED, sentence)) from error
    for path in changed:
        print_stderr(f"wrote {path}")
    for path in plan.stale:
        print_stderr(f"removed {path}")


def _make(plan: _files.Plan, renames: dict[str, str]) -> dict[Path, tuple[bytes, int]]:
    """The contents of the twins, and their modes.

    Raises:
        ReportedFailure: something has no twin; all of it was printed.
    """
    made: dict[Path, tuple[bytes, int]] = {}
    problems: list[Problem] = []
    for pair in plan.pairs:
        try:
            source = _source.read(pair.source, str(pair.source))
            text = _convert.convert(source.text, str(pair.source), pair.origin, pair.module, renames)
        except ProblemsFound as error:
            problems += error.problems
        else:
            made[pair.target] = source.encode(text), stat.S_IMODE(pair.source.stat().st_mode)
    if problems:
        for problem in problems:
            print_stderr(str(problem))
        things = "1 thing has" if len(problems) == 1 else f"{len(problems)} things have"
        raise ReportedFailure(Outcome(ExitCode.FAILED, f"{things} no twin, see above; nothing was written"))
    return made


def _current(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _report_differences(changed: dict[Path, tuple[bytes, int]], stale: list[Path]) -> None:
    """Print the differences between the twin that is there and the one that would be made.

    Raises:
        ReportedFailure: there are some.
    """
    for path, (wanted, _) in changed.items():
        _print_diff(path, _current(path), wanted)
    for path in stale:
        _print_diff(path, _current(path), None)
    if count := len(changed) + len(stale):
        files = "1 file differs" if count == 1 else f"{count} files differ"
        sentence = f"{files} from the twin: run the command without --check"
        raise ReportedFailure(Outcome(ExitCode.FAILED, sentence))


def _print_diff(path: Path, there: bytes | None, wanted: bytes | None) -> None:
    names = [str(path) if data is not None else "/dev/null" for data in (there, wanted)]
    before, after = ((data or b"").decode(errors="backslashreplace").splitlines() for data in (there, wanted))
    lines = list(difflib.unified_diff(before, after, names[0], names[1], lineterm=""))
    # Files that differ in their line ends only, or one that would be empty.
    print_stderr("\n".join(lines) or f"--- {names[0]}\n+++ {names[1]}")
