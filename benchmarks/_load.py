"""The other end of every contestant: plain sockets, and the same for all of them.

    python -m benchmarks._load ROLE PAYLOAD PIECES WARM_UP PORT

It writes one line of JSON: how many pieces it saw to be right. It ends by an error when one is not.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
from collections.abc import Callable

from benchmarks._payload import Payload
from benchmarks._trial import WrongBytesError, describe_difference


def echo(sock: socket.socket, payload: Payload, laps: tuple[int, ...]) -> int:
    """Send a piece, and expect it back before the next."""
    checked = 0
    for piece in itertools.islice(payload.pieces(), sum(laps)):
        sock.sendall(piece)
        reply = sock.recv(len(piece), socket.MSG_WAITALL)
        if reply != piece:
            raise WrongBytesError(describe_difference(reply, piece, checked))
        checked += 1
    return checked


def feed(sock: socket.socket, payload: Payload, laps: tuple[int, ...]) -> int:
    """Send all pieces as fast as they are taken, and wait until the contestant has done with them."""
    for piece in itertools.islice(payload.pieces(), sum(laps)):
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)
    if sock.recv(1):
        raise WrongBytesError("a contestant that only reads has sent something")
    return 0


def drain(sock: socket.socket, payload: Payload, laps: tuple[int, ...]) -> int:
    """Receive all pieces, and say so with one byte at the end of every lap."""
    pieces = payload.pieces()
    checked = 0
    for lap in laps:
        for piece in itertools.islice(pieces, lap):
            received = sock.recv(len(piece), socket.MSG_WAITALL)
            if received != piece:
                raise WrongBytesError(describe_difference(received, piece, checked))
            checked += 1
        sock.sendall(b"\x06")
    return checked


ROLES: dict[str, Callable[[socket.socket, Payload, tuple[int, ...]], int]] = {
    "echo": echo,
    "feed": feed,
    "drain": drain,
}


def main(arguments: list[str]) -> int:
    """Be the load for one contestant."""
    role, payload, pieces, warm_up, port = arguments
    try:
        with socket.create_connection(("127.0.0.1", int(port))) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            checked = ROLES[role](sock, Payload[payload], (int(warm_up), int(pieces)))
    except (WrongBytesError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"checked": checked}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
