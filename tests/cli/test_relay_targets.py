"""``wireline relay`` with several targets: which one a client gets, and what a dead one costs."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from tests.cli.command import Command, connect, read_all, unresponsive_listener
from tests.cli.conftest import Start
from tests.tls import certificates
from wireline import Address, ClosedError, Target
from wireline.cli import _relay_targets, main
from wireline.cli._outcome import Failure, ReportedFailure
from wireline.cli._relay_targets import RETRY_AFTER, Targets
from wireline.net import Socket, serve
from wireline.tls import SslContext

ANY = "127.0.0.1:0"
REFUSED = "refused the connection: nothing listens there; check the address, or start the server first"
A, B, C = (Target("tcp", name, 1) for name in "abc")


class Network:
    """Targets without sockets, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.dead: set[Target] = set()
        self.tried: list[Target] = []
        monkeypatch.setattr(_relay_targets, "monotonic", lambda: self.now)

    def connect(self, target: Target) -> Socket:
        self.tried.append(target)
        if target in self.dead:
            raise ConnectionRefusedError(111, "Connection refused")
        return cast("Socket", object())


class Client:
    """A client of the relay."""

    is_closed = False


CLIENT = cast("Socket", Client())


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


def used(network: Network, balance: str, *targets: Target) -> Targets:
    return Targets(targets, balance, network.connect)


def answering(targets: Targets, count: int) -> list[Target]:
    return [targets.connect(CLIENT)[1] for _ in range(count)]


def test_in_turn_and_in_the_order_given(network: Network) -> None:
    assert answering(used(network, "round-robin", A, B, C), 7) == [A, B, C, A, B, C, A]
    assert answering(used(network, "first", A, B, C), 3) == [A, A, A]
    assert answering(used(network, "round-robin", A, B, B), 6) == [A, B, B] * 2, "twice is twice as often"


def test_the_turns_of_a_dead_target_are_shared(network: Network) -> None:
    network.dead = {B}
    targets = used(network, "round-robin", A, B, C)
    assert answering(targets, 8) == [A, C, A, C, A, C, A, C]
    assert network.tried.count(B) == 1


@pytest.mark.parametrize("balance", ["round-robin", "first"])
def test_a_dead_target_is_tried_by_one_client_in_ten_seconds(
    network: Network, capsys: pytest.CaptureFixture[str], balance: str
) -> None:
    network.dead = {A}
    targets = used(network, balance, A, B)
    answering(targets, 20)
    assert network.tried.count(A) == 1
    network.now += RETRY_AFTER
    answering(targets, 20)
    assert network.tried.count(A) == 2
    assert capsys.readouterr().err == (f"wireline: clients get another target: a:1 {REFUSED}\n")
    network.dead = set()
    network.now += RETRY_AFTER
    answering(targets, 4)
    assert capsys.readouterr().err == "wireline: a:1 answers again\n"
    assert network.tried[-1] is (A if balance == "first" else B)


def test_while_one_client_tries_it_the_others_do_not(network: Network) -> None:
    trying, go_on = threading.Event(), threading.Event()

    def connect(target: Target) -> Socket:
        if target == A and threading.current_thread() is prober:
            trying.set()
            go_on.wait(10)
        return network.connect(target)

    network.dead = {A}
    targets = Targets([A, B], "first", connect)
    prober = threading.Thread(target=answering, args=(targets, 1))
    answering(targets, 1)
    network.now += RETRY_AFTER
    prober.start()
    assert trying.wait(10)
    network.tried.clear()
    answering(targets, 10)
    assert network.tried == [B] * 10
    go_on.set()
    prober.join()


def test_if_all_fail_each_client_tries_all_and_the_error_names_each(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.dead = {A, B, C}
    targets = used(network, "round-robin", A, B, C)
    for _ in range(3):
        network.tried.clear()
        with pytest.raises(ReportedFailure) as caught:
            targets.connect(CLIENT)
        assert sorted(network.tried) == [A, B, C]
        code, sentence = caught.value.outcome
        assert code == 3
        assert sentence.startswith("no target answers: ")
        for number, target in enumerate(network.tried, 1):
            assert f" ({number}) {target} {REFUSED}" in sentence
    network.dead = {A, B}
    assert answering(targets, 2) == [C, C]
    assert capsys.readouterr().err == "wireline: c:1 answers again\n", "the errors are in the sentence"


def test_a_single_target_is_tried_by_each_client(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.dead = {A}
    targets = used(network, "round-robin", A)
    for _ in range(2):
        with pytest.raises(Failure):
            targets.connect(CLIENT)
    assert network.tried == [A, A]
    assert capsys.readouterr().err == ""


def test_a_client_that_was_aborted_tries_no_further_target(network: Network) -> None:
    client = Client()

    def connect(target: Target) -> Socket:
        client.is_closed = True
        return network.connect(target)

    network.dead = {A}
    with pytest.raises(ClosedError):
        Targets([A, B], "first", connect).connect(cast("Socket", client))
    assert network.tried == [A]


# As a process.


@contextlib.contextmanager
def servers(*names: str) -> Iterator[list[str]]:
    """Servers that send their name and end; yields the targets."""
    with contextlib.ExitStack() as stack:
        targets = []
        for name in names:

            def handle(client: Socket, address: Address, name: str = name) -> None:
                client.send(name.encode())

            server = stack.enter_context(serve(handle, 0, "127.0.0.1"))
            targets.append(f"127.0.0.1:{server.local_addr.port}")
        yield targets


def refusing() -> tuple[socket.socket, str]:
    """A port that is taken, and on which nothing listens."""
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    return closed, f"127.0.0.1:{closed.getsockname()[1]}"


def answers(port: int, count: int) -> Sequence[str]:
    found = []
    for _ in range(count):
        with connect(port) as client:
            client.shutdown(socket.SHUT_WR)
            found.append(read_all(client).decode())
    return found


def ended(relay: Command) -> str:
    relay.send_signal(signal.SIGTERM)
    result = relay.end()
    assert result.code == 0
    return "".join(line for line in result.err.splitlines(True) if "Ctrl-C again" not in line)


def test_round_robin_passes_a_target_that_refuses_over(start: Start) -> None:
    closed, dead = refusing()
    with closed, servers("one", "two") as (one, two):
        relay = start("relay", ANY, one, dead, two)
        assert answers(relay.port(), 6) == ["one", "two"] * 3
        err = ended(relay)
    assert err == f"wireline: clients get another target: {dead} {REFUSED}\n"


def test_first_is_the_first_that_answers_also_of_other_kinds(start: Start, tmp_path: Path) -> None:
    closed, dead = refusing()
    with closed, servers("one", "two") as (one, two):
        relay = start("relay", "--balance", "first", ANY, f"unix:{tmp_path}/none", dead, two, one)
        assert answers(relay.port(), 3) == ["two"] * 3
        err = ended(relay)
    assert err.splitlines() == [
        f"wireline: clients get another target: unix:{tmp_path}/none does not exist; start the server first",
        f"wireline: clients get another target: {dead} {REFUSED}",
    ]


def test_all_refuse(start: Start) -> None:
    (first, one), (second, two) = refusing(), refusing()
    with first, second:
        relay = start("relay", "--balance", "first", ANY, one, two)
        # The reset may arrive during `connect`.
        with pytest.raises(ConnectionResetError), connect(relay.port()) as client:
            client.recv(1)
        err = ended(relay)
    assert err == f"wireline: no target answers: (1) {one} {REFUSED} (2) {two} {REFUSED}\n"


def test_a_silent_target_costs_one_client_the_time_limit(start: Start) -> None:
    with unresponsive_listener() as (_, silent), servers("one") as (one,):
        relay = start("relay", "--balance", "first", "--timeout", "0.7", ANY, silent, one)
        port = relay.port()
        began = time.monotonic()
        assert answers(port, 1) == ["one"]
        waited = time.monotonic() - began
        assert answers(port, 20) == ["one"] * 20
        assert waited >= 0.7
        assert time.monotonic() - began - waited < 0.7
        said = f"wireline: clients get another target: no answer from {silent}: no connection within 0.7 s; "
        assert ended(relay).startswith(said)


def test_the_name_that_is_checked_is_that_of_the_target(start: Start) -> None:
    """The first target has the certificate of another server, the second one its own."""
    with contextlib.ExitStack() as stack:
        ports = []
        for leaf in (certificates.elsewhere(), certificates.name_only()):
            context = SslContext(cert_file=leaf.cert, key_file=leaf.key)
            server = serve(lambda client, _: client.send(b"hello"), 0, "127.0.0.1", tls=context)
            ports.append(stack.enter_context(server).local_addr.port)
        targets = [f"tls://localhost:{port}" for port in ports]
        relay = start("relay", "--ca-file", certificates.ca_file(), ANY, *targets)
        assert answers(relay.port(), 3) == ["hello"] * 3
        err = ended(relay)
    assert err.count("\n") == 1
    assert err.startswith(f"wireline: clients get another target: the certificate of {targets[0]} [")
    assert "] is not for this name (it was checked for 'localhost'); " in err


def test_many_clients_at_once_with_a_dead_target(start: Start) -> None:
    closed, dead = refusing()
    with closed, servers("one", "two") as (one, two):
        relay = start("relay", ANY, one, dead, two)
        port = relay.port()
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.extend(answers(port, 10))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 80
        assert set(found) == {"one", "two"}
        # Several clients may have tried it before it was known to be dead; it is said once.
        assert ended(relay).count("\n") == 1


def test_the_program_of_show_code_has_the_targets(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "--show-code", ANY, "h:1", "unix:/x", "[::1]:2"]) == 0
    assert 'targets = [("h", 1), ("unix:/x", None), ("::1", 2)]\n' in capfd.readouterr().out
