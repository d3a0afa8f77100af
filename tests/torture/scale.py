"""Thousands of connections at once, and one after the other: nothing hangs, no loop is held up, nothing is left.

The peers are in a process of their own (crowd.py), for descriptors are limited per process.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from tests.scenarios import tasks
from tests.torture import victims, waits
from tests.torture.crowd import ADDRESSES, Crowd, Host, many_descriptors
from tests.torture.hostile import FLAVOURS, Caller, Heart
from tests.torture.registry import Budget, Finding
from tests.torture.stage import Broken, Later, Scene, Steps, expect, library_threads, peers, play, settle
from wireline import asyncnet, net

A_TURN = 3.0, 0.001
"""Seconds that a loop may be held up when all connections end at once: so many, and so many for each of them. That is
far more than it takes (some 50 us each), for other programs may have the processors; a hang is longer."""

TO_CLOSE = 0.3, 0.0004
"""Processor seconds that closing all of them in one turn may take, of the thread that does it."""

TO_END = 10.0, 0.004
"""Seconds in which the ends of all connections are noticed: so many, and so many for each of them."""

AT_ONCE = 2000
"""Threads that connect at once in the blocking flavour."""


def _within(limit: tuple[float, float], number: int) -> float:
    return limit[0] + limit[1] * number


async def _until_gone(server: Any, number: int, what: str) -> None:
    limit = time.monotonic() + _within(TO_END, number)
    while server.connections:
        expect(time.monotonic() < limit, f"{server.connections:,} of {number:,} connections are left {what}")
        await tasks.sleep(0.01)


def served(steps: Steps, flavour: str, kind: str, number: int) -> None:
    """Clients connect all at once, stay, and end in the way of the step."""
    many_descriptors()
    call = Caller(flavour)

    async def main() -> None:
        # A first client makes the objects that stay: the module `ssl`, the threads of the pool.
        for count, step in ((number, step) for step in steps):
            before = len(os.listdir("/proc/self/fd")), len(library_threads())
            await _served(call, kind, count, step)
            steps.count(connections=count)
            await waits.to_thread(settle, before[0] + 2, before[1], _within(TO_END, count))

    call.run(main())


async def _served(call: Caller, kind: str, number: int, step: str) -> None:
    async with call.serve(kind.startswith("tls"), handshake_timeout=60.0) as server:
        with Crowd(kind, server.local_addr.port, spread=True) as crowd:
            await waits.to_thread(crowd.expect, f"come {number}", number)
            expect(
                server.connections == number, f"the server says it has {server.connections:,} of {number:,}"
            )
            await waits.to_thread(crowd.expect, "say", number)
            heart = Heart()
            began = time.monotonic()
            if step == "the server stops":
                ends = tasks.ensure_future(waits.to_thread(crowd.ask, "ends"))
                await _stop(call, server, number, 0.0)
                took = time.monotonic() - began
                said = await ends
                expect(
                    said["good"] == number,
                    f"{said['good']:,} of {number:,} clients saw the end: {said['bad']}",
                )
            elif step == "the server drains":
                stopping = tasks.ensure_future(_stop(call, server, number, 50.0))
                await tasks.sleep(0.1)
                await waits.to_thread(crowd.expect, "leave", number)
                report = await stopping
                took = time.monotonic() - began
                expect(
                    tuple(report) == (number, 0), f"stop(drain=50) says {report}, and {number:,} clients left"
                )
            else:
                await waits.to_thread(crowd.expect, "reset" if "reset" in step else "leave", number)
                await _until_gone(server, number, f"after {step}")
                took = time.monotonic() - began
            pause = heart.stop()
            longest = _within(A_TURN, number)
            if not call.is_blocking:
                expect(
                    pause < longest,
                    f"the loop was held up for {pause:.1f} s when {step} ({number:,} clients)",
                )
            expect(
                took < _within(TO_END, number),
                f"it took {took:.1f} s until all was over ({number:,} clients)",
            )


async def _stop(call: Caller, server: Any, number: int, drain: float) -> Any:
    try:
        return await waits.wait_for(call(server.stop, drain=drain), drain + _within(TO_END, number))
    except TimeoutError:
        raise Broken(f"stop(drain={drain:g}) hangs with {number:,} clients") from None


def dialled(steps: Steps, flavour: str, kind: str, number: int) -> None:
    """The program connects many times at once, and its connections end in the way of the step."""
    many_descriptors()
    warnings.simplefilter("ignore")
    with Host(kind) as host:
        for step in steps:
            before = len(os.listdir("/proc/self/fd")), len(library_threads())
            steps.count(connections=number)
            if flavour == "blocking":
                _dialled(host, kind, min(number, AT_ONCE), step)
            else:
                victims.run_loop(flavour, _dialled_async(host, kind, number, step))
            settle(before[0] + 2, before[1], _within(TO_END, number), gc.collect)


def _address(number: int) -> str:
    return f"127.0.0.{2 + number % ADDRESSES}"


async def _dialled_async(host: Host, kind: str, number: int, step: str) -> None:
    context = victims.trusting() if kind.startswith("tls") else None
    name = "localhost" if context else None
    heart = Heart()

    async def one(index: int) -> asyncnet.AsyncSocket:
        sock = await asyncnet.dial(_address(index), host.port, tls=context, hostname=name, timeout=100)
        await victims.exchange_async(sock, b"hello", 60)
        return sock

    socks = await tasks.gather(*map(one, range(number)))
    heart.stop()
    heart = Heart()
    await tasks.sleep(0.05)
    if step == "all are closed in one turn":
        began, computed = time.monotonic(), time.thread_time()
        for sock in socks:
            sock.close()
        took, computed = time.monotonic() - began, time.thread_time() - computed
        expect(
            took < _within(A_TURN, number) and computed < _within(TO_CLOSE, number),
            f"closing {number:,} sockets in one turn took {took:.2f} s, {computed:.2f} s of them computing",
        )
    else:
        reads = [tasks.ensure_future(_read_end(sock)) for sock in socks]
        await tasks.sleep(0.05)
        await waits.to_thread(host.expect, "reset", number)
        late = await waits.running_after(reads, _within(TO_END, number))
        expect(not late, f"{late:,} of {number:,} tasks do not see that their peers have reset")
        await tasks.gather(*reads)
        for sock in socks:
            sock.close()
    await tasks.sleep(0.05)
    pause = heart.stop()
    longest = _within(A_TURN, number)
    expect(pause < longest, f"the loop was held up for {pause:.1f} s when {step} ({number:,} sockets)")


async def _read_end(sock: asyncnet.AsyncSocket) -> None:
    try:
        data = await sock.recv_some()
    except OSError:
        return
    expect(not data, f"a peer that reset has sent {data!r}")


def _dialled(host: Host, kind: str, number: int, step: str) -> None:
    context = victims.trusting() if kind.startswith("tls") else None
    name = "localhost" if context else None
    together = threading.Barrier(number + 1)
    threading.stack_size(512 * 1024)

    def one(index: int) -> None:
        sock = net.dial(_address(index), host.port, tls=context, hostname=name, timeout=100)
        try:
            victims.exchange(sock, b"hello", 60)
            together.wait(120)
            if "reset" in step:
                try:
                    expect(not sock.recv_some(timeout=60), "a peer that reset has sent something")
                except OSError:
                    return
            # Two thousand threads close at once.
        finally:
            sock.close()

    threads = [Later(lambda index=index: one(index)) for index in range(number)]
    together.wait(120)
    if "reset" in step:
        host.expect("reset", number)
    limit = time.monotonic() + _within(TO_END, number)
    for thread in threads:
        thread.get(max(0.0, limit - time.monotonic()), f"one of {number:,} threads when {step}")


# ------------------------------------------------------------------------------------------- one after the other

LEAK = 6_000_000, 300
"""Bytes that memory may grow by: so many in all, and so many for each connection. The first is for the
allocator, which keeps memory; an object that is forgotten takes more than the second."""

OBJECTS = 2_000, 0.1
"""Objects that may be there after, and were not before: so many in all, and so many for each connection."""


def short(steps: Steps, flavour: str, kind: str, role: str, number: int) -> None:
    """Short connections, one after the other: memory, descriptors, threads and objects are back where they began."""
    many_descriptors()
    call = Caller(flavour)
    warm = max(100, number // 10)

    async def main() -> None:
        for _ in steps:
            if role == "server":
                async with call.serve(kind.startswith("tls")) as server:
                    with Crowd(kind, server.local_addr.port, spread=True) as crowd:
                        await _come_and_go(crowd, warm, server)
                        before = await _settled()
                        await _come_and_go(crowd, number, server)
                        await _expect_as_before(before, number)
            else:
                with Host(kind) as host:
                    await _call_on(call, host, kind, warm)
                    before = await _settled()
                    await _call_on(call, host, kind, number)
                    await _expect_as_before(before, number)
            steps.count(connections=number + warm)

    call.run(main())


async def _come_and_go(crowd: Crowd, number: int, server: Any) -> None:
    left = number
    while left:
        some = min(left, 500)
        left -= some
        await waits.to_thread(crowd.expect, f"hurry {some}", some)
        await _until_gone(server, some, "after short connections")


async def _call_on(call: Caller, host: Host, kind: str, number: int) -> None:
    context = victims.trusting() if kind.startswith("tls") else None

    def some(first: int, count: int) -> None:
        for index in range(first, first + count):
            with net.dial(
                _address(index),
                host.port,
                tls=context,
                hostname="localhost" if context else None,
                timeout=30,
            ) as sock:
                victims.exchange(sock, b"hello", 30)

    async def some_async(first: int, count: int) -> None:
        for index in range(first, first + count):
            async with await asyncnet.dial(
                _address(index),
                host.port,
                tls=context,
                hostname="localhost" if context else None,
                timeout=30,
            ) as sock:
                await victims.exchange_async(sock, b"hello", 30)

    each = number // 4
    await tasks.gather(*(call(some if call.is_blocking else some_async, part, each) for part in range(4)))


def _state() -> tuple[int, int, int, int]:
    gc.collect()
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return memory, len(os.listdir("/proc/self/fd")), len(library_threads()), len(gc.get_objects())


async def _settled() -> tuple[int, int, int, int]:
    """How things are once nothing lingers any more."""
    seen = _state()
    for _ in range(60):
        await tasks.sleep(0.1)
        now = _state()
        if now[1:3] == seen[1:3] and now[2] <= 1:
            return now
        seen = now
    return seen


async def _expect_as_before(before: Sequence[int], number: int) -> None:
    await waits.to_thread(settle, before[1], before[2], 12.0, gc.collect)
    now = _state()
    grown, more = now[0] - before[0], now[3] - before[3]
    expect(
        grown < LEAK[0] + LEAK[1] * number,
        f"memory grew by {grown / 1e6:.1f} MB in {number:,} connections ({grown / number:,.0f} bytes each)",
    )
    expect(more < OBJECTS[0] + OBJECTS[1] * number, f"{more:,} objects more after {number:,} connections")


ENDS = ("all reset at once", "all leave at once", "the server stops", "the server drains")


def _scenes(budget: Budget, environment: dict[str, str]) -> list[Scene]:
    full, sample = budget.full, budget.size == "sample"
    first, rest = [], []
    for flavour, kind in itertools.product(FLAVOURS, ("tcp", "tls13")):
        if flavour == "blocking":
            number = 2000 if full else 300
        else:
            number = (10_000 if kind == "tcp" else 3000) if full else (1500 if kind == "tcp" else 400)
        number = number // 10 if sample else number
        seconds = 900 if full else 60
        arguments: dict[str, Any] = {"flavour": flavour, "kind": kind}
        fault = "FA1" if kind == "tls13" else ""
        rest.append(
            Scene(
                f"{flavour} {kind}, {number:,} clients of a server",
                "scale:served",
                ENDS if full else budget.shuffled(ENDS)[:2],
                {**arguments, "number": number},
                seconds,
                fault,
            )
        )
        if not full and kind == "tls13":
            # The number has to exceed the capacity of a wake-up pipe, in a small run, too.
            number = 100 if sample else 300 if flavour == "blocking" else 1200
        first.append(
            Scene(
                f"{flavour} {kind}, {number:,} connections of a client",
                "scale:dialled",
                ("all are closed in one turn", "all peers reset at once")[
                    : 2 if full or kind == "tcp" else 1
                ],
                {**arguments, "number": number},
                seconds,
                fault,
            )
        )
        for role in ("server", "client"):
            rest.append(
                Scene(
                    f"{flavour} {kind}, short connections of a {role}",
                    "scale:short",
                    ["one after the other"],
                    {**arguments, "role": role, "number": 100_000 if full else 200 if sample else 1000},
                    3600 if full else 60,
                    "FA27" if kind == "tls13" and role == "client" else "",
                )
            )
    scenes = [*budget.shuffled(first), *budget.shuffled(rest)]
    return [dataclasses.replace(scene, environment=environment) for scene in scenes]


def run(budget: Budget) -> Iterator[Finding]:
    """Be many."""
    with peers() as environment:
        yield from play("scale", budget, _scenes(budget, environment), jobs=2)
