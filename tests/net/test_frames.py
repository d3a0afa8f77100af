"""Framed reads of threads: each byte once or ``BusyError``, and ``close`` ends them all."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.core.interrupts import Interruption, interrupted, switched
from wireline import BusyError, ClosedError, EndOfStreamError, Frame
from wireline.net import Socket

PATIENCE = 10.0

SIZE = 12
"""Bytes of a unit, which is a line and a frame: its first byte tells how many follow."""


def unit(number: int) -> bytes:
    return bytes([SIZE - 1]) + b"%010d" % number + b"\n"


def header(view: memoryview) -> tuple[int, int]:
    return 1, view[0]


Read = Callable[[Socket], bytes]

READS: dict[str, Read] = {
    "recv_line": lambda sock: sock.recv_line() + b"\n",
    "recv_exactly": lambda sock: sock.recv_exactly(SIZE),
    "recv_struct": lambda sock: sock.recv_struct(f"{SIZE}s")[0],
    "recv_frame": lambda sock: bytes([SIZE - 1]) + sock.recv_frame("B").payload,
    "recv_frame by a function": lambda sock: bytes([SIZE - 1]) + sock.recv_frame(header).payload,
    "recv_until": lambda sock: sock.recv_until((b"\r\n", b"\n")),
    "some of frames": lambda sock: b"".join(
        bytes([SIZE - 1]) + frame.payload for frame in itertools.islice(sock.frames("B"), 60)
    ),
    "some of lines": lambda sock: b"".join(line + b"\n" for line in itertools.islice(sock.lines(), 60)),
}


@pytest.fixture
def pair() -> Iterator[tuple[Socket, socket.socket]]:
    ours, peer = socket.socketpair()
    with peer, Socket.from_socket(ours) as sock:
        yield sock, peer


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Reader(threading.Thread):
    """Reads units in any way until there are no more; an iterator that a ``BusyError`` ends has given what it took."""

    def __init__(self, sock: Socket, seed: int, names: list[str]) -> None:
        super().__init__(daemon=True)
        self.sock = sock
        self.taken: list[bytes] = []
        self.error: BaseException | None = None
        self._random = random.Random(seed)
        self._names = names

    def run(self) -> None:
        try:
            while True:
                with contextlib.suppress(BusyError):
                    self._read(self._random.choice(self._names))
        except (EndOfStreamError, ClosedError) as error:
            self.error = error
        except BaseException as error:  # noqa: BLE001 -- for the test
            self.error = error

    def _read(self, name: str) -> None:
        if name.startswith("some of"):
            self._iterate(self.sock.frames("B") if "frames" in name else self.sock.lines())
            return
        data = READS[name](self.sock)
        if data == b"\n":
            raise EndOfStreamError("recv_line", b"", "a line")  # that is how it says so
        if self._random.random() < 0.1:
            with contextlib.suppress(BusyError):
                self.sock.unread(data)
                return
        self.taken.append(data)

    def _iterate(self, units: Iterator[object]) -> None:
        count = 0
        for each in itertools.islice(units, self._random.choice([1, 3, 100])):
            count += 1
            payload = each + b"\n" if isinstance(each, bytes) else bytes([SIZE - 1]) + each.payload  # type: ignore[attr-defined]
            self.taken.append(payload)
        if not count and not self.sock.recv_some(0):
            raise EndOfStreamError("frames", b"", "a frame")


@pytest.mark.usefixtures("quick_switches")
def test_R11_threads_that_read_in_every_way_take_each_byte_once(pair: tuple[Socket, socket.socket]) -> None:
    sock, peer = pair
    count = 12_000
    names = list(READS)
    readers = [Reader(sock, seed, names) for seed in range(3)]
    # One reader of lines alone is what splits them ahead while others read.
    readers.append(Reader(sock, 3, ["some of lines", "recv_line"]))
    readers.append(Reader(sock, 4, ["some of frames", "recv_frame"]))
    for reader in readers:
        reader.start()
    for first in range(0, count, 3000):
        peer.sendall(b"".join(map(unit, range(first, first + 3000))))
    peer.shutdown(socket.SHUT_WR)
    for reader in readers:
        reader.join(PATIENCE)
        assert not reader.is_alive()
        assert isinstance(reader.error, EndOfStreamError), reader.error
    taken = Counter(itertools.chain.from_iterable(reader.taken for reader in readers))
    # What a thread puts back after the others have seen the end is left.
    left = sock.recv(10**6)
    taken.update(left[start : start + SIZE] for start in range(0, len(left), SIZE))
    assert taken == Counter(map(unit, range(count)))


@pytest.mark.usefixtures("quick_switches")
def test_R13_close_ends_every_framed_read_of_another_thread() -> None:
    for name in READS:
        for waiting in (False, True):
            ours, peer = socket.socketpair()
            with peer, Socket.from_socket(ours) as sock:
                reader = Reader(sock, 0, [name])
                peer.sendall(b"".join(map(unit, range(300))))
                reader.start()
                while waiting and len(reader.taken) < 150:
                    pass
                sock.close()
                reader.join(PATIENCE)
                assert not reader.is_alive(), name
                assert isinstance(reader.error, ClosedError), reader.error
                assert Counter(reader.taken) <= Counter(map(unit, range(300)))


def test_R11_framed_reads_beside_one_that_waits_and_after_others(pair: tuple[Socket, socket.socket]) -> None:
    check_that_a_second_read_is_refused(pair)
    check_that_iterators_follow_other_reads(pair)


def check_that_a_second_read_is_refused(pair: tuple[Socket, socket.socket]) -> None:
    sock, peer = pair
    for name, read in READS.items():
        peer.sendall(unit(0)[:4])
        assert sock.fill(4) == unit(0)[:4]
        done: list[bytes] = []
        first = threading.Thread(target=lambda done=done: done.append(sock.recv_exactly(SIZE)), daemon=True)
        first.start()
        while sock._io.core_slot:
            pass
        for second in (
            read,
            lambda sock: sock.fill(1),
            lambda sock: sock.consume(0),
            lambda sock: sock.unread(b"x"),
            lambda sock: sock.try_recv(),
            lambda sock: sock.recv_some_into(bytearray(1)),
        ):
            with pytest.raises(BusyError):
                second(sock)
        peer.sendall(unit(0)[4:])
        first.join(PATIENCE)
        assert done == [unit(0)], name


def check_that_iterators_follow_other_reads(pair: tuple[Socket, socket.socket]) -> None:
    sock, peer = pair
    peer.sendall(b"".join(map(unit, range(500))))
    frames, lines = sock.frames("B"), sock.lines()
    others = [
        lambda: bytes([SIZE - 1]) + next(frames).payload,
        lambda: bytes([SIZE - 1]) + next(frames).payload,
        lambda: next(lines) + b"\n",
        lambda: sock.recv_line() + b"\n",
        lambda: sock.recv_exactly(SIZE),
        lambda: bytes([SIZE - 1]) + sock.recv_frame(header).payload,
    ]
    for number in range(500):
        # Long runs, so that units are split ahead, and single ones.
        read = others[(number // 70) % len(others)] if number < 400 else others[number % len(others)]
        assert read() == unit(number)
    assert sock.try_recv() is None
    assert not sock.has_data_buffered
    sock.unread(b"x")
    assert sock.has_data_buffered


NEVER = 10**9


def test_P5_R11_an_iterator_that_is_interrupted_or_beside_another_thread_takes_each_frame_once() -> None:
    """A call before the ``yield``, and the jump backwards of a ``while``, were moments at which a frame was lost."""
    moments = 0
    others: list[Read | None] = [None, READS["recv_frame"], READS["recv_exactly"], lambda sock: b""]
    for other, ahead in itertools.product(others, (False, True)):
        for moment in (NEVER, *range(100)):
            ours, peer = socket.socketpair()
            with peer, Socket.from_socket(ours) as sock:
                peer.sendall(b"".join(map(unit, range(100))))
                frames = sock.frames("B")
                taken = [bytes([SIZE - 1]) + next(frames).payload for _ in range(60 if ahead else 1)]

                def read(frames: Iterator[Frame] = frames, taken: list[bytes] = taken) -> None:
                    for frame in itertools.islice(frames, 3):
                        taken.append(bytes([SIZE - 1]) + frame.payload)

                def meanwhile(
                    sock: Socket = sock, taken: list[bytes] = taken, other: Read | None = other
                ) -> None:
                    if other is not None:
                        with contextlib.suppress(BusyError):
                            taken.append(other(sock))

                try:
                    if other is None:
                        reached = interrupted(read, moment, "net/_frames.py")
                    else:
                        reached = switched(read, moment, meanwhile, "net/_frames.py")
                except Interruption:
                    reached = True
                moments += reached
                taken.append(sock.recv_some())
                assert b"".join(sorted(taken)) == b"".join(map(unit, range(100))), moment
            if moment != NEVER and not reached:
                break
    assert moments > 10
