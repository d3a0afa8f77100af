"""The other end of every connection, in a process of its own.

It is written on the standard library, so that it stays the same when wireline changes, and runs without the shim, so
that none of its calls fails.

It serves on one port for each kind of stream, and executes the commands that it receives. On its standard input it
takes commands to connect to a server; it answers each on its standard output, in the order in which they are done.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time

from tests.torture.children import ROOT

KINDS = ("plain", "tls12", "tls13")
VERSIONS = {"tls12": ssl.TLSVersion.TLSv1_2, "tls13": ssl.TLSVersion.TLSv1_3}

PATIENCE = 3.0


def _context(kind: str, directory: str, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if server:
        context.load_cert_chain(os.path.join(directory, "server.pem"), os.path.join(directory, "server.key"))
    else:
        context.load_verify_locations(os.path.join(directory, "ca.pem"))
    context.minimum_version = context.maximum_version = VERSIONS[kind]
    return context


class _Conversation:
    """Reads lines and counts of bytes from a socket of the standard library."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held = b""

    def more(self) -> bool:
        data = self.sock.recv(65536)
        self.held += data
        return bool(data)

    def line(self) -> bytes | None:
        while b"\n" not in self.held:
            if not self.more():
                return None
        line, _, self.held = self.held.partition(b"\n")
        return line

    def exactly(self, size: int) -> bytes:
        while len(self.held) < size and self.more():
            pass
        data, self.held = self.held[:size], self.held[size:]
        return data

    def rest(self) -> bytes:
        while self.more():
            pass
        data, self.held = self.held, b""
        return data

    def obey(self) -> None:
        """Execute the command lines, until the other end is done."""
        while (line := self.line()) is not None:
            word, _, argument = line.decode().partition(" ")
            if word == "ping":  # an answer, of one line
                self.sock.sendall(f"pong {argument}\n".encode())
            elif word == "echo":  # bytes back
                self.sock.sendall(self.exactly(int(argument)))
            elif word == "drip":  # bytes back, in pieces
                data = self.exactly(int(argument))
                for start in range(0, len(data), 7):
                    self.sock.sendall(data[start : start + 7])
                    time.sleep(0.001)
            elif word == "late":  # an answer, after a while
                time.sleep(0.03)
                self.sock.sendall(b"at last\n")
            elif word == "slow":  # bytes taken slowly, and counted
                left = int(argument)
                while left and (data := self.exactly(min(left, 65536))):
                    left -= len(data)
                    time.sleep(0.0005)
                self.sock.sendall(b"got all\n")
            elif word == "reverse":  # all the rest, back to front
                self.sock.sendall(self.rest()[::-1])
                return
            elif word == "talk":  # lines without end, until the other side has enough
                number = 0
                with contextlib.suppress(OSError):
                    while True:
                        self.sock.sendall(b"%d\n" % number)
                        number += 1


def _goodbye(sock: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()
    sock.close()


def _serve(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    def one(sock: socket.socket) -> None:
        # An end of the connection by the tested side ends this thread, and is checked on that side.
        with contextlib.suppress(OSError, ValueError):
            sock.settimeout(600.0)  # the healthy connection of the tested process stays open all the while
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                if context is not None:
                    sock = context.wrap_socket(sock, server_side=True)
                _Conversation(sock).obey()
            finally:
                _goodbye(sock)

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=one, args=(sock,), daemon=True).start()


def _visit(port: int, kind: str, directory: str) -> str:
    """Connect, and have two lines echoed."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    try:
        sock.settimeout(PATIENCE)
        if kind != "plain":
            sock = _context(kind, directory, server=False).wrap_socket(sock, server_hostname="127.0.0.1")
        talk = _Conversation(sock)
        for line in (b"one", b"two"):
            sock.sendall(line + b"\n")
            if (answer := talk.line()) != line:
                return f"sent {line!r}, got {answer!r}"
    finally:
        _goodbye(sock)
    return "ok"


def _main(directory: str) -> None:
    ports = []
    for kind in KINDS:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        context = None if kind == "plain" else _context(kind, directory, server=True)
        threading.Thread(target=_serve, args=(listener, context), daemon=True).start()
        ports.append(str(listener.getsockname()[1]))
    print(*ports, flush=True)
    printing = threading.Lock()

    def visit(port: int, kind: str, count: int) -> None:
        # One after the other, so that a fault of one of them is not taken for a fault of the next.
        for _ in range(count):
            try:
                answer = _visit(port, kind, directory)
            except OSError as error:
                answer = repr(error)
            with printing:
                print(answer, flush=True)

    for command in sys.stdin:
        word, port, kind, count = command.split()
        assert word == "visit"
        threading.Thread(target=visit, args=(int(port), kind, int(count)), daemon=True).start()


class Peer:
    """The process, seen from the tested one."""

    def __init__(self, directory: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.peer", directory],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        self._held = b""
        self._expected = 0
        while b"\n" not in self._held:
            self._held += os.read(self._output, 4096)
        line, _, self._held = self._held.partition(b"\n")
        self._ports = dict(zip(KINDS, map(int, line.split()), strict=True))

    def port(self, kind: str) -> int:
        """Where it serves that kind of stream."""
        return self._ports[kind]

    def visit(self, port: int, kind: str, count: int = 1) -> None:
        """Have it connect, and have lines echoed; ``count`` times, one after the other."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"visit {port} {kind} {count}\n".encode())
        self._process.stdin.flush()
        self._expected += count

    def visited(self, seconds: float = 0.0) -> bool:
        """Whether all visits that were asked for are over, or are within that time."""
        limit = time.monotonic() + seconds
        while self._held.count(b"\n") < self._expected:
            if not select.select([self._output], [], [], max(0.0, limit - time.monotonic()))[0]:
                return False
            data = os.read(self._output, 4096)
            if not data:
                raise RuntimeError("the peer has died")
            self._held += data
        return True

    def visits(self) -> list[str]:
        """How the visits went that were asked for since the last time; it waits for all of them."""
        if not self.visited(4 * PATIENCE):
            raise RuntimeError("the peer does not answer")
        answers = self._held.decode().splitlines()
        self._held, self._expected = b"", 0
        return answers

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    _main(sys.argv[1])
