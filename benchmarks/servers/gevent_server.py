"""gevent: the echo server of its documentation, which reads lines from the socket's file; and TCP_NODELAY."""

from __future__ import annotations

import socket
import sys

from gevent.server import StreamServer  # type: ignore[import-untyped] # it has no types

from benchmarks.servers.control import GREETING, READ_SIZE, announce


def echo(sock: socket.socket) -> None:
    while data := sock.recv(READ_SIZE):
        sock.sendall(data)


def lines(sock: socket.socket) -> None:
    with sock.makefile(mode="rb") as file:
        while line := file.readline():
            sock.sendall(line)


def greet(sock: socket.socket) -> None:
    sock.sendall(GREETING)


HANDLERS = {"echo": echo, "lines": lines, "greet": greet}


def main() -> None:
    """Serve for ever."""
    serve = HANDLERS[sys.argv[1]]

    def handle(sock: socket.socket, _: object) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serve(sock)

    server = StreamServer(("127.0.0.1", 0), handle)
    server.start()
    announce(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
