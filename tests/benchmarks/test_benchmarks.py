"""The benchmarks do the work that they measure, and name each contestant that does not. No test looks at a time."""

from __future__ import annotations

import itertools
import json
import math
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import _async_catalogue as servers
from benchmarks import _certificate, _growth, _report, _service, _work
from benchmarks import _pipelined_catalogue as pipelined
from benchmarks import _tls_catalogue as tls
from benchmarks.__main__ import main
from benchmarks._build import build, obstacle
from benchmarks._catalogue import CONTESTANTS, HEADLINES, ROWS
from benchmarks._client import ClientContestant, ClientWork
from benchmarks._database import REDIS, Database
from benchmarks._driver import Entrant, Results, run
from benchmarks._payload import Payload
from benchmarks._programs import MANY, MANY_TLS, ONE_TLS, Load, PythonProgram
from benchmarks._rows import CpuRow, DurationRow, ExtraRow, MemoryRow, RateRow, Reading, Row
from benchmarks._service import ServerContestant, Service
from benchmarks._task import Doer, Task
from benchmarks._trial import Trial, WrongBytesError
from benchmarks._work import Contestant, Work
from benchmarks.servers import streams
from tests.benchmarks import cheats

# A contestant in another language is compiled first: on a busy machine that takes Nim half a minute.
pytestmark = pytest.mark.timeout(300)

ECHO = Work(Payload.MESSAGE, "echo", 20, 2)
FEED = Work(Payload.LINES, "feed", 3, 1)
DRAIN = Work(Payload.BLOCK, "drain", 3, 1)
OF_ONE = [each for each in CONTESTANTS if isinstance(each, Contestant)]
CLIENTS = [each for each in CONTESTANTS if isinstance(each, ClientContestant)]
# Of everything that a program is to do one: sizes and numbers of connections are nothing new to it.
OF_SERVERS = {
    (each.program.name, each.work.role, each.work.load, each.work.tls): each
    for each in CONTESTANTS
    if isinstance(each, ServerContestant)
}
WORKS = {
    name: work
    for name, work in {**servers.WORKS, **tls.SERVICES, **pipelined.WORKS}.items()
    if work.role in streams.HANDLERS
}
LOADS = ["quick", "slow"]
SECURED = Service("echo", "echo", 20, connections=1, tls=True)


def is_in(row: Row, table: str) -> bool:
    """Whether a table has a line for ``row`` with something measured in it."""
    return any(re.match(rf"{re.escape(row.name)}  .*\d", line) for line in table.splitlines())


@pytest.mark.parametrize("contestant", OF_ONE, ids=lambda each: each.name)
def test_every_contestant_with_one_connection_does_the_work_or_is_left_out_by_name(
    contestant: Contestant, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    row, file = DurationRow("the row", contestant.name, 1e9), tmp_path / "numbers.json"
    code, shown = measured([contestant], row, capsys, "--scale", "0.001", "--json", str(file))
    assert code == 0, shown
    document = json.loads(file.read_text())
    reason = contestant.missing()
    assert is_in(row, shown) == (not reason)
    assert document["left out"] == ({contestant.name: reason} if reason else {})
    if not reason:
        found = document["contestants"][contestant.name]
        (reading,) = found["rounds"]
        assert found["rate"] == reading["messages"] / reading["seconds"]
        assert found["spread"] == [found["rate"]] * 2
        assert (found["program"], found["work"]) == (contestant.program, contestant.work.task._asdict())


def test_every_row_is_computed_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    results = Results({each.name: readings(1, cpu=place) for place, each in enumerate(CONTESTANTS, 1)})
    _report.show(ROWS, results, _report.circumstances(1, 1.0))
    shown = capsys.readouterr().out
    assert [row.name for row in ROWS if not is_in(row, shown)] == []


def test_a_row_compares_the_same_work() -> None:
    kinds = Contestant | ServerContestant | ClientContestant
    works = {each.name: each.work for each in CONTESTANTS if isinstance(each, kinds)}
    assert len(works) == len(CONTESTANTS), "a name twice"
    assert {name for row in ROWS for name in row.contestants} == set(works), "no contestant runs for nothing"
    every = {each.name: each.every for each in CONTESTANTS}
    for row in ROWS:
        assert len({every[name] for name in row.contestants}) == 1, "in the same rounds"
        if isinstance(row, RateRow | MemoryRow | CpuRow):
            assert len({but_for_the_role(works[name]) for name in row.contestants}) == 1
        if isinstance(row, ExtraRow):
            assert but_for_the_role(works[row.ours]) == but_for_the_role(works[row.ours_without])
            assert but_for_the_role(works[row.against]) == but_for_the_role(works[row.against_without])
            assert works[row.ours] == works[row.against] or isinstance(works[row.ours], Work)


def but_for_the_role(work: Work | Service | ClientWork) -> Work | Service | ClientWork:
    """A server with a timeout has a name of its own, and so has one that answers many lines together."""
    return replace(work, role="") if isinstance(work, Service) else work


def test_the_headlines_are_rows() -> None:
    assert {row.name for row in ROWS} >= HEADLINES


# Clients of databases.


@pytest.mark.parametrize("contestant", CLIENTS, ids=lambda each: each.name)
def test_every_client_does_its_work_or_is_left_out_by_name(
    contestant: ClientContestant, capsys: pytest.CaptureFixture[str]
) -> None:
    contestant = replace(contestant, work=replace(contestant.work, batch=50))
    row = CpuRow("the row", contestant.name, contestant.name, 1)
    code, shown = measured([contestant], row, capsys, "--scale", "0.001")
    assert code == 0, shown
    reason = contestant.missing()
    assert is_in(row, shown) == (not reason)
    assert (f"left out: {contestant.name}: {reason}" in shown) == bool(reason)


CLIENT_CHEATS = {
    "client_with_a_wrong_value": "batch 1 is wrong: ",
    "client_with_too_few_batches": "1 batches were right, of 3",
    "client_that_fails": "RuntimeError: I would rather not",
}


@pytest.mark.parametrize("name", CLIENT_CHEATS)
def test_a_client_that_does_not_do_the_work_fails_the_run_by_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = ClientWork("nothing", silent(), 1, 3, 2)
    contestant = ClientContestant("cheat", work, f"tests.benchmarks.cheats:{name}", "cheat")
    code, shown = measured([contestant], CpuRow("the row", "cheat", "cheat"), capsys)
    assert code == 1
    (verdict,) = [line for line in shown.splitlines() if line.startswith("FAILED: cheat: ")]
    assert CLIENT_CHEATS[name] in verdict


def silent() -> Database:
    """A server that nothing is asked of."""
    return replace(
        REDIS, answers=lambda port: True, find=lambda: "/bin/sleep", command=lambda path, _: [path, "60"]
    )


def test_a_database_that_is_not_installed_or_does_not_start_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for database, code, words in [
        (replace(REDIS, find=lambda: ""), 0, "left out: client: Redis is not installed"),
        (replace(REDIS, command=lambda path, _: ["/bin/false"]), 1, "FAILED: client: Redis does not answer"),
    ]:
        work = ClientWork("nothing", database, 1, 1, 1)
        contestant = ClientContestant("client", work, "tests.benchmarks.cheats:client_that_fails", "client")
        ended, shown = measured([contestant], CpuRow("the row", "client", "client"), capsys)
        assert ended == code
        assert words in shown


# Contestants that do not do their work.


CHEATS = [
    (cheats.echo_wrong_byte, ECHO, "piece 7 is wrong from byte 0 on"),
    (cheats.echo_too_few, ECHO, "piece 21 has 0 bytes, 64 were sent"),
    (cheats.echo_in_another_order, ECHO, "piece 0 is wrong from byte 0 on"),
    (cheats.lines_without_looking, FEED, "0 pieces were right, of 4"),
    (cheats.lines_made_up, FEED, "piece 0 is wrong from byte 0 on: b'line"),
    (cheats.blocks_cut_short, DRAIN, "piece 0 is wrong from byte 65535 on"),
    (cheats.lines_in_another_order, replace(FEED, load="echo"), "piece 0 is wrong from byte 0 on"),
    (cheats.no_listener, ECHO, "RuntimeError: I would rather not"),
]


@pytest.mark.parametrize(
    ("cheat", "work", "reason"), CHEATS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_contestant_that_does_not_do_the_work_fails_the_run_by_name(
    cheat: object, work: Work, reason: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = getattr(cheat, "__name__", "")
    contestant = Contestant(f"cheat {name}", work, f"tests.benchmarks.cheats:{name}")
    row = DurationRow("the cheat's row", contestant.name, 1e9)
    file = tmp_path / "numbers.json"
    code = main(["--rounds", "1", "--json", str(file)], [contestant], [row])
    shown = capsys.readouterr().out
    assert code == 1
    (verdict,) = [line for line in shown.splitlines() if line.startswith(f"FAILED: cheat {name}: ")]
    assert reason in verdict
    assert re.search(r"^the cheat's row .*FAILED$", shown, re.MULTILINE)
    document = json.loads(file.read_text())
    assert document["rows"] == {"the cheat's row": None}
    assert list(document["failures"]) == [contestant.name]


def test_a_contestant_that_fails_is_not_run_again_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    honest = Contestant("honest", ECHO, "benchmarks.blocking:socket_echo")
    cheat = Contestant("cheat", ECHO, "tests.benchmarks.cheats:no_listener")
    rows: list[Row] = [RateRow("a", "cheat", "honest"), DurationRow("b", "honest", 1e9)]
    code = main(["--rounds", "2"], [honest, cheat], rows)
    shown = capsys.readouterr().out
    assert code == 1
    assert shown.count("I would rather not") == 1
    assert is_in(rows[1], shown)
    assert not is_in(rows[0], shown)


# Servers, for many connections. A missing program is left out by its name, so nothing is skipped.


def measured(
    contestants: list[Entrant], row: Row, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    code = main(["--rounds", "1", *words], contestants, [row])
    shown = capsys.readouterr()
    assert shown.err == ""
    return code, shown.out


def small(work: Service) -> Service:
    return replace(work, messages=30, connections=4, outstanding=min(work.outstanding, 3))


@pytest.mark.parametrize("contestant", OF_SERVERS.values(), ids=lambda each: each.name)
def test_every_server_does_its_work_or_is_left_out_by_name(
    contestant: ServerContestant, capsys: pytest.CaptureFixture[str]
) -> None:
    contestant = replace(contestant, work=small(contestant.work))
    row = DurationRow("the row", contestant.name, 1e9)
    code, shown = measured([contestant], row, capsys)
    assert code == 0, shown
    reason = contestant.missing()
    assert is_in(row, shown) == (not reason)
    assert (f"left out: {contestant.name}: {reason}" in shown) == bool(reason)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_both_loads_give_every_kind_of_work(
    work: Service, load: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(load, monkeypatch)
    contestant = ServerContestant("streams", small(work), servers.STREAMS)
    row = DurationRow("the row", "streams", 1e9)
    code, shown = measured([contestant], row, capsys)
    assert code == 0, shown
    assert is_in(row, shown)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(("size", "outstanding"), [(16, 5), (300_000, 2)])
def test_messages_of_any_size_come_back(
    size: int, outstanding: int, load: str, secured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(load, monkeypatch)
    work = Service("echo", "echo", 12, connections=3, outstanding=outstanding, size=size, tls=secured)
    reading = ServerContestant("ours", work, servers.OURS).measure(1, _service.Cores.choose())
    assert reading.messages == 12


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("load", LOADS)
def test_connections_are_opened_a_few_at_a_time(
    load: str, secured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(load, monkeypatch)
    work = Service("echo", "echo", 5, connections=100, outstanding=2, tls=secured)
    assert work.warm_up == 100
    reading = ServerContestant("ours", work, servers.OURS).measure(1, _service.Cores.choose())
    assert reading.messages == 5


def test_a_program_in_another_language_that_finds_a_fault_fails_the_run_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (contestant,) = (each for each in CONTESTANTS if each.name == "Nim net lines")
    assert isinstance(contestant, Contestant)
    wrong = bytearray(_work.file_of(Payload.LINES).read_bytes())
    wrong[5] ^= 1
    file = tmp_path / "wrong"
    file.write_bytes(wrong)
    monkeypatch.setattr(_work, "file_of", lambda payload: file)
    code, shown = measured(
        [replace(contestant, work=FEED)], DurationRow("the row", contestant.name, 1e9), capsys
    )
    if reason := contestant.missing():
        assert f"left out: {contestant.name}: {reason}" in shown
        return
    assert code == 1
    assert "FAILED: Nim net lines: piece 0 is wrong" in shown


def use(load: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no C compiler or no OpenSSL for it, this is the one in Python twice."""
    if load == "slow":
        for module, name, both in (
            (_service, "MANY", MANY),
            (_service, "MANY_TLS", MANY_TLS),
            (_work, "ONE_TLS", ONE_TLS),
        ):
            monkeypatch.setattr(module, name, Load(both.slow, both.slow))


ECHO_TEN = Service("echo", "echo", 20, connections=1)
SERVER_CHEATS = [
    (cheats.WrongByte, ECHO_TEN, "connection 0 is wrong from byte 318 on"),
    (cheats.ClosesEarly, ECHO_TEN, "connection 0 was closed after 128 bytes, 192 were sent"),
    (cheats.WrongByte, replace(ECHO_TEN, size=1 << 20, messages=2), "connection 0 is wrong from byte "),
    (
        cheats.AnotherOrder,
        replace(ECHO_TEN, outstanding=32, messages=64),
        "connection 0 is wrong from byte ",
    ),
    (cheats.Twice, ECHO_TEN, "connection 0 brought more bytes than were sent"),
    (cheats.PostScript, ECHO_TEN, "connection 0 brought more bytes than were sent"),
    (cheats.TheNeighbours, replace(ECHO_TEN, connections=2), "connection "),
    (cheats.Raises, ECHO_TEN, "; its last words: RuntimeError: I would rather not"),
    (
        cheats.ClosesEarly,
        replace(ECHO_TEN, load="idle", connections=2, messages=4, size=256),
        "was closed after 0 bytes",
    ),
    (
        cheats.ShortGreeting,
        replace(ECHO_TEN, load="connect"),
        "connection 0 was closed after 63 bytes of the greeting",
    ),
    (cheats.LongGreeting, replace(ECHO_TEN, load="connect"), "connection 0 brought more than the greeting"),
    (cheats.WrongByte, SECURED, "connection 0 is wrong from byte 318 on"),
    (cheats.ClosesEarly, SECURED, "connection 0 was closed after 128 bytes, 192 were sent"),
    (cheats.Twice, SECURED, "connection 0 brought more bytes than were sent"),
    (
        cheats.ShortGreeting,
        replace(SECURED, load="connect"),
        "connection 0 was closed after 63 bytes of the greeting",
    ),
    (cheats.LongGreeting, replace(SECURED, load="resume"), "connection 0 brought more than the greeting"),
    (cheats.OneSessionEach, replace(SECURED, role="greet", load="resume"), "connection 0 resumed no session"),
]


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(("cheat", "work", "reason"), SERVER_CHEATS)
def test_a_server_that_returns_wrong_bytes_fails_the_run_by_name(
    cheat: type,
    work: Service,
    reason: str,
    load: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(load, monkeypatch)
    program = PythonProgram("cheat", "tests.benchmarks.cheats", last_words=(cheat.__name__,))
    contestant = ServerContestant("the cheat", work, program)
    code, shown = measured([contestant], DurationRow("the cheat's row", "the cheat", 1e9), capsys)
    assert code == 1
    (verdict,) = [line for line in shown.splitlines() if line.startswith("FAILED: the cheat: ")]
    assert reason in verdict
    assert re.search(r"^the cheat's row .*FAILED$", shown, re.MULTILINE)


@pytest.fixture
def _nothing_built() -> Iterator[None]:
    for each in (build, obstacle):
        each.cache_clear()
    yield
    for each in (build, obstacle):
        each.cache_clear()


@pytest.mark.usefixtures("_nothing_built")
@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "is not installed"),
        (f"{sys.executable} -c 1/0", "cannot compile epoll.c: ZeroDivisionError"),
    ],
)
def test_without_a_c_compiler_the_load_is_in_python_and_says_so(
    compiler: str,
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    work = small(servers.ECHO)
    both: list[Entrant] = [
        ServerContestant(each.name, work, each) for each in (servers.STREAMS, servers.EPOLL)
    ]
    rows: list[Row] = [DurationRow("a", "asyncio streams", 1e9), RateRow("b", "asyncio streams", "C epoll")]
    assert main(["--rounds", "1"], both, rows) == 0
    shown = capsys.readouterr().out
    assert is_in(rows[0], shown)
    assert re.search(r"^b .*left out$", shown, re.MULTILINE)
    assert re.search(rf"^left out: C epoll: .*{re.escape(reason)}", shown, re.MULTILINE)
    assert "the load is in Python and may be what was measured" in shown


def test_fewer_connections_where_the_system_allows_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = ServerContestant("idle", servers.IDLE, servers.OURS)
    monkeypatch.setattr(_service, "allow_descriptors", lambda needed: needed)
    assert idle.remark(1) == ""
    monkeypatch.setattr(_service, "allow_descriptors", lambda needed: 1024)
    assert idle.remark(1) == "959 connections instead of 11000: the limit is 1024 descriptors"
    assert servers.IDLE.within(1024).descriptors <= 1024


def test_idle_connections_are_as_many_as_are_promised_in_any_run_that_means_something() -> None:
    assert [servers.IDLE.scaled(factor).messages for factor in (0.25, 0.6, 1)] == [2_500, 10_000, 10_000]
    assert servers.ECHO.scaled(0.6).messages == 24_000


def test_a_contestant_with_more_connections_than_the_system_allows_is_left_out_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_service, "allow_descriptors", lambda needed: 1024)
    many = ServerContestant("many", replace(servers.ECHO, connections=4096), servers.STREAMS)
    code, shown = measured([many], DurationRow("the row", "many", 1e9), capsys)
    assert code == 0
    assert "left out: many: 4160 descriptors are needed, the limit is 1024" in shown
    assert replace(many, work=replace(servers.ECHO, connections=960)).missing() == ""


# TLS with one connection.

SECURED_ECHO, SECURED_FEED, SECURED_DRAIN = (
    replace(work, tls=True) for work in (ECHO, replace(FEED, payload=Payload.BLOCK), DRAIN)
)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(
    ("cheat", "work", "reason"),
    [
        (cheats.echo_wrong_byte, SECURED_ECHO, "piece 7 is wrong from byte 0 on"),
        (cheats.echo_too_few, SECURED_ECHO, "piece 21 has 0 bytes, 64 were sent"),
        (cheats.feed_left_early, SECURED_FEED, ""),
        (cheats.blocks_cut_short, SECURED_DRAIN, "piece 0 is wrong from byte 65535 on"),
    ],
)
def test_a_contestant_that_does_not_do_the_work_inside_tls_fails_the_run_by_name(
    cheat: object,
    work: Work,
    reason: str,
    load: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(load, monkeypatch)
    name = getattr(cheat, "__name__", "")
    contestant = Contestant("the cheat", work, f"tests.benchmarks.cheats:{name}")
    code, shown = measured([contestant], DurationRow("the cheat's row", "the cheat", 1e9), capsys)
    assert code == 1
    (verdict,) = [line for line in shown.splitlines() if line.startswith("FAILED: the cheat: ")]
    assert reason in verdict


def test_the_slow_load_serves_every_kind_of_work_inside_tls(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use("slow", monkeypatch)
    for work, function in (
        (SECURED_ECHO, "socket_echo"),
        (SECURED_FEED, "recv_some"),
        (SECURED_DRAIN, "send"),
    ):
        contestant = Contestant(function, work, f"benchmarks.blocking:{function}")
        code, shown = measured([contestant], DurationRow("the row", function, 1e9), capsys)
        assert code == 0, shown


def test_without_trustme_contestants_with_tls_are_left_out_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_certificate, "obstacle", lambda: "trustme not installed")
    one = Contestant("one", SECURED_ECHO, "benchmarks.blocking:socket_echo")
    many = ServerContestant("many", SECURED, servers.STREAMS)
    for each in (one, many):
        code, shown = measured([each], DurationRow("the row", each.name, 1e9), capsys)
        assert code == 0
        assert f"left out: {each.name}: trustme not installed" in shown


@pytest.mark.usefixtures("_nothing_built")
def test_without_openssl_for_the_compiler_the_load_is_in_python_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    contestant = Contestant("one", SECURED_ECHO, "benchmarks.blocking:socket_echo")
    code, shown = measured([contestant], DurationRow("the row", "one", 1e9), capsys)
    assert code == 0, shown
    assert "note: one: the load is in Python and may be what was measured" in shown


# Arithmetic and words, without a process.


def test_memory_is_compared_by_connection() -> None:
    ours, theirs = Reading(10, 1, 0, 0, memory=10 * 4096), Reading(20, 1, 0, 0, memory=40 * 4096)
    found = MemoryRow("row", "ours", "theirs", 0.5).outcome({"ours": [ours], "theirs": [theirs]})
    assert (found.values, found.reached, found.target) == ([0.5], True, "at most 0.5x")


def test_an_extra_that_costs_them_nothing_is_no_target_reached() -> None:
    row = ExtraRow("row", "with", "without", "theirs with", "theirs without", 0.1)
    spent = {"with": 2.5, "without": 2.0, "theirs with": 4.0, "theirs without": 9.0}
    assert row.outcome({name: readings(1, cpu=cpu) for name, cpu in spent.items()}).reached is False


def test_a_load_at_its_limit_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    results = Results({"quick": [Reading(1, 1, 1, 0, load=0.99)], "slow": [Reading(1, 1, 1, 0, load=0.5)]})
    _report.show([], results, _report.circumstances(1, 1.0))
    assert "the load was at its limit, the CPU time is what tells: quick (99%)\n" in capsys.readouterr().out


def test_growth_is_a_line_for_each_program_and_a_column_for_each_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    echo = Task("echo", 64, 64, 1)
    at = {
        "small": Doer("it", echo),
        "large": Doer("it", echo._replace(bytes=65536)),
        "many": Doer("it", echo._replace(connections=4096)),
        "lines": Doer("it", echo._replace(what="lines", connections=1)),
        "tls": Doer("it", echo._replace(tls=True, connections=1)),
        "another": Doer("one that does not grow", echo),
    }
    all_ = {name: [Reading(10, 1e-3, 2e-5, 1e-5)] for name in at}
    results = Results(all_, doers=at)
    by_connections, by_size = _growth.tables(results)
    assert by_connections.headings[1:] == ["64", "4096"]
    assert by_size.headings[1:] == ["64 B", "64 KiB"]
    assert by_size.lines == [["it", *["10.00 k  2.00 + 1.00"] * 2]]
    _report.show([], results, _report.circumstances(1, 1.0))
    assert re.search(r"^it +10\.00 k  2\.00 \+ 1\.00 +10\.00 k", capsys.readouterr().out, re.MULTILINE)
    assert _growth.tables(Results()) == []


def test_a_contestant_of_every_other_round_runs_in_both_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def measure(self: Contestant, scale: float, cores: object) -> Reading:
        asked.append(self.name)
        return readings(1)[0]

    monkeypatch.setattr(Contestant, "measure", measure)
    always = Contestant("a", ECHO, "")
    now_and_then = [replace(always, name=name, every=2) for name in "bc"]
    steps = []
    results = run([always, *now_and_then], 5, 1.0, lambda done, total, name: steps.append((done, total)))
    assert "".join(asked) == "abcacbaaabc"
    assert steps == [(done, 11) for done in range(11)]
    assert {name: len(all_) for name, all_ in results.readings.items()} == {"a": 5, "b": 3, "c": 3}


def readings(*seconds: float, cpu: float = 1.0) -> list[Reading]:
    return [Reading(10, each, cpu, 0.0) for each in seconds]


def test_a_ratio_is_taken_round_by_round() -> None:
    both = {"ours": readings(1, 4, 10), "theirs": readings(1, 2, 30)}
    found = RateRow("row", "ours", "theirs", 0.5).outcome(both)
    assert found.values == [1, 0.5, 3]
    assert (found.value, found.reached, found.target) == (1, True, "at least 0.5x")


@pytest.mark.parametrize(("target", "reached"), [(1.0, True), (1.01, False), (None, None)])
def test_a_target_is_reached_by_the_median(target: float | None, reached: bool | None) -> None:
    row = RateRow("row", "ours", "theirs", target)
    assert row.outcome({"ours": readings(1, 1, 9), "theirs": readings(1, 1, 1)}).reached is reached


def test_an_extra_is_its_addition_to_the_cpu_time() -> None:
    row = ExtraRow("row", "with", "without", "theirs with", "theirs without", 0.1)
    spent = {"with": 2.5, "without": 2.0, "theirs with": 9.0, "theirs without": 4.0}
    found = row.outcome({name: readings(1, cpu=cpu) for name, cpu in spent.items()})
    assert found.value == pytest.approx(0.1)
    assert math.isclose(found.ours, 0.05)
    assert found.theirs is not None
    assert math.isclose(found.theirs, 0.5)


def test_received_bytes_are_compared_with_the_sent_ones() -> None:
    trial = Trial(Payload.LINES, 2, 1)
    pieces = list(Trial(Payload.LINES, 2, 1).outgoing(3))
    sizes = []
    for piece, count in zip(pieces[:2], trial.incoming(), strict=False):
        sizes.append(count)
        trial.check(piece.splitlines(), b"\n")
    assert sizes == [256, 256]
    assert trial.watch.seconds > 0
    with pytest.raises(WrongBytesError, match="piece 2 has 16383 bytes, 16384 were sent"):
        trial.check([pieces[2][:-1]])


@pytest.mark.parametrize("way", ["reads", "ready_reads"])
def test_a_read_may_reach_across_pieces(way: str) -> None:
    trial = Trial(Payload.LINES, 2, 1)
    whole = b"".join(Trial(Payload.LINES, 2, 1).outgoing(3))
    cuts = [0, 1, 16383, 16385, 49151, 49152]
    sock, peer = socket.socketpair()
    with sock, peer:
        peer.shutdown(socket.SHUT_WR)  # no more data: no reader waits for it
        reads = getattr(trial, way)(*([sock] if way == "ready_reads" else []))
        for start, end in itertools.pairwise(cuts):
            next(reads)
            trial.take(whole[start:end])
        assert list(reads) == []
    with pytest.raises(WrongBytesError, match="the end came after 3 of 3 pieces"):
        trial.take(b"")
    with pytest.raises(WrongBytesError, match="piece 3 is wrong from byte 0 on"):
        trial.take(b"?")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["no such row"], "no row has such a name"),
        (["--rounds", "0"], "at least one round"),
        (["--scale", "0"], "something to do"),
        (["--scale", "nan"], "something to do"),
    ],
)
def test_wrong_words_are_usage(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def test_rows_are_chosen_by_a_part_of_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "lines()", "wireline.net"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "lines 64 B: lines()",
        "import wireline.net",
        "import wireline.net, not compiled",
    ]


@pytest.mark.parametrize(("have_rich", "columns"), [(True, "160"), (True, "20"), (False, "160")])
def test_a_terminal_gets_a_table_and_a_progress_line(
    have_rich: bool, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_report, "HAVE_RICH", have_rich)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    rows: list[Row] = [RateRow("row", "ours", "theirs", 2), DurationRow("late", "lost", 1)]
    results = Results({"ours": readings(1), "theirs": readings(1)}, {"lost": "why"})
    _report.show_progress(3, 7, "ours")
    _report.show(rows, results, _report.circumstances(1, 1.0))
    shown = capsys.readouterr()
    assert shown.err == "\r\x1b[K3/7  ours"
    assert re.search(r"row\b.*theirs\b.*1\.00x.*at least 2x.*missed", shown.out)
    assert re.search(r"late\b.*FAILED", shown.out)
    assert "FAILED: lost: why" in shown.out
