"""The text of faults, the schedule of a delay line, and the filter for ``close_notify``. Nothing here waits."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from wireline.testing import Faults
from wireline.testing._delay_line import CAPACITY, PAUSE, DelayLine, Ending
from wireline.testing._tls_records import CloseNotifyFilter

# The text.


def test_every_fault_is_parsed() -> None:
    words = "delay=200ms,jitter=50ms,rate=64k,chunk=1,reset-after=4k,truncate-after=1M,drop-tls-close,seed=7"
    faults = Faults.parse(words)
    assert faults == Faults(0.2, 0.05, 65536, 1, 4096, 1 << 20, True, 7)
    assert str(faults) == words


@in_turn(
    "text, faults",
    [
        ("", Faults()),
        (" Delay=1.5s , RATE=512", Faults(delay=1.5, rate=512)),
        ("delay=300us,rate=1G", Faults(delay=300e-6, rate=1 << 30)),
        ("delay=.5s,chunk=2K", Faults(delay=0.5, chunk=2048)),
        ("reset-after=0,truncate_after=0", Faults(reset_after=0, truncate_after=0)),
    ],
)
def test_spellings(text: str, faults: Faults) -> None:
    assert Faults.parse(text) == faults


@in_turn(
    "text, complaint",
    [
        ("lag=1", "there is no fault 'lag', only delay, jitter, rate, chunk, reset-after"),
        ("delay", "delay takes a value"),
        ("drop-tls-close=1", "drop-tls-close takes no value"),
        ("chunk=1,chunk=2", "chunk is given twice"),
        ("delay=soon", "delay is a time, such as 200ms or 1.5s, not 'soon'"),
        ("delay=200", "delay=200 has no unit: write delay=200ms or delay=200s"),
        ("jitter=.5", "jitter=.5 has no unit: write jitter=.5ms or jitter=.5s"),
        ("delay=0", "delay=0 has no unit"),
        ("delay=-1", "is a time"),
        ("delay=2h", "is a time"),
        ("delay=99999s", "is a time"),
        ("rate=fast", "rate is a number of bytes, such as 512, 4k or 1M, not 'fast'"),
        ("rate=" + "9" * 5000, "is a number of bytes"),
        ("rate=64kb", "rate=64kb may be bits or bytes, of 1000 or 1024: write rate=64k; a k has 1024 bytes"),
        ("chunk=2B", "write chunk=2;"),
        ("rate=0", "rate is at least 1"),
        ("chunk=0", "chunk is at least 1"),
        ("seed=x", "seed is a number"),
        ("rate=٣", "is a number of bytes"),
    ],
)
def test_bad_faults_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Faults.parse(text)


@in_turn(
    "values, error",
    [
        ({"delay": "1"}, TypeError),
        ({"delay": float("nan")}, ValueError),
        ({"jitter": -1}, ValueError),
        ({"rate": 1.5}, TypeError),
        ({"chunk": True}, TypeError),
        ({"reset_after": -1}, ValueError),
        ({"drop_tls_close": 1}, TypeError),
        ({"seed": "x"}, TypeError),
    ],
)
def test_values_are_checked(values: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Faults(**values)
    with pytest.raises(TypeError):
        Faults.parse(None)  # type: ignore[arg-type]


sizes = st.none() | st.integers(1, 1 << 40)


@given(
    st.builds(
        Faults,
        delay=st.integers(0, 10**6).map(lambda us: us / 1e6),
        rate=sizes,
        chunk=sizes,
        reset_after=sizes,
        truncate_after=sizes,
        drop_tls_close=st.booleans(),
        seed=st.integers(0, 10**9),
    )
)
def test_the_text_of_faults_is_parsed_again(faults: Faults) -> None:
    read = Faults.parse(str(faults))
    assert read.delay == pytest.approx(faults.delay, rel=1e-5)
    assert str(read) == str(faults)


# The schedule.


def arrivals(line: DelayLine, start: float = 0.0) -> list[tuple[float, bytes]]:
    """Every piece in flight, and when it is due."""
    now, found = start, []
    while (wait := line.seconds_to_wait(now)) is not None:
        now += wait
        piece = line.take(now)
        if piece is None:  # the sum was rounded down
            now += 1e-9
        else:
            found.append((now, piece))
    return found


def test_delay_is_the_same_for_all() -> None:
    line = DelayLine(Faults(delay=0.2), "")
    line.put(b"a", 10.0)
    line.put(b"b", 10.1)
    assert line.take(10.19) is None
    assert arrivals(line, 10.19) == [(pytest.approx(10.2), b"a"), (pytest.approx(10.3), b"b")]
    assert line.is_empty
    assert line.seconds_to_wait(11) is None


def test_jitter_depends_on_the_seed_and_keeps_the_order() -> None:
    def run(seed: int, stream: str) -> list[tuple[float, bytes]]:
        line = DelayLine(Faults(jitter=0.5, seed=seed), stream)
        for number in range(20):
            line.put(bytes([number]), number / 100)
        return arrivals(line)

    assert run(1, "a") == run(1, "a")
    assert run(1, "a") != run(2, "a")
    assert run(1, "a") != run(1, "b"), "each direction of each connection has numbers of its own"
    found = run(1, "a")
    assert [piece for _, piece in found] == [bytes([number]) for number in range(20)]
    assert all(0 <= when <= 0.2 + 0.5 for when, _ in found)
    assert len({when for when, _ in found}) > 1


def test_rate_is_smooth_and_exact() -> None:
    line = DelayLine(Faults(rate=1000), "")
    line.put(bytes(1500), 0.0)
    found = arrivals(line)
    assert found[0] == (pytest.approx(0.05), bytes(50))
    assert found[-1][0] == pytest.approx(1.5)
    line.put(bytes(10), 10.0)
    assert arrivals(line, 10.0)[0][0] == pytest.approx(10.01), "what was not used is not saved up"


def test_chunks_arrive_one_by_one() -> None:
    line = DelayLine(Faults(chunk=2), "")
    line.put(b"abcde", 0.0)
    assert [piece for _, piece in arrivals(line)] == [b"ab", b"cd", b"e"]
    line.put(b"abcd", 1.0)
    assert line.take(5.0) == b"ab"
    assert line.take(5.0) is None, "a late caller still gets one piece at a time"
    assert line.take(5.0 + PAUSE) == b"cd"


@in_turn("cut", [1, 3, 7, 100])
@in_turn(
    "faults, ending",
    [
        (Faults(reset_after=7), Ending.RESET),
        (Faults(truncate_after=7), Ending.TRUNCATE),
        (Faults(truncate_after=7, reset_after=8), Ending.TRUNCATE),
        (Faults(truncate_after=8, reset_after=7), Ending.RESET),
    ],
)
def test_exactly_the_limit_of_bytes_goes_through(faults: Faults, ending: Ending, cut: int) -> None:
    line = DelayLine(faults, "")
    data = b"0123456789"
    for start in range(0, len(data), cut):
        assert line.ending is (ending if start >= 7 else None)
        line.put(data[start : start + cut], 0.0)
    assert line.ending is ending
    assert b"".join(piece for _, piece in arrivals(line)) == b"0123456"


def test_a_limit_of_zero_lets_nothing_through() -> None:
    assert DelayLine(Faults(reset_after=0), "").ending is Ending.RESET
    assert DelayLine(Faults(), "").ending is None


def test_the_capacity_is_limited() -> None:
    line = DelayLine(Faults(delay=1), "")
    line.put(bytes(CAPACITY - 1), 0.0)
    assert line.has_capacity
    line.put(b"x", 0.0)
    assert not line.has_capacity
    assert line.take(1.0) is not None
    assert line.has_capacity


# close_notify.


def record(kind: int, size: int, fill: int = 0) -> bytes:
    return struct.pack(">BHH", kind, 0x0303, size) + bytes([fill]) * size


DATA = record(23, 100, 1)
HIDDEN = record(23, 19, 2)
ALERT = record(21, 26, 3)
FATAL_IN_CLEAR = record(21, 2, 4)


def through(data: bytes, cut: int) -> bytes:
    records = CloseNotifyFilter()
    passed = b"".join(records.feed(data[start : start + cut]) for start in range(0, len(data), cut))
    return passed + records.end()


@in_turn("cut", [1, 2, 5, 6, 24, 1000])
@in_turn("last", [HIDDEN, ALERT])
def test_an_alert_is_dropped_as_the_last_record(last: bytes, cut: int) -> None:
    assert through(DATA + HIDDEN + DATA + last, cut) == DATA + HIDDEN + DATA
    assert through(ALERT + last, cut) == ALERT


@in_turn("cut", [1, 7, 1000])
@in_turn(
    "data",
    [
        DATA + DATA,
        FATAL_IN_CLEAR,
        HIDDEN + DATA,
        DATA + DATA[:3],
        DATA + DATA[:50],
        b"GET / HTTP/1.0\r\n\r\n" + HIDDEN,
        b"",
        b"abc",
    ],
)
def test_other_records_pass_unchanged(data: bytes, cut: int) -> None:
    assert through(data, cut) == data


def test_a_record_that_may_be_data_can_be_released_and_an_alert_cannot() -> None:
    records = CloseNotifyFilter()
    assert records.feed(HIDDEN[:10]) == b""
    assert records.may_be_data
    assert records.release() + records.feed(HIDDEN[10:]) == HIDDEN
    assert records.feed(ALERT) == b""
    assert not records.may_be_data
