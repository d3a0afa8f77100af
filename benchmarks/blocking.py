"""The blocking contestants: ``wireline.net`` and the standard library's ``socket`` and ``ssl``.

With a certificate in the trial each does the same inside TLS.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
from collections.abc import Callable, Iterator

from benchmarks._payload import BLOCK_SIZE, LINES_PER_PIECE, MESSAGE_SIZE
from benchmarks._trial import Trial
from wireline import ReadLineResult
from wireline.net import Socket
from wireline.tls import Handshake, SslContext

TIMEOUT = 5.0
"""Seconds. It never fires."""


@contextlib.contextmanager
def wireline_connection(trial: Trial, *, buffered: bool = True) -> Iterator[Socket]:
    """Listen, and accept the load's connection."""
    with Socket(buffered=buffered) as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        trial.announce(listener.local_addr.port)
        sock = listener.accept()
    with sock:
        if trial.certificate:
            SslContext(cert_file=trial.certificate).wrap_connected_socket(sock, Handshake.AS_SERVER)
        yield sock


def stdlib_context(trial: Trial) -> ssl.SSLContext | None:
    """A server's context, as the documentation of ``ssl`` makes one; None without TLS."""
    if trial.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(trial.certificate)
    return context


@contextlib.contextmanager
def socket_connection(trial: Trial) -> Iterator[socket.socket]:
    """Listen, and accept the load's connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        trial.announce(listener.getsockname()[1])
        sock, _ = listener.accept()
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = stdlib_context(trial)
        if context is None:
            yield sock
            return
        with context.wrap_socket(sock, server_side=True) as secured:
            yield secured


# Ping-pong.


def socket_echo(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        for count in trial.laps():
            for _ in range(count):
                sock.sendall(sock.recv(4096))


def socket_echo_timeout(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        sock.settimeout(TIMEOUT)
        for count in trial.laps():
            for _ in range(count):
                sock.sendall(sock.recv(4096))


def recv_some_echo(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.laps():
            for _ in range(count):
                sock.send(sock.recv_some())


def recv_some_echo_timeout(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.laps():
            for _ in range(count):
                sock.send(sock.recv_some(timeout=TIMEOUT))


def recv_exactly_echo(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.laps():
            for _ in range(count):
                sock.send(sock.recv_exactly(MESSAGE_SIZE))


# Lines. `islice` and the comprehension add as little as can be to the reading itself.


def makefile_iteration(trial: Trial) -> None:
    with socket_connection(trial) as sock, sock.makefile("rb") as file:
        for count in trial.incoming():
            trial.check(list(itertools.islice(file, count)))


def makefile_readline(trial: Trial) -> None:
    with socket_connection(trial) as sock, sock.makefile("rb") as file:
        for count in trial.incoming():
            trial.check([file.readline() for _ in range(count)])


def lines(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        iterator = sock.lines()
        for count in trial.incoming():
            trial.check(list(itertools.islice(iterator, count)), b"\n")


def recv_line(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.incoming():
            trial.check([sock.recv_line() for _ in range(count)], b"\n")


def recv_line_timeout(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.incoming():
            trial.check([sock.recv_line(timeout=TIMEOUT) for _ in range(count)], b"\n")


def lines_send(trial: Trial) -> None:
    """Answer every line by itself, as many of them as may be outstanding."""
    with wireline_connection(trial) as sock:
        for count in trial.laps():
            for _ in range(count * LINES_PER_PIECE):
                sock.send(sock.recv_line() + b"\n")


def lines_send_many(trial: Trial) -> None:
    """Wait for a line, take those that arrived with it, and answer them together."""
    with wireline_connection(trial) as sock:
        for count in trial.laps():
            left = count * LINES_PER_PIECE
            while left:
                answers = [sock.recv_line() + b"\n"]
                while len(answers) < left:
                    result, line = sock.try_recv_line()
                    if result is not ReadLineResult.FULL_LINE:
                        break
                    answers.append(line + b"\n")
                sock.send_many(answers)
                left -= len(answers)


# Messages without a buffer: each read asks the kernel, which has the bytes. The cost of a timeout is too small to be
# seen in a ping-pong, where waking the other side takes most of the CPU time.


def recv_exactly(trial: Trial) -> None:
    with wireline_connection(trial, buffered=False) as sock:
        for count in trial.incoming():
            trial.check([sock.recv_exactly(MESSAGE_SIZE) for _ in range(count)])


def recv_exactly_timeout(trial: Trial) -> None:
    with wireline_connection(trial, buffered=False) as sock:
        for count in trial.incoming():
            trial.check([sock.recv_exactly(MESSAGE_SIZE, timeout=TIMEOUT) for _ in range(count)])


# Bulk.


def socket_sendall(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        for count in trial.laps():
            for block in trial.outgoing(count):
                sock.sendall(block)
            sock.recv(1)


def send(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        for count in trial.laps():
            for block in trial.outgoing(count):
                sock.send(block)
            sock.recv_exactly(1)


def _receive(trial: Trial, reads: Iterator[None], read: Callable[[int], bytes]) -> None:
    for _ in reads:
        trial.take(read(BLOCK_SIZE))


def socket_recv(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        _receive(trial, trial.reads(), sock.recv)


def socket_recv_ready(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        _receive(trial, trial.ready_reads(sock), sock.recv)


def recv_some(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        _receive(trial, trial.reads(), sock.recv_some)


def recv_some_ready(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        _receive(trial, trial.ready_reads(sock), sock.recv_some)


def recv(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        _receive(trial, trial.reads(), sock.recv)


def recv_ready(trial: Trial) -> None:
    with wireline_connection(trial) as sock:
        _receive(trial, trial.ready_reads(sock), sock.recv)
