"""The interface of a contestant: the amount of work, a clock, and checks."""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from benchmarks._payload import Payload

if sys.platform != "win32":
    import resource


READS_PER_FILL = 16
"""Blocks that a contestant reads before the load gets time to fill the buffer again: a MiB, which the kernel holds."""


class SupportsFileno(Protocol):
    """An object with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


class WrongBytesError(Exception):
    """The received bytes differ from the sent ones."""


def cpu_seconds() -> tuple[float, float]:
    """User and system time of this process so far. The sum is exact; Linux estimates how it divides."""
    if sys.platform != "win32":
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime, usage.ru_stime
    spent = os.times()
    return spent.user, spent.system


def settle_allocator() -> None:
    """Give all contestants the better of two cases that depend on chance: a large block was freed before.

    Until then the GNU C library gets every block above 128 KiB from the kernel and gives it back. asyncio reads into
    256 KiB, which doubles the cost of a read in such a process, and says nothing about asyncio.
    """
    bytearray(1 << 20)


class Stopwatch:
    """Adds up the time of this process between each ``start`` and ``stop``."""

    def __init__(self) -> None:
        self.seconds = self.user = self.system = 0.0
        self._running: tuple[float, float, float] | None = None

    def start(self) -> None:
        """Begin to count."""
        user, system = cpu_seconds()
        self._running = (time.perf_counter(), user, system)

    def stop(self) -> None:
        """Add the time since ``start``; nothing if the watch is stopped."""
        if self._running is not None:
            now = time.perf_counter()
            user, system = cpu_seconds()
            started, user_before, system_before = self._running
            self._running = None
            self.add(now - started, user - user_before, system - system_before)

    def add(self, seconds: float, user: float, system: float) -> None:
        """Add a measurement from elsewhere."""
        self.seconds += seconds
        self.user += user
        self.system += system


class Trial:
    """One run of one contestant.

    Attributes:
        watch: the time, without the warm-up.
        total: pieces to do, the warm-up included.
        warm_up: pieces before those that are measured.
        certificate: a file with certificate and key; None if the work is done without TLS.
    """

    def __init__(self, payload: Payload, pieces: int, warm_up: int, certificate: str | None = None) -> None:
        """Prepare a run.

        Args:
            payload: the kind of pieces.
            pieces: the number that is measured.
            warm_up: the number before those.
            certificate: as above.
        """
        self.certificate = certificate
        self.watch = Stopwatch()
        self.total = pieces + warm_up
        self._payload = payload
        self.warm_up = warm_up
        self._pieces = pieces
        self._expected = payload.pieces()
        self._checked = 0
        self._period = self._whole = b""
        self._taken = 0

    def announce(self, port: int) -> None:
        """Say where the contestant listens, on 127.0.0.1."""
        settle_allocator()
        _say({"port": port})

    def laps(self) -> Iterator[int]:
        """How many pieces to do: first to warm up, then, with the clock running, to be measured."""
        yield self.warm_up
        self.watch.start()
        yield self._pieces
        self.watch.stop()

    def outgoing(self, count: int) -> Iterator[bytes]:
        """The next ``count`` pieces to send. The load checks them."""
        return itertools.islice(self._expected, count)

    def incoming(self) -> Iterator[int]:
        """Messages of each piece to receive. The clock runs until the piece is given to ``check``."""
        for number in range(self.total):
            if number >= self.warm_up:
                self.watch.start()
            yield self._payload.messages

    def check(self, parts: Iterable[bytes], terminator: bytes = b"") -> None:
        """Stop the clock and compare the received parts, each followed by ``terminator``, with a piece.

        Raises:
            WrongBytesError: they differ.
        """
        self.watch.stop()
        received = b"".join(part + terminator for part in parts) if terminator else b"".join(parts)
        expected = next(self._expected)
        if received != expected:
            raise WrongBytesError(describe_difference(received, expected, self._checked))
        self._checked += 1

    def reads(self) -> Iterator[None]:
        """Yield once for each receive of any size; its result is to be passed to ``take``.

        The load sends all the time, so the clock never stops; only the CPU time of checking is left out.
        """
        began = 0.0
        while self._checked < self.total:
            if self._checked >= self.warm_up:
                began = began or time.perf_counter()
                self.watch.start()
            yield
        self.watch.seconds = time.perf_counter() - began

    def ready_reads(self, sock: SupportsFileno) -> Iterator[None]:
        """The same, of bytes that have arrived before: neither waiting for the load nor checking counts."""
        for number in itertools.count():
            if self._checked >= self.total:
                return
            if number % READS_PER_FILL == 0:
                _wait_until_full(sock.fileno(), READS_PER_FILL * self._payload.size)
            if self._checked >= self.warm_up:
                self.watch.start()
            yield

    def take(self, received: bytes) -> None:
        """Stop the clock and compare the received bytes with the pieces that they belong to.

        Raises:
            WrongBytesError: they differ, or nothing was received.
        """
        self.watch.stop()
        if not received:
            raise WrongBytesError(f"the end came after {self._checked} of {self.total} pieces")
        # From one piece of memory that is kept: the load does not wait for us to check, and small reads are as many
        # more checks.
        self._period = self._period or b"".join(self._payload.period())
        start = self._taken % len(self._period)
        while len(self._whole) < start + len(received):
            self._whole += self._period
        expected = self._whole[start : start + len(received)]
        if received != expected:
            raise WrongBytesError(describe_difference(received, expected, self._checked))
        self._taken += len(received)
        self._checked = self._taken // self._payload.size

    def passed(self, seconds: float, user: float, system: float) -> None:
        """Count a piece that was measured and checked elsewhere."""
        if self._checked >= self.warm_up:
            self.watch.add(seconds, user, system)
        self._checked += 1

    def report(self) -> None:
        """Report the cost, and the number of pieces that this side has checked."""
        watch = self.watch
        spent = {"seconds": watch.seconds, "user": watch.user, "system": watch.system}
        _say({**spent, "checked": self._checked})


def _wait_until_full(descriptor: int, size: int) -> None:
    """Wait until ``size`` bytes can be received, or the stream ends. Without SO_RCVLOWAT one byte is enough."""
    with socket.socket(fileno=os.dup(descriptor)) as same:
        for lowest in (size, 1):
            if sys.platform != "win32":
                same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, lowest)
            select.select([same], [], [])


def describe_difference(received: bytes, expected: bytes, number: int) -> str:
    """Say where a piece began to be wrong."""
    pairs = zip(received, expected, strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if one != other), len(received))
    if len(received) == same:
        return f"piece {number} has {same} bytes, {len(expected)} were sent"
    return f"piece {number} is wrong from byte {same} on: {received[same : same + 8]!r}"


def _say(words: dict[str, int | float]) -> None:
    print(json.dumps(words), flush=True)
