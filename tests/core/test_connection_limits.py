"""The limits of a server's connections, with a clock that the test moves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from wireline._core.connection_counts import Admission, Connection, ConnectionCounts
from wireline._core.connection_times import RATE_WINDOW, ConnectionTimes, Progress, TimeLimit, TimeLimits

GRANTED, FULL, ADDRESS_FULL = Admission


def connection(address: object = None, now: float = 0.0) -> Connection:
    return Connection(None, -1, address, now)


# Counts.


def test_connections_are_counted_until_they_are_released() -> None:
    counts = ConnectionCounts(max_connections=2)
    one, two, three = connection(), connection(), connection()
    assert [counts.admit(each, handshake=False) for each in (one, two, three)] == [GRANTED, GRANTED, FULL]
    assert counts.is_full
    counts.release(one)
    counts.release(one)
    assert not counts.is_full
    assert counts.admit(three, handshake=False) is GRANTED
    assert counts.is_full


def test_handshakes_have_a_limit_of_their_own() -> None:
    counts = ConnectionCounts(max_handshakes=1)
    one, two = connection(), connection()
    assert counts.admit(one, handshake=True) is GRANTED
    assert counts.admit(two, handshake=True) is FULL
    counts.established(one)
    assert counts.admit(two, handshake=True) is GRANTED
    counts.release(two)  # its handshake has failed
    assert not counts.is_full


def test_one_address_does_not_take_the_places_of_others() -> None:
    counts = ConnectionCounts(max_connections=10, max_per_address=2)
    greedy = [connection("a") for _ in range(5)]
    assert [counts.admit(each, handshake=False) for each in greedy] == [GRANTED] * 2 + [ADDRESS_FULL] * 3
    for _ in range(5):
        assert counts.admit(connection(None), handshake=False) is GRANTED, "Unix clients are exempt"
    assert counts.admit(connection("b"), handshake=False) is GRANTED
    counts.release(greedy[0])
    assert counts.admit(greedy[2], handshake=False) is GRANTED
    counts.release(greedy[4])  # it was never admitted
    assert counts.admit(greedy[4], handshake=False) is ADDRESS_FULL


@pytest.mark.full
def test_addresses_that_have_left_are_forgotten() -> None:
    counts = ConnectionCounts(max_per_address=1)
    for number in range(10_000):
        one = connection(number)
        assert counts.admit(one, handshake=False) is GRANTED
        counts.release(one)
    assert len(counts._by_address) < 100


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
@pytest.mark.full
def test_no_limit_is_ever_exceeded(steps: list[tuple[int, bool]]) -> None:
    counts = ConnectionCounts(max_connections=6, max_per_address=3, max_handshakes=2)
    here: list[Connection] = []
    for address, arrives in steps:
        if arrives or not here:
            new = connection(address)
            verdict = counts.admit(new, handshake=False)
            of_address = sum(each.address == address for each in here)
            assert (verdict is GRANTED) == (len(here) < 6 and of_address < 3)
            if verdict is GRANTED:
                here.append(new)
        else:
            counts.release(here.pop(address % len(here)))
    assert counts.is_full == (len(here) == 6)


# Times.


class Client:
    """A connection whose handler waits in a read, by default."""

    def __init__(self, times: ConnectionTimes, now: float = 0.0) -> None:
        self.record = connection(now=now)
        self.progress = Progress(0, 0, waiting=True, reading=False, taken=0)
        times.start(self.record, now)

    def set(self, **changes: object) -> None:
        self.progress = self.progress._replace(**changes)  # type: ignore[arg-type]


def run(
    times: ConnectionTimes, clients: list[Client], until: float
) -> Iterator[tuple[float, Client, TimeLimit]]:
    """Look when it is time to, and yield those that exceed a limit."""
    by_record = {client.record: client for client in clients}
    while (now := times.next_look()) is not None and now <= until:
        for record in times.due(now):
            client = by_record[record]
            limit = times.look(record, client.progress, now)
            if limit is not None:
                yield now, client, limit


def first(times: ConnectionTimes, client: Client, until: float) -> tuple[float, TimeLimit] | None:
    return next(((now, limit) for now, _, limit in run(times, [client], until)), None)


def test_a_client_that_sends_nothing() -> None:
    times = ConnectionTimes(TimeLimits(first_byte=10))
    silent, speaks = Client(times), Client(times)
    speaks.set(received=1)
    ended = list(run(times, [silent, speaks], 1000))
    assert [(client, limit) for _, client, limit in ended] == [(silent, TimeLimit.FIRST_BYTE)]
    assert 10 <= ended[0][0] <= 10.5
    assert times.next_look() is None, "the other is looked at no more"


@pytest.mark.full
def test_the_lifetime_counts_from_the_accept() -> None:
    times = ConnectionTimes(TimeLimits(lifetime=100))
    one = connection(now=5.0)
    times.start(one, 20.0)
    assert times.due(104.9) == []
    now = times.next_look()
    assert now is not None
    assert 105 <= now <= 105.5
    assert times.due(now) == [one]
    assert times.look(one, Progress(1, 1, False, False, 1), now) is TimeLimit.LIFETIME


@in_turn("moves", ["received", "sent"])
def test_a_connection_is_idle_if_neither_side_moves_a_byte(moves: str) -> None:
    times = ConnectionTimes(TimeLimits(idle=60))
    client = Client(times)
    for count in range(1, 11):  # one byte every 50 s
        client.set(**{moves: count})
        assert first(times, client, 50.0 * count) is None
    ended = first(times, client, math.inf)
    assert ended is not None
    assert ended[1] is TimeLimit.IDLE
    assert 450 + 60 <= ended[0] <= 450 + 75.5, "at most a quarter later"


def test_a_handler_that_is_busy_is_not_idle() -> None:
    times = ConnectionTimes(TimeLimits(idle=60))
    client = Client(times)
    client.set(waiting=False)
    assert first(times, client, 10_000.0) is None
    client.set(waiting=True)
    ended = first(times, client, math.inf)
    assert ended is not None
    assert 10_040 <= ended[0] <= 10_080


def slow_line(times: ConnectionTimes, rate: float, until: float) -> tuple[float, TimeLimit] | None:
    """A client that sends a line which does not end, at a rate in bytes a second."""
    client = Client(times)
    for tenth in range(1, int(until * 10)):
        client.set(received=int(rate * tenth / 10), reading=rate * tenth / 10 >= 1)
        ended = first(times, client, tenth / 10)
        if ended is not None:
            return ended
    return None


def test_a_slow_line_is_cut_and_a_fast_one_is_not() -> None:
    ended = slow_line(ConnectionTimes(TimeLimits(min_rate=10)), rate=9.5, until=60)
    assert ended is not None
    assert ended[1] is TimeLimit.RATE
    assert ended[0] < 2 * RATE_WINDOW
    assert slow_line(ConnectionTimes(TimeLimits(min_rate=10)), rate=11, until=60) is None


@pytest.mark.full
def test_one_byte_every_ten_seconds_is_cut() -> None:
    ended = slow_line(ConnectionTimes(TimeLimits(min_rate=1)), rate=0.1, until=60)
    assert ended is not None
    assert ended[0] < 10 + 2 * RATE_WINDOW


def test_the_rate_does_not_count_between_messages_nor_while_the_handler_is_busy() -> None:
    times = ConnectionTimes(TimeLimits(min_rate=1000))
    client = Client(times)
    for second in range(
        100
    ):  # a short line each second, all complete; then half of one that the handler leaves
        client.set(received=10 * second, taken=10 * second, reading=False)
        assert first(times, client, float(second)) is None
    client.set(received=1005, taken=1000, reading=False)
    assert first(times, client, 1000.0) is None


@pytest.mark.full
def test_each_message_is_measured_for_itself() -> None:
    """A client types: at each look it is in the middle of a line, but of another one than before."""
    times = ConnectionTimes(TimeLimits(min_rate=1000))
    client = Client(times)
    for second in range(100):
        client.set(received=10 * second + 5, taken=10 * second, reading=True)
        assert first(times, client, float(second)) is None


def test_an_end_before_its_time_costs_nothing_and_leaves_nothing() -> None:
    times = ConnectionTimes(TimeLimits(lifetime=3600, idle=60))
    for number in range(50_000):
        one = connection(now=number / 1000)
        times.start(one, number / 1000)
        times.remove(one)
        times.remove(one)
    assert sum(map(len, times._buckets.values())) == 0
    assert len(times._buckets) < 250
    assert times.next_look() is None
    assert times._buckets == {}
    times.remove(connection())


@pytest.mark.full
def test_start_says_when_the_next_look_is_earlier() -> None:
    times = ConnectionTimes(TimeLimits(first_byte=1, lifetime=1000))
    assert times.start(connection(), 0.0)
    assert not times.start(connection(now=0.5), 0.5)
    for record in times.due(2.0):
        assert times.look(record, Progress(1, 0, True, False, 1), 2.0) is None
    assert times.start(connection(now=2.0), 2.0)


@given(st.floats(0.01, 1000), st.floats(0.01, 1000), st.lists(st.floats(0, 500), min_size=1, max_size=20))
@pytest.mark.full
def test_silent_clients_end_at_their_first_limit(
    first_byte: float, lifetime: float, starts: list[float]
) -> None:
    times = ConnectionTimes(TimeLimits(first_byte=first_byte, lifetime=lifetime))
    clients = [Client(times, now) for now in sorted(starts)]
    ended = {client: now for now, client, _ in run(times, clients, math.inf)}
    assert len(ended) == len(clients)
    tick = min(first_byte, lifetime) / 16
    for client, now in ended.items():
        due = client.record.accepted_at + min(first_byte, lifetime)
        assert due - 1e-9 <= now <= due + 2 * tick + 1e-6
    assert not times.limits.any or times.next_look() is None
