"""The stage of a scenario: one flavour, one transport, and the peers that misbehave on it on purpose."""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import itertools
import os
import random
import select
import socket
import struct
import tempfile
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from ssl import TLSVersion
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import pytest

from tests.scenarios import tasks, tls
from tests.scenarios.flavours import Flavour, Handler, Sock, in_thread, on_their_way
from wireline import AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, Address

T = TypeVar("T")

RawPeer: TypeAlias = Any
"""A ``socket.socket``, or for TLS an object with its methods: ``tls.TlsPeer``."""

PATIENCE = 10.0
"""Seconds after which something that should have happened at once counts as never."""

TOO_LONG = 5.0
"""Seconds below which a call has returned that had nothing to wait for, or as little as the test says. A loaded machine
may stop for one or two of them; a fault takes ten, or forever."""

A_MOMENT = 0.01
"""Seconds for another thread or task to begin to wait. Nothing tells from outside that it does: see ``begin``."""

A_WHILE = 0.05
"""Seconds for the same where the next step must be the second."""


A_DELAYED_ACK = 0.05
"""Seconds after which TCP has acknowledged its input, which frees the sender's buffer: 40 ms on Linux."""


class Transport(NamedTuple):
    """A kind of stream, or of datagrams."""

    name: str
    family: int
    sock_type: int
    host: str
    tls: TLSVersion | None = None

    @property
    def is_unix(self) -> bool:
        return self.family == AF_UNIX


STREAMS = {
    "tcp4": Transport("tcp4", AF_INET, SOCK_STREAM, "127.0.0.1"),
    "tcp6": Transport("tcp6", AF_INET6, SOCK_STREAM, "::1"),
    "unix": Transport("unix", AF_UNIX, SOCK_STREAM, ""),
    "tls12": Transport("tls12", AF_INET, SOCK_STREAM, "localhost", TLSVersion.TLSv1_2),
    "tls13": Transport("tls13", AF_INET, SOCK_STREAM, "localhost", TLSVersion.TLSv1_3),
}
PLAIN_STREAMS = tuple(name for name, transport in STREAMS.items() if transport.tls is None)
DATAGRAMS = {
    "udp4": Transport("udp4", AF_INET, SOCK_DGRAM, "127.0.0.1"),
    "udp6": Transport("udp6", AF_INET6, SOCK_DGRAM, "::1"),
    "unixgram": Transport("unixgram", AF_UNIX, SOCK_DGRAM, ""),
}


ALL = STREAMS | DATAGRAMS


def over(*transports: str) -> pytest.MarkDecorator:
    """Run a scenario over these transports instead of every stream in clear. A test's count, and else its module's."""
    return pytest.mark.over(*transports)


over_every_stream = over(*STREAMS)

in_clear = over(*PLAIN_STREAMS)
"""Run a scenario over every kind of stream but TLS: the test says why."""

over_one = over("tcp4")
"""Run a scenario over one stream: the core decides what it checks, and tests/core checks that for all input."""

over_one_and_tls = over("tcp4", "tls13")
"""Run a scenario over one stream in clear and over TLS: it is the same for each of many reads, or another address
family and another version of TLS cannot change the answer."""


class Wire(NamedTuple):
    """A wireline socket and its peer of the standard library, which does each step of the test and nothing else."""

    sock: Sock
    peer: RawPeer


class Pair(NamedTuple):
    """Two of our sockets, connected."""

    client: Sock
    server: Sock


class Scene:
    """Makes the sockets of a scenario for one flavour and transport, and closes them at its end."""

    def __init__(self, flavour: Flavour, transport: Transport) -> None:
        self.flavour = flavour
        self.transport = transport
        self._stack = contextlib.AsyncExitStack()
        self._directory = ""
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    def path(self) -> str:
        """A path where nothing is yet."""
        if not self._directory:  # short: a Unix socket's path has 108 bytes at most, on some systems fewer
            self._directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wl-"))
        return os.path.join(self._directory, f"s{next(self._numbers)}")

    def closed_at_the_end(self, sock: T) -> T:
        self._stack.callback(sock.close)  # type: ignore[attr-defined]
        return sock

    # Ours.

    def socket(self, **options: Any) -> Sock:
        """A fresh socket of the flavour, wrapped where the transport is TLS."""
        family, sock_type = self.transport.family, self.transport.sock_type
        sock = self.closed_at_the_end(self.flavour.socket(family, sock_type, **options))
        if self.transport.tls is not None:
            sock._wrap(tls.context(self.transport.tls), "localhost")
        return sock

    def bound(self, **options: Any) -> Sock:
        """One that is bound."""
        sock = self.socket(**options)
        if self.transport.is_unix:
            sock.bind_unix(self.path())
        else:
            sock.bind_addr(0, self.transport.host)
        return sock

    def listener(self, **options: Any) -> Sock:
        """One that listens."""
        sock = self.bound(**options)
        sock.listen()
        return sock

    async def connect(self, sock: Sock, where: Address, timeout: float | None = PATIENCE) -> None:
        """Connect a wireline socket."""
        if self.transport.is_unix:
            await sock.connect_unix(where.host, timeout)
        else:
            await sock.connect(where.host, where.port, timeout)

    async def connected(self, where: Address, **options: Any) -> Sock:
        sock = self.socket(**options)
        await self.connect(sock, where)
        return sock

    async def dial(self, *args: Any, **options: Any) -> Sock:
        return self.closed_at_the_end(await self.flavour.dial(*args, **options))

    async def accept(self, listener: Sock) -> Sock:
        return self.closed_at_the_end(await listener.accept(timeout=PATIENCE))

    async def pair(self, **options: Any) -> Pair:
        listener = self.listener(**options)
        connecting = tasks.ensure_future(self.connected(listener.local_addr, **options))
        server = await self.accept(listener)  # both at once: a handshake takes two
        return Pair(await connecting, server)

    async def wire(self, **options: Any) -> Wire:
        listener = self.raw_listener()
        connecting = tasks.ensure_future(self.connected(address_of(listener), **options))
        if self.transport.tls is None:
            sock = await connecting
            return Wire(sock, self.raw_accept(listener))
        peer = self.closed_at_the_end(await in_thread(self._tls_accept, listener))
        return Wire(await connecting, peer)

    def _tls_accept(self, listener: socket.socket) -> tls.TlsPeer:
        assert self.transport.tls is not None
        return tls.TlsPeer(self.raw_accept(listener), self.transport.tls)

    async def serve(self, handler: Handler, **options: Any) -> Any:
        """A running server, stopped at the end."""
        if self.transport.tls is not None:
            options.setdefault("tls", tls.context(self.transport.tls))
        if self.transport.is_unix:
            server = await self.flavour.serve(handler, 0, f"unix:{self.path()}", **options)
        else:
            server = await self.flavour.serve(handler, 0, self.transport.host, **options)
        self._stack.push_async_callback(server.stop)
        return server

    # The standard library's.

    def raw(self) -> socket.socket:
        sock = self.closed_at_the_end(socket.socket(self.transport.family, self.transport.sock_type))
        sock.settimeout(PATIENCE)
        return sock

    def raw_bound(self) -> socket.socket:
        sock = self.raw()
        sock.bind(self.path() if self.transport.is_unix else (self.transport.host, 0))
        return sock

    def raw_listener(self, backlog: int = 16) -> socket.socket:
        sock = self.raw_bound()
        sock.listen(backlog)
        return sock

    def raw_accept(self, listener: socket.socket) -> socket.socket:
        peer = self.closed_at_the_end(listener.accept()[0])
        peer.settimeout(PATIENCE)
        return peer

    def raw_connect(self, where: Address) -> socket.socket:
        sock = self.raw()
        sock.connect(where.host if self.transport.is_unix else where)
        return sock

    def black_hole(self) -> Address:
        """An address that does not answer: a listener whose queue is full. (Linux drops further clients.)"""
        listener = self.raw_listener(backlog=0)
        where = address_of(listener)
        self.raw_connect(where)
        return where

    def refusing(self) -> socket.socket:
        """A socket whose address refuses every connection, for as long as it is open."""
        return self.raw_bound()

    async def reset(self, wire: Wire) -> None:
        """Let the peer go away with a reset, after the data that it has sent before."""
        if self.transport.is_unix:  # there a reset is a peer that closes and has not read everything
            await wire.sock.send(b"unread")
        reset(wire.peer)


# ----------------------------------------------------------------------------------------- waiting


async def begin(call: Coroutine[Any, Any, T], moment: float = A_MOMENT) -> tasks.Task[T]:
    """Start a call, and give it a moment to begin to wait.

    The promises for a call that waits hold for one that is about to, too: should the moment be too short, the test
    is weaker, and not wrong. Where the order does matter, say ``A_WHILE``.
    """
    task = tasks.ensure_future(call)
    await tasks.sleep(0)
    await eventually(lambda: not on_their_way)
    await tasks.sleep(moment)
    return task


async def soon(awaitable: Awaitable[T]) -> T:
    """The result of a call that must not take long."""
    return await tasks.wait_for(awaitable, PATIENCE)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for something that nothing announces."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        await tasks.sleep(0.001)


async def arrived(sock: Sock, size: int) -> None:
    """Wait until the kernel has that many bytes for ``sock``, so that a call that may not wait can have them."""
    if sock.is_ssl:
        size += -(-size // tls.RECORD) * tls.OVERHEAD[sock.tls_info.version]
    count = array.array("i", [0])

    def all_there() -> bool:
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
        return count[0] >= size

    await eventually(all_there)


async def readable(sock: Sock) -> None:
    """Wait until there is something to read or to accept, or the end."""
    # In the portable way an operation of the loop may have taken it out of the kernel already.
    queue = getattr(getattr(sock, "_fd", None), "read_queue", None)
    await eventually(
        lambda: (queue is not None and queue.in_flight) or select.select([sock.fileno()], [], [], 0)[0]
    )


async def turns() -> None:
    """Let the loop do its work of the next turns: its own operations hold a descriptor until they are done."""
    for _ in range(5):
        await tasks.sleep(0)


@contextlib.contextmanager
def no_descriptor_is_lost() -> Iterator[None]:
    """Count descriptors before the block and right after it."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


class Stopwatch:
    """``with Stopwatch() as took: ...`` and then ``took.seconds``."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.monotonic() - self._start


# ------------------------------------------------------------------------------------- raw sockets


def address_of(sock: socket.socket) -> Address:
    name = sock.getsockname()
    return Address(name, 0) if isinstance(name, str) else Address(*name[:2])


def reset(sock: socket.socket) -> None:
    """Close with a reset instead of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def raw_option(sock: Sock, level: int, option: int, value: int | None = None) -> int:
    """Ask the kernel for an option of one of our sockets, behind its back; set it first if there is a value."""
    with socket.socket(fileno=os.dup(sock.fileno())) as twin:
        if value is not None:
            twin.setsockopt(level, option, value)
        return twin.getsockopt(level, option)


def read_all(peer: socket.socket, piece: int = 65536) -> bytes:
    """Everything up to the end, in pieces of at most that size."""
    return b"".join(iter(lambda: peer.recv(piece), b""))


def read_exactly(peer: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = peer.recv(size - len(data))
        assert piece, f"the stream ended after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


async def all_of(peer: socket.socket, piece: int = 65536) -> bytes:
    return await in_thread(read_all, peer, piece)


def fill(sock: socket.socket | Sock) -> None:
    """Write zeroes until not one byte more fits into the connection.

    A fifth of a second later TCP probes the window, and a few more fit: that nothing does is true for a moment.
    """
    with socket.socket(fileno=os.dup(sock.fileno())) as twin:
        progress = True
        while progress:
            progress = False
            with contextlib.suppress(BlockingIOError):
                while twin.send(bytes(65536), socket.MSG_DONTWAIT):
                    progress = True
            if progress and twin.family != AF_UNIX:
                select.select([], [twin], [], A_DELAYED_ACK)


@contextlib.contextmanager
def dripping(peer: socket.socket, byte: bytes = b"x", every: float = 0.03) -> Iterator[None]:
    """Send one byte and again one byte, for as long as the block takes."""
    enough = threading.Event()

    def drip() -> None:
        while not enough.wait(every):
            peer.send(byte)

    dripper = threading.Thread(target=drip, name="dripper")
    dripper.start()
    try:
        yield
    finally:
        enough.set()
        dripper.join()


@functools.cache
def pattern(size: int) -> bytes:
    """Bytes of which no part looks like another, so that one that is lost, doubled or moved is seen."""
    return random.Random(size).randbytes(size)
