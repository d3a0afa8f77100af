"""C2, C6, P7: lookups in a few threads, shared by callers with the same query."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

import pytest

from wireline import SocketTimeout
from wireline._core.deadline import CallDeadline
from wireline._os import background, resolver
from wireline._os.resolver import Lookup, _Pool, resolve
from wireline.asyncnet import _sync
from wireline.asyncnet._asyncio import running_port
from wireline.net._poll import Waker, start_deadline, wait_for_lookup

PATIENCE = 5.0

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]


class NameServer:
    """A name server that answers when the test lets it."""

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


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Pool]:
    """A separate pool whose idle workers end soon."""
    monkeypatch.setattr(resolver, "_IDLE_TIMEOUT", 0.05)
    pool = _Pool()
    monkeypatch.setattr(resolver, "_pool", pool)
    yield pool
    until(lambda: not pool._workers)
    assert not pool._in_progress
    assert not pool._queue
    assert not pool._idle
    assert not pool._busy


@pytest.fixture
def server(pool: _Pool, monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answer.set()


def lookups(host: str = ".lookup") -> list[threading.Thread]:
    """The threads of this test. Threads of earlier tests may still look up other names."""
    return [thread for thread in threading.enumerate() if thread.name.endswith(host)]


def until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not is_so() and time.monotonic() < limit:
        threading.Event().wait(0.002)
    assert is_so()


def ask(host: str = "some.lookup", port: int = 80) -> Lookup:
    return resolve(host, port, 0, socket.SOCK_STREAM, 6)


def test_C2_a_lookup_runs_in_a_daemon_thread_with_the_name_in_its_own(server: NameServer) -> None:
    lookup = ask()
    until(lambda: bool(lookups()))
    (thread,) = lookups()
    assert thread.daemon
    assert thread.name == "wireline-resolve-some.lookup"
    assert not lookup.done()
    server.answer.set()
    assert lookup.result(PATIENCE) == FOUND


def test_C2_callers_with_the_same_query_share_the_lookup(server: NameServer) -> None:
    first = ask()
    assert all(ask() is first for _ in range(10))
    assert ask(port=81) is not first
    assert ask("other.lookup") is not first
    until(lambda: len(lookups()) == 3)
    server.answer.set()
    assert first.result(PATIENCE) == FOUND
    assert len(server.questions) == 3


def test_C2_a_later_caller_gets_a_new_lookup(server: NameServer, pool: _Pool) -> None:
    server.answer.set()
    answered: list[Lookup] = []
    for _ in range(20):  # at once, while the previous thread may still run
        lookup = ask()
        assert lookup not in answered
        assert lookup.result(PATIENCE) == FOUND
        answered.append(lookup)
    assert len(server.questions) == 20
    assert len(pool._workers) < 20, "and the threads are used again"


def test_the_timeout_of_a_result_passes(server: NameServer) -> None:
    with pytest.raises(TimeoutError, match=r"some\.lookup.*0\.01 s"):
        ask().result(0.01)


# FA10, P7: the number of threads.


def test_P7_many_names_need_few_threads(server: NameServer, pool: _Pool) -> None:
    """FA10: each lookup had its own thread: 3,000 dials, 3,001 threads."""
    before = threading.active_count()
    asked = [ask(f"host{number}.lookup") for number in range(3000)]
    until(lambda: len(server.questions) == resolver._HALF)
    assert threading.active_count() - before <= resolver._MAX_WORKERS
    assert len(pool._workers) <= resolver._MAX_WORKERS
    server.answer.set()
    assert all(lookup.result(PATIENCE) == FOUND for lookup in asked)
    assert len(server.questions) == 3000


def test_P7_names_are_looked_up_in_the_order_of_the_queue(server: NameServer) -> None:
    asked = [ask(f"host{number}.lookup") for number in range(100)]
    server.answer.set()
    for lookup in asked:
        lookup.result(PATIENCE)
    hosts = [int(question[0].partition(".")[0][4:]) for question in server.questions]
    assert all(abs(place - host) <= resolver._MAX_WORKERS for place, host in enumerate(hosts))


@pytest.mark.parametrize("lively", ["lively.test", "alive.dead.test"])
def test_P7_one_dead_name_server_does_not_stop_the_rest(
    pool: _Pool, monkeypatch: pytest.MonkeyPatch, lively: str
) -> None:
    monkeypatch.setattr(resolver, "_HANGING_AFTER", 0.1)
    answer = threading.Event()
    hanging: list[str] = []

    def getaddrinfo(host: str, *_: Any) -> list[Any]:
        if host.startswith("x"):
            hanging.append(host)
            assert answer.wait(PATIENCE)
        return FOUND

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    dead = [ask(f"x{number}.dead.test") for number in range(100)]
    until(lambda: len(hanging) > resolver._HALF)  # these hang, and one more may start
    for number in range(5):
        started = time.monotonic()
        assert ask(f"{number}.{lively}").result(PATIENCE) == FOUND
        assert time.monotonic() - started < 1.0
    assert len(hanging) < resolver._MAX_WORKERS, "one at a time"
    answer.set()
    assert all(lookup.result(PATIENCE) == FOUND for lookup in dead)


def test_P7_hanging_lookups_occupy_the_first_half_and_then_one_more_at_a_time() -> None:
    def lookups(*ages: float) -> list[Lookup]:
        begun = []
        for age in ages:
            begun.append(Lookup(("some.test", 80, 0, 1, 6)))
            begun[-1].started_at = 100.0 - age
        return begun

    half, most = resolver._HALF, resolver._MAX_WORKERS
    may_begin = [
        resolver._may_start(lookups(*[9.0] * old, *[1.0] * fresh), 100.0)
        for old, fresh in ((0, half - 1), (0, half), (half - 1, 0), (half - 1, 1), (half, 0), (half, 1))
    ]
    assert may_begin == [True, False, True, False, True, False]
    assert not resolver._may_start(lookups(*[9.0] * most), 100.0)


def test_P7_the_next_is_the_latest_of_another_domain() -> None:
    def lookup(host: str) -> Lookup:
        return Lookup((host, 80, 0, 1, 6))

    queue = [lookup(host) for host in ("a.one.test", "a.two.test", "b.two.test", "B.ONE.test.", "one.test")]
    chosen = []
    while queue:
        chosen.append(resolver._pick_unsuspected(queue, [lookup("x.one.test")]))
        queue.remove(chosen[-1])
    hosts = [each.query[0] for each in chosen]
    assert hosts == ["b.two.test", "a.two.test", "one.test", "B.ONE.test.", "a.one.test"]


def test_P7_idle_workers_end(server: NameServer, pool: _Pool) -> None:
    server.answer.set()
    for _ in range(3):
        assert ask().result(PATIENCE) == FOUND
        until(lambda: not pool._workers)
        until(lambda: not [one for one in threading.enumerate() if one.name == "wireline-resolve"])


# FA28: callers that leave.


def test_C2_a_caller_that_leaves_leaves_no_callback_behind(server: NameServer) -> None:
    """FA28: each attempt that timed out left a callback on the shared lookup, 8.9 MB after 20,000."""
    lookup = ask()
    until(lambda: bool(lookups()))
    waker = Waker()
    for _ in range(50):
        assert ask() is lookup
        with pytest.raises(SocketTimeout):
            wait_for_lookup(lookup, "dial", start_deadline(0), waker)
    assert not lookup._callbacks
    server.answer.set()
    assert lookup.result(PATIENCE) == FOUND


def test_C2_a_caller_that_leaves_leaves_no_callback_behind_async(server: NameServer) -> None:
    """FA28, async: each attempt that timed out or was cancelled left a callback on the shared lookup."""

    async def leave(lookup: Lookup) -> None:
        loop = asyncio.get_running_loop()
        notifier = _sync.Notifier(running_port())
        with pytest.raises(SocketTimeout):
            await _sync.wait_for_lookup(lookup, "dial", CallDeadline(0, loop.time()), notifier)
        waiting = asyncio.create_task(_sync.wait_for_lookup(lookup, "dial", None, notifier))
        await asyncio.sleep(0)
        assert len(lookup._callbacks) == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    lookup = ask()
    until(lambda: bool(lookups()))
    for _ in range(20):
        asyncio.run(leave(lookup))
    assert not lookup._callbacks
    server.answer.set()
    assert lookup.result(PATIENCE) == FOUND


def test_C2_a_lookup_without_callers_is_dropped_before_it_starts(server: NameServer, pool: _Pool) -> None:
    """FA10: the callers' deadlines bound the queue: without callers a lookup does not start."""
    asked = [ask(f"host{number}.lookup") for number in range(500)]
    until(lambda: len(server.questions) == resolver._HALF)
    waker = Waker()
    for lookup in asked:
        with pytest.raises(SocketTimeout):
            wait_for_lookup(lookup, "dial", start_deadline(0), waker)
    assert not pool._queue
    assert len(pool._in_progress) == resolver._HALF
    server.answer.set()
    assert ask("host499.lookup").result(PATIENCE) == FOUND
    assert len(server.questions) == resolver._HALF + 1


def test_C2_a_caller_that_joins_a_lookup_while_it_is_dropped_gets_an_answer(
    server: NameServer, pool: _Pool
) -> None:
    for number in range(resolver._HALF):
        ask(f"host{number}.lookup")
    until(lambda: len(server.questions) == resolver._HALF)
    first, second = ask("shared.lookup"), ask("shared.lookup")
    assert first is second
    with pytest.raises(TimeoutError):
        first.result(0)
    assert not pool._queue, "dropped"
    server.answer.set()
    assert second.result(PATIENCE) == FOUND


def test_C2_callers_that_join_and_leave_at_random_all_get_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: FOUND)
    monkeypatch.setattr(resolver, "_HALF", 2)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    failures: list[Exception] = []

    def call(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(300):
                lookup = ask(f"host{chance.randrange(5)}.lookup")
                if chance.random() < 0.5:
                    with contextlib.suppress(TimeoutError):
                        lookup.result(0)
                else:
                    assert lookup.result(PATIENCE) == FOUND
        except Exception as error:  # noqa: BLE001 -- the test checks it
            failures.append(error)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    sys.setswitchinterval(before)
    assert not failures


def test_a_callback_that_fails_does_not_harm_the_others(
    server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Lookup) -> None:
        raise ValueError("mine")

    lookup = ask()
    called = threading.Event()
    lookup.add_done_callback(lambda _: called.set())
    lookup.add_done_callback(fail)
    server.answer.set()
    assert called.wait(PATIENCE)
    assert lookup.result(PATIENCE) == FOUND
    assert "mine" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::1%lo", "fe80::1%1"])
def test_a_literal_needs_no_thread(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(threading.Thread, "start", None)
    lookup = resolve(host, 80, 0, socket.SOCK_STREAM, 6)
    assert lookup.done()
    if "%" not in host:
        assert lookup.result()[0][4][:2] == (host, 80)


ERRORS: dict[str, tuple[BaseException, type[BaseException], str]] = {
    "unknown": (socket.gaierror(socket.EAI_NONAME, "unknown"), socket.gaierror, r"unknown .*some\.lookup"),
    "not a name": (
        UnicodeError("label too long"),
        socket.gaierror,
        r"more than 63 characters .*some\.lookup",
    ),
    "out of memory": (MemoryError("no"), MemoryError, "no"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_C6_an_error_is_raised_by_the_lookup_and_names_the_host(
    server: NameServer, error: tuple[BaseException, type[BaseException], str]
) -> None:
    server.error, expected, text = error
    server.answer.set()
    with pytest.raises(expected, match=text):
        ask().result(PATIENCE)


def test_a_family_that_does_not_fit_a_literal_is_an_error() -> None:
    with pytest.raises(socket.gaierror, match="::1"):
        resolve("::1", 80, socket.AF_INET, socket.SOCK_STREAM, 6).result()


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_if_no_thread_can_be_started_it_is_an_os_error(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA10: at the limit of threads a dial raised RuntimeError."""
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", no_thread)
        for _ in range(2):
            with pytest.raises(socket.gaierror, match=r"cannot start a thread.*some\.lookup") as caught:
                ask().result(PATIENCE)
            assert caught.value.errno == socket.EAI_AGAIN
    server.answer.set()
    assert ask().result(PATIENCE) == FOUND, "and the next one is as if nothing had been"


def test_with_one_worker_more_threads_are_not_needed(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA10: at the limit of threads a dial raised RuntimeError, although there were workers."""
    first = ask()
    until(lambda: bool(lookups()))
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", no_thread)
        second = ask("other.lookup")
    assert not second.done()
    server.answer.set()
    assert first.result(PATIENCE) == second.result(PATIENCE) == FOUND


def test_P6_at_the_end_of_the_interpreter_the_calling_thread_looks_up(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA9: in atexit a dial by name was a bare RuntimeError."""
    server.answer.set()
    callers = []
    real = socket.getaddrinfo

    def getaddrinfo(*question: Any) -> list[Any]:
        callers.append(threading.get_ident())
        return cast("list[Any]", real(*question))

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with monkeypatch.context() as ending:
        ending.setattr(threading.Thread, "start", no_thread)
        ending.setattr(background, "is_ending", lambda: True)
        assert ask().result() == FOUND
    with monkeypatch.context() as frozen:
        frozen.setattr(background, "can_run_threads", lambda: False)
        assert ask().result() == FOUND
    assert callers == [threading.get_ident()] * 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exception_that_ends_a_worker_is_an_error_for_its_callers(
    server: NameServer, pool: _Pool, error: BaseException
) -> None:
    server.error = error
    lookup = ask()
    until(lambda: bool(lookups()))
    (thread,) = lookups()
    waiting = [ask(f"host{number}.lookup") for number in range(3)]
    server.answer.set()
    with pytest.raises(socket.gaierror, match=type(error).__name__) as caught:
        lookup.result(PATIENCE)
    assert caught.value.errno == socket.EAI_AGAIN
    thread.join(PATIENCE)
    assert not thread.is_alive()
    server.error = None
    for other in waiting:  # another worker takes over; it may have been ended, too
        with contextlib.suppress(socket.gaierror):
            assert other.result(PATIENCE) == FOUND
    assert ask().result(PATIENCE) == FOUND


def test_an_interrupt_ends_a_lookup_in_the_calling_thread(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer.set()
    server.error = KeyboardInterrupt()
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    monkeypatch.setattr(background, "is_ending", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        ask()


@pytest.mark.parametrize("moment", range(1, 330, 5))
def test_P5_an_exception_of_a_signal_handler_leaves_no_caller_waiting(
    server: NameServer, pool: _Pool, moment: int
) -> None:
    """FA7: an exception at any bytecode must not leave a shared lookup without a worker."""
    server.answer.set()
    steps = itertools.count(1)

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        if frame.f_code.co_filename not in (resolver.__file__, background.__file__):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(steps) == moment:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        ask().result(PATIENCE)
    except KeyboardInterrupt:
        pass  # the test checks what is left behind
    finally:
        sys.settrace(before)
    for host in ("some.lookup", "other.lookup"):
        with contextlib.suppress(
            socket.gaierror
        ):  # a caller that shares the interrupted lookup gets its error
            assert ask(host).result(PATIENCE) == FOUND
    assert ask().result(PATIENCE) == FOUND


FORK = """
    import os, socket, threading, warnings
    from wireline._os.resolver import resolve

    warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 and later, about other threads: they are the point
    answer = threading.Event()
    answers = {"parent": lambda: answer.wait(10) and [], "child": lambda: ["fresh"]}
    who = "parent"
    socket.getaddrinfo = lambda *question: answers[who]()

    first = resolve("some.test", 80, 0, 1, 6)
    child = os.fork()
    if not child:  # the worker does not exist here
        who = "child"
        again = resolve("some.test", 80, 0, 1, 6)
        os._exit(0 if again is not first and again.result(5) == ["fresh"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    answer.set()
    assert first.result(5) == []
"""

FORK_WITH_ALL_BUSY = """
    import os, socket, threading, warnings
    from wireline._os import resolver
    from wireline._os.resolver import resolve

    warnings.simplefilter("ignore", DeprecationWarning)
    answer = threading.Event()
    socket.getaddrinfo = lambda host, *question: (host.startswith("dead") and answer.wait(10)) or [host]
    dead = [resolve(f"dead{number}.test", 80, 0, 1, 6) for number in range(100)]
    while len(resolver._pool._busy) < resolver._HALF:
        threading.Event().wait(0.001)
    child = os.fork()
    if not child:  # none of the parent's workers exists here, and none of its lookups is in the queue
        found = resolve("alive.test", 80, 0, 1, 6).result(5)
        os._exit(0 if found == ["alive.test"] and not resolver._pool._queue else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    answer.set()
    assert all(lookup.result(5) for lookup in dead)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform without fork")
def test_a_forked_child_starts_a_new_lookup() -> None:
    run_script(FORK)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform without fork")
def test_a_forked_child_has_its_own_workers() -> None:
    run_script(FORK_WITH_ALL_BUSY)


def run_script(script: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
