"""The core of a pool, without threads, tasks and a clock of its own."""

from __future__ import annotations

import contextlib
import operator
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.pooled import Item, conserved
from wireline import ClosedError
from wireline._pool import Claim, PoolCore, PoolLimits

MOSTLY = st.sampled_from([True, True, True, False])


class PoolMachine(RuleBasedStateMachine):
    """Random calls, compared with a list of who waits and of who has what.

    A claim does what ``acquire`` does: it takes at once, or joins the queue and looks again each time it is woken.
    """

    @initialize(
        max_size=st.integers(1, 3), max_idle=st.integers(0, 3), idle_timeout=st.sampled_from([None, 0, 5.0])
    )
    def begin(self, max_size: int, max_idle: int, idle_timeout: float | None) -> None:
        self.now = 0.0
        limits = PoolLimits(max_size, max_idle, idle_timeout, 20.0)
        self.core: PoolCore[Item] = PoolCore(limits, lambda: self.now)
        self.waiting: list[Claim[Item]] = []
        self.held: dict[int, tuple[Claim[Item], Item]] = {}
        self.items: list[Item] = []
        self.made_at: dict[Item, float] = {}
        self.idle_since: dict[Item, float] = {}
        self.served = 0
        self.woken: set[int] = set()

    def _choose(self, claim: Claim[Item], *, works: bool) -> None:
        limits = self.core._limits
        while (item := self.core.candidate(claim)) is not None:
            assert not item.is_closed
            assert self.now - self.made_at[item] < 20
            assert limits.idle_timeout is None or self.now - self.idle_since[item] < limits.idle_timeout
            if works:
                self.core.accept(claim)
                break
            self.core.reject(claim)
            assert item.is_closed
        else:
            item = Item(len(self.items))
            self.items.append(item)
            self.made_at[item] = self.now
            self.core.fill(claim, item)
        assert item not in [other for _, other in self.held.values()], "two have the same item"
        self.served += 1
        self.held[self.served] = claim, item

    def _serve(self, *, works: bool) -> None:
        """Let those who were woken look, until none is left."""
        while self.woken:
            ready = [claim for claim in self.waiting if id(claim) in self.woken]
            self.woken.clear()
            for claim in ready:
                first = self.waiting[0] is claim
                if self.core.take(claim):
                    assert first, "a claim overtook another"
                    self.waiting.remove(claim)
                    self.core.leave(claim)
                    self._choose(claim, works=works)

    @precondition(lambda self: not self.core.closed)
    @rule(works=st.booleans())
    def acquire(self, works: bool) -> None:
        claim = Claim(self.core)
        free = len(self.held) < self.core._limits.max_size and not self.waiting
        taken = self.core.try_take(claim)
        assert taken is free
        if taken:
            self._choose(claim, works=works)
            return
        claim.wake = partial(self.woken.add, id(claim))
        self.core.join(claim)
        assert not self.core.take(claim)
        self.waiting.append(claim)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        reusable=MOSTLY,
        works=MOSTLY,
        closes=MOSTLY.map(operator.not_),
        at_once=st.booleans(),
    )
    def release(self, data: st.DataObject, reusable: bool, works: bool, closes: bool, at_once: bool) -> None:
        claim, item = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        if closes:
            item.close()
        self.idle_since[item] = self.now
        self.core.release(claim, reusable=reusable)
        if not reusable or self.core.closed or closes:
            assert item.closes == 1
        if at_once:
            self._serve(works=works)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), works=st.booleans())
    def drop(self, data: st.DataObject, works: bool) -> None:
        """Forget a claim without an end, as after an exception at a bad moment."""
        key = data.draw(st.sampled_from(sorted(self.held)))
        item = self.held.pop(key)[1]
        assert item.is_closed
        self._serve(works=works)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), forgotten=st.booleans(), works=st.booleans())
    def give_up(self, data: st.DataObject, forgotten: bool, works: bool) -> None:
        claim = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.woken.discard(id(claim))
        if not forgotten:
            self.core.abandon(claim)
        del claim
        self._serve(works=works)

    @rule(works=st.booleans())
    def serve(self, works: bool) -> None:
        self._serve(works=works)

    @rule(seconds=st.sampled_from([0.5, 3.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.served > 4)
    @rule()
    def close(self) -> None:
        self.core.close()
        assert self.woken >= {id(claim) for claim in self.waiting}
        self.woken.clear()
        for claim in self.waiting:
            with pytest.raises(ClosedError):
                self.core.take(claim)
            self.core.leave(claim)
        self.waiting.clear()
        with pytest.raises(ClosedError):
            self.core.try_take(Claim(self.core))

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "core"):
            return
        stats = self.core.stats()
        limits = self.core._limits
        assert (stats.in_use, stats.waiting) == (len(self.held), len(self.waiting))
        assert stats.size == stats.idle + stats.in_use <= limits.max_size
        assert stats.idle <= limits.max_idle or self.waiting
        assert stats.created - stats.discarded == stats.size
        assert stats.created == len(self.items)
        assert all(item.closes <= 1 for item in self.items)
        assert sum(not item.is_closed for item in self.items) == stats.size
        if self.waiting and stats.in_use < limits.max_size:
            assert id(self.waiting[0]) in self.woken, "one sleeps although an entry is free"


PoolMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
TestPoolMachine = PoolMachine.TestCase


def make_core(max_size: int = 1, **limits: Any) -> PoolCore[Item]:
    return PoolCore(PoolLimits(max_size, max_size, limits.get("idle_timeout"), limits.get("max_lifetime")))


def test_thousands_wait_and_leave_in_any_order_at_the_same_cost() -> None:
    """The calls of C that a claim makes do not look at the other claims: there is no list to search."""
    core = make_core()
    holder = Claim(core)
    assert core.try_take(holder)
    woken: list[int] = []
    claims: list[Claim[Item] | None] = []
    for number in range(5000):
        claim = Claim(core)
        claim.wake = lambda number=number: woken.append(number)
        core.join(claim)
        claims.append(claim)
    for number in [*range(4999, 4000, -1), *range(2000)]:  # the last and the first give up
        waiting, claims[number] = claims[number], None
        assert waiting is not None
        core.leave(waiting)
        del waiting
    claim = None  # type: ignore[assignment]
    claims[2000] = None  # and one is forgotten
    core.release(holder, reusable=True)
    assert woken == [2001]
    claims.clear()
    conserved(core)


def test_the_first_who_waits_wakes_the_second_if_there_are_two_entries() -> None:
    core = make_core(2)
    holders, waiting = [Claim(core) for _ in range(2)], [Claim(core) for _ in range(2)]
    assert all(map(core.try_take, holders))
    woken: list[int] = []
    for number, claim in enumerate(waiting):
        claim.wake = partial(woken.append, number)
        core.join(claim)
    for claim in holders:
        core.release(claim, reusable=True)
    assert woken
    assert set(woken) == {0}
    assert not core.take(waiting[1])
    assert core.take(waiting[0])
    core.leave(waiting[0])
    assert woken[-1] == 1
    assert core.take(waiting[1])


def test_an_item_that_is_returned_while_another_thread_closes_the_pool_is_closed() -> None:
    class Slow(Item):
        def __getattribute__(self, name: str) -> Any:
            if name == "is_closed" and closing:
                closing.pop().close()
            return super().__getattribute__(name)

    core = make_core()
    closing: list[PoolCore[Item]] = []
    claim = Claim(core)
    assert core.try_take(claim)
    item = Slow()
    core.fill(claim, item)
    closing.append(core)
    core.release(claim, reusable=True)
    assert (item.closes, core.stats().size, closing) == (1, 0, [])


def test_an_item_that_cannot_be_closed_is_logged_and_costs_no_entry(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(Item):
        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

        def close(self) -> None:
            raise self.error

    core = make_core()
    for error in (OSError("stuck"), KeyboardInterrupt(), TypeError("a mistake")):
        claim = Claim(core)
        assert core.try_take(claim)
        core.fill(claim, Stuck(error))
        # An error of the connection is none of the program; any other may be that of a signal handler.
        expected = contextlib.nullcontext() if isinstance(error, OSError) else pytest.raises(type(error))
        with expected:
            core.release(claim, reusable=False)
        # What the traceback has of the call goes with it.
        error.__traceback__ = None
        del claim, expected
        conserved(core)
        assert core.stats().size == 0
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["stuck"]


def test_a_connection_that_was_kept_for_a_claim_is_closed_when_the_claim_gives_up() -> None:
    for forgotten in (False, True):
        core: PoolCore[Item] = PoolCore(PoolLimits(1, 0, None, None))
        first, second = Claim(core), Claim(core)
        assert core.try_take(first)
        item = Item(0)
        core.fill(first, item)
        core.join(second)
        core.release(first, reusable=True)
        assert not item.is_closed, "it is for the claim that waits"
        if not forgotten:
            core.abandon(second)
        del second
        assert item.is_closed
        assert core.stats().idle == 0
