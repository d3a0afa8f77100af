"""One socket and many threads, at full speed and for seconds, for faults that appear once in a million times."""

from __future__ import annotations

import itertools
import random
import socket
import struct
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.cases import few_in_sample
from wireline import AF_UNIX, SOCK_DGRAM, Address, ClosedError, SocketFlag
from wireline.net import Socket, dial, serve

pytestmark = pytest.mark.stress

LOOPBACK = "127.0.0.1"
PATIENCE = 15.0
"""Seconds after which something that should have happened counts as hanging."""

SECONDS = 1.0
"""Seconds of most of these tests. The torture harness goes on for minutes."""

PERIOD = 65521
"""Bytes after which the pattern repeats: a prime, so that a piece of any usual size that is lost or doubled shows."""
_BLOCK = random.Random(1).randbytes(PERIOD)
PATTERN = _BLOCK * (2 + 2**21 // PERIOD)


def pattern(position: int, size: int) -> bytes:
    """The bytes of the stream at a position; ``size`` is 2 MiB at most."""
    start = position % PERIOD
    return PATTERN[start : start + size]


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Let another thread run every 50 us instead of every 5 ms: more ways to get in between."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(50e-6)
    yield
    sys.setswitchinterval(before)


@contextmanager
def pair(kind: str = "tcp") -> Iterator[tuple[Socket, Socket]]:
    """Two connected wireline sockets."""
    with ExitStack() as stack:
        listener = stack.enter_context(Socket(AF_UNIX) if kind == "unix" else Socket())
        if kind == "unix":
            listener.bind_unix(f"\0wireline-{random.randbytes(8).hex()}")
            one = stack.enter_context(Socket(AF_UNIX))
        else:
            listener.bind_addr(0, LOOPBACK)
            one = stack.enter_context(Socket())
        listener.listen()
        if kind == "unix":
            one.connect_unix(listener.local_addr.host, timeout=PATIENCE)
        else:
            one.connect(*listener.local_addr, timeout=PATIENCE)
        yield one, stack.enter_context(listener.accept(timeout=PATIENCE))


# Both directions at full speed.


def write_for(seconds: float, sock: Socket, timeout: float | None) -> int:
    """Send the pattern in pieces of many sizes until the time is up, then half-close; how much it was."""
    end = time.monotonic() + seconds
    sizes = (1, 100, 4096, 65536, 200_000, 17, 1_000_000)
    sent = 0
    for size in itertools.cycle(sizes):
        if sent >= sum(sizes) and time.monotonic() > end:
            break
        sock.send(pattern(sent, size), timeout=timeout)
        sent += size
    sock.shutdown_write()
    return sent


def read_all(sock: Socket, timeout: float | None) -> int:
    """Read the pattern in many ways until the end, and check every byte; how much it was."""
    target = bytearray(70_000)

    def into() -> bytes:
        return bytes(target[: sock.recv_into(target, timeout=timeout)])

    ways: list[Callable[[], bytes]] = [
        lambda: sock.recv_some(timeout=timeout),
        lambda: sock.recv(300_000, timeout),
        lambda: sock.recv_some(1000, timeout),
        lambda: sock.recv(1, timeout),
        into,
    ]
    received = 0
    for way in itertools.cycle(ways):
        data = way()
        if not data:
            return received
        assert data == pattern(received, len(data)), f"after {received} bytes"
        received += len(data)
    raise AssertionError


@pytest.mark.parametrize(
    ("kind", "timeout", "seconds"),
    [
        pytest.param("tcp", None, 5.0, marks=pytest.mark.full),
        pytest.param("tcp", PATIENCE, 5.0, marks=pytest.mark.full),
        ("tcp", PATIENCE, 2.0),
        ("unix", None, 1.0),
        pytest.param("unix", PATIENCE, 2.0, marks=pytest.mark.full),
    ],
)
def test_two_threads_read_and_write_one_socket_and_every_byte_arrives_in_order(
    kind: str, timeout: float | None, seconds: float
) -> None:
    with pair(kind) as (one, other), ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read_all, sock, timeout) for sock in (one, other)]
        writing = [pool.submit(write_for, seconds, sock, timeout) for sock in (other, one)]
        sent = [future.result() for future in writing]
        assert [future.result() for future in reading] == sent


# Many writers.

HEADER = struct.Struct("!HHI")


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_W5_the_messages_of_fifty_writers_arrive_whole_and_in_order(timeout: float | None) -> None:
    writers, messages = 50, 40

    def write(number: int, sock: Socket) -> None:
        sizes = random.Random(number)
        for count in range(messages):
            size = sizes.choice((0, 1, 50, 5000, 70_000, 150_000))
            sock.send(HEADER.pack(number, count, size) + bytes([number]) * size, timeout=timeout)

    with pair() as (one, other), ThreadPoolExecutor(writers) as pool:
        writing = [pool.submit(write, number, one) for number in range(writers)]
        seen: dict[int, int] = defaultdict(int)
        for _ in range(writers * messages):
            number, count, size = HEADER.unpack(other.recv_exactly(HEADER.size, PATIENCE))
            assert count == seen[number]
            assert other.recv_exactly(size, PATIENCE) == bytes([number]) * size
            seen[number] += 1
        for future in writing:
            future.result()
        assert not other.has_data_buffered


# Closing from another thread at random moments, while the descriptor's number is used again at once.

LANES = 4
"""Threads that open and close at the same time. One closes a number, another opens it."""

ROUNDS = 5
"""How often each of them does so at least."""


def in_lanes(lane: Callable[[random.Random], None], seconds: float) -> None:
    """Run ``lane`` again and again in several threads, at least ``ROUNDS`` times in each, until one of them fails.

    Args:
        lane: one round, with the random source of its moments.
        seconds: how long to go on. A slow machine takes longer for the least number of rounds, and that is fine.
    """
    end = time.monotonic() + seconds

    def run(number: int) -> None:
        for rounds in itertools.count():
            if rounds >= ROUNDS and time.monotonic() > end:
                return
            lane(random.Random(number * 1_000_000 + rounds))

    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(run, range(LANES)))


class Doing:
    """A thread that does the same until the socket is closed under it, and must then end at once."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._outcome: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(step,))
        self._thread.start()

    def _run(self, step: Callable[[], object]) -> None:
        try:
            while True:
                step()
        except ClosedError:
            self._outcome.set_result(None)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the test is to fail with it
            self._outcome.set_exception(error)

    def must_end(self) -> None:
        """Raise its error, or an error if it hangs."""
        self._outcome.result(PATIENCE)
        self._thread.join()


def at_a_random_moment(moments: random.Random) -> None:
    """Let up to 3 ms pass."""
    threading.Event().wait(moments.random() * 0.003)


class Streams:
    """A server at which every connection says its tag, and gets and gives nothing but this tag from then on."""

    SIZE = 8

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.received = 0

    def handle(self, client: Socket, _: Address) -> None:
        tag = client.recv_exactly(self.SIZE, PATIENCE)
        sender = threading.Thread(target=self._send, args=(client, tag))
        sender.start()
        position = 0
        while data := client.recv_some(timeout=PATIENCE):
            if not is_tag(data, tag, position):
                self.problems.append(f"the connection {tag!r} got {data[:40]!r}")
            position += len(data)
        self.received += position
        client.close()
        sender.join()

    @staticmethod
    def _send(client: Socket, tag: bytes) -> None:
        with suppress(OSError):  # the peer is gone: that is how each of them ends
            for size in itertools.cycle((1, 30, 1000)):
                client.send(tag * size, SocketFlag(0))


def is_tag(data: bytes, tag: bytes, position: int) -> bool:
    """Whether ``data`` is a part of the repeated tag, from a position on."""
    start = position % len(tag)
    return (tag * (len(data) // len(tag) + 2))[start : start + len(data)] == data


tags = itertools.count(1)


@pytest.mark.parametrize("timeout", few_in_sample([None, PATIENCE], PATIENCE))
def test_R13_R14_closed_while_reading_and_writing_and_no_byte_goes_astray(timeout: float | None) -> None:
    streams = Streams()
    with serve(streams.handle, 0, LOOPBACK) as server:

        def lane(moments: random.Random) -> None:
            tag = b"<%06d>" % (next(tags) % 1_000_000)
            with dial(*server.local_addr, timeout=PATIENCE) as sock:
                sock.send(tag)
                position = 0

                def read() -> None:
                    nonlocal position
                    data = sock.recv_some(timeout=timeout)
                    assert data, "an end of the stream where ClosedError belongs"
                    assert is_tag(data, tag, position), f"the connection {tag!r} got {data[:40]!r}"
                    position += len(data)

                threads = [Doing(read), Doing(lambda: sock.send(tag * 20, timeout=timeout))]
                at_a_random_moment(moments)
                sock.close()
                for thread in threads:
                    thread.must_end()

        in_lanes(lane, 3.0)
        server.stop(drain=PATIENCE)
    assert streams.problems == []
    assert streams.received


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_R13_R14_closed_while_accepting_and_no_client_lands_elsewhere(timeout: float | None) -> None:
    landed = 0

    def lane(moments: random.Random) -> None:
        nonlocal landed
        with Socket() as listener:
            listener.bind_addr(0, LOOPBACK)
            listener.listen()
            where = listener.local_addr

            def accept() -> None:
                with listener.accept(timeout=timeout) as client:
                    client.send(b"%d\n" % where.port)

            accepting = [Doing(accept), Doing(accept)]
            for _ in range(3):
                with dial(*where, timeout=PATIENCE) as client:
                    assert client.recv_line(PATIENCE) == b"%d" % where.port
                    landed += 1
            at_a_random_moment(moments)
            listener.close()
            for thread in accepting:
                thread.must_end()

    in_lanes(lane, SECONDS)
    assert landed >= LANES * ROUNDS


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_R13_R14_closed_while_receiving_datagrams_and_none_lands_elsewhere(timeout: float | None) -> None:
    landed = 0
    with Socket(sock_type=SOCK_DGRAM) as sender:

        def lane(moments: random.Random) -> None:
            nonlocal landed
            with Socket(sock_type=SOCK_DGRAM) as sock:
                sock.bind_addr(0, LOOPBACK)
                port = sock.local_addr.port
                arrived = threading.Event()
                many = moments.random() < 0.5

                def receive() -> None:
                    if many:
                        received = sock.recv_many_from(timeout=timeout)
                    else:
                        received = [sock.recv_from(100, timeout=timeout)]
                    assert [datagram.data for datagram in received] == [b"%d" % port]
                    arrived.set()

                receiving = Doing(receive)
                sender.send_to(LOOPBACK, port, b"%d" % port)
                assert arrived.wait(PATIENCE)
                landed += 1
                at_a_random_moment(moments)
                sock.close()
                receiving.must_end()

        in_lanes(lane, SECONDS)
    assert landed >= LANES * ROUNDS


def test_R13_closed_while_connecting() -> None:
    with Socket() as listener:
        listener.bind_addr(0, LOOPBACK)
        listener.listen()
        where = listener.local_addr

        def lane(moments: random.Random) -> None:
            sock = Socket()

            def connect() -> None:
                sock.connect(*where, timeout=PATIENCE)
                while not sock.is_closed:
                    sock.recv_some(timeout=PATIENCE)
                sock.recv_some()

            connecting = Doing(connect)
            at_a_random_moment(moments)
            sock.close()
            connecting.must_end()

        accepting = Doing(lambda: listener.accept().close(linger=0.1))
        in_lanes(lane, SECONDS)
        listener.close()
        accepting.must_end()


def test_R14_lines_that_were_split_off_ahead_are_gone_after_close() -> None:
    def flood(client: Socket, _: Address) -> None:
        with suppress(OSError):
            while True:
                client.send(b"a line\n" * 1000, SocketFlag(0))

    with serve(flood, 0, LOOPBACK) as server:

        def lane(moments: random.Random) -> None:
            closed = threading.Event()
            with dial(*server.local_addr, timeout=PATIENCE) as sock:

                def read() -> None:
                    too_late = closed.is_set()
                    line = sock.recv_line()
                    assert line == b"a line"
                    assert not too_late, "a line of a closed socket"

                reading = Doing(read)
                at_a_random_moment(moments)
                sock.close()
                closed.set()
                reading.must_end()

        in_lanes(lane, SECONDS)


@pytest.mark.parametrize("size", [3, 65536])
def test_detached_while_reading_and_no_byte_is_lost_in_between(size: int) -> None:
    def send(peer: Socket) -> None:
        for position in range(0, 20_000, 10):
            peer.send(pattern(position, 10))
        peer.shutdown_write()

    def lane(_: random.Random) -> None:
        received = 0
        with pair() as (one, other):

            def read() -> None:
                nonlocal received
                data = one.recv_some(size)
                assert data == pattern(received, len(data))
                received += len(data)

            reading = Doing(read)
            sending = threading.Thread(target=send, args=(other,))
            sending.start()
            fd = -1
            while fd < 0:
                with suppress(BlockingIOError, OSError):  # EBUSY: it is reading, or has something unread
                    fd = one.detach()
            reading.must_end()
            with Socket.from_fd(fd) as rest:
                data = rest.recv(20_000, PATIENCE)
                assert data == pattern(received, 20_000 - received)
            sending.join()

    in_lanes(lane, SECONDS)


class Flooded(socket.socket):
    """A descriptor at which there is always one byte more."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        return b"x"


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_R13_a_reader_that_is_never_starved_is_woken_too(timeout: float | None) -> None:
    # A reader that always finds a byte never waits, so the wake-up of waits does not reach it.
    with pair() as (one, other):
        other.send(b"readable")
        one._fd.sock = one._io.source = Flooded(fileno=one._fd.sock.detach())
        reading = Doing(lambda: one.recv_exactly(10**10, timeout))
        at_a_random_moment(random.Random())
        started = time.monotonic()
        one.close()
        reading.must_end()
        assert time.monotonic() - started < PATIENCE / 2
