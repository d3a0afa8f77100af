"""Signals: exit codes, files that are removed, time limits."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.command import PATIENCE, accept, connect, tcp_server, unresponsive_listener
from tests.cli.conftest import Start
from wireline import ClosedError
from wireline.cli import _listen, _relay
from wireline.cli._exit_signals import Signals, signals_caught
from wireline.cli._outcome import Failure
from wireline.cli.parser._parser import parse
from wireline.net import Socket


def test_a_signal_calls_the_innermost_stop_first() -> None:
    called: list[str] = []
    ended = threading.Event()

    def outer() -> None:
        called.append("outer")
        ended.set()

    handler = signal.getsignal(signal.SIGTERM)
    with (
        signals_caught() as signals,
        signals.ended_by(outer),
        signals.ended_by(lambda: called.append("inner")),
    ):
        with signals.ended_by(lambda: called.append("over already")):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended.wait(5)
        assert signals.received == signal.SIGTERM
        assert signals.exit_code == 143
    assert called == ["inner", "outer"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_block_that_begins_after_the_signal_ends_at_once() -> None:
    called: list[str] = []
    signals = Signals()
    with signals.ended_by(lambda: called.append("first")):
        signals.receive(signal.SIGINT)
        with signals.ended_by(lambda: called.append("late")):
            assert called == ["first", "late"]


def test_an_expected_signal_is_exit_code_0() -> None:
    signals = Signals()
    signals.expected = True
    with signals.ended_by(lambda: None):
        signals.receive(signal.SIGINT)
    assert signals.exit_code == 0


def test_other_signals_are_ignored() -> None:
    seen = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.set())
    try:
        with signals_caught() as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert seen.wait(5)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_outside_of_the_main_thread_no_signal_is_caught() -> None:
    handlers: list[object] = []

    def look() -> None:
        with signals_caught():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


def test_an_ignored_signal_stays_ignored(start: Start) -> None:
    with tcp_server() as (server, target):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            command = start("connect", target)
        finally:
            signal.signal(signal.SIGINT, before)
        with accept(server) as peer:
            command.type(b"x")
            assert peer.recv(1) == b"x"
            command.send_signal(signal.SIGINT)
            command.type(b"y")
            assert peer.recv(1) == b"y"
        assert command.finish(b"").code == 0


@in_turn(
    "words",
    [("listen",), ("listen", "--keep"), ("listen", "--echo", "--keep"), ("relay", "127.0.0.1:1")],
)
def test_a_signal_while_the_socket_is_bound_leaves_no_socket_file(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = Signals()
    path = tmp_path / "socket"
    seen: list[bool] = []
    bind = Socket.bind_unix

    def bind_and_end(sock: Socket, where: str) -> None:
        bind(sock, where)
        seen.append(path.exists())
        signals.receive(signal.SIGTERM)

    def exit_at_once(code: int) -> None:
        raise AssertionError(f"it ended with {code}, and its socket file stayed")

    monkeypatch.setattr(Socket, "bind_unix", bind_and_end)
    monkeypatch.setattr(os, "_exit", exit_at_once)
    name, *others = words
    options = parse([name, f"unix:{path}", *others])
    with contextlib.suppress(ClosedError, Failure):
        {"listen": _listen, "relay": _relay}[name].run(options, signals)
    assert seen == [True]
    assert not path.exists()


@in_turn("words", [("listen", "--echo", "--keep"), ("listen", "--chat", "--keep")])
def test_FA6_the_second_signal_ends_the_drain_of_a_service(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """FA6: the second of two signals was handled only after the first one, at the end of the drain."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    signals = Signals()
    name, *others = words
    options = parse([name, *others, "--drain", f"{10 * PATIENCE}", "127.0.0.1:0"])
    running = threading.Thread(target=_listen.run, args=(options, signals))
    running.start()
    err = ""
    while not (found := re.search(r"listening on \S+:(\d+)", err)):
        err += capfd.readouterr().err
    with connect(int(found[1])) as peer, connect(int(found[1])) as other:
        # A client that is not accepted yet would not be drained. A client of the chat receives the other one's line.
        peer.settimeout(0.05)
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            (peer if "--echo" in words else other).sendall(b"x\n")
            with contextlib.suppress(TimeoutError):
                assert peer.recv(1) == b"x"
                break
        while not signals._forces:  # until it serves, a second signal ends the process
            assert time.monotonic() < limit
        ending = [threading.Thread(target=signals.receive, args=[signal.SIGTERM]) for _ in range(2)]
        for each in ending:
            each.start()
            each.join(PATIENCE)
            assert not each.is_alive()
        running.join(PATIENCE)
        assert not running.is_alive()
    assert (exits, signals.exit_code) == ([], 143)


@pytest.mark.parametrize("words", [("listen", "--echo", "--keep"), ("relay",)], ids=" ".join)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_FA6_twice_is_at_once(words: tuple[str, ...], tls: bool, start: Start) -> None:
    """FA6: SIGTERM once ends a server gracefully, twice at once, however idle its clients are."""
    listen = "tls://127.0.0.1:0" if tls else "127.0.0.1:0"
    with tcp_server() as (server, target):
        command = start(
            *words, *(["--self-signed"] if tls else []), listen, *([target] if "relay" in words else [])
        )
        port = command.port()
        with contextlib.ExitStack() as stack:
            peer = stack.enter_context(connect(port))
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                peer = stack.enter_context(context.wrap_socket(peer))
            if "relay" in words:
                stack.enter_context(accept(server))
            else:
                peer.sendall(b"x")
                assert peer.recv(1) == b"x"
            command.send_signal(signal.SIGTERM)
            while is_listening(port):
                threading.Event().wait(0.01)
            command.send_signal(signal.SIGTERM)
            assert command.process.wait(PATIENCE) == 143


def is_listening(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionError:
        return False
    return True


def unanswered(port: int) -> int:
    """The number of connection attempts to this port without an answer."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    # The columns are number, local address, remote address, state. 02 is SYN_SENT.
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


def test_a_signal_while_connecting_ends_the_command_at_once(start: Start) -> None:
    with unresponsive_listener() as (port, target):
        before = unanswered(port)
        command = start("connect", target)
        deadline = time.monotonic() + PATIENCE
        while unanswered(port) == before and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        command.send_signal(signal.SIGINT)
        assert command.end() == (130, b"", "")


def test_an_interrupt_during_the_imports_ends_the_command_without_a_traceback() -> None:
    program = """
        import os, signal, sys

        signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in a job in the background

        class Interrupting:
            def find_spec(self, name, path, target=None):
                if name == "wireline.net":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Interrupting())
        from wireline.cli import main
        sys.exit(main(["connect", "127.0.0.1:1"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_full_output_pipe_does_not_delay_the_exit(start: Start) -> None:
    read, write = os.pipe()
    command = start("listen", "127.0.0.1:0", stdout=write)
    os.close(write)
    with connect(command.port()) as peer:
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while True:
                peer.sendall(bytes(1 << 20))
        command.send_signal(signal.SIGTERM)
        assert command.end() == (143, b"", "")
    os.close(read)


def test_the_second_signal_does_not_wait_for_clients(start: Start) -> None:
    command = start("listen", "--echo", "--keep", "127.0.0.1:0")
    with connect(command.port()) as peer:
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        command.send_signal(signal.SIGINT)
        command.send_signal(signal.SIGTERM)
        # The kernel may have delivered them in the other order.
        assert command.process.wait(PATIENCE) in (130, 143)
