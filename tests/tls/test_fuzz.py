"""A few seconds of fuzzing with a fixed seed. For more, run ``tests.tls.fuzz_engine`` directly."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from tests.tools import IN_CI

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.stress
def test_fuzzing_the_input_of_the_engine_finds_nothing(tmp_path: pathlib.Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        if IN_CI:
            pytest.fail("atheris is not installed", pytrace=False)
        pytest.skip("atheris is not installed (pip install atheris)")
    command = [sys.executable, "-m", "tests.tls.fuzz_engine"]
    limits = [
        "-seed=1",
        "-runs=3000",
        "-max_total_time=4",
        "-timeout=5",
        "-rss_limit_mb=0",  # it would count the peak of the process that started it; the program has a limit of its own
        "-max_len=4200",
    ]
    run = subprocess.run(
        [*command, *limits, f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    assert "Done" in run.stderr
