"""W5: the turn to write is fair, has a deadline, and can be ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from wireline._sansio.deadline import Deadline
from wireline.net import _turns
from wireline.net._turns import WriteTurn

PATIENCE = 5.0


@pytest.fixture
def turn() -> WriteTurn:
    """A turn that is free."""
    turn = WriteTurn()
    turn.release()
    return turn


class Waiting:
    """A thread that queues for the turn."""

    def __init__(self, turn: WriteTurn, seconds: float | None) -> None:
        self.granted: bool | None = None
        self._turn = turn
        self._seconds = seconds
        self._thread = threading.Thread(target=self._queue)
        length = len(turn.queue)
        self._thread.start()
        limit = time.monotonic() + PATIENCE
        while len(turn.queue) == length and self._thread.is_alive():
            assert time.monotonic() < limit

    def _queue(self) -> None:
        deadline = None if self._seconds is None else Deadline(self._seconds, time.monotonic())
        self.granted = self._turn.acquire(deadline)

    def answer(self) -> bool | None:
        self._thread.join(PATIENCE)
        return self.granted


def waits(turn: WriteTurn, seconds: float | None = None) -> Waiting:
    return Waiting(turn, seconds)


def test_it_begins_taken() -> None:
    turn = WriteTurn()
    assert not turn.try_acquire()
    turn.release()
    assert turn.try_acquire()
    assert not turn.try_acquire()


def test_who_finds_it_free_takes_it_without_a_queue(turn: WriteTurn) -> None:
    assert turn.acquire(None)
    assert not turn.queue
    assert not turn.try_acquire()


def test_W5_first_come_first_served(turn: WriteTurn) -> None:
    assert turn.try_acquire()
    queue = [waits(turn) for _ in range(5)]
    for next_one in queue:
        assert [each.granted for each in queue].count(True) == queue.index(next_one)
        turn.release()
        assert next_one.answer() is True
        assert not turn.try_acquire(), "the turn was handed over"
    turn.release()
    assert turn.try_acquire()


def test_W5_nobody_jumps_the_queue(turn: WriteTurn) -> None:
    assert turn.try_acquire()
    first = waits(turn)
    turn.held.release()  # let go, and the first in the queue was not called yet
    assert not turn.try_acquire()
    turn.pass_on()
    assert first.answer() is True


def test_W5_who_let_go_need_not_call_somebody_when_another_one_has_it(turn: WriteTurn) -> None:
    assert turn.try_acquire()
    turn.pass_on()
    first = waits(turn)
    turn.pass_on()
    assert first.granted is None
    turn.release()
    assert first.answer() is True


@pytest.mark.parametrize("seconds", [0, 0.02])
def test_a_deadline_ends_the_wait(turn: WriteTurn, seconds: float) -> None:
    assert turn.try_acquire()
    assert waits(turn, seconds).answer() is False
    assert not turn.queue
    turn.release()
    assert turn.try_acquire()


def test_who_gave_up_is_skipped(turn: WriteTurn) -> None:
    assert turn.try_acquire()
    gives_up, stays = waits(turn, 0.02), waits(turn)
    assert gives_up.answer() is False
    turn.release()
    assert stays.answer() is True


def test_who_was_called_at_the_very_moment_of_giving_up_has_the_turn(
    turn: WriteTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CalledTooLate:
        """A lock whose wait ends without success just when somebody releases it."""

        def acquire(self, timeout: float = -1) -> bool:
            turn.release()
            return False

        def release(self) -> None:
            pass

    class Ticket(_turns._Ticket):
        def __init__(self) -> None:
            super().__init__()
            self.called = CalledTooLate()  # type: ignore[assignment]

    monkeypatch.setattr(_turns, "_Ticket", Ticket)
    assert turn.try_acquire()
    assert turn.acquire(Deadline(0, time.monotonic()))
    assert not turn.try_acquire()


def test_R13_those_who_queue_are_sent_away_and_who_has_the_turn_keeps_it(turn: WriteTurn) -> None:
    assert turn.try_acquire()
    queue = [waits(turn), waits(turn, PATIENCE)]
    turn.send_away()
    assert [each.answer() for each in queue] == [False, False]
    assert not turn.try_acquire()
    assert waits(turn).answer() is False, "and later too"
    turn.release()


@pytest.fixture
def short_switch_interval() -> Iterator[None]:
    """Let threads change as often as they can."""
    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("short_switch_interval")
def test_W5_one_at_a_time_and_everybody_in_the_end(turn: WriteTurn) -> None:
    inside, most, done = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, done
        for number in range(300):
            if not turn.try_acquire():
                patience = None if number % 3 else Deadline(0.0005, time.monotonic())
                if not turn.acquire(patience):
                    continue
            inside += 1
            most = max(most, inside)
            inside -= 1
            done += 1
            turn.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert done >= 4 * 200
    assert turn.try_acquire()
    assert not turn.queue
