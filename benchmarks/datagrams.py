"""Datagrams of 64 bytes on loopback, received and sent, in both flavours and with the standard library.

Both ends are in the contestant. A piece of datagrams lies in the kernel before the clock runs, so that only receiving
is measured; the same for sending, where they are received when the clock has stopped. Each datagram is checked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks._payload import MESSAGE_SIZE, Payload
from benchmarks._trial import Trial, settle_allocator
from wireline import SOCK_DGRAM, Address
from wireline.asyncnet import AsyncSocket
from wireline.net import Socket

SIZE = 2048
"""Bytes that each receive may take: what a caller gives who does not know the sizes of the datagrams."""

# Bytes. A piece of 256 datagrams must fit: Linux counts 768 for each of these, and allows 208 KiB without this option.
_KERNEL_BUFFER = 1024 * 1024

_LOOPBACK = "127.0.0.1"

Datagrams = list[tuple[bytes, tuple[Any, ...]]]


def _plain() -> socket.socket:
    sock = socket.socket(type=SOCK_DGRAM)
    sock.bind((_LOOPBACK, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BUFFER)
    return sock


def _messages(piece: bytes) -> list[bytes]:
    return [piece[start : start + MESSAGE_SIZE] for start in range(0, len(piece), MESSAGE_SIZE)]


def _ready(trial: Trial, sender: socket.socket, receiver: Address) -> Iterator[int]:
    """Yield the number of datagrams of each piece, when all of them have arrived."""
    settle_allocator()
    sender.connect(receiver)
    counts = trial.incoming()
    for piece in Payload.LINES.pieces():
        for message in _messages(piece):
            sender.send(message)
        count = next(counts, 0)
        if not count:
            return
        yield count


def _check(trial: Trial, sender: socket.socket, datagrams: Sequence[tuple[bytes, tuple[Any, ...]]]) -> None:
    """Check the datagrams of a piece, and that the last one names its sender."""
    trial.check(data for data, _ in datagrams)
    assert datagrams[-1][1] == sender.getsockname()


# Receiving, blocking.


def recvfrom(trial: Trial) -> None:
    with _plain() as sock, _plain() as sender:
        for count in _ready(trial, sender, Address(*sock.getsockname())):
            _check(trial, sender, [sock.recvfrom(SIZE) for _ in range(count)])


def recv_from(trial: Trial) -> None:
    with Socket.from_socket(_plain()) as sock, _plain() as sender:
        for count in _ready(trial, sender, sock.local_addr):
            _check(trial, sender, [sock.recv_from(SIZE) for _ in range(count)])


def recv_many_from(trial: Trial) -> None:
    with Socket.from_socket(_plain()) as sock, _plain() as sender:
        for count in _ready(trial, sender, sock.local_addr):
            datagrams: Datagrams = []
            while len(datagrams) < count:
                datagrams += sock.recv_many_from()
            _check(trial, sender, datagrams)


# Receiving, async.


class _Collector(asyncio.DatagramProtocol):
    """Collects the datagrams of a piece."""

    def __init__(self) -> None:
        self._datagrams: Datagrams = []
        self._count = 0
        self._done: asyncio.Future[Datagrams] | None = None

    def expect(self, count: int) -> asyncio.Future[Datagrams]:
        self._datagrams, self._count = [], count
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._datagrams.append((data, addr))
        if len(self._datagrams) == self._count and self._done is not None:
            self._done.set_result(self._datagrams)


async def _with_protocol(trial: Trial) -> None:
    sock = _plain()
    loop = asyncio.get_running_loop()
    transport, collector = await loop.create_datagram_endpoint(_Collector, sock=sock)
    with _plain() as sender:
        for count in _ready(trial, sender, Address(*transport.get_extra_info("sockname"))):
            _check(trial, sender, await collector.expect(count))
    transport.close()


async def _with_recv_from(trial: Trial) -> None:
    async with AsyncSocket.from_socket(_plain()) as sock:
        with _plain() as sender:
            for count in _ready(trial, sender, sock.local_addr):
                datagrams: Datagrams = []
                for _ in range(count):
                    datagrams.append(await sock.recv_from(SIZE))
                _check(trial, sender, datagrams)


async def _with_recv_many_from(trial: Trial) -> None:
    async with AsyncSocket.from_socket(_plain()) as sock:
        with _plain() as sender:
            for count in _ready(trial, sender, sock.local_addr):
                datagrams: Datagrams = []
                while len(datagrams) < count:
                    datagrams += await sock.recv_many_from()
                _check(trial, sender, datagrams)


def protocol(trial: Trial) -> None:
    asyncio.run(_with_protocol(trial))


def async_recv_from(trial: Trial) -> None:
    asyncio.run(_with_recv_from(trial))


def async_recv_many_from(trial: Trial) -> None:
    asyncio.run(_with_recv_many_from(trial))


# Sending, blocking.


def _outgoing(trial: Trial) -> Iterator[list[bytes]]:
    """Yield the datagrams of each piece."""
    settle_allocator()
    counts = trial.incoming()
    for piece in Payload.LINES.pieces():
        messages = _messages(piece)
        if not next(counts, 0):
            return
        yield messages


def _check_sent(trial: Trial, receiver: socket.socket, count: int) -> None:
    trial.watch.stop()
    trial.check([receiver.recv(SIZE) for _ in range(count)])


def sendto(trial: Trial) -> None:
    with _plain() as receiver, _plain() as sock:
        where = receiver.getsockname()
        for messages in _outgoing(trial):
            for message in messages:
                sock.sendto(message, where)
            _check_sent(trial, receiver, len(messages))


def send_to(trial: Trial) -> None:
    with _plain() as receiver, Socket(sock_type=SOCK_DGRAM) as sock:
        host, port = receiver.getsockname()
        for messages in _outgoing(trial):
            for message in messages:
                sock.send_to(host, port, message)
            _check_sent(trial, receiver, len(messages))


def send_many_to(trial: Trial) -> None:
    with _plain() as receiver, Socket(sock_type=SOCK_DGRAM) as sock:
        host, port = receiver.getsockname()
        for messages in _outgoing(trial):
            assert sock.send_many_to([(message, host, port) for message in messages]) == len(messages)
            _check_sent(trial, receiver, len(messages))
