"""``relay`` of threads: it needs none but the caller's, and an exception of a signal handler loses no byte."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wireline import RelayReport
from wireline.net import Socket, relay

ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 20_000


class Interrupted(Exception):
    """Raised by a signal handler."""


def interrupt(*_: object) -> None:
    raise Interrupted


def shut_down_after(sock: socket.socket, sending: threading.Thread) -> None:
    sending.join()
    sock.shutdown(socket.SHUT_WR)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there = listener.accept()[0]
    here.settimeout(10)
    return here, there


def test_a_relay_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    near, ours = socket.socketpair()
    far, theirs = socket.socketpair()
    with near, far, Socket.from_socket(ours) as a, Socket.from_socket(theirs) as b:
        near.send(b"question")
        near.shutdown(socket.SHUT_WR)
        far.send(b"answer")
        far.shutdown(socket.SHUT_WR)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        report: RelayReport = relay(a, b)
        assert (report.a_to_b, report.b_to_a, report.reason) == (8, 6, "end")
        assert (near.recv(100), far.recv(100)) == (b"answer", b"question")


def test_P5_a_relay_that_a_signal_handler_ends_loses_no_byte_and_the_sockets_work_on() -> None:
    """In the middle of a transfer by splice(2), or of one by reads and sends.

    In a process of its own: where another test has traced instructions, or coverage measures, CPython 3.13 runs signal
    handlers in lines without a call, too, where a byte that was received has no place yet.
    """
    environment = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    program = "from tests.net.test_relay import interrupt_relays; interrupt_relays()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=environment, cwd=ROOT)


def interrupt_relays() -> None:
    signal.signal(signal.SIGALRM, interrupt)
    for number in range(10, 400, 30):
        near, ours = tcp_pair()
        far, theirs = tcp_pair()
        with near, far, Socket.from_socket(ours) as a, Socket.from_socket(theirs) as b:
            got = bytearray()

            def receive(far: socket.socket = far, got: bytearray = got) -> None:
                while piece := far.recv(50_000):
                    got.extend(piece)

            threads = [
                threading.Thread(target=near.sendall, args=(DATA * 4,)),
                threading.Thread(target=receive),
            ]
            for thread in threads:
                thread.start()
            with pytest.raises(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, number / 10_000)
                relay(a, b)
            rest = bytearray()
            threads.append(threading.Thread(target=shut_down_after, args=(near, threads[0])))
            threads[-1].start()
            while piece := a.recv_some(timeout=10):
                rest += piece
            b.shutdown_write(timeout=10)
            for thread in threads:
                thread.join(10)
            assert bytes(got + rest) == DATA * 4, (number, len(got), len(rest))
