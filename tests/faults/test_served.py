"""P3, P4: signals and forks meet a server, in a process of its own: a failure may hang (see ``served.py``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import served
from tests.tls import certificates

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="it takes forks and signals")

PATIENCE = 50.0
"""Seconds after which a scene hangs. The longest takes three, on a quiet machine."""


def play(scene: str, directory: Path, *, tls: bool = False, stride: int = 1) -> None:
    """Run a scene; fail if it does, or hangs."""
    leaf = certificates.server() if tls else ()
    program = [sys.executable, "-m", served.__name__, scene, *leaf]
    environment = os.environ | {"SCENE_DIRECTORY": str(directory), "SCENE_STRIDE": str(stride)}
    root = Path(served.__file__).parents[2]
    ran = subprocess.run(
        program, cwd=root, env=environment, timeout=PATIENCE, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.returncode) == ("ok\n", 0), ran.stderr
    assert ran.stderr == ""


plain_and_tls = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@plain_and_tls
@pytest.mark.parametrize(
    "scene",
    [
        "stop_twice_while_it_waits",
        "stop_twice_while_it_drains",
        "request_twice_while_it_waits",
        "request_twice_while_it_drains",
        "async_request_twice_while_it_waits",
        "async_request_twice_while_it_drains",
        "uvloop_request_twice_while_it_waits",
    ],
)
def test_FA6_a_second_signal_means_now(scene: str, tls: bool, tmp_path: Path) -> None:
    """FA6: a second stop() from a signal handler, while stop(drain=) ran in the same thread, hung forever."""
    play(scene, tmp_path, tls=tls)


@pytest.mark.parametrize(
    "scene",
    ["another_thread_gets_the_signal_while_it_waits", "another_thread_gets_the_signal_while_it_drains"],
)
def test_P4_a_signal_that_another_thread_gets_stops_the_server_too(scene: str, tmp_path: Path) -> None:
    """P4, FA6: of two signals in a row the kernel gave one to another thread; the drain went on to its end."""
    play(scene, tmp_path)


@plain_and_tls
@pytest.mark.parametrize("scene", ["once_is_graceful", "async_once_is_graceful"])
def test_FA6_one_signal_lets_clients_finish(scene: str, tls: bool, tmp_path: Path) -> None:
    """FA6: no call of a server could be made in a signal handler without the danger of a deadlock."""
    play(scene, tmp_path, tls=tls)


@pytest.mark.parametrize(
    "scene",
    [
        "request_at_every_bytecode_of_wait",
        "request_at_every_bytecode_of_stop",
        "request_at_every_bytecode_of_a_request",
        "stop_at_every_bytecode_of_stop",
        "async_request_at_every_bytecode_of_wait",
        "async_request_at_every_bytecode_of_stop",
    ],
)
@pytest.mark.parametrize("stride", [pytest.param(1, marks=[pytest.mark.stress, pytest.mark.full]), 7])
def test_P4_a_stop_may_be_asked_for_at_every_bytecode(scene: str, stride: int, tmp_path: Path) -> None:
    """FA6: stop() in a signal handler took locks that the code it had interrupted held already."""
    play(scene, tmp_path, stride=stride)


@plain_and_tls
@pytest.mark.parametrize(
    "scene",
    [
        *(f"fork_{how}" for how in ("stop", "request_stop", "wait", "sys.exit", "exception", "collector")),
        *(f"async_fork_{how}" for how in ("stop", "request_stop", "wait", "sys.exit")),
    ],
)
def test_FA25_a_child_lets_go_of_a_server_and_the_parent_does_not_notice(
    scene: str, tls: bool, tmp_path: Path
) -> None:
    """FA25: leaving ``with serve()`` in a forked child cut all of the parent's clients, and its accept thread spun."""
    play(scene, tmp_path, tls=tls)


def test_P3_a_child_may_go_on_with_the_client_of_a_handler(tmp_path: Path) -> None:
    """FA5: the close in one of two processes ended the connection of the other."""
    play("fork_in_a_handler", tmp_path)


def test_FA5_a_child_keeps_the_socket_file_of_its_parents_server(tmp_path: Path) -> None:
    """FA5: a child that stopped its copy of a server removed the socket file of the living one."""
    play("fork_keeps_the_socket_file", tmp_path)


@pytest.mark.long
@pytest.mark.stress
@pytest.mark.parametrize("scene", ["crowd_of_resets", "async_crowd_of_resets"])
def test_FA18_a_crowd_of_clients_that_reset_is_a_few_lines(scene: str, tmp_path: Path) -> None:
    """FA18: 2,300 clients that made a handshake and reset wrote 715 KB of tracebacks."""
    play(scene, tmp_path, tls=True)
