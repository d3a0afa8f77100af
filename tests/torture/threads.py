"""Eight threads (or tasks) doing random operations on shared sockets, and every byte accounted for.

The peer sends back every byte. Messages mark their own beginning, so that one which a time limit cut short is seen:
its bytes are then as many as the error said. At the end the returned stream is a sequence of whole messages and
such beginnings, each of them once, and nothing else. Then one thread closes while the others work.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import random
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import trio

from tests.scenarios import tasks
from tests.torture import victims, waits
from tests.torture.registry import Budget, Finding
from tests.torture.stage import Broken, Later, Scene, Steps, expect, peers, play
from wireline import BusyError, ClosedError, EndOfStreamError, SocketFlag, SocketTimeout, asyncnet, net

WORKERS = 8
SOCKETS = 2
BEGINS = b"\xff"
"""The first byte of a message, and of nothing else in it."""

END = b"\xfe"
"""The last message on a socket: after it, the peer has sent everything back."""


def _message(number: int, chance: random.Random) -> bytes:
    """A message like no other: its number, and some bytes that follow from it."""
    head = b"%d:" % number
    size = chance.choice((0, 1, 10, 100, 1000, 16_384, 60_000, 200_000))
    body = (b"%d\r\n" % (number * 7919)) * (size // 8)
    return BEGINS + head + body


class Ledger:
    """The messages sent on a socket, and the stream that was returned."""

    def __init__(self) -> None:
        self.sent: Counter[bytes] = Counter()
        self.got: list[bytes] = []
        self.reading = threading.Lock()
        self.operations = 0

    def check(self, name: str) -> None:
        """Compare the two; ``Broken`` if they differ."""
        stream = b"".join(self.got)
        expect(
            stream.endswith(END), f"{name}: the last byte sent did not come back ({len(stream):,} bytes did)"
        )
        pieces = stream[:-1].split(BEGINS)
        expect(
            not pieces[0],
            f"{name}: {len(pieces[0]):,} bytes came back before any message: {pieces[0][:40]!r}",
        )
        came = Counter(BEGINS + piece for piece in pieces[1:])
        missing, strange = self.sent - came, came - self.sent
        if missing or strange:
            told = ", ".join(f"{len(piece):,} bytes {piece[:30]!r}" for piece in [*missing][:3])
            odd = ", ".join(f"{len(piece):,} bytes {piece[:30]!r}" for piece in [*strange][:3])
            raise Broken(
                f"{name}: of {self.sent.total():,} messages {missing.total()} did not come back ({told}), and "
                f"{strange.total()} came back that were not sent ({odd})"
            )


class Work:
    """Random operations of one flavour on shared sockets."""

    def __init__(self, socks: list[Any], seed: int) -> None:
        self.socks = socks
        self.ledgers = [Ledger() for _ in socks]
        self.numbers = itertools.count()
        self.seed = seed
        self.over = False


# ------------------------------------------------------------------------------------------------ the blocking flavour


def _send(work: Work, which: int, chance: random.Random) -> None:
    message = _message(next(work.numbers), chance)
    limit = chance.choice((None, None, None, 20.0, 0.05, 0.005, 0.0))
    try:
        work.socks[which].send(message, timeout=limit)
    except SocketTimeout as error:
        message = message[: error.bytes_sent]
    if message:
        with work.ledgers[which].reading:
            work.ledgers[which].sent[message] += 1


def _look(sock: net.Socket, chance: random.Random) -> None:
    """A call that changes nothing: it is allowed beside a reader, which may be in the way."""
    match chance.randrange(6):
        case 0:
            _ = sock.has_data_buffered, sock.is_closed
        case 1:
            _ = sock.local_addr, sock.peer_addr, sock.fileno()
        case 2:
            repr(sock)
        case 3:
            _ = sock.is_ssl and sock.tls_info
        case 4:
            sock.send(b"")
        case 5:
            try:
                sock.recv_some(50, timeout=0, flags=SocketFlag.PEEK)
            except (BusyError, SocketTimeout):
                pass  # another thread reads, or nothing is there: both are answers


def _read(sock: net.Socket, chance: random.Random) -> bytes:
    """Some bytes, in one of the ways that say exactly which were taken; ``b""`` if there were none in time."""
    limit = chance.choice((0.0, 0.001, 0.02))
    try:
        match chance.randrange(11):
            case 0:
                return sock.recv_some(chance.choice((1, 100, 65_536, 1_000_000)), timeout=limit)
            case 1:
                return sock.recv_exactly(chance.choice((1, 2, 500)), timeout=limit)
            case 2:
                return sock.recv(chance.choice((1, 20, 3000)), timeout=limit)
            case 3:
                return sock.recv_until(chance.choice((b"\r\n", b":", b"\n")), timeout=limit)
            case 4:
                room = bytearray(chance.choice((1, 300, 20_000)))
                return bytes(room[: sock.recv_into(room, timeout=limit)])
            case 5:
                return bytes(sock.recv_struct(chance.choice(("1s", "500s")), limit)[0])
            case 6:
                size = chance.choice((2, 500))
                header, payload = sock.recv_frame(lambda _: (1, size), timeout=limit)
                return bytes(header) + payload
            case 7:
                view = sock.fill(chance.choice((1, 500, 20_000)), limit)
                half = len(view) // 2
                sock.consume(half)
                return bytes(view[:half])
            case 8:
                return sock.try_recv(300) or b""
            case 9:
                return _put_half_back(sock, sock.recv_exactly(20, limit))
            case _:
                seen = sock.recv_some(200, timeout=limit, flags=SocketFlag.PEEK)
                got = sock.recv_exactly(len(seen), timeout=5)
                expect(
                    got == seen,
                    f"a look at the buffer showed {seen[:40]!r}, and the read then got {got[:40]!r}",
                )
                return got
    except (SocketTimeout, BusyError):
        return b""


def _put_half_back(sock: net.Socket | asyncnet.AsyncSocket, data: bytes) -> bytes:
    """Put the second half of what was read back; what is left of it."""
    try:
        sock.unread(data[10:])
    except BusyError:  # a thread looks at the buffer
        return data
    return data[:10]


def _work(work: Work, worker: int) -> None:
    chance = random.Random(work.seed * 100 + worker)
    while not work.over:
        which = chance.randrange(len(work.socks))
        sock, ledger = work.socks[which], work.ledgers[which]
        ledger.operations += 1
        action = chance.random()
        # Two in eight mostly send: with more, their echo would fill both directions.
        if action < (0.5 if worker < 2 else 0.05):
            _send(work, which, chance)
        elif action < 0.6:
            _look(sock, chance)
        elif ledger.reading.acquire(timeout=0.01):
            # The order of the bytes is known only if one at a time reads.
            try:
                ledger.got.append(_read(sock, chance))
            finally:
                ledger.reading.release()


def blocking(steps: Steps, kind: str, seconds: float) -> None:
    """Each step is a run with another seed."""
    warnings.simplefilter("ignore")
    for step in steps:
        socks = [victims.dial(kind) for _ in range(SOCKETS)]
        for sock in socks:
            sock.send(b"raw\n")
        work = Work(socks, int(step.split()[-1]))
        steps.count(connections=SOCKETS)
        threads = [Later(functools.partial(_work, work, worker)) for worker in range(WORKERS)]
        time.sleep(seconds)
        work.over = True
        _join(threads, work)
        for which, sock in enumerate(socks):
            ledger = work.ledgers[which]
            last = Later(lambda sock=sock: sock.send(END, timeout=20))
            while not (ledger.got and ledger.got[-1].endswith(END)):
                data = sock.recv_some(timeout=15)
                expect(data, f"{kind}: the connection ended before all came back")
                ledger.got.append(data)
            last.get(20, "the last send")
            ledger.check(f"blocking {kind}")
        _close_under(Work(socks, work.seed + 1), kind)


def _join(threads: list[Later], work: Work) -> None:
    """Wait for the threads; the echo is read meanwhile, for a send may wait for it."""
    limit = time.monotonic() + 25
    while not all(thread.done for thread in threads):
        expect(time.monotonic() < limit, "a thread does not come back from its last operation")
        for sock, ledger in zip(work.socks, work.ledgers, strict=True):
            with ledger.reading:
                try:
                    ledger.got.append(sock.recv_some(timeout=0.005))
                except (SocketTimeout, BusyError):
                    continue  # nothing is there
    for thread in threads:
        thread.get(1, "a thread")


def _close_under(work: Work, kind: str) -> None:
    """One thread closes while the others work: they all get `ClosedError`, at once, and nothing else."""

    def until_closed(worker: int) -> None:
        try:
            _work(work, worker)
        except ClosedError:
            return

    threads = [Later(lambda worker=worker: until_closed(worker)) for worker in range(WORKERS)]
    time.sleep(0.2)
    began = time.monotonic()
    for sock in work.socks:
        sock.close()
    took = time.monotonic() - began
    expect(took < 3, f"close() took {took:.1f} s while others used the socket")
    for thread in threads:
        try:
            thread.get(5, f"blocking {kind}: a thread at a socket that was closed")
        except OSError as error:
            raise Broken(
                f"blocking {kind}: close() in another thread is a {type(error).__name__}: {error}"
            ) from error


# --------------------------------------------------------------------------------------------------- the async flavour


async def _send_async(work: Work, which: int, chance: random.Random) -> None:
    message = _message(next(work.numbers), chance)
    limit = chance.choice((None, None, None, 20.0, 0.05, 0.005, 0.0))
    try:
        await work.socks[which].send(message, timeout=limit)
    except SocketTimeout as error:
        message = message[: error.bytes_sent]
    if message:
        work.ledgers[which].sent[message] += 1


async def _read_async(sock: asyncnet.AsyncSocket, chance: random.Random) -> bytes:
    limit = chance.choice((0.0, 0.001, 0.02))
    try:
        match chance.randrange(11):
            case 0:
                return await sock.recv_some(chance.choice((1, 100, 65_536, 1_000_000)), timeout=limit)
            case 1:
                return await sock.recv_exactly(chance.choice((1, 2, 500)), timeout=limit)
            case 2:
                return await sock.recv(chance.choice((1, 20, 3000)), timeout=limit)
            case 3:
                return await sock.recv_until(chance.choice((b"\r\n", b":", b"\n")), timeout=limit)
            case 4:
                room = bytearray(chance.choice((1, 300, 20_000)))
                return bytes(room[: await sock.recv_into(room, timeout=limit)])
            case 5:
                return bytes((await sock.recv_struct(chance.choice(("1s", "500s")), limit))[0])
            case 6:
                size = chance.choice((2, 500))
                header, payload = await sock.recv_frame(lambda _: (1, size), timeout=limit)
                return bytes(header) + payload
            case 7:
                view = await sock.fill(chance.choice((1, 500, 20_000)), limit)
                half = len(view) // 2
                sock.consume(half)
                return bytes(view[:half])
            case 8:
                return sock.try_recv(300) or b""
            case 9:
                return _put_half_back(sock, await sock.recv_exactly(20, limit))
            case _:
                return await _read_or_cancel(sock, chance.choice((0.0001, 0.002)))
    except (SocketTimeout, BusyError):
        return b""


async def _read_or_cancel(sock: asyncnet.AsyncSocket, seconds: float) -> bytes:
    """Read, cancelled by another's time limit: bytes that arrive meanwhile stay."""
    if tasks.on_trio():
        with trio.move_on_after(seconds):
            return await sock.recv_some(1000)
        return b""
    reading = asyncio.ensure_future(sock.recv_some(1000))
    try:
        return await asyncio.wait_for(reading, seconds)
    except TimeoutError:
        # `wait_for` drops the result of a task that is done in the turn in which its time is up.
        return b"" if reading.cancelled() else reading.result()


async def _work_async(work: Work, worker: int) -> None:
    chance = random.Random(work.seed * 100 + worker)
    while not work.over:
        which = chance.randrange(len(work.socks))
        sock, ledger = work.socks[which], work.ledgers[which]
        ledger.operations += 1
        if chance.random() < (0.5 if worker < 2 else 0.05):
            await _send_async(work, which, chance)
        elif ledger.reading.acquire(blocking=False):
            try:
                ledger.got.append(await _read_async(sock, chance))
            finally:
                ledger.reading.release()
        else:
            _ = sock.has_data_buffered, sock.is_closed, sock.local_addr, repr(sock)
            await tasks.sleep(0)


def awaited(steps: Steps, loop: str, kind: str, seconds: float) -> None:
    """Each step is a run with another seed."""
    warnings.simplefilter("ignore")

    async def main() -> None:
        for step in steps:
            socks = [await victims.dial_async(kind) for _ in range(SOCKETS)]
            for sock in socks:
                await sock.send(b"raw\n")
            work = Work(socks, int(step.split()[-1]))
            steps.count(connections=SOCKETS)
            workers = [tasks.ensure_future(_work_async(work, worker)) for worker in range(WORKERS)]
            await tasks.sleep(seconds)
            work.over = True
            limit = time.monotonic() + 25
            while await waits.running_after(workers, 0.005):
                expect(time.monotonic() < limit, "a task does not come back from its last operation")
                for sock, ledger in zip(socks, work.ledgers, strict=True):
                    if not ledger.reading.locked():
                        try:
                            ledger.got.append(await sock.recv_some(timeout=0.005))
                        except (SocketTimeout, BusyError):
                            continue  # nothing is there, or a task takes it
            await tasks.gather(*workers)
            for sock, ledger in zip(socks, work.ledgers, strict=True):
                last = tasks.ensure_future(sock.send(END, timeout=20))
                while not (ledger.got and ledger.got[-1].endswith(END)):
                    data = await sock.recv_some(timeout=15)
                    expect(data, f"{kind}: the connection ended before all came back")
                    ledger.got.append(data)
                await last
                ledger.check(f"{loop} {kind}")
            await _close_under_async(Work(socks, work.seed + 1), f"{loop} {kind}")

    victims.run_loop(loop, main())


async def _close_under_async(work: Work, name: str) -> None:
    workers = [tasks.ensure_future(_work_async(work, worker)) for worker in range(WORKERS)]
    await tasks.sleep(0.2)
    # From another thread, as AsyncSocket.close allows.
    await waits.to_thread(lambda: [sock.close() for sock in work.socks])
    late = await waits.running_after(workers, 5)
    expect(not late, f"{name}: {late} tasks wait at a socket that was closed")
    for worker in workers:
        error = await waits.error_of(worker)
        expect(
            isinstance(error, ClosedError | EndOfStreamError | None),
            f"{name}: close() in another thread is a {type(error).__name__}: {error}",
        )


def _scenes(budget: Budget, environment: dict[str, str]) -> list[Scene]:
    seconds = 60.0 if budget.full else 6.0 if budget.seconds > 30 else 0.5
    runs = range(budget.seed, budget.seed + (20 if budget.full else 1))
    scenes = []
    for kind in victims.KINDS:
        scenes.append(
            Scene(
                f"blocking {kind}, eight threads",
                "threads:blocking",
                [f"seed {seed}" for seed in runs],
                {"kind": kind, "seconds": seconds},
                60 + seconds,
            )
        )
        for loop in victims.LOOPS:
            scenes.append(
                Scene(
                    f"{loop} {kind}, eight tasks",
                    "threads:awaited",
                    [f"seed {seed}" for seed in runs],
                    {"kind": kind, "loop": loop, "seconds": seconds},
                    60 + seconds,
                )
            )
    return [dataclasses.replace(scene, environment=environment) for scene in budget.shuffled(scenes)]


def run(budget: Budget) -> Iterator[Finding]:
    """Share sockets."""
    with peers() as environment:
        yield from play("threads", budget, _scenes(budget, environment), jobs=3)
