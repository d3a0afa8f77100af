"""W5, FA26: the right to write is fair, has a deadline, can be ended, and is never lost with the call that had it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from wireline._core.deadline import CallDeadline
from wireline.errors import BusyError
from wireline.net import _write_lock
from wireline.net._write_lock import WriteLock

PATIENCE = 5.0
OWNER = object()


@pytest.fixture
def lock() -> WriteLock:
    """A lock that is free."""
    lock = WriteLock()
    lock.open()
    return lock


class Waiting:
    """A thread that queues for the permit, and keeps it until the test releases it."""

    def __init__(self, lock: WriteLock, seconds: float | None) -> None:
        self.granted: bool | None = None
        self._lock = lock
        self._seconds = seconds
        self._looked = threading.Event()
        self._release = threading.Event()
        self._thread = threading.Thread(target=self._queue)
        length = len(lock.queue)
        self._thread.start()
        limit = time.monotonic() + PATIENCE
        while len(lock.queue) == length and self._thread.is_alive() and not self._looked.is_set():
            assert time.monotonic() < limit

    def _queue(self) -> None:
        deadline = None if self._seconds is None else CallDeadline(self._seconds, time.monotonic())
        permit = self._lock.acquire(deadline, OWNER, "send")
        self.granted = permit is not None
        self._looked.set()
        if permit is not None:
            self._release.wait(PATIENCE)
            self._lock.release()

    def answer(self) -> bool | None:
        self._looked.wait(PATIENCE)
        return self.granted

    def release(self) -> None:
        self._release.set()
        self._thread.join(PATIENCE)


def waits(lock: WriteLock, seconds: float | None = None) -> Waiting:
    return Waiting(lock, seconds)


def test_it_begins_closed() -> None:
    lock = WriteLock()
    assert lock.try_acquire() is None
    lock.open()
    permit = lock.try_acquire()
    assert permit is not None
    assert lock.try_acquire() is None


def test_a_free_lock_is_taken_without_a_queue(lock: WriteLock) -> None:
    permit = lock.acquire(None, OWNER, "send")
    assert permit is not None
    assert not lock.queue
    assert lock.try_acquire() is None


def test_W5_first_come_first_served(lock: WriteLock) -> None:
    permit = lock.try_acquire()
    queue = [waits(lock) for _ in range(5)]
    assert [each.granted for each in queue] == [None] * 5
    del permit
    lock.release()
    for position, each in enumerate(queue):
        assert each.answer() is True
        assert [other.granted for other in queue[position + 1 :]] == [None] * (4 - position)
        assert lock.try_acquire() is None
        each.release()
    assert lock.try_acquire() is not None


def test_W5_a_thread_that_does_not_queue_waits_behind_those_that_do(lock: WriteLock) -> None:
    permit = lock.try_acquire()
    first = waits(lock)
    free = lock.free
    free += lock.permits  # put back, and the first in the queue was not woken yet
    del permit
    assert lock.try_acquire() is None
    lock.wake_next()
    assert first.answer() is True
    first.release()


@pytest.mark.parametrize("seconds", [0, 0.02])
def test_a_deadline_ends_the_wait(lock: WriteLock, seconds: float) -> None:
    permit = lock.try_acquire()
    assert waits(lock, seconds).answer() is False
    assert not lock.queue
    del permit
    lock.release()
    assert lock.try_acquire() is not None


def test_a_waiter_that_gave_up_is_skipped(lock: WriteLock) -> None:
    permit = lock.try_acquire()
    gives_up, stays = waits(lock, 0.02), waits(lock)
    assert gives_up.answer() is False
    del permit
    lock.release()
    assert stays.answer() is True
    stays.release()


def test_R13_closing_ends_the_queue_and_the_holder_keeps_the_permit(lock: WriteLock) -> None:
    permit = lock.try_acquire()
    queue = [waits(lock), waits(lock, PATIENCE)]
    lock.close()
    assert [each.answer() for each in queue] == [False, False]
    assert lock.try_acquire() is None
    assert not lock.claim()
    assert waits(lock).answer() is False, "and later too"
    del permit
    assert lock.claim()


# FA7, FA26: calls that were ended by an exception.


def take_and_lose(lock: WriteLock) -> None:
    permit = lock.try_acquire()
    assert permit is not None
    raise ZeroDivisionError


def test_FA7_a_permit_whose_holder_was_ended_by_an_exception_is_free(lock: WriteLock) -> None:
    """FA7: the turn to write was never given back, and the next send hung forever."""
    with pytest.raises(ZeroDivisionError):
        take_and_lose(lock)
    for _ in range(2):
        permit = lock.acquire(CallDeadline(0, time.monotonic()), OWNER, "send")
        assert permit is not None
        assert lock.try_acquire() is None
        del permit


def test_FA7_the_traceback_of_the_exception_does_not_keep_it(lock: WriteLock) -> None:
    """FA7: the same while the exception is handled, which keeps the frame that had the permit."""
    try:
        take_and_lose(lock)
    except ZeroDivisionError:
        permit = lock.try_acquire()
        assert permit is not None
        assert lock.try_acquire() is None, "one that is held is not taken for abandoned"


def test_FA7_an_exception_that_is_kept_does_not_keep_it(lock: WriteLock) -> None:
    """FA7: the same, long after."""
    kept: list[BaseException] = []
    try:
        take_and_lose(lock)
    except ZeroDivisionError as error:
        kept.append(error)
    assert lock.try_acquire() is None
    lock.interrupted = True
    permit = lock.try_acquire()
    assert permit is not None
    lock.interrupted = True
    assert lock.try_acquire() is None, "one that is held is not taken for abandoned"


def test_FA26_a_waiter_learns_of_a_holder_that_is_gone(
    lock: WriteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA26: a thread that queued behind an interrupted send hung forever."""
    monkeypatch.setattr(_write_lock, "_LOOK", 0.01)
    permit = lock.try_acquire()
    waiting = waits(lock)
    del permit  # as an exception would, and no thread is woken
    assert waiting.answer() is True
    waiting.release()


def test_FA26_an_entry_without_its_thread_is_dropped(
    lock: WriteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA26: a dead entry in the queue was given the turn, and every send hung."""
    monkeypatch.setattr(_write_lock, "_LOOK", 0.01)
    lock.queue.append(_write_lock._Entry())
    assert lock.try_acquire() is None
    waiting = waits(lock)
    assert waiting.answer() is True
    assert not lock.queue
    waiting.release()


def test_FA26_an_exception_in_the_queue_leaves_no_entry(
    lock: WriteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA26: the entry of an interrupted waiter stayed in the queue."""

    def interrupted(*_: object) -> None:
        raise ZeroDivisionError

    permit = lock.try_acquire()
    monkeypatch.setattr(_write_lock._Entry, "wait", interrupted)
    with pytest.raises(ZeroDivisionError):
        lock.acquire(None, OWNER, "send")
    assert permit is not None
    assert not lock.queue


def test_a_signal_handler_does_not_wait_for_the_call_that_it_interrupted(
    lock: WriteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_write_lock, "is_inside_a_call", lambda owner: owner is OWNER)
    permit = lock.try_acquire()
    with pytest.raises(BusyError, match="signal handler"):
        lock.acquire(None, OWNER, "send")
    assert permit is not None
    assert not lock.queue


@pytest.fixture
def short_switch_interval() -> Iterator[None]:
    """Let threads change as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("short_switch_interval")
@pytest.mark.parametrize("interrupted", [False, True])
def test_W5_one_at_a_time_and_all_of_them_in_the_end(
    lock: WriteLock, interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_write_lock, "_LOOK", 0.0001)  # so often that a wrong answer would be seen
    inside, most, done = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, done
        for number in range(300):
            if interrupted and number % 50 == 0:
                lock.interrupted = True
            permit = lock.try_acquire()
            if permit is None:
                patience = None if number % 3 else CallDeadline(0.0005, time.monotonic())
                permit = lock.acquire(patience, OWNER, "send")
                if permit is None:
                    continue
            inside += 1
            most = max(most, inside)
            inside -= 1
            done += 1
            lock.release()
            del permit

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert done >= 4 * 100
    assert lock.try_acquire() is not None
    assert not lock.queue
