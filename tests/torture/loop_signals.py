"""Real signals in a program with a loop: a handler that closes a socket, and trio's ``KeyboardInterrupt``.

The signal arrives at a random moment of an exchange, in the library or in the loop itself. A second connection of the
same loop, in a task of its own, must not notice it. asyncio answers ``SIGINT`` with a cancellation of the main task, so
only on trio an exception leaves a call at any instruction.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from tests.scenarios import tasks
from tests.torture import victims, waits
from tests.torture.children import RAISED, Child, ChildFailed, last_frames
from tests.torture.interruptions import LIMIT, LOUD, Bad, World, _main_stack, _pool, judged
from tests.torture.opcodes import place_of
from tests.torture.registry import Budget, Finding
from wireline import ClosedError, SocketTimeout
from wireline.asyncnet import AsyncSocket
from wireline.tls import Handshake

ROUNDS = (("asyncio", "close"), ("trio", "close"), ("trio", "interrupt"))
"""Loops and actions. uvloop runs the handlers of Python between two callbacks only."""

LATE = 3.0
"""Seconds after which a call has missed a wake-up."""

_ENOUGH = 5


def _told(problem: BaseException) -> str:
    return f"{problem!r}\n{''.join(traceback.format_exception(problem))}"


def _echo(peer: socket.socket) -> None:
    with contextlib.suppress(OSError), peer:
        while data := peer.recv(65536):
            peer.sendall(data)


class Program:
    """Two connections of one loop, of which signals disturb the first."""

    def __init__(self, say: Callable[[dict[str, Any]], None], world: World, chance: random.Random) -> None:
        self._say = say
        self._world = world
        self._chance = chance
        self._number = 0
        self.place = "nowhere"

    async def connect(self) -> AsyncSocket:
        ours, theirs = socket.socketpair()
        welcomed = _pool.submit(self._world.welcome, theirs)
        sock = AsyncSocket.from_socket(ours)
        if self._world.tls is not None:
            await self._world.tls.wrap_connected_async(sock, Handshake.AS_CLIENT, "127.0.0.1", 5.0)
        peer = welcomed.result(5.0)
        peer.settimeout(None)
        _pool.submit(_echo, peer)
        return sock

    async def run(self, action: str, wanted: int, seconds: float) -> None:
        """Disturb one exchange after the other."""
        limit = time.monotonic() + seconds
        bystander = await self.connect()
        beside = tasks.ensure_future(self._exchange_on(bystander))
        bad = 0
        for count in range(1, wanted + 1):
            if time.monotonic() > limit or bad >= _ENOUGH:
                break
            try:
                await (self._closed() if action == "close" else self._interrupted())
                if beside.done():
                    raise Bad("wrong", f"the other connection ended: {await waits.error_of(beside)!r}")
            except Bad as problem:
                bad += 1
                self._say({"bad": [problem.kind, str(problem)], "place": self.place, "count": count})
            self._say({"count": count})
        beside.cancel()
        await waits.running_after([beside], LATE)
        bystander.close()

    async def _exchange_on(self, sock: AsyncSocket) -> None:
        while True:
            await self._exchange(sock, LATE)
            await tasks.sleep(0.0005)

    async def _exchange(self, sock: AsyncSocket, timeout: float | None) -> None:
        self._number += 1
        line = b"line %d" % self._number
        await sock.send(line + b"\n", LOUD, timeout)
        answer = await sock.recv_line(timeout, LOUD)
        if answer != line:
            raise Bad("wrong", f"{answer!r} instead of {line!r}")

    async def _closed(self) -> None:
        """A handler closes the socket."""
        sock = await self.connect()

        def handle(_: int, frame: FrameType | None) -> None:
            self.place = place_of(frame).where
            sock.close()

        signal.signal(signal.SIGALRM, handle)
        timeout = self._chance.choice((None, LATE / 2))
        signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(1e-4, 2e-3))
        try:
            await waits.wait_for(self._until_closed(sock, timeout), LATE)
        except (TimeoutError, SocketTimeout):
            raise Bad("stuck", "a task was not woken by close()") from None
        except (OSError, ValueError, RuntimeError) as problem:
            raise Bad("wrong", _told(problem)) from problem
        if sock.fileno() >= 0:
            raise Bad("left", "the descriptor is open after close()")

    async def _until_closed(self, sock: AsyncSocket, timeout: float | None) -> None:
        with contextlib.suppress(ClosedError):
            while True:
                await self._exchange(sock, timeout)

    async def _interrupted(self) -> None:
        """trio's own handler raises, here or at the next checkpoint; the connection goes on, or says that it broke."""
        interrupt: Any = signal.getsignal(signal.SIGINT)
        sock = await self.connect()

        def handle(_: int, frame: FrameType | None) -> None:
            self.place = place_of(frame).where
            interrupt(signal.SIGINT, frame)

        signal.signal(signal.SIGALRM, handle)
        timeout = self._chance.choice((None, LATE / 2))
        try:
            for _ in range(10):
                number = self._number
                with contextlib.suppress(KeyboardInterrupt):
                    # Inside: on a busy machine the time may be over before the call returns.
                    signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(1e-4, 2e-3))
                    while True:
                        number = self._number
                        await self._exchange(sock, timeout)
                await waits.wait_for(self._go_on(sock, number), LATE)
        except TimeoutError:
            raise Bad("stuck", "the next call has no end") from None
        except (OSError, ValueError, RuntimeError) as problem:
            if judged(problem, "the next call") is not None:
                raise Bad("wrong", _told(problem)) from problem
            # It says that it is broken, which is an answer.
        finally:
            sock.close()

    async def _go_on(self, sock: AsyncSocket, number: int) -> None:
        """The line and its answer are on the way, or one of them, or neither."""
        await sock.send(b"sync %d\n" % number, LOUD)
        answer = b""
        while answer != b"sync %d" % number:
            answer = await sock.recv_line(None, LOUD)
            word, _, got = answer.partition(b" ")
            if word not in (b"line", b"sync") or int(got) < number:
                raise Bad("wrong", f"{answer!r} after line {number}")


def work(
    say: Callable[[dict[str, Any]], None],
    loop: str,
    kind: str,
    directory: str,
    action: str,
    wanted: int,
    seconds: float,
) -> None:
    """In the child."""
    program = Program(say, World(kind, directory), random.Random(wanted))
    victims.run_loop(loop, program.run(action, wanted, seconds))
    os._exit(0)


def run(budget: Budget, kinds: tuple[str, ...], directory: str, seconds: float) -> Iterator[Finding]:
    """Every action over every kind of stream."""
    rounds = [(*each, kind) for each in ROUNDS for kind in kinds]
    rounds = [each for each in rounds if budget.wants(" ".join(each))]
    if not budget.full:
        rounds = budget.shuffled(rounds)[: max(2, int(seconds / 2))]
    for loop, action, kind in rounds:
        budget.counts.add(scenes=1)
        arguments = {"loop": loop, "action": action, "kind": kind, "directory": directory}
        yield from _round(budget, arguments, seconds / len(rounds))


def _round(budget: Budget, arguments: dict[str, Any], seconds: float) -> Iterator[Finding]:
    scene = f"{arguments['loop']}, {arguments['kind']}, {arguments['action']}"
    count = 0
    limits = {"wanted": 30_000 if budget.full else 3000, "seconds": seconds}
    with Child("tests.torture.loop_signals:work", {**arguments, **limits}) as child:
        try:
            for record in child.records(4 * LIMIT):
                count = record["count"]
                if "bad" in record:
                    what, text = record["bad"]
                    yield Finding("interruptions", scene, f"a signal in {record['place']}", f"{what}: {text}")
        except ChildFailed as failed:
            if failed.status == RAISED:
                yield Finding("interruptions", scene, f"a signal, after {count:,}", failed.text)
                return
            text = f"{failed.kind}: {last_frames(_main_stack(failed.text))}\n{failed.text}"
            yield Finding("interruptions", scene, f"a signal, after {count:,}", text)
    budget.counts.add(interruptions=count * (10 if arguments["action"] == "interrupt" else 1))
