"""A real program at the other end: started, talked to, and ended by its own id."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import IO

PATIENCE = 10.0
"""Seconds after which a program that should have said something, or ended, counts as hanging."""


class Program:
    """A running program with pipes to its three standard streams. Leaving the context ends it."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # the last input of the test was never read
                    pipe.close()

    def type(self, data: bytes) -> None:
        """Write to its standard input, and leave that open."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def says(self, pattern: bytes, *, on_stdout: bool = False) -> re.Match[bytes]:
        """Read its standard error (or output) until that contains ``pattern``."""
        stream = self.process.stdout if on_stdout else self.process.stderr
        assert stream is not None
        said = b""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, said)) is None:
            piece = _read_some(stream, deadline)
            said += piece
            if not piece:
                raise ProgramEnded(f"{self.process.args!r} said {said!r} and never {pattern!r}")
        return found

    def finish(self, data: bytes = b"") -> bytes:
        """Give it the rest of its input, wait for its end and return the rest of its output."""
        out, err = self.process.communicate(data, timeout=PATIENCE)
        assert self.process.returncode == 0, err.decode(errors="replace")
        return out


class ProgramEnded(Exception):
    """It ended, or hangs, and did not print the expected text."""


def _read_some(stream: IO[bytes], deadline: float) -> bytes:
    ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
    return os.read(stream.fileno(), 4096) if ready else b""


@contextlib.contextmanager
def on_a_free_port(
    start: Callable[[int], Program], ready: bytes, *, on_stdout: bool = False
) -> Iterator[tuple[Program, int]]:
    """Run a server that cannot take "any port that is free" for an answer; yield it and its port.

    Args:
        start: starts it on a port.
        ready: the text that it prints when it listens.
        on_stdout: it says that on standard output.
    """
    for _ in range(5):
        port = _free_port()
        with start(port) as program:
            try:
                program.says(ready, on_stdout=on_stdout)
            except ProgramEnded as error:  # another process took the port in between
                reason = error
                continue
            yield program, port
            return
    raise reason


def _free_port() -> int:
    """A port that was free for IPv4 and IPv6, TCP and UDP, a moment ago."""
    while True:
        with contextlib.ExitStack() as held:
            tcp = held.enter_context(
                socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            )
            port: int = tcp.getsockname()[1]
            udp = held.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):
                udp.bind(("::", port))
                return port
