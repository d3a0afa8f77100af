"""C2, C6: lookups in threads of their own, shared by who asks for the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from wireline import _resolver
from wireline._resolver import look_up

PATIENCE = 5.0

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]


class NameServer:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.questions: list[tuple[Any, ...]] = []
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.error: BaseException | None = None

    def getaddrinfo(self, *question: Any) -> list[Any]:
        self.questions.append(question)
        self.asked.set()
        assert self.answer.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return FOUND


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answer.set()
    for thread in lookups():
        thread.join(PATIENCE)


def lookups() -> list[threading.Thread]:
    """The threads of this test. Those of others may still be there, and look up other names."""
    return [thread for thread in threading.enumerate() if thread.name.endswith(".lookup")]


def ask(host: str = "some.lookup", port: int = 80) -> Any:
    return look_up(host, port, 0, socket.SOCK_STREAM, 6)


def test_C2_a_lookup_runs_in_a_daemon_thread_with_the_name_in_its_own(server: NameServer) -> None:
    future = ask()
    (thread,) = lookups()
    assert thread.daemon
    assert "some.lookup" in thread.name
    assert not future.done()
    server.answer.set()
    assert future.result(PATIENCE) == FOUND


def test_C2_who_asks_the_same_shares_the_lookup(server: NameServer) -> None:
    first = ask()
    assert all(ask() is first for _ in range(10))
    assert ask(port=81) is not first
    assert ask("other.lookup") is not first
    assert len(lookups()) == 3
    server.answer.set()
    assert first.result(PATIENCE) == FOUND
    assert len(server.questions) == 3


def test_C2_who_asks_again_later_gets_a_fresh_answer(server: NameServer) -> None:
    server.answer.set()
    answered = []
    for _ in range(20):  # each at once, when the thread of the one before may still be there
        future = ask()
        assert future not in answered
        assert future.result(PATIENCE) == FOUND
        answered.append(future)
    assert len(server.questions) == 20
    for thread in lookups():
        thread.join(PATIENCE)
    assert _resolver._under_way == {}


def test_C2_nobody_may_cancel_what_others_wait_for(server: NameServer) -> None:
    future = ask()
    assert not future.cancel()
    server.answer.set()
    assert future.result(PATIENCE) == FOUND


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::1%lo", "fe80::1%1"])
def test_a_literal_needs_no_thread(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(threading.Thread, "start", None)
    future = look_up(host, 80, 0, socket.SOCK_STREAM, 6)
    assert future.done()
    if "%" not in host:
        assert future.result()[0][4][:2] == (host, 80)


ERRORS: dict[str, tuple[BaseException, type[BaseException], str]] = {
    "unknown": (socket.gaierror(socket.EAI_NONAME, "unknown"), socket.gaierror, r"unknown .*some\.lookup"),
    "not a name": (UnicodeError("label too long"), socket.gaierror, r"label too long .*some\.lookup"),
    "out of memory": (MemoryError("no"), MemoryError, "no"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_C6_what_goes_wrong_is_the_futures_and_names_the_host(
    server: NameServer, error: tuple[BaseException, type[BaseException], str]
) -> None:
    server.error, expected, text = error
    server.answer.set()
    with pytest.raises(expected, match=text):
        ask().result(PATIENCE)


def test_a_family_that_does_not_fit_a_literal_is_an_error() -> None:
    with pytest.raises(socket.gaierror, match="::1"):
        look_up("::1", 80, socket.AF_INET, socket.SOCK_STREAM, 6).result()


def test_without_a_thread_to_be_had_the_next_one_may_ask_again(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            ask()
    server.answer.set()
    assert ask().result(PATIENCE) == FOUND


FORK = """
    import os, socket, threading, warnings
    from wireline._resolver import look_up

    warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 and later: that other threads run is the point
    answer = threading.Event()
    answers = {"parent": lambda: answer.wait(10) and [], "child": lambda: ["fresh"]}
    who = "parent"
    socket.getaddrinfo = lambda *question: answers[who]()

    first = look_up("some.test", 80, 0, 1, 6)
    child = os.fork()
    if not child:  # the thread that looks up does not exist here
        who = "child"
        again = look_up("some.test", 80, 0, 1, 6)
        os._exit(0 if again is not first and again.result(5) == ["fresh"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    answer.set()
    assert first.result(5) == []
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform without fork")
def test_a_forked_child_asks_anew() -> None:
    run_script(FORK)


def run_script(script: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
