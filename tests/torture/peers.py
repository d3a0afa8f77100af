"""The peers of the scenes: one process with a thread a connection, on the standard library alone.

The first line of a connection may be a command, and so may every later one; any other line is sent back in capitals.

    gate NAME say TEXT      once the gate is open: sends TEXT
    gate NAME count N       once the gate is open: reads N bytes, sends "got N" and their SHA-256
    gate NAME tls VERSION   sends "ready"; once the gate is open: TLS, as a server
    sink KEY NAME           once the gate is open (``-``: now): reads to the end, and keeps how it ended for `report`
    sink KEY NAME slowly    the same, with a pause after each piece
    report KEY              sends how the connection of `sink` ended, as JSON; waits for that
    multi N                 sends N lines
    finish NAME             reads to the end; once the gate is open: sends "bye"
    raw                     sends back every byte

A gate is a file in the directory of the peers: the scene makes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time

from tests.torture import certificates

PATIENCE = 40.0
"""Seconds that a peer waits for a gate or a report: longer than a scene may take."""


class Reports:
    """How connections ended, by the key that they named."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._known: dict[str, dict[str, object]] = {}

    def put(self, key: str, report: dict[str, object]) -> None:
        """Keep a report."""
        with self._changed:
            self._known[key] = report
            self._changed.notify_all()

    def get(self, key: str) -> dict[str, object]:
        """Wait for a report."""
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._known, PATIENCE):
                return {"bytes": -1, "end": "no such connection, or it has not ended"}
            return self._known[key]


class Peer:
    """One connection."""

    def __init__(self, sock: socket.socket, directory: str, reports: Reports) -> None:
        self.sock = sock
        self.directory = directory
        self.reports = reports
        self.unread = b""

    def line(self) -> bytes:
        """The next line, or ``b""`` at the end."""
        while b"\n" not in self.unread:
            data = self.sock.recv(65536)
            if not data:
                return b""
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return line + b"\n"

    def gate(self, name: str) -> None:
        """Wait until a gate is open."""
        limit = time.monotonic() + PATIENCE
        while name != "-" and not os.path.exists(os.path.join(self.directory, name)):
            if time.monotonic() > limit:
                raise TimeoutError(f"the gate {name} was never opened")
            time.sleep(0.004)

    def run(self) -> None:
        """Answer lines until the end."""
        with contextlib.suppress(OSError), contextlib.closing(self.sock):
            while line := self.line():
                self.answer(line)

    def answer(self, line: bytes) -> None:
        """Execute one command line."""
        words = line.decode("latin-1").split()
        match words:
            case ["gate", name, "say", *rest]:
                self.gate(name)
                self.sock.sendall(" ".join(rest).encode() + b"\n")
            case ["gate", name, "count", size]:
                self.gate(name)
                self.count(int(size))
            case ["gate", name, "tls", version]:
                self.sock.sendall(b"ready\n")  # the ClientHello must not arrive together with the line
                self.gate(name)
                self.sock = server_context(version).wrap_socket(self.sock, server_side=True)
            case ["sink", key, name, *slowly]:
                self.gate(name)
                self.sink(key, 0.01 if slowly else 0.0)
            case ["report", key]:
                self.sock.sendall(json.dumps(self.reports.get(key)).encode() + b"\n")
            case ["multi", number]:
                self.sock.sendall(b"".join(b"line %d\n" % i for i in range(int(number))))
            case ["finish", name]:
                while self.line():
                    continue
                self.gate(name)
                self.sock.sendall(b"bye\n")
            case ["raw"]:
                data = self.unread or self.sock.recv(65536)
                self.unread = b""
                while data:
                    self.sock.sendall(data)
                    data = self.sock.recv(65536)
            case _:
                self.sock.sendall(line.upper())

    def count(self, size: int) -> None:
        """Read so many bytes, and say which they were."""
        digest, got = hashlib.sha256(self.unread), len(self.unread)
        self.unread = b""
        while got < size and (data := self.sock.recv(65536)):
            digest.update(data)
            got += len(data)
        self.sock.sendall(f"got {got} {digest.hexdigest()}\n".encode())

    def sink(self, key: str, pause: float) -> None:
        """Read to the end, with a pause after each piece, and keep the data."""
        digest, got, end = hashlib.sha256(self.unread), len(self.unread), "clean"
        self.unread = b""
        try:
            while data := self.sock.recv(65536):
                digest.update(data)
                got += len(data)
                time.sleep(pause)
        except OSError as error:
            end = type(error).__name__
        self.reports.put(key, {"bytes": got, "sha256": digest.hexdigest(), "end": end})


def server_context(version: str) -> ssl.SSLContext:
    """A server's context that speaks exactly one version of TLS, ``"1.2"`` or ``"1.3"``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server_files())
    exact = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = exact
    return context


def _accept(
    listener: socket.socket, context: ssl.SSLContext | None, directory: str, reports: Reports
) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_serve, args=(client, context, directory, reports), daemon=True).start()


def _serve(client: socket.socket, context: ssl.SSLContext | None, directory: str, reports: Reports) -> None:
    try:
        if context is not None:
            # A truncated end is an error here: the promise is that close_notify is sent.
            client = context.wrap_socket(client, server_side=True, suppress_ragged_eofs=False)
        else:
            with contextlib.suppress(OSError):  # a Unix socket has no such option
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        client.close()
        return
    Peer(client, directory, reports).run()


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def main(directory: str) -> None:
    certificates.make(directory)
    os.environ[certificates.DIRECTORY] = directory
    reports = Reports()
    addresses: dict[str, object] = {"directory": directory}
    path = os.path.join(directory, "peer")
    listeners: list[tuple[str, socket.socket, ssl.SSLContext | None]] = [
        ("tcp", socket.create_server(("127.0.0.1", 0), backlog=4096), None),
        ("tls12", socket.create_server(("127.0.0.1", 0), backlog=4096), server_context("1.2")),
        ("tls13", socket.create_server(("127.0.0.1", 0), backlog=4096), server_context("1.3")),
        ("unix", socket.create_server(path, family=socket.AF_UNIX, backlog=4096), None),
    ]
    for name, listener, context in listeners:
        threading.Thread(target=_accept, args=(listener, context, directory, reports), daemon=True).start()
        addresses[name] = path if name == "unix" else listener.getsockname()[1]
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()  # until the harness lets go


if __name__ == "__main__":
    main(sys.argv[1])
