"""With a limit of a few open files the command runs, or ends with one sentence that says how to raise the limit."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE
from tests.cli.test_check_tls import serving
from tests.tls import certificates
from wireline.cli import OUT_OF_DESCRIPTORS, main
from wireline.cli._logging import log_to_stderr
from wireline.cli._outcome import ExitCode, Failure, Stage, classify

LIMITS = range(3, 13)
ADVICE = "raise the limit of open files with 'ulimit -n'"


def run(limit: int, *words: str) -> tuple[int, str]:
    """Run Python with a limit of open files. A server gets a SIGTERM when it listens."""
    shell = f'ulimit -n {limit}; exec "$@"'
    with subprocess.Popen(
        ["sh", "-c", shell, "sh", sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith("listening on"):
                    process.send_signal(signal.SIGTERM)
            return process.wait(PATIENCE), "".join(lines)
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start Python with other descriptors")
@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["connect", "127.0.0.1:1"], {3}),
        (["connect", "--no-verify", "tls://localhost:1"], {3}),
        (["check", "127.0.0.1:1"], {3}),
        (["listen", "--echo", "--keep", "127.0.0.1:0"], {0}),
        (["relay", "--fault", "chunk=1", "127.0.0.1:0", "127.0.0.1:1"], {0}),
        (["completion", "bash"], {0}),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_the_command_runs_or_says_that_the_limit_is_too_low(words: list[str], codes: set[int]) -> None:
    # With so few descriptors Python itself may not start: then there is nothing to test.
    first = next(limit for limit in LIMITS if run(limit, "-c", "import wireline.cli")[0] == 0)
    ended = set()
    for limit in range(first, LIMITS.stop):
        code, err = run(limit, "-m", "wireline", *words)
        ended.add(code)
        assert "Traceback" not in err, err
        assert "a bug in" not in err, err
        if code not in codes:
            assert code == 1
            assert err.splitlines()[-1].startswith("wireline: ")
            assert err.endswith(f"{ADVICE}\n")
    assert codes <= ended


_WATCHED = """
import sys, threading
from wireline.cli import main
class Finder:
    def find_spec(self, name, path, target=None):
        if threading.current_thread() is not threading.main_thread():
            print("loaded in a thread:", name, file=sys.stderr)
sys.meta_path.insert(0, Finder())
main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [["localhost:1"], ["--ca-file"], ["--starttls", "smtp", "--timeout", "1"]])
def test_the_threads_of_check_load_no_modules(words: list[str]) -> None:
    """They have sockets of other targets beside them: a module may get no descriptor, and Python remembers that."""
    with serving(certificates.chained()) as target:
        if words[0] == "--ca-file":
            words = [*words, certificates.ca_file(), target]
        elif words[0] == "--starttls":
            words = [*words, target.removeprefix("tls://")]
        done = subprocess.run(
            [sys.executable, "-c", _WATCHED, "check", *words],
            capture_output=True,
            cwd=Path(__file__).parents[2],
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    assert "loaded in a thread" not in done.stderr


def test_a_module_that_cannot_be_opened_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(options: object) -> None:
        raise OSError(number, os.strerror(number), "/nowhere/module.py")

    monkeypatch.setattr("wireline.cli._main._run_command", refuse)
    number = errno.EMFILE
    assert main(["completion", "bash"]) == 1
    assert capsys.readouterr().err == f"wireline: {OUT_OF_DESCRIPTORS}\n"
    number = errno.EIO
    with pytest.raises(OSError, match=r"module\.py"):
        main(["completion", "bash"])


def test_without_standard_error_the_sentence_is_not_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``2>&-`` there is none, and standard output is for received data only."""

    def refuse(options: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/nowhere/module.py")

    monkeypatch.setattr("wireline.cli._main._run_command", refuse)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["completion", "bash"]) == 1
    assert capsys.readouterr().out == ""


def test_a_twin_for_which_files_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "aio/__init__.py")

    monkeypatch.setattr("wireline.cli.twin._files.make_plan", fail)
    assert main(["twin", "aio", "sync"]) == 1
    assert capsys.readouterr().err == f"wireline: {OUT_OF_DESCRIPTORS}\n"


def test_a_command_that_runs_out_of_descriptors_has_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("wireline.cli.completion._completion.run", fail)
    assert main(["completion", "bash"]) == 1
    assert capsys.readouterr().err == f"wireline: {OUT_OF_DESCRIPTORS}\n"


def test_running_out_of_descriptors_is_about_no_peer() -> None:
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/usr/lib/python3/encodings/idna.py")
    assert classify(error) == (ExitCode.FAILED, OUT_OF_DESCRIPTORS)
    failure = Failure(Stage.CONNECT, error, "localhost:1")
    assert classify(failure) == (
        ExitCode.FAILED,
        f"cannot connect to localhost:1: Too many open files; {ADVICE}",
    )


def test_a_failed_handler_has_its_reason_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_stderr():
        logging.getLogger("wireline").error(
            "the handler of h:1 failed", exc_info=OSError(24, "Too many\nopen")
        )
    assert (
        capsys.readouterr().err
        == "wireline: the handler of h:1 failed: OSError: [Errno 24] Too many\\nopen\n"
    )
