"""``Deadline`` and ``Backoff``: on a clock and with chances that the test holds."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireline import Backoff, Deadline, timing
from wireline._core.deadline import check_timeout

NAN = math.nan


class Clock:
    """In place of the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_D1_a_deadline_gives_each_call_what_is_left(clock: Clock) -> None:
    deadline = Deadline(2)
    seen = []
    for _ in range(4):
        seen.append((deadline.remaining(), check_timeout(deadline), deadline.expired()))
        clock.now += 0.75
    assert seen == [(2.0, 2.0, False), (1.25, 1.25, False), (0.5, 0.5, False), (0.0, 0.0, True)]
    assert (Deadline(0).remaining(), Deadline(0).expired(), check_timeout(Deadline(0))) == (0.0, True, 0.0)


def test_a_deadline_of_a_deadline_is_the_same_moment(clock: Clock) -> None:
    deadline = Deadline(3)
    clock.now += 1
    assert Deadline(deadline).remaining() == deadline.remaining() == 2.0


def test_a_deadline_shows_what_is_left_and_is_equal_to_itself_only(clock: Clock) -> None:
    deadline = Deadline(1.5)
    assert repr(deadline) == "<wireline.Deadline, 1.500 s left>"
    clock.now += 2
    assert repr(deadline) == "<wireline.Deadline, expired>"
    assert repr(Deadline(None)) == "<wireline.Deadline, no limit>"
    assert deadline == deadline != Deadline(1)
    assert len({deadline, Deadline(1)}) == 2
    with pytest.raises(AttributeError):
        deadline.seconds = 2  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Deadline(1))


def test_a_deadline_without_limit_never_expires(clock: Clock) -> None:
    for seconds in (None, math.inf, 1e300, 2**70):
        deadline = Deadline(seconds)
        clock.now += 1e12
        assert (deadline.remaining(), deadline.expired(), check_timeout(deadline)) == (math.inf, False, None)


def test_a_deadline_refuses_what_a_timeout_refuses() -> None:
    for negative in (-1, -0.001, -math.inf, NAN):
        with pytest.raises(ValueError, match=f"^seconds must not be negative, got {negative!r}$"):
            Deadline(negative)
    wrong: list[Any] = ["1", True, [], 1j, object()]
    for seconds in wrong:
        with pytest.raises(TypeError, match=f"^seconds is .* None, not {type(seconds).__name__}$"):
            Deadline(seconds)


def delays(backoff: Backoff, count: int) -> list[float]:
    return list(itertools.islice(backoff, count))


def test_the_delays_grow_to_the_limit_and_chance_shortens_them() -> None:
    assert repr(Backoff()) == "wireline.Backoff(first=0.05, limit=30, factor=2, jitter=0.2)"
    spread = [delays(Backoff(), 20) for _ in range(50)]
    assert all(0.04 <= each[0] <= 0.05 and 24 <= each[-1] <= 30 for each in spread)
    assert len({each[0] for each in spread}) > 1
    backoff = Backoff(0.1, 1.0, 3, random=lambda: 0.0)
    assert delays(backoff, 5) == pytest.approx([0.1, 0.3, 0.9, 1.0, 1.0])
    backoff.reset()
    assert delays(backoff, 2) == pytest.approx([0.1, 0.3])
    chances = iter([0.0, 0.5, 1.0, 1.0])
    backoff = Backoff(1, 4, 2, 0.25, random=lambda: next(chances))
    assert delays(backoff, 4) == pytest.approx([1.0, 2 * 0.875, 4 * 0.75, 4 * 0.75])


@given(
    st.floats(1e-3, 1e3),
    st.floats(1, 1e3),
    st.floats(1, 1e300),
    st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_no_delay_leaves_its_bounds_and_none_overflows(
    first: float, ratio: float, factor: float, jitter: float, chance: float
) -> None:
    limit = first * ratio
    backoff = Backoff(first, limit, factor, jitter, random=lambda: chance)
    for delay in delays(backoff, 10_000)[::999]:
        assert first * (1 - jitter) * 0.999999 <= delay <= limit


BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"first": 0}, ValueError),
    ({"first": -1}, ValueError),
    ({"first": NAN}, ValueError),
    ({"first": True}, TypeError),
    ({"first": "1"}, TypeError),
    ({"first": 40}, ValueError),
    ({"limit": 0.01}, ValueError),
    ({"limit": math.inf}, ValueError),
    ({"limit": None}, TypeError),
    ({"factor": 0.5}, ValueError),
    ({"factor": math.inf}, ValueError),
    ({"jitter": -0.1}, ValueError),
    ({"jitter": 1.1}, ValueError),
    ({"jitter": NAN}, ValueError),
    ({"random": 0.5}, TypeError),
]


def test_a_backoff_refuses_bad_arguments() -> None:
    for arguments, error in BAD:
        with pytest.raises(error, match=f"^{next(iter(arguments))}|^limit"):
            Backoff(**arguments)
