"""Contestants of the benchmarks that do not do their work. Each runs in a process of its own, which imports this."""

from __future__ import annotations

import asyncio
import sys

from benchmarks._client_trial import ClientTrial
from benchmarks._trial import Trial
from benchmarks.blocking import socket_connection
from benchmarks.servers import control, protocol

# With one connection.


def echo_wrong_byte(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        for number in range(trial.total):
            data = sock.recv(64)
            sock.sendall(bytes(64) if number == 7 else data)


def echo_too_few(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        for _ in range(trial.total - 1):
            sock.sendall(sock.recv(64))
        sock.recv(64)


def echo_in_another_order(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        for piece in reversed(list(trial.outgoing(trial.total))):
            sock.recv(64)
            sock.sendall(piece)


def lines_without_looking(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        while sock.recv(65536):
            pass


def lines_made_up(trial: Trial) -> None:
    with socket_connection(trial):
        for count in trial.incoming():
            trial.check([b"line"] * count, b"\n")


def blocks_cut_short(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        for count in trial.laps():
            for block in trial.outgoing(count):
                sock.sendall(block[:-1])
        sock.recv(1)


def lines_in_another_order(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        while data := sock.recv(4096):
            *lines, _ = data.split(b"\n")
            sock.sendall(b"".join(line + b"\n" for line in reversed(lines)))


def no_listener(trial: Trial) -> None:
    raise RuntimeError("I would rather not")


def feed_left_early(trial: Trial) -> None:
    with socket_connection(trial) as sock:
        sock.recv(64)


# Servers.


class WrongByte(protocol.Echo):
    seen = 0

    def data_received(self, data: bytes) -> None:
        self.seen += len(data)
        self.transport.write(data if self.seen < 5 * 64 else data[:-2] + b"?\n")


class ClosesEarly(protocol.Echo):
    seen = 0

    def data_received(self, data: bytes) -> None:
        self.seen += len(data)
        if self.seen < 3 * 64:
            self.transport.write(data)
        else:
            self.transport.close()


class Twice(protocol.Echo):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data * 2)


class AnotherOrder(protocol.Lines):
    """The second line first: it waits for two lines, in any pieces."""

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self.rest + data).split(b"\n")
        if len(lines) < 2:
            self.rest += data
            return
        self.rest = rest
        self.transport.writelines([line + b"\n" for line in reversed(lines)])


class PostScript(protocol.Echo):
    def eof_received(self) -> None:
        self.transport.write(b"one more thing")


class TheNeighbours(protocol.Echo):
    first: asyncio.Transport | None = None

    def data_received(self, data: bytes) -> None:
        if TheNeighbours.first is None:
            TheNeighbours.first = self.transport
        TheNeighbours.first.write(data)


class Raises(protocol.Echo):
    def data_received(self, data: bytes) -> None:
        self.transport.abort()
        raise RuntimeError("I would rather not")


class ShortGreeting(protocol.Echo):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(control.GREETING[:-1])
        self.transport.close()


class LongGreeting(protocol.Echo):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(control.GREETING + b"!")
        self.transport.close()


class OneSessionEach(protocol.Greet):
    """A server without tickets, see below."""


# Clients.


def client_with_a_wrong_value(trial: ClientTrial) -> None:
    for number, count in enumerate(trial.batches()):
        trial.check([number] * count, [0] * count)


def client_with_too_few_batches(trial: ClientTrial) -> None:
    for count in trial.batches():
        trial.check(count, count)
        break


def client_that_fails(_: ClientTrial) -> None:
    raise RuntimeError("I would rather not")


if __name__ == "__main__":  # as a server
    cheat = globals()[sys.argv[-1]]
    protocol.PROTOCOLS["echo"] = protocol.PROTOCOLS["greet"] = cheat
    if cheat is OneSessionEach:
        context = control.tls_context()
        assert context is not None
        context.num_tickets = 0
        protocol.tls_context = lambda: context
    control.run(protocol.main())
