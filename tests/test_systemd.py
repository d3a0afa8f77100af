"""``listeners_from_environment``: the protocol of sd_listen_fds(3), in a process that was started with descriptors."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cases import in_turn
from wireline import asyncnet, net

pytestmark = pytest.mark.skipif(os.name != "posix", reason="systemd is of Linux")

# The descriptors are put where systemd puts them, and the number of the process is known only in it.
CHILD = """
import json, os, sys
fds = [int(each) for each in sys.argv[2:]]
for number, fd in enumerate(fds):
    os.dup2(fd, 200 + number)
for number in range(len(fds)):
    os.dup2(200 + number, 3 + number)
    os.close(200 + number)
if os.environ.get("LISTEN_PID") == "mine":
    os.environ["LISTEN_PID"] = str(os.getpid())
from wireline import asyncnet, net
flavour = {"net": net, "asyncnet": asyncnet}[sys.argv[1]]
try:
    listeners = flavour.listeners_from_environment()
except ValueError as error:
    left = {name: value for name, value in os.environ.items() if name.startswith("LISTEN_")}
    print(json.dumps({"error": str(error), "left": sorted(left)}))
    sys.exit()
again = flavour.listeners_from_environment()
print(json.dumps({
    "found": [[name, type(each).__name__, each.fileno(), each.local_addr.port] for name, each in listeners],
    "inheritable": [os.get_inheritable(each.fileno()) for _, each in listeners],
    "again": len(again),
    "left": sorted(name for name in os.environ if name.startswith("LISTEN_")),
}))
for _, each in listeners:
    each.close()
"""


def start(flavour: str, fds: list[int], **variables: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, flavour, *map(str, fds)],
        env={**os.environ, **variables},
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextlib.contextmanager
def listening(count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]


FLAVOURS = pytest.mark.parametrize(("flavour", "kind"), [("net", "Socket"), ("asyncnet", "AsyncSocket")])


@FLAVOURS
def test_S10_sockets_of_a_supervisor_are_taken_once_with_their_names(flavour: str, kind: str) -> None:
    with listening(2) as sockets:
        ports = [each.getsockname()[1] for each in sockets]
        answer = start(
            flavour,
            [each.fileno() for each in sockets],
            LISTEN_PID="mine",
            LISTEN_FDS="2",
            LISTEN_FDNAMES="web:web",
        )
    assert answer == {
        "found": [["web", kind, 3, ports[0]], ["web", kind, 4, ports[1]]],
        "inheritable": [False, False],
        "again": 0,
        "left": [],
    }


@in_turn(
    "variables, names, left",
    [
        ({"LISTEN_PID": "mine", "LISTEN_FDS": "1"}, ["unknown"], []),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, [], ["LISTEN_FDS", "LISTEN_PID"]),
        ({"LISTEN_FDS": "1"}, [], ["LISTEN_FDS"]),
        ({"LISTEN_PID": "mine", "LISTEN_FDS": "0"}, [], []),
        ({}, [], []),
    ],
)
def test_sockets_for_another_process_are_left(
    variables: dict[str, str], names: list[str], left: list[str]
) -> None:
    with listening(1) as sockets:
        answer = start("net", [sockets[0].fileno()], **variables)
    assert [name for name, *_ in answer["found"]] == names
    assert answer["left"] == left


@in_turn(
    "variables, words",
    [
        ({"LISTEN_FDS": "two"}, "not 'two'"),
        ({"LISTEN_FDS": "-1"}, "not '-1'"),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "2 names, and LISTEN_FDS is 1"),
        ({"LISTEN_FDS": "60000"}, "is not open"),
    ],
)
def test_a_malformed_variable_takes_nothing(variables: dict[str, str], words: str) -> None:
    with listening(1) as sockets:
        answer = start("net", [sockets[0].fileno()], LISTEN_PID="mine", **variables)
    assert words in answer["error"]
    assert answer["left"] == sorted(["LISTEN_PID", *variables])


def test_a_file_is_no_socket() -> None:
    with tempfile.TemporaryFile() as file:
        answer = start("net", [file.fileno()], LISTEN_PID="mine", LISTEN_FDS="1")
    assert answer["error"] == "LISTEN_FDS: descriptor 3 is no socket"


@pytest.mark.skipif(not hasattr(socket, "SOCK_SEQPACKET"), reason="this platform has no such sockets")
@pytest.mark.parametrize("flavour", [net, asyncnet])
def test_all_are_closed_if_one_is_of_a_kind_that_is_not_supported(
    flavour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [socket.socket(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)]
    monkeypatch.setattr(
        "wireline._os.systemd.take_inherited_sockets", lambda: [("a", taken[0]), ("b", taken[1])]
    )
    fds = [each.fileno() for each in taken]
    with pytest.raises(ValueError, match="SEQPACKET"):
        flavour.listeners_from_environment()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
