"""FA8: ``close`` and ``Server.stop`` may be called by a signal handler at any moment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.net.interrupting import at_instructions
from tests.torture.interruptions import SCENES
from wireline import ClosedError
from wireline._core.stream import StreamCore
from wireline.net import Socket
from wireline.net._fd_guard import FdGuard
from wireline.testing import TestCA
from wireline.tls import SslContext, VerifyMode

KINDS = ("plain", "tls12", "tls13")
CALLS = [name for name, scene in SCENES.items() if scene.closes]
SAMPLE = [
    "RecvSome",
    "RecvLine",
    "RecvLineAhead",
    "RecvInto",
    "Send",
    "SendQueued",
    "Connect",
    "Accept",
    "RecvFrom",
    "SendTo",
]

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers here")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with certificates."""
    path = tmp_path_factory.mktemp("certificates")
    TestCA().write(path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "scene"),
    [("plain", name) for name in (*SAMPLE, "Stop")]
    + [("tls13", name) for name in ("RecvLine", "Send", "Accept")],
)
def test_FA8_closing_before_any_instruction(kind: str, scene: str, directory: str) -> None:
    """FA8: the handler waited for a lock that the interrupted call held, forever."""
    found = at_instructions(kind, [scene], "disturb", directory, 0.8, everything=False)
    assert not found, "\n".join(map(str, found))


def test_FA8_closing_between_the_two_steps_that_take_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """FA8: ``start_tls`` blamed another thread, which was sending, for a ``close`` at this moment."""
    take_core = FdGuard.take_core
    ours, peer = socket.socketpair()
    sock = Socket.from_socket(ours)
    fd = sock.fileno()

    def take_core_and_close(guard: FdGuard) -> StreamCore | None:
        core = take_core(guard)
        sock.close()
        return core

    monkeypatch.setattr(FdGuard, "take_core", take_core_and_close)
    with peer:
        with pytest.raises(ClosedError):
            sock.start_tls(SslContext(verify_mode=VerifyMode.NONE))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def run(program: str) -> None:
    """Run a program that may hang."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_FA8_closing_while_a_name_is_looked_up() -> None:
    """FA8: the handler waited for the lock of the lookup, or of the wake-up pair."""
    run(
        """
        import os, socket, threading, time
        from wireline import ClosedError
        from wireline.net import Socket
        from tests.torture.opcodes import Interrupter

        listener = socket.create_server(("127.0.0.1", 0))
        look_up = socket.getaddrinfo

        def slow(host, *arguments, **more):
            time.sleep(0.002)
            return look_up("127.0.0.1", *arguments, **more)

        socket.getaddrinfo = slow

        def case(at):
            sock = Socket()
            fd = sock.fileno()
            with Interrupter(at, sock.close) as interrupter:
                try:
                    sock.connect(f"name-{at}.test", listener.getsockname()[1], timeout=5)
                except ClosedError:
                    assert at
            if at:
                assert sock.is_closed
                try:
                    os.fstat(fd)
                    raise AssertionError(f"left open: {interrupter.place}")
                except OSError:
                    pass
            sock.close(linger=0)
            return interrupter

        for _ in range(2):
            moments = case(0).reachable
        limit = time.monotonic() + 1.5
        for at in moments[:: max(1, len(moments) // 60)]:
            case(at)
            if time.monotonic() > limit:
                break
        """
    )


def test_FA8_closing_in_a_loop_of_datagrams() -> None:
    """FA8: a signal handler that closed a UDP socket in use hung after seconds."""
    run(
        """
        import random, signal, time
        from wireline import AF_INET, IPPROTO_UDP, SOCK_DGRAM, ClosedError
        from wireline.net import Socket

        limit = time.monotonic() + 1.0
        count = 0
        chance = random.Random(1)
        while time.monotonic() < limit:
            count += 1
            sock = Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP)
            sock.bind_addr(0, "127.0.0.1")
            port = sock.local_addr.port
            signal.signal(signal.SIGALRM, lambda *_: sock.close())
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-4, 1e-3))
            try:
                while True:
                    sock.send_to("127.0.0.1", port, b"x")
                    sock.recv_from(10, timeout=5)
            except ClosedError:
                pass
        assert count > 20
        """
    )


def test_FA8_a_stop_by_a_handler_while_clients_come_and_go() -> None:
    """FA8: ``Server.stop`` in a handler waited for locks of the thread that it had interrupted."""
    run(
        """
        import random, signal, time
        from wireline.net import dial, serve

        limit = time.monotonic() + 1.0
        count = 0
        chance = random.Random(1)

        def echo(sock, _):
            for line in sock.lines():
                sock.send(line + b"\\n")

        while time.monotonic() < limit:
            count += 1
            server = serve(echo, 0, "127.0.0.1")
            signal.signal(signal.SIGALRM, lambda *_: server.stop())
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-3, 1e-2))
            try:
                while True:
                    with dial(*server.local_addr[:2], timeout=2) as sock:
                        sock.send(b"line\\n")
                        if not sock.recv_line(timeout=2):
                            break
            except OSError:
                pass
            server.stop()
        assert count > 5
        """
    )
