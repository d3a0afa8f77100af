"""Run the command in its own process, as a shell does."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, NamedTuple

PATIENCE = 20.0
"""Seconds after which a command that should have ended or printed something has failed."""

Stream = int | IO[bytes]


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: bytes
    err: str


class Command:
    """A running command."""

    def __init__(
        self,
        *words: str,
        stdin: Stream = subprocess.PIPE,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        redirect: str = "",
        env: dict[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            words: the command line after the program's name.
            stdin: as for ``subprocess.Popen``.
            stdout: likewise.
            stderr: likewise.
            redirect: a redirection of the shell on top of that, ``<&-`` for example.
            env: environment variables to add.
        """
        argv = [sys.executable, "-m", "wireline", *words]
        if redirect:
            argv = ["sh", "-c", f'exec "$@" {redirect}', "sh", *argv]
        self.process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )

    def type(self, data: bytes) -> None:
        """Write to the command's standard input and leave it open."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def read(self, size: int) -> bytes:
        """Read exactly ``size`` bytes of standard output."""
        assert self.process.stdout is not None
        data = b""
        while len(data) < size and (more := self.process.stdout.read(size - len(data))):
            data += more
        return data

    def listening_on(self) -> str:
        """Wait for the announcement of a listener and return the address in it."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline().decode()
        match = re.fullmatch(r"listening on (\S+)\n", line)
        assert match, f"not an announcement: {line!r}"
        return match[1]

    def port(self) -> int:
        """Wait for the announcement and return the port."""
        return int(self.listening_on().rpartition(":")[2])

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self, data: bytes | None = None) -> Result:
        """Give the rest of the input, if there is any, and wait for the end."""
        out, err = self.process.communicate(data, timeout=PATIENCE)
        return self._result(out, err)

    def end(self) -> Result:
        """Wait for the end while standard input stays open."""
        self.process.wait(PATIENCE)
        out = self.process.stdout.read() if self.process.stdout else b""
        err = self.process.stderr.read() if self.process.stderr else b""
        return self._result(out, err)

    def _result(self, out: bytes | None, err: bytes | None) -> Result:
        text = (err or b"").decode()
        assert "Traceback" not in text, text
        return Result(self.process.returncode, out or b"", text)

    def abandon(self) -> None:
        """End the process if the test has not, and close the pipes."""
        if self.process.poll() is None:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.wait()


@contextlib.contextmanager
def tcp_server(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, str]]:
    """A listening socket of the standard library, and its address as a target."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        server.settimeout(PATIENCE)
        port = server.getsockname()[1]
        yield server, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def udp_socket(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, str]]:
    """A bound datagram socket of the standard library, and its address as a target."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(PATIENCE)
        port = sock.getsockname()[1]
        yield sock, f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"


@contextlib.contextmanager
def unresponsive_listener() -> Iterator[tuple[int, str]]:
    """A listener that accepts no further connection, its port, and its address as a target."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        # With a backlog of 0, Linux queues one connection and drops the SYN of each further one. The second starts when
        # the first is queued: until then the states of both change while a test reads them.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.settimeout(PATIENCE)
        first.connect(full.getsockname())
        assert select.select([full], [], [], PATIENCE)[0]
        second.setblocking(False)
        assert second.connect_ex(full.getsockname()) == errno.EINPROGRESS
        port = full.getsockname()[1]
        yield port, f"127.0.0.1:{port}"


def accept(server: socket.socket) -> socket.socket:
    """Accept the next connection; its calls have a time limit."""
    peer, _ = server.accept()
    peer.settimeout(PATIENCE)
    return peer


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    """Connect a socket of the standard library; its calls have a time limit."""
    return socket.create_connection((host, port), PATIENCE)


def connect_unix(path: str) -> socket.socket:
    """Connect to a Unix socket in the same way."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return sock


def receive(peer: socket.socket, size: int) -> bytes:
    """Receive ``size`` bytes, or fewer at the end of the stream."""
    data = b""
    while len(data) < size and (piece := peer.recv(size - len(data))):
        data += piece
    return data


def read_all(peer: socket.socket) -> bytes:
    """Read to the end of the stream."""
    pieces = []
    while piece := peer.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def reset(peer: socket.socket) -> None:
    """Close a connection so that the other side gets a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
