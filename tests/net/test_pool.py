"""``wireline.net.Pool``: connections shared by threads."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wireline
from tests.net.interrupting import Interrupter
from tests.pooled import Item, conserved
from tests.torture.opcodes import Interrupted
from wireline import ClosedError, Deadline, SocketTimeout
from wireline.net import Pool, PoolStats

PATIENCE = 10.0


def make(deadline: Deadline) -> Item:
    assert isinstance(deadline, Deadline)
    return Item()


@contextlib.contextmanager
def running(*calls: Callable[[], object]) -> Iterator[list[threading.Thread]]:
    """Run calls in threads, which must have ended soon after the block."""
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "it hangs"


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.001)


def test_a_connection_is_made_when_it_is_needed_and_used_again() -> None:
    Pool(make, max_size=2**31 - 1).close()  # the size costs nothing
    with Pool(make, max_size=3) as pool:
        assert pool.stats == PoolStats(
            size=0, idle=0, in_use=0, waiting=0, created=0, reused=0, discarded=0, timeouts=0
        )
        with pool.acquire() as one, pool.acquire(1) as two:
            assert one is not two
            assert pool.stats.in_use == 2
        with pool.acquire(Deadline(1)) as again:
            assert again is one  # the one that was returned last
        assert (pool.stats.created, pool.stats.reused, pool.stats.idle) == (2, 1, 2)
        assert repr(pool) == "<wireline.net.Pool 0 in use, 2 idle, 3 at most>"
        acquired = pool.acquire()
        with acquired, pytest.raises(RuntimeError, match="entered already"):
            acquired.__enter__()
        acquired.__exit__(None, None, None)
        assert pool.stats.idle == 2
    assert (one.closes, two.closes) == (1, 1)
    assert pool.is_closed
    assert repr(pool) == "<wireline.net.Pool closed, 0 in use, 0 idle, 3 at most>"


def test_a_connection_is_not_used_again_after_an_exception_a_close_or_its_time() -> None:
    with Pool(make, idle_timeout=0) as pool:
        with pool.acquire() as too_old:
            pass
        assert too_old.closes == 1
    with Pool(make, max_lifetime=60, max_idle=1) as pool:
        with pytest.raises(RuntimeError, match="failed"), pool.acquire() as failed:
            raise RuntimeError("failed")
        with pool.acquire() as closed:
            closed.close()
        with pool.acquire() as one, pool.acquire() as two:
            pass
        # One more than `max_idle`: the one that was returned first.
        assert [each.closes for each in (failed, closed, one, two)] == [1, 1, 0, 1]
        assert (pool.stats.created, pool.stats.reused, pool.stats.discarded) == (4, 0, 3)


def test_healthy_decides_and_its_errors_mean_no() -> None:
    answers: list[Any] = [True, False, OSError("gone"), ZeroDivisionError("a mistake")]

    def healthy(_: Item) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    with Pool(make, healthy=healthy) as pool:
        seen = []
        for _ in range(4):
            with pool.acquire() as item:
                seen.append(item)
        assert [seen.index(item) for item in seen] == [0, 0, 2, 3]
        with pytest.raises(ZeroDivisionError), pool.acquire():
            pass
        assert all(item.closes == 1 for item in seen)
        conserved(pool._core())


def test_the_first_who_waits_is_served_first_and_a_newcomer_last() -> None:
    order: list[int] = []
    with Pool(make, max_size=1, max_idle=0) as pool:

        def use(number: int) -> None:
            with pool.acquire(PATIENCE):
                order.append(number)

        with contextlib.ExitStack() as threads:
            with pool.acquire():
                for number in range(5):
                    threads.enter_context(running(lambda number=number: use(number)))  # type: ignore[misc]
                    until(lambda number=number: pool.stats.waiting == number + 1)  # type: ignore[misc]
            use(5)
        assert order == [0, 1, 2, 3, 4, 5]
        # One that the next call waits for is not idle.
        assert (pool.stats.created, pool.stats.idle) == (1, 0)


def test_one_deadline_is_for_the_wait_and_the_connect() -> None:
    given: list[Deadline] = []

    def connect(deadline: Deadline) -> Item:
        given.append(deadline)
        raise SocketTimeout("dial", deadline.remaining())

    limit = Deadline(None)
    with Pool(connect, max_size=1) as pool:
        for timeout, least in ((5, 4), (0, 0), (limit, 1e9)):
            with pytest.raises(SocketTimeout), pool.acquire(timeout):
                pass
            assert least <= given[-1].remaining()
        conserved(pool._core())
    with Pool(make, max_size=1) as pool, pool.acquire():
        for timeout in (0, 0.02, Deadline(0.02)):
            began = time.monotonic()
            with (
                pytest.raises(SocketTimeout, match="acquire did not finish") as caught,
                pool.acquire(timeout),
            ):
                pass
            assert caught.value.operation == "acquire"
            assert caught.value.seconds <= 0.02 <= time.monotonic() - began or not caught.value.seconds
            assert caught.value.seconds == timeout or isinstance(timeout, Deadline)
        assert (pool.stats.timeouts, pool.stats.waiting) == (3, 0)


def test_the_entry_of_a_connect_that_fails_goes_to_the_next() -> None:
    begun, fail = threading.Event(), threading.Event()
    made = []

    def connect(deadline: Deadline) -> Item:
        made.append(deadline)
        if len(made) == 1:
            begun.set()
            assert fail.wait(PATIENCE)
            raise ConnectionRefusedError("no")
        return Item()

    outcomes: list[object] = []

    def use() -> None:
        try:
            with pool.acquire(PATIENCE) as item:
                outcomes.append(type(item))
        except OSError as error:
            outcomes.append(type(error))

    with Pool(connect, max_size=1) as pool:
        with running(use):
            assert begun.wait(PATIENCE)
            with running(use, use):
                until(lambda: pool.stats.waiting == 2)
                fail.set()
        assert outcomes == [ConnectionRefusedError, Item, Item]
        assert len(made) == 2


def test_close_wakes_those_who_wait_and_closes_what_is_returned() -> None:
    caught: list[str] = []
    pool = Pool(make, max_size=2)

    def use() -> None:
        with pytest.raises(ClosedError) as error, pool.acquire():
            pass
        caught.append(str(error.value))

    with pool.acquire() as used, pool.acquire() as other, running(use, use):
        until(lambda: pool.stats.waiting == 2)
        pool.close()
        pool.close()
    assert ["while the call waited" in text for text in caught] == [True, True]
    assert (used.closes, other.closes) == (1, 1)
    with pytest.raises(ClosedError, match="the pool is closed"), pool.acquire():
        pass


def test_bad_arguments_and_connections_are_refused() -> None:
    with Pool(lambda _: object(), max_size=1) as pool:  # type: ignore[type-var, arg-type, return-value]
        for _ in range(2):
            with pytest.raises(TypeError, match="connect must return an object with a close method"):
                pool.acquire(0).__enter__()
        conserved(pool._core())
    for arguments, error in [
        ({"connect": None}, TypeError),
        ({"healthy": 5}, TypeError),
        ({"max_size": 0}, ValueError),
        ({"max_size": -1}, ValueError),
        ({"max_size": True}, TypeError),
        ({"max_size": 1.5}, TypeError),
        ({"max_size": None}, TypeError),
        ({"max_idle": -1}, ValueError),
        ({"max_idle": "1"}, TypeError),
        ({"idle_timeout": -1}, ValueError),
        ({"idle_timeout": Deadline(1)}, TypeError),
        ({"max_lifetime": float("nan")}, ValueError),
        ({"max_lifetime": "1"}, TypeError),
    ]:
        for kind in (Pool, wireline.asyncnet.Pool):
            with pytest.raises(error, match=next(iter(arguments))):  # type: ignore[call-overload]
                kind(**{"connect": make, **arguments})  # type: ignore[arg-type]
    for kind in (Pool, wireline.asyncnet.Pool):
        with contextlib.closing(kind(make)) as pool:  # type: ignore[arg-type]
            for timeout in ("1", True, [], -1, float("nan")):
                with pytest.raises((TypeError, ValueError)):
                    pool.acquire(timeout)


def test_a_pool_that_is_forgotten_warns_and_closes() -> None:
    pool = Pool(make)
    with pool.acquire() as item:
        pass
    with pytest.warns(ResourceWarning, match=r"^unclosed <wireline.net.Pool 0 in use, 1 idle"):
        del pool
    assert item.closes == 1


@pytest.mark.stress
def test_threads_that_fail_give_up_and_take_turns_lose_nothing() -> None:
    """Two never have one connection, and all entries are there at the end."""
    problems: list[object] = []
    chance = random.Random(5)
    stop = time.monotonic() + 1.5

    def connect(_: Deadline) -> Item:
        if chance.random() < 0.1:
            raise ConnectionRefusedError
        return Item()

    pool = Pool(connect, max_size=3, max_idle=2, healthy=lambda _: chance.random() < 0.9)

    def use(number: int) -> None:
        mine = random.Random(number)
        while time.monotonic() < stop:
            try:
                with pool.acquire(mine.choice([0, 0.0002, 0.002, PATIENCE])) as item:
                    if item.name is not None or item.is_closed:
                        problems.append(item)
                    item.name = number
                    if mine.random() < 0.3:
                        time.sleep(0.0001)
                    item.name = None
                    if mine.random() < 0.1:
                        raise ValueError
            except (SocketTimeout, ConnectionRefusedError, ValueError):
                pass
            except BaseException as error:  # noqa: BLE001 -- reported below
                problems.append(error)

    with pool, running(*(lambda number=number: use(number) for number in range(12))):  # type: ignore[misc]
        pass
    assert problems == []
    conserved(pool._core())


def interruptions(act: Callable[[], object], check: Callable[[], object]) -> int:
    """Raise in ``act`` where a signal could be handled, once at each place; return how many there were."""
    with Interrupter(0, lambda: None) as survey:
        act()
    check()

    def interrupt() -> None:
        raise Interrupted

    count = 0
    for at in survey.reachable:
        with Interrupter(at, interrupt) as interrupter:
            try:
                act()
            except Interrupted:
                count += 1
        try:
            check()
        except AssertionError as error:
            error.add_note(str(interrupter.place))
            raise
    return count


@pytest.mark.skipif(sys.version_info < (3, 12), reason="slow where the instructions are traced")
def test_P5_an_exception_of_a_signal_handler_loses_no_entry() -> None:
    pool = Pool(make, max_size=1, healthy=lambda item: item.name is None)

    def act() -> None:
        with pool.acquire(0) as item:
            item.name = "used"
        with pool.acquire(0) as item:  # another one: the first is not healthy any more
            item.name = None
        with pool.acquire(0):
            with contextlib.suppress(SocketTimeout), pool.acquire(0.0001):
                pass

    with pool:
        assert interruptions(act, lambda: conserved(pool._core())) > 100


@pytest.mark.skipif(sys.version_info < (3, 12), reason="slow where the instructions are traced")
def test_P5_an_exception_of_a_signal_handler_leaves_no_thread_waiting() -> None:
    """One thread releases and is interrupted; the one that waits gets the connection in any case."""
    pool = Pool(make, max_size=1)
    waiter: list[threading.Thread] = []

    def use() -> None:
        with pool.acquire(PATIENCE):
            pass

    def act() -> None:
        with pool.acquire(PATIENCE):
            waiter[:] = [threading.Thread(target=use, daemon=True)]
            waiter[0].start()
            until(lambda: pool.stats.waiting == 1 or not waiter[0].is_alive())

    def check() -> None:
        for thread in waiter:
            thread.join(PATIENCE / 2)
            assert not thread.is_alive(), "it waits for ever"
        conserved(pool._core())

    with pool:
        assert interruptions(act, check) > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_P3_a_child_does_not_use_or_end_the_connections_of_its_parent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import os, socket, sys
        from wireline.net import Pool, Socket

        peers = []

        class Client:
            def __init__(self):
                sock, peer = socket.socketpair()
                peers.append(peer)
                self.sock = Socket.from_socket(sock)
                self.is_closed = False

            def close(self):
                self.sock.send(b"goodbye")
                self.sock.close()
                self.is_closed = True

        def connect(deadline):
            sock, peer = socket.socketpair()
            peers.append(peer)
            return Socket.from_socket(sock)

        plain, wrapped = Pool(connect, max_size=2), Pool(lambda _: Client(), max_size=2)
        closed = Pool(connect)
        closed.close()
        with plain.acquire(), wrapped.acquire():
            pass
        with plain.acquire() as used, wrapped.acquire():
            pid = os.fork()
            if pid == 0:
                for pool in (plain, wrapped):
                    assert pool.stats.size == 0, pool.stats
                assert closed.is_closed
                count = len(peers)
                with plain.acquire() as sock:
                    sock.send(b"child")
                    assert len(peers) == count + 1 and peers[-1].recv(9) == b"child"
        if pid == 0:
            assert used.is_closed
            plain.close()
            wrapped.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert (plain.stats.idle, wrapped.stats.idle) == (1, 1)
        for peer in peers:
            peer.setblocking(False)
            try:
                raise SystemExit(f"the child sent {peer.recv(9)!r}")
            except BlockingIOError:
                pass
        for pool in (plain, wrapped):
            pool.close()
        """)
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", str(program)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_pool_at_the_end_of_the_interpreter_does_no_harm(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import atexit, threading
        from tests.pooled import Item
        from wireline.net import Pool

        pool, other = Pool(lambda _: Item(), max_size=1), Pool(lambda _: Item(), max_size=1)

        def last():
            with pool.acquire(1), pool:
                print("acquired")

        atexit.register(last)
        kept = other.acquire()
        kept.__enter__()
        threading.Thread(target=lambda: other.acquire().__enter__(), daemon=True).start()
        while not other.stats.waiting:
            pass
        """)
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "acquired\n", "")
