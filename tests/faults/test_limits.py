"""FA19: a server with limits meets crowds, forks and signals, in a process of its own (see ``limited.py``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import limited

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="it takes forks and signals")

PATIENCE = 55.0
"""Seconds after which a scene hangs. The crowds take fifteen."""


def play(scene: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", limited.__name__, scene],
        cwd=Path(limited.__file__).parents[2],
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.returncode, ran.stderr) == ("ok\n", 0, "")


@pytest.mark.parametrize("scene", ["greedy_address", "fork_after_serve"])
def test_FA19_limits_hold(scene: str) -> None:
    play(scene)


@pytest.mark.full
@pytest.mark.parametrize("scene", ["shared_socket", "signals"])
def test_S10_a_server_and_others_do_not_disturb_each_other(scene: str) -> None:
    play(scene)


@pytest.mark.stress
@pytest.mark.full
@pytest.mark.parametrize("scene", ["silent_crowd", "async_silent_crowd"])
def test_FA19_ten_thousand_clients_that_send_nothing_are_ended(scene: str) -> None:
    play(scene)
