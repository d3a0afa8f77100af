"""The other end of every contestant: plain sockets, and the same for all of them.

    python -m benchmarks._load ROLE PAYLOAD PIECES WARM_UP PORT [tls]

``load_one.c`` does the same with TLS, and this is for where it cannot be compiled. It writes one line of JSON: how
many pieces it saw to be right. It ends by an error when one is not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks._payload import Payload
from benchmarks._trial import WrongBytesError, cpu_seconds, describe_difference


def _receive(sock: socket.socket, size: int) -> bytes:
    """Receive that many bytes; fewer at the end of the stream."""
    if not isinstance(sock, ssl.SSLSocket):
        return sock.recv(size, socket.MSG_WAITALL)
    received = bytearray()
    while len(received) < size and (some := sock.recv(size - len(received))):
        received += some
    return bytes(received)


@contextlib.contextmanager
def _connection(port: int, *, tls: bool) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not tls:
            yield sock
            return
        with client_context().wrap_socket(sock) as secured:
            yield secured


def client_context() -> ssl.SSLContext:
    """TLS 1.3 with any certificate: verification is not measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def echo(sock: socket.socket, payload: Payload, laps: tuple[int, ...]) -> int:
    """Send a piece, and expect it back before the next."""
    checked = 0
    for piece in itertools.islice(payload.pieces(), sum(laps)):
        sock.sendall(piece)
        reply = _receive(sock, len(piece))
        if reply != piece:
            raise WrongBytesError(describe_difference(reply, piece, checked))
        checked += 1
    return checked


def feed(sock: socket.socket, payload: Payload, laps: tuple[int, ...]) -> int:
    """Send all pieces as fast as the peer reads, and wait until the contestant is done.

    With TLS the pieces continue until the contestant has enough and closes: at the end, uvloop's streams lose data
    that they have not delivered yet.
    """
    if isinstance(sock, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            for piece in payload.pieces():
                sock.sendall(piece)
        return 0
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
            received = _receive(sock, len(piece))
            if received != piece:
                raise WrongBytesError(describe_difference(received, piece, checked))
            checked += 1
        sock.sendall(b"\x06")
    return checked


def relay(sock: socket.socket, payload: Payload, laps: tuple[int, ...]) -> int:
    """Send all pieces on one connection, and receive them on a second one from the same contestant."""
    with socket.create_connection(sock.getpeername()) as receiving:
        receiving.shutdown(socket.SHUT_WR)
        sending = threading.Thread(target=feed, args=(sock, payload, laps))
        sending.start()
        checked = 0
        for piece in itertools.islice(payload.pieces(), sum(laps)):
            received = _receive(receiving, len(piece))
            if received != piece:
                raise WrongBytesError(describe_difference(received, piece, checked))
            checked += 1
        if receiving.recv(1):
            raise WrongBytesError("a contestant that relays has sent more than it received")
        sending.join()
        return checked


ROLES: dict[str, Callable[[socket.socket, Payload, tuple[int, ...]], int]] = {
    "echo": echo,
    "feed": feed,
    "drain": drain,
    "relay": relay,
}


def main(arguments: list[str]) -> int:
    """Be the load for one contestant."""
    role, payload, pieces, warm_up, port, *tls = arguments
    try:
        with _connection(int(port), tls=bool(tls)) as sock:
            began, busy = time.perf_counter(), sum(cpu_seconds())
            checked = ROLES[role](sock, Payload[payload], (int(warm_up), int(pieces)))
            busy = (sum(cpu_seconds()) - busy) / (time.perf_counter() - began)
    except (WrongBytesError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"checked": checked, "busy": busy}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
