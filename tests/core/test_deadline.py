"""Timeouts and deadlines: arithmetic on a clock that the test holds."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireline._core.deadline import CallDeadline, check_timeout


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, 1, 0.3, 1e-9, 86_400])
def test_a_timeout_is_seconds(timeout: float) -> None:
    assert check_timeout(timeout) == timeout


@pytest.mark.parametrize("timeout", [None, math.inf])
def test_none_and_infinity_wait_forever(timeout: float | None) -> None:
    assert check_timeout(timeout) is None


@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, math.nan])
def test_a_negative_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match=f"^timeout must not be negative, got {timeout!r}$"):
        check_timeout(timeout)


@pytest.mark.parametrize("timeout", ["1", b"1", True, False, [], 1j, Decimal(1), object()])
def test_a_timeout_that_is_no_number_is_refused(timeout: float) -> None:
    with pytest.raises(TypeError, match=f"None, not {type(timeout).__name__}$"):
        check_timeout(timeout)


def test_a_deadline_passes_once_and_stays_passed() -> None:
    deadline = CallDeadline(0.5, now=100.0)
    assert (deadline.seconds, deadline.at) == (0.5, 100.5)
    assert [deadline.remaining(now) for now in (100.0, 100.25, 100.5, 107.0)] == [0.5, 0.25, 0.0, 0.0]
    assert [deadline.passed(now) for now in (100.0, 100.25, 100.5, 107.0)] == [False, False, True, True]


def test_a_timeout_of_zero_has_passed_at_once() -> None:
    deadline = CallDeadline(0, now=100.0)
    assert deadline.passed(100.0)
    assert deadline.remaining(100.0) == 0.0


@given(st.floats(0, 1e6), st.floats(0, 1e9), st.lists(st.floats(0, 1e6)))
def test_R3_however_often_it_is_asked_the_deadline_does_not_move(
    seconds: float, start: float, waits: list[float]
) -> None:
    deadline = CallDeadline(seconds, start)
    now = start
    for wait in waits:
        now += wait
        assert deadline.remaining(now) == max(0.0, start + seconds - now)
        assert deadline.passed(now) is (deadline.remaining(now) == 0.0)
