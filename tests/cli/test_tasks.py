"""Every line of the page "Coming from netcat, socat, stunnel and s_client" does what the page says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.command import accept, receive, reset, tcp_server
from tests.cli.tasks import encrypted, relays, streams  # noqa: F401 - they register their scenarios
from tests.cli.tasks.bench import bench
from tests.cli.tasks.page import Task, alternative_to_exec, programs_of, tasks
from tests.cli.tasks.scenarios import SCENARIOS
from tests.cli.test_tls import needs_psk

pytestmark = pytest.mark.interop

TASKS = tasks()

WITHOUT_A_LINE = 4
"""The tasks with no line of ours; the page says why."""


def _ours() -> Iterator[object]:
    for task in TASKS:
        if task.ours:
            marks = [needs_psk] if "--psk-file" in task.ours[0] else []
            yield pytest.param(task, marks=marks, id=task.title)


def _theirs() -> Iterator[object]:
    for task in TASKS:
        for lines in task.theirs:
            yield pytest.param(task.title, lines, id=f"{task.title}, {lines[0].split()[0]}")


def run(title: str, lines: list[str], *, ours: bool) -> None:
    with bench(ours=ours) as place:
        SCENARIOS[title](place, lines)
        assert set(lines) <= place.started, "a line has not run"


@pytest.mark.parametrize("task", list(_ours()))
def test_our_lines(task: Task) -> None:
    run(task.title, task.ours, ours=True)


@pytest.mark.full
@pytest.mark.parametrize(("title", "lines"), list(_theirs()))
def test_their_lines(title: str, lines: list[str]) -> None:
    run(title, lines, ours=False)


def test_the_line_in_place_of_exec() -> None:
    run("Run a program for each connection", [alternative_to_exec()], ours=False)


RESET = {"nc": 0, "ncat": 1, "socat": 0, "wireline": 6}
"""The exit code of each client after a reset."""


def test_a_reset_has_the_exit_codes_that_the_page_names() -> None:
    with bench(ours=True) as place, tcp_server() as (server, target):
        place.use_port(9000, int(target.rpartition(":")[2]))
        for line in next(task for task in TASKS if task.title == "Connect, type and read").lines():
            client = place.start(line)
            with accept(server) as peer:
                client.type("hello\n")
                assert receive(peer, 6) == b"hello\n"
                reset(peer)
            client.end_input()
            assert client.code() == RESET[line.split()[0]], line


def test_only_the_others_read_ssl_cert_file() -> None:
    with bench(ours=False) as place:
        place.write_certificates()
        place.start("openssl s_server -quiet -cert server.pem -key server.key -accept 443", listens=443)
        assert place.run("openssl s_client -verify_return_error -connect example.com:443").code == 0
        assert place.run("wireline connect --at-eof close tls://example.com:443").code == 5


def test_every_row_of_the_page_is_run_and_has_a_difference() -> None:
    assert len(TASKS) == 53
    assert [task.title for task in TASKS if not task.ours] == [task.title for task in TASKS[-WITHOUT_A_LINE:]]
    assert {task.title for task in TASKS} == SCENARIOS.keys()
    assert all(task.difference for task in TASKS)


def test_lines_are_only_in_their_columns() -> None:
    """What is beside the tables is checked by ``test_docs.py``."""
    for task in TASKS:
        assert "wireline " not in task.title + task.difference
        assert all("wireline" in programs_of(line) for line in task.ours)
        assert all(programs_of(line) - {"wireline"} for lines in task.theirs for line in lines)
