"""Happy eyeballs as a schedule: no clock, no socket; time is a number that the tests turn on."""

from __future__ import annotations

import errno
import math
import socket
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from wireline import DialError
from wireline._core.happy_eyeballs import ATTEMPT_DELAY, AddrInfo, Race, interleave


def v4(number: int) -> AddrInfo:
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (f"192.0.2.{number}", 80))


def v6(number: int) -> AddrInfo:
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (f"2001:db8::{number}", 80, 0, 0))


def refused() -> OSError:
    return OSError(errno.ECONNREFUSED, "Connection refused")


address_lists = st.lists(
    st.builds(lambda make, n: make(n), st.sampled_from([v4, v6]), st.integers(0, 9)), max_size=12
)


# ------------------------------------------------------------------------------------------------- interleave


@in_turn(
    "resolved, tried",
    [
        ([], []),
        ([v4(1)], [v4(1)]),
        ([v6(1), v6(2), v4(1), v4(2)], [v6(1), v4(1), v6(2), v4(2)]),
        ([v4(1), v4(2), v6(1)], [v4(1), v6(1), v4(2)]),
        ([v6(1), v6(2), v6(3), v4(1)], [v6(1), v4(1), v6(2), v6(3)]),
        ([v6(3), v6(1), v6(2)], [v6(3), v6(1), v6(2)]),
        ([v4(1), v4(1), v6(1), v4(1), v6(1)], [v4(1), v6(1)]),
    ],
)
def test_C1_interleave_alternates_families(resolved: list[AddrInfo], tried: list[AddrInfo]) -> None:
    assert interleave(resolved) == tried


def test_C1_interleave_drops_the_copies_of_an_address_for_other_socket_types() -> None:
    datagram = (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", v4(1)[4])
    assert interleave([v4(1), datagram]) == [v4(1)]


def test_C1_interleave_takes_what_the_resolver_gives() -> None:
    resolved = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert interleave(resolved) == resolved


@given(address_lists)
def test_C1_interleave_keeps_the_resolvers_order_in_each_family(resolved: list[AddrInfo]) -> None:
    tried = interleave(resolved)
    assert len({info[4] for info in tried}) == len(tried)
    for family in (socket.AF_INET, socket.AF_INET6):
        asked = list(dict.fromkeys(info for info in resolved if info[0] == family))
        assert [info for info in tried if info[0] == family] == asked
    if tried:
        assert tried[0] == resolved[0]
    # Alternating: the families change at each step until one of them is used up.
    families = [info[0] for info in tried]
    turns = 2 * min(families.count(family) for family in (socket.AF_INET, socket.AF_INET6))
    assert all(families[i] != families[i + 1] for i in range(turns - 1))


# --------------------------------------------------------------------------------------------------- schedule


def test_C1_the_first_starts_at_once_and_the_next_after_250_ms() -> None:
    race = Race([v6(1), v4(1), v6(2)])
    assert ATTEMPT_DELAY == 0.25
    assert race.next_start(100.0) == 100.0
    assert race.start_due(100.0) == 0
    assert race.start_due(100.0) is None
    assert race.next_start(100.0) == race.next_start(100.1) == 100.25
    assert race.start_due(100.249) is None
    assert race.start_due(100.3) == 1
    assert race.next_start(100.3) == 100.55
    assert race.start_due(101.0) == 2
    assert race.next_start(101.0) is None
    assert race.start_due(999.0) is None
    assert not race.over


def test_C1_the_next_starts_at_once_after_a_failure() -> None:
    race = Race([v6(1), v4(1), v6(2)])
    assert race.start_due(0.0) == 0
    race.failed(0, refused(), 0.001)
    assert race.next_start(0.002) == 0.002
    assert race.start_due(0.002) == 1
    assert race.next_start(0.002) == pytest.approx(0.252)


def test_C1_several_failures_start_one_attempt() -> None:
    race = Race([v4(number) for number in range(4)])
    assert [race.start_due(0.0), race.start_due(0.25)] == [0, 1]
    race.failed(0, refused(), 0.3)
    race.failed(1, refused(), 0.3)
    assert race.start_due(0.3) == 2
    assert race.start_due(0.3) is None
    assert race.next_start(0.3) == pytest.approx(0.55)


def test_C1_all_failed_is_a_dial_error_with_each_address_its_error_and_its_time() -> None:
    race = Race([v6(1), v4(1)], delay=0.5)
    errors = [refused(), OSError(errno.EHOSTUNREACH, "No route to host")]
    assert not race.over
    assert race.start_due(10.0) == 0
    assert race.start_due(10.5) == 1
    race.failed(1, errors[1], 10.75)
    assert not race.over
    race.failed(0, errors[0], 12.0)
    assert race.over
    assert race.attempts == ((v6(1)[4], errors[0], 2.0), (v4(1)[4], errors[1], 0.25))
    error = DialError("example.com:80", race.attempts)
    assert error.attempts == race.attempts
    assert error.errno == errno.ECONNREFUSED


def test_C1_no_address_is_a_lost_race() -> None:
    race = Race([])
    assert race.over
    assert race.next_start(0.0) is None
    assert race.start_due(0.0) is None
    assert race.attempts == ()


def test_C1_the_winner_ends_the_race_and_only_one_wins() -> None:
    race = Race([v6(1), v4(1), v6(2)])
    assert [race.start_due(0.0), race.start_due(0.25)] == [0, 1]
    assert race.winner is None
    assert race.won(1)
    assert race.winner == 1
    assert not race.won(0)
    assert race.won(1)
    assert race.next_start(5.0) is None
    assert race.start_due(5.0) is None
    assert not race.over


def test_a_failure_reported_for_the_winner_changes_nothing() -> None:
    race = Race([v6(1)])
    race.start_due(0.0)
    assert race.won(0)
    race.failed(0, refused(), 1.0)
    race.give_up(refused(), 1.0)
    assert race.winner == 0
    assert not race.over
    assert race.attempts == ()


def test_a_failed_attempt_cannot_win_and_is_not_reported_twice() -> None:
    race = Race([v6(1), v4(1)])
    race.start_due(0.0)
    first, second = refused(), refused()
    race.failed(0, first, 1.0)
    assert race.start_due(1.0) == 1
    race.failed(0, second, 1.1)
    assert race.start_due(1.1) is None, "an old failure must not start the next attempt"
    assert not race.won(0)
    assert race.attempts == ((v6(1)[4], first, 1.0),)


def test_C2_the_deadline_ends_the_race_for_all_that_still_run() -> None:
    race = Race([v6(1), v4(1), v6(2)])
    early, late = refused(), TimeoutError(errno.ETIMEDOUT, "timed out")
    assert [race.start_due(0.0), race.start_due(0.25)] == [0, 1]
    race.failed(1, early, 0.3)
    race.give_up(late, 0.4)
    assert race.over
    assert [(sockaddr, error) for sockaddr, error, _ in race.attempts] == [
        (v6(1)[4], late),
        (v4(1)[4], early),
    ]
    assert [seconds for _, _, seconds in race.attempts] == pytest.approx([0.4, 0.05])
    assert race.start_due(0.4) is None
    assert race.next_start(0.4) is None
    assert not race.won(0), "a connection after the deadline has lost"
    race.failed(0, early, 0.5)
    assert race.attempts[0][1] is late


def test_C2_an_attempt_begun_after_the_deadline_took_no_time() -> None:
    race = Race([v6(1)])
    race.start_due(1.0)
    race.give_up(TimeoutError(), 0.5)
    assert [seconds for _, _, seconds in race.attempts] == [0.0]


def test_C2_a_deadline_before_the_first_attempt() -> None:
    race = Race([v6(1)])
    race.give_up(TimeoutError(), 0.0)
    assert race.over
    assert race.attempts == ()


def test_an_attempt_that_never_started_is_a_mistake_of_the_driver() -> None:
    race = Race([v6(1), v4(1)])
    race.start_due(0.0)
    with pytest.raises(IndexError):
        race.failed(1, refused(), 0.0)
    with pytest.raises(IndexError):
        race.won(1)


@in_turn("delay", [0, 0.0099, -1.0, math.nan, math.inf])
def test_a_delay_below_10_ms_is_refused(delay: float) -> None:
    with pytest.raises(ValueError, match=rf"at least 0\.01 s, got {delay}"):
        Race([v6(1)], delay=delay)


# ------------------------------------------------------------------------------------------------ model check


@dataclass
class Network:
    """A driver and a network in one: runs a race in virtual time and keeps a record."""

    fates: list[tuple[float, bool]]
    """Of each candidate: seconds until its fate is known, and whether it connects."""
    delay: float
    deadline: float
    naps: list[float]
    """How much too late the driver wakes up, each time in turn."""
    now: float = 0.0
    started: list[tuple[int, float]] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    ready: dict[int, float] = field(default_factory=dict)

    def run(self) -> Race:
        race = Race([v4(number) for number in range(len(self.fates))], self.delay)
        turns = 0
        while not race.over:
            turns += 1
            assert turns <= 4 * len(self.fates) + 4, "the driver spins"
            self.start(race)
            if race.over:
                break
            due = race.next_start(self.now)
            wake = min([*self.ready.values(), math.inf if due is None else due, self.deadline])
            self.now = max(self.now, wake) + self.naps[turns % len(self.naps)]
            if self.report(race):
                break
            if self.now >= self.deadline:
                race.give_up(TimeoutError(errno.ETIMEDOUT, "timed out"), self.now)
        return race

    def start(self, race: Race) -> None:
        while (index := race.start_due(self.now)) is not None:
            self.started.append((index, self.now))
            seconds, connects = self.fates[index]
            if seconds == 0 and not connects:
                self.fail(race, index)
            else:
                self.ready[index] = self.now + seconds

    def report(self, race: Race) -> bool:
        """Report all that is ready at this time to the race; return whether a candidate won."""
        winners = 0
        for index in [index for index, at in self.ready.items() if at <= self.now]:
            del self.ready[index]
            if self.fates[index][1]:
                winners += race.won(index)
            else:
                self.fail(race, index)
        assert winners <= 1
        return winners == 1

    def fail(self, race: Race, index: int) -> None:
        self.failures.append(self.now)
        race.failed(index, refused(), self.now)


# Times are multiples of 1/64 s, so that sums of them are exact.
ticks = st.integers(0, 256).map(lambda n: n / 64)
networks = st.builds(
    Network,
    st.lists(st.tuples(st.just(0.0) | ticks, st.booleans()), max_size=8),
    st.sampled_from([1 / 64, 0.25, 1.0]),
    ticks | st.just(1e9),
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 1 / 64, 0.5]), min_size=1, max_size=5),
)


@given(networks)
def test_C1_any_race_keeps_to_the_schedule(network: Network) -> None:
    network.run()
    indexes = [index for index, _ in network.started]
    assert indexes == list(range(len(indexes))), "each once, in order"
    for (_, before), (_, start) in zip(network.started, network.started[1:], strict=False):
        failed_between = any(before <= failure <= start for failure in network.failures)
        assert start - before >= network.delay or failed_between
    for _, start in network.started[:1]:
        assert start == 0.0


@given(networks)
def test_C1_any_race_ends_with_one_winner_or_a_complete_account(network: Network) -> None:
    race = network.run()
    tried = [race.candidates[index][4] for index, _ in network.started]
    if race.winner is not None:
        assert network.fates[race.winner][1]
        assert not race.over
    else:
        assert race.over
        assert [sockaddr for sockaddr, _, _ in race.attempts] == tried
        assert network.now >= network.deadline or len(tried) == len(network.fates)
    assert all(seconds >= 0 for _, _, seconds in race.attempts)
    assert all(isinstance(error, OSError) for _, error, _ in race.attempts)
    # A connection that is still being made has lost, whenever it is ready.
    for index in network.ready:
        assert not race.won(index)
    assert race.next_start(network.now) is None
    assert race.start_due(network.now + 1e9) is None


@given(networks.filter(lambda network: network.deadline == 1e9))
def test_C1_a_driver_that_is_never_late_loses_no_time(network: Network) -> None:
    network.naps = [0.0]
    race = network.run()
    # Each start happens at its time exactly: after the delay, or in the instant of a failure.
    for (_, before), (_, start) in zip(network.started, network.started[1:], strict=False):
        assert start <= before + network.delay
        assert start == before + network.delay or start in network.failures
    connecting = [
        start + network.fates[index][0] for index, start in network.started if network.fates[index][1]
    ]
    if race.winner is not None:
        assert network.now == min(connecting), "the first that connects wins"
    else:
        assert not any(connects for _, connects in network.fates)
