"""A plugin of pytest that keeps what the command says, for ``tools/messages.py``.

``WIRELINE_MESSAGES`` names a directory; each process of the tests writes a file there, a line of JSON for each message
with its exit code. The code 0 is that of a message after which the command went on, or of one among several.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Command, Result
from wireline.cli import _main, _outcome
from wireline.cli._outcome import Failure, Outcome, ReportedFailure
from wireline.cli.check._report import Findings
from wireline.cli.twin._source import Problem, ProblemsFound


def _write(line: str, code: int = 0) -> None:
    path = Path(os.environ["WIRELINE_MESSAGES"], f"{os.getpid()}.jsonl")
    with path.open("a") as file:
        file.write(json.dumps({"line": line, "code": code}) + "\n")


def _write_all(err: str, code: int) -> None:
    lines = [line for line in err.splitlines() if line]
    messages = [line for line in lines if line.startswith("wireline: ")]
    for line in messages if "Traceback (most recent call last):" in lines else lines:
        # Of several messages only one has led to the code.
        _write(line, code if messages == [line] else 0)


class _Tee:
    """Standard error that keeps what is written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _LineByLine:
    """A pipe of standard error that keeps the lines that a test reads one at a time, while the command runs."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def readline(self) -> bytes:
        line: bytes = self._pipe.readline()
        _write_all(line.decode(), 0)
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what commands say while a test runs: those of this process, and those of their own."""
    run, classify, result = _main.run, _outcome._classify_failure, Command._result
    start = Command.__init__
    add_problem, add_warning = Findings.add_problem, Findings.add_warning

    def run_and_keep(argv: Sequence[str] | None = None) -> int:
        if sys.stderr is None:
            return run(argv)
        tee = _Tee(sys.stderr)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", tee)
            code = run(argv)
        _write_all(tee.text, code)
        return code

    def classify_and_keep(failure: Failure) -> Outcome:
        outcome = classify(failure)
        _write(outcome.sentence, outcome.code)
        return outcome

    def start_and_keep(self: Command, *words: str, **more: Any) -> None:
        start(self, *words, **more)
        if self.process.stderr is not None:
            self.process.stderr = _LineByLine(self.process.stderr)  # type: ignore[assignment]

    def result_and_keep(self: Command, out: bytes | None, err: bytes | None) -> Result:
        found = result(self, out, err)
        _write_all(found.err, found.code)
        return found

    def keep_reported(self: ReportedFailure, outcome: Outcome) -> None:
        Exception.__init__(self, outcome)
        self.outcome = outcome
        _write(outcome.sentence, outcome.code)

    def keep_problem(self: Findings, code: int, sentence: str, **more: Any) -> None:
        _write(sentence, code)
        add_problem(self, code, sentence, **more)  # type: ignore[arg-type]

    def keep_warning(self: Findings, sentence: str) -> None:
        _write(sentence)
        add_warning(self, sentence)

    def keep_twin(self: ProblemsFound, problems: list[Problem]) -> None:
        Exception.__init__(self, problems)
        self.problems = problems
        for problem in problems:
            _write(str(problem), 1)

    monkeypatch.setattr(_main, "run", run_and_keep)
    monkeypatch.setattr(_outcome, "_classify_failure", classify_and_keep)
    monkeypatch.setattr(Command, "__init__", start_and_keep)
    monkeypatch.setattr(Command, "_result", result_and_keep)
    monkeypatch.setattr(ReportedFailure, "__init__", keep_reported)
    monkeypatch.setattr(Findings, "add_problem", keep_problem)
    monkeypatch.setattr(Findings, "add_warning", keep_warning)
    monkeypatch.setattr(ProblemsFound, "__init__", keep_twin)
