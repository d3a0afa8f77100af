"""Background threads, and the end of the process."""

from __future__ import annotations

import multiprocessing.util
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from wireline._os import background
from wireline._os.background import DaemonThread, ExitHook, start
from wireline._os.process import process

PATIENCE = 5.0


def test_starting_a_thread_does_not_wait_until_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """FA30: `Thread.start` waits for the new thread, which never runs when the interpreter ends."""
    go = threading.Event()
    real = threading.Thread._bootstrap  # type: ignore[attr-defined]

    def bootstrap(thread: threading.Thread) -> None:
        assert go.wait(PATIENCE)
        real(thread)

    monkeypatch.setattr(threading.Thread, "_bootstrap", bootstrap)
    ran = threading.Event()
    begun = time.monotonic()
    start("wireline-test", ran.set)
    assert time.monotonic() - begun < PATIENCE / 2
    assert not ran.is_set()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "wireline-test"]
    assert thread.daemon
    go.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert ran.is_set()


def test_joining_a_thread_that_has_not_begun_waits_for_it() -> None:
    helpers = [DaemonThread("wireline-test", lambda: time.sleep(0.01)) for _ in range(20)]
    for helper in helpers:
        helper.start()
        helper.join()
        assert not helper.is_alive()


def test_no_thread_is_started_when_none_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """FA30: on 3.11 a thread can be started when the interpreter is at its end, and never runs."""
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    assert not background.can_run_threads()
    with pytest.raises(RuntimeError, match="finalizing"):
        start("wireline-test", lambda: None)


def test_the_main_thread_is_known_and_alive() -> None:
    seen = []
    other = threading.Thread(target=lambda: seen.append(background.is_main_thread()))
    other.start()
    other.join()
    assert (seen, background.is_main_thread()) == (
        [False],
        threading.current_thread() is threading.main_thread(),
    )
    assert not background.is_ending()


def registered() -> int:
    return len(multiprocessing.util._finalizer_registry)  # type: ignore[attr-defined]


def test_a_hook_is_called_once_by_multiprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    """FA24: a child of multiprocessing ends in `os._exit`, and `atexit` functions were not called."""
    calls: list[int] = []
    hook = ExitHook(lambda: calls.append(1))
    before = registered()
    for _ in range(3):
        hook.arm()
    assert registered() == before + 1
    monkeypatch.setattr(process, "epoch", object())
    hook.arm()
    assert registered() == before + 2, "in a child it is registered anew"
    assert not hook.over
    list(multiprocessing.util._finalizer_registry.values())[-1]()  # type: ignore[attr-defined]
    assert calls == [1]
    assert hook.over
    monkeypatch.undo()
    assert not hook.over, "but not in another process"
    for key, finalizer in list(multiprocessing.util._finalizer_registry.items()):  # type: ignore[attr-defined]
        if getattr(finalizer, "_callback", None) == hook._run:
            del multiprocessing.util._finalizer_registry[key]  # type: ignore[attr-defined]


def test_a_hook_is_over_when_multiprocessing_has_called_its_finalizers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = ExitHook(lambda: None)
    assert not hook.over
    monkeypatch.setattr(multiprocessing.util, "_exiting", True)
    assert hook.over


def test_without_multiprocessing_it_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "multiprocessing.util")
    before = registered()
    hook = ExitHook(lambda: None)
    hook.arm()
    assert "multiprocessing.util" not in sys.modules
    assert not hook.over
    assert registered() == before


CHILDREN = """
    import atexit, os, sys
    from wireline._os.background import ExitHook

    def hook_of(name):
        hook = ExitHook(lambda: os.write(1, f"{name} {os.getpid() == parent}\\n".encode()))
        hook.arm()
        return hook

    parent = os.getpid()
    hook = hook_of("old")
    child = os.fork()
    if not child:
        if sys.argv[1] == "cleared":
            atexit._clear()  # as multiprocessing does from 3.13 on
        hook.arm()
        sys.exit()
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform without fork")
@pytest.mark.parametrize("way", ["cleared", "not cleared"])
def test_a_hook_is_called_once_in_each_process(way: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILDREN), way],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["old False", "old True"]
