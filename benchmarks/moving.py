"""Contestants that move bytes which are not theirs: relays between two connections, and files."""

from __future__ import annotations

import contextlib
import functools
import io
import socket
from collections.abc import Iterator

from benchmarks._payload import BLOCK_SIZE
from benchmarks._trial import Trial
from benchmarks.blocking import socket_connection, wireline_connection
from wireline import asyncnet, net


@contextlib.contextmanager
def _two_connections(trial: Trial) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Accept the connection that the load sends on, and the one that it receives on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        trial.announce(listener.getsockname()[1])
        sending, receiving = listener.accept()[0], listener.accept()[0]
    with sending, receiving:
        for sock in (sending, receiving):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sending, receiving


class _Clock:
    """Starts the clock after the warm-up."""

    def __init__(self, trial: Trial) -> None:
        self._watch = trial.watch
        self._left = trial.warm_up * BLOCK_SIZE

    def moved(self, total: int) -> None:
        if 0 < self._left <= total:
            self._left = 0
            self._watch.start()


def socket_loop(trial: Trial) -> None:
    clock, total = _Clock(trial), 0
    with _two_connections(trial) as (source, sink):
        buffer = bytearray(256 * 1024)
        view = memoryview(buffer)
        while size := source.recv_into(buffer):
            sink.sendall(view[:size])
            total += size
            clock.moved(total)
        sink.shutdown(socket.SHUT_WR)
        trial.watch.stop()


def relay(trial: Trial) -> None:
    clock = _Clock(trial)
    with (
        _two_connections(trial) as (source, sink),
        net.Socket.from_socket(source) as a,
        net.Socket.from_socket(sink) as b,
    ):
        net.relay(a, b, progress=lambda total, _: clock.moved(total))
        trial.watch.stop()


async def async_relay(trial: Trial) -> None:
    clock = _Clock(trial)
    with _two_connections(trial) as (source, sink):
        async with asyncnet.AsyncSocket.from_socket(source) as a, asyncnet.AsyncSocket.from_socket(sink) as b:
            await asyncnet.relay(a, b, progress=lambda total, _: clock.moved(total))
            trial.watch.stop()


def asyncio_relay(trial: Trial) -> None:
    import asyncio

    asyncio.run(async_relay(trial))


# Files.


@contextlib.contextmanager
def _file_of(trial: Trial) -> Iterator[io.BufferedReader]:
    """A file with all pieces."""
    import tempfile

    with tempfile.NamedTemporaryFile() as named:
        for block in trial.outgoing(trial.total):
            named.write(block)
        named.flush()
        with open(named.name, "rb") as file:
            yield file


def _send_laps(trial: Trial, send: functools.partial[int], acknowledged: functools.partial[bytes]) -> None:
    offset = 0
    for count in trial.laps():
        sent = send(offset, count * BLOCK_SIZE)
        assert sent == count * BLOCK_SIZE
        offset += sent
        acknowledged()


def socket_sendfile(trial: Trial) -> None:
    with _file_of(trial) as file, socket_connection(trial) as sock:
        _send_laps(trial, functools.partial(sock.sendfile, file), functools.partial(sock.recv, 1))


def sendfile(trial: Trial) -> None:
    with _file_of(trial) as file, wireline_connection(trial) as sock:
        _send_laps(trial, functools.partial(sock.sendfile, file), functools.partial(sock.recv_exactly, 1))


def sendfile_timeout(trial: Trial) -> None:
    with _file_of(trial) as file, wireline_connection(trial) as sock:
        _send_laps(
            trial,
            functools.partial(sock.sendfile, file, timeout=60),
            functools.partial(sock.recv_exactly, 1),
        )
