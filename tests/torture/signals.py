"""Real signals at 5 kHz, whose handler raises, or closes: the rate of the faults of ``interruptions``."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Any

from tests.torture.children import RAISED, Child, ChildFailed, last_frames
from tests.torture.interruptions import (
    LIMIT,
    LOUD,
    SETTLING,
    Bad,
    Tally,
    World,
    _main_stack,
    _pool,
    fault,
    going_on,
    judged,
)
from tests.torture.opcodes import LIBRARY, Interrupted, Place, place_of
from tests.torture.registry import Budget, Finding
from wireline import AF_INET, IPPROTO_UDP, SOCK_DGRAM, ClosedError
from wireline.net import Socket

PERIOD = 1 / 5000
FULL = 30_000
"""Interruptions of each call, if the time is enough."""

_ENOUGH = 20
"""Findings of one call after which it is left alone."""


class Handler:
    """A handler that raises while it is armed and the library is running, and remembers where that was."""

    def __init__(self) -> None:
        self.armed = False
        self.frame: FrameType | None = None
        self.place: Place | None = None
        self.count = 0

    def __call__(self, _: int, frame: FrameType | None) -> None:
        if not self.armed:
            return
        inner = frame
        while inner is not None and not inner.f_code.co_filename.startswith(LIBRARY):
            inner = inner.f_back
        if inner is None:
            return
        self.armed = False
        self.place = place_of(frame)
        self.count += 1
        raise Interrupted


class Conversation:
    """One call, again and again on one connection, until something is wrong with it."""

    def __init__(self, world: World, handler: Handler) -> None:
        self.handler = handler
        self.sock, self.peer = world.connected()
        self.peer.settimeout(None)
        self.number = 0
        self.serving: Future[None] = _pool.submit(self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.serve()

    def serve(self) -> None:
        """The peer's part, in a thread of its own."""
        raise NotImplementedError

    def once(self, timeout: float | None) -> None:
        """Make the call once; the handler is armed during it."""
        raise NotImplementedError

    def interrupted(self) -> None:
        """After an interruption."""

    def close(self) -> None:
        self.sock.close()
        with contextlib.suppress(OSError):
            self.peer.shutdown(socket.SHUT_RDWR)
        self.serving.exception(LIMIT)
        self.peer.close()


class ReadLines(Conversation):
    """Numbered lines, one after the other."""

    def serve(self) -> None:
        number = 0
        while True:
            self.peer.sendall(b"".join(b"%d\n" % i for i in range(number, number + 50)))
            number += 50

    def once(self, timeout: float | None) -> None:
        self.handler.armed = True
        line = self.sock.recv_line(timeout, LOUD)
        self.handler.armed = False
        self.compare(line)

    def compare(self, line: bytes) -> None:
        if not line:
            raise Bad("wrong", "a false end of the stream")
        number = int(line)
        expected, self.number = self.number, number + 1
        if number > expected:
            raise Bad("lost", f"{number - expected} lines are missing")
        if number < expected:
            raise Bad("wrong", f"line {number} after line {expected - 1}")


class ReadLinesFast(ReadLines):
    """The same with the default flags, which has a way of its own."""

    def once(self, timeout: float | None) -> None:
        self.handler.armed = True
        line = self.sock.recv_line(timeout)
        self.handler.armed = False
        self.compare(line)


class ReadSome(Conversation):
    """Whatever is there."""

    def __init__(self, world: World, handler: Handler) -> None:
        self.rest = b""
        super().__init__(world, handler)

    def serve(self) -> None:
        number = 0
        while True:
            self.peer.sendall(b"".join(b"%09d," % i for i in range(number, number + 200)))
            number += 200

    def once(self, timeout: float | None) -> None:
        self.handler.armed = True
        data = self.sock.recv_some(timeout=timeout)
        self.handler.armed = False
        if not data:
            raise Bad("wrong", "a false end of the stream")
        *whole, self.rest = (self.rest + data).split(b",")
        for text in whole:
            expected, self.number = self.number, int(text) + 1
            if int(text) > expected:
                raise Bad("lost", f"{10 * (int(text) - expected)} bytes are missing")
            if int(text) < expected or len(text) != 9:
                raise Bad("lost" if len(text) < 9 else "wrong", f"{text!r} instead of number {expected}")


class Send(Conversation):
    """Numbered messages; of one that was interrupted a part may be missing."""

    def __init__(self, world: World, handler: Handler) -> None:
        self.expected: list[tuple[bytes, bool]] = []
        self.seen = bytearray()
        super().__init__(world, handler)

    def serve(self) -> None:
        while data := self.peer.recv(65536):
            self.seen += data

    def once(self, timeout: float | None) -> None:
        self.number += 1
        payload = b"<%d>" % self.number + b"." * (100_000 if self.number % 50 == 0 else 100)
        self.expected.append((payload, False))
        self.handler.armed = True
        self.sock.send(payload, LOUD, timeout)
        self.handler.armed = False

    def interrupted(self) -> None:
        self.expected[-1] = (self.expected[-1][0], True)
        # With a limit of time, so that a stuck call is seen here and not at a later place.
        self.number += 1
        payload = b"<%d>" % self.number
        self.sock.send(payload, LOUD, 1.0)
        self.expected.append((payload, False))

    def close(self) -> None:
        self.handler.armed = False
        end = b"<the end>"
        ended = False
        try:
            ended = going_on(lambda: self.sock.send(end, LOUD, 1.0), "the last send")
        finally:
            self.sock.close()
            with contextlib.suppress(OSError):
                if not ended:
                    self.peer.shutdown(socket.SHUT_RDWR)
            self.serving.exception(LIMIT)
            self.peer.close()
        if ended:
            self.compare(bytes(self.seen), end)

    def compare(self, seen: bytes, end: bytes) -> None:
        at = 0
        for payload, partly in self.expected:
            if seen.startswith(payload, at):
                at += len(payload)
            elif partly:
                # As much of it as there is before the next message begins.
                piece = seen[at : at + len(payload)]
                following = piece.find(b"<", 1)
                piece = piece[:following] if following > 0 else piece
                if payload.startswith(piece):
                    at += len(piece)
            else:
                raise Bad("wrong", f"{seen[at : at + 30]!r} instead of {payload[:30]!r}")
        if not seen.endswith(end):
            raise Bad("wrong", f"the last message is missing: {seen[-30:]!r}")


class Echo(Conversation):
    """A line, and the same line back."""

    def serve(self) -> None:
        while data := self.peer.recv(65536):
            self.peer.sendall(data)

    def once(self, timeout: float | None) -> None:
        self.number += 1
        line = b"line %d" % self.number
        self.handler.armed = True
        self.sock.send(line + b"\n", LOUD, timeout)
        answer = self.sock.recv_line(1.0, LOUD)
        self.handler.armed = False
        if answer != line:
            raise Bad("wrong", f"{answer!r} instead of {line!r}")

    def interrupted(self) -> None:
        """The line and its answer are on the way, or one of them, or neither."""
        line, sync = b"line %d" % self.number, b"sync %d" % self.number
        self.sock.send(sync + b"\n", LOUD, 1.0)
        answers = []
        while answers[-1:] != [sync]:
            answers.append(self.sock.recv_line(1.0, LOUD))
            if answers[-1] not in (line, sync):
                raise Bad("wrong", f"{answers[-1]!r} instead of {line!r} or {sync!r}")


CALLS = {kind.__name__: kind for kind in (ReadLines, ReadLinesFast, ReadSome, Send, Echo)}


def _interrupt(
    say: Callable[[dict[str, Any]], None], world: World, name: str, wanted: int, seconds: float
) -> None:
    """Interrupt one kind of call so often, or for so long."""
    handler = Handler()
    signal.signal(signal.SIGALRM, handler)
    limit = time.monotonic() + seconds
    bad = 0

    def report(problem: Exception) -> None:
        nonlocal bad
        if (found := judged(problem, "the next call")) is None:
            say({"count": handler.count, "broken": repr(problem)})
            return
        place = handler.place or Place("nowhere", True, False, False)
        bad += not (found.kind == "lost" and place.returning)
        where = [place.where, place.reachable, place.returning]
        say({"bad": [found.kind, str(found)], "place": where, "count": handler.count})

    while handler.count < wanted and time.monotonic() < limit and bad < _ENOUGH:
        faulthandler.dump_traceback_later(2 * LIMIT, exit=True)
        talk = CALLS[name](world, handler)
        began = handler.count
        until = time.monotonic() + LIMIT / 2
        signal.setitimer(signal.ITIMER_REAL, PERIOD, PERIOD)
        try:
            # A connection is used for a while only, so that a fault of it is seen soon after its cause.
            while handler.count < min(wanted, began + 200) and time.monotonic() < until:
                try:
                    # Without a timeout calls take other ways.
                    talk.once(None if handler.count % 2 else 1.0)
                except Interrupted:
                    going_on(talk.interrupted, "the next call")
        except Exception as problem:  # noqa: BLE001 -- the library may raise anything here, and it is judged
            report(problem)
        finally:
            handler.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        fd, inode = talk.sock.fileno(), os.fstat(talk.sock.fileno()).st_ino
        try:
            talk.close()
            _gone(fd, inode, world.kind)
        except Exception as problem:  # noqa: BLE001 -- as above
            report(problem)
        say({"count": handler.count})


def _gone(fd: int, inode: int, kind: str) -> None:
    limit = time.monotonic() + SETTLING[kind]
    while True:
        try:
            if os.fstat(fd).st_ino != inode:
                return
        except OSError:
            return
        if time.monotonic() > limit:
            raise Bad("left", "the descriptor is open after close()")
        time.sleep(0.001)


def _close(
    say: Callable[[dict[str, Any]], None], world: World, name: str, wanted: int, seconds: float
) -> None:
    """A handler closes the socket at a random moment of a loop."""
    limit = time.monotonic() + seconds
    chance = random.Random(wanted)
    current: list[Socket] = []
    place: list[Place] = []

    def handle(_: int, frame: FrameType | None) -> None:
        place[:] = [place_of(frame)]
        for sock in current:
            sock.close()

    signal.signal(signal.SIGALRM, handle)
    for count in range(1, wanted + 1):
        if time.monotonic() > limit:
            break
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        peer: socket.socket | None = None
        if name == "Datagrams":
            sock = Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP)
            sock.bind_addr(0, "127.0.0.1")
        else:
            sock, peer = world.connected()
        fd, inode = sock.fileno(), os.fstat(sock.fileno()).st_ino
        current[:] = [sock]
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-4, 2e-3))
        try:
            if peer is None:
                port = sock.local_addr.port
                while True:
                    sock.send_to("127.0.0.1", port, b"x")
                    sock.recv_from(10, timeout=1.0)
            else:
                while True:
                    sock.send(b"x" * 100, LOUD, 1.0)
                    peer.recv(100)
                    peer.sendall(b"line\n")
                    sock.recv_line(1.0, LOUD)
        except ClosedError:
            pass
        except Exception as problem:  # noqa: BLE001 -- a finding
            # The peer of TLS finds the end of its stream by itself.
            if not (peer is not None and _is_ours(problem)):
                say({"bad": ["wrong", repr(problem)], "place": [place[0].where, True, False], "count": count})
        current.clear()
        if peer is not None:
            peer.close()
        try:
            _gone(fd, inode, world.kind)
        except Bad as problem:
            say({"bad": [problem.kind, str(problem)], "place": [place[0].where, True, False], "count": count})
        say({"count": count})


def _is_ours(error: BaseException) -> bool:
    """Whether an exception is one of the test's own end of the connection."""
    import traceback

    return not any(frame.filename.startswith(LIBRARY) for frame in traceback.extract_tb(error.__traceback__))


def work(
    say: Callable[[dict[str, Any]], None],
    kind: str,
    directory: str,
    name: str,
    action: str,
    wanted: int,
    seconds: float,
) -> None:
    """In the child."""
    world = World(kind, directory)
    (_interrupt if action == "raise" else _close)(say, world, name, wanted, seconds)
    os._exit(0)


def run(budget: Budget, kinds: tuple[str, ...], directory: str) -> Iterator[Finding]:
    """Every call over every kind of stream."""
    rounds = [(kind, name, "raise") for name in CALLS for kind in kinds]
    rounds += [(kind, "Exchange", "disturb") for kind in kinds]
    rounds.append(("plain", "Datagrams", "disturb"))
    rounds = [each for each in rounds if budget.wants(" ".join(each[:2]))]
    if not budget.full:
        rounds = budget.shuffled(rounds)[: max(2, int(budget.remaining() / 1.5))]
    tally = {action: Tally() for action in ("raise", "disturb")}
    for position, (kind, name, action) in enumerate(rounds):
        seconds = max(0.3, budget.remaining() / (len(rounds) - position))
        if not budget.full:
            seconds = min(seconds, 10.0)
        budget.counts.add(scenes=1)
        yield from _round(budget, kind, name, action, directory, seconds, tally[action])
    for action, title in (
        ("raise", "real signals whose handler raises"),
        ("disturb", "real signals that close"),
    ):
        budget.counts.add(interruptions=tally[action].interruptions)
        for note in tally[action].notes(title):
            budget.note(note)


def _round(
    budget: Budget, kind: str, name: str, action: str, directory: str, seconds: float, tally: Tally
) -> Iterator[Finding]:
    wanted = FULL if budget.full else 3000
    arguments = {"kind": kind, "directory": directory, "name": name, "action": action}
    scene = f"blocking, {kind}, {name}, real signals"
    done = "a signal handler raises, 5,000 times a second" if action == "raise" else "a signal handler closes"
    count = 0
    with Child("tests.torture.signals:work", {**arguments, "wanted": wanted, "seconds": seconds}) as child:
        try:
            for record in child.records(4 * LIMIT):
                count = record["count"]
                tally.broken += "broken" in record
                if "bad" in record:
                    what, text = record["bad"]
                    place, reachable, returning = record["place"]
                    if tally.judge(what, place, reachable, returning):
                        yield Finding(
                            "interruptions",
                            scene,
                            f"{done}: at last in {place}",
                            f"{what}: {text}",
                            fault(name, action, what),
                        )
        except ChildFailed as failed:
            if failed.status == RAISED:
                yield Finding("interruptions", scene, "nothing", f"fails without a signal\n{failed.text}")
                return
            what = "hang" if "Timeout (" in failed.text or failed.kind == "hang" else "death"
            text = f"{what}: {last_frames(_main_stack(failed.text))}\n{failed.text}"
            yield Finding("interruptions", scene, f"{done}, after {count:,}", text, fault(name, action, what))
    tally.interruptions += count
