"""A read that ran out of time is made again, and gets every byte."""

from __future__ import annotations

import threading
import time

from examples.scenes.stage import Failed, Stage
from wireline import Address, SocketTimeout
from wireline.net import Socket, dial, serve

LINE = b"every drop is kept"
PAUSE = 0.03
"""Seconds between two bytes: the line takes longer than the timeout, and not long."""
TIMEOUT = 0.3


def play(stage: Stage) -> None:
    """Read a line that arrives byte by byte, first with a timeout that is too short, then with a long one."""
    enough = threading.Event()

    def drip(client: Socket, address: Address) -> None:
        for byte in LINE + b"\r\n":
            client.send(bytes([byte]))
            enough.wait(PAUSE)

    with serve(drip, 0, "127.0.0.1") as server:
        with dial("127.0.0.1", server.local_addr.port, timeout=5) as sock:
            stage.show(f"a peer sends a line, one byte every {PAUSE * 1000:.0f} ms")
            stage.show(f">>> sock.recv_line(timeout={TIMEOUT})")
            seconds = _run_out_of_time(sock)
            stage.check(TIMEOUT <= seconds < 1, f"SocketTimeout after {seconds:.3f} s", seconds)
            _, there = sock.try_recv_line()
            stage.check(
                LINE.startswith(there) and there != b"", f"{there!r} is there and was not lost", there
            )
            stage.show(">>> sock.recv_line(timeout=5)")
            line = sock.recv_line(timeout=5)
            stage.check_bytes(line, LINE, f"{line!r}: the same call again gets the whole line")
        enough.set()


def _run_out_of_time(sock: Socket) -> float:
    """Read with too short a timeout; return how long that took."""
    began = time.monotonic()
    try:
        line = sock.recv_line(timeout=TIMEOUT)
    except SocketTimeout:
        return time.monotonic() - began
    raise Failed(f"{line!r} arrived too early")
