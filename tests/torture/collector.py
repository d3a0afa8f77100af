"""The collector at every allocation, and sockets that are dropped in reference cycles: nothing hangs, nothing leaks.

Two ways. ``gc.set_threshold(1)`` while sockets of all kinds are opened, used, dropped and closed, by several threads.
And a sweep: garbage with open sockets is made ready, and the collection that finds it begins at the first, second,
third ... allocation inside a close, or inside a connect.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import itertools
import os
import time
import warnings
from collections.abc import Iterator
from typing import Any

from tests.torture import victims
from tests.torture.registry import Budget, Finding
from tests.torture.stage import Later, Scene, Steps, library_threads, peers, play, settle, varied
from wireline import asyncnet, net
from wireline.asyncnet._port import running_port

SILENCE = 15
"""Seconds after which a step that says nothing has frozen. Each takes well under one, on a machine with one core."""


class Cycle:
    """Holds a socket and itself, so that only the collector finds it."""

    def __init__(self, *held: Any) -> None:
        self.held = held
        self.itself = self


def _raised(sock: Any) -> None:
    """Drop a socket the way programs do: an exception whose traceback holds the frame that holds the exception."""
    try:
        raise ValueError(sock)
    except ValueError as error:
        held = error
        del sock, error
    Cycle(held)


def _drop(sock: Any, number: int) -> None:
    if number % 2:
        _raised(sock)
    else:
        Cycle(sock)


def at_every_allocation(steps: Steps, flavour: str, kind: str, rounds: int) -> None:
    """Each step opens, uses, and drops or closes sockets, with a collection at nearly every allocation."""
    warnings.simplefilter("ignore")
    context = victims.trusting()
    for step in steps:
        before = _beginning(kind, flavour, context)
        # With older objects frozen, a collection takes microseconds, and each is a full one.
        gc.freeze()
        gc.set_threshold(1, 1, 1)
        try:
            if flavour == "blocking":
                _blocking_rounds(step, kind, context, rounds)
            else:
                victims.run_loop(flavour, _async_rounds(step, kind, context, rounds))
        finally:
            gc.set_threshold(700, 10, 10)
            gc.unfreeze()
        steps.count(connections=rounds)
        settle(*before, 8.0, gc.collect)


def _beginning(kind: str, flavour: str, context: Any) -> tuple[int, int]:
    """One connection makes the objects that stay; then descriptors and threads are counted."""
    with victims.dial(kind, context) as sock:
        victims.exchange(sock)
    if flavour == "uvloop":
        victims.run_loop(flavour, asyncio.sleep(0))  # it keeps a pipe for signals
    settle(10**6, 0, 5.0, gc.collect)
    return len(os.listdir("/proc/self/fd")), 0


def _blocking_rounds(step: str, kind: str, context: Any, rounds: int) -> None:
    def work(first: int, count: int) -> None:
        for number in range(first, first + count):
            sock = victims.dial(kind, context)
            victims.exchange(sock)
            if step == "closed" or (step == "closed and dropped" and number % 3 == 0):
                sock.close()
            elif step == "dropped while it lingers":
                sock.send(b"x" * 50_000 + b"\n", timeout=5)  # the echo of it is never read
                _drop(sock, number)
            else:
                _drop(sock, number)
            del sock

    if step == "by threads":
        threads = [Later(lambda part=part: work(part, rounds // 4)) for part in range(4)]
        for thread in threads:
            thread.get(SILENCE * 2, "a thread that drops sockets")
    else:
        work(0, rounds)


async def _async_rounds(step: str, kind: str, context: Any, rounds: int) -> None:
    async def work(first: int, count: int) -> None:
        for number in range(first, first + count):
            sock = await victims.dial_async(kind, context)
            await victims.exchange_async(sock)
            if step == "closed" or (step == "closed and dropped" and number % 3 == 0):
                sock.close()
            elif step == "dropped while it lingers":
                await sock.send(b"x" * 50_000 + b"\n", timeout=5)
                _drop(sock, number)
            else:
                _drop(sock, number)
            del sock

    if step == "by threads":  # a thread with a loop of its own beside this one
        other = Later(lambda: asyncio.run(work(0, rounds // 2)))
        await work(0, rounds // 2)
        while not other.done:  # it belongs to another loop
            await running_port().sleep(0.01)
        other.get(0, "a loop in another thread")
    else:
        await work(0, rounds)


# ------------------------------------------------------------------------------------------------------- the sweep


def _collect_at(allocation: int) -> None:
    """Let the collector run at the n-th allocation from now; garbage of now has not been looked at before."""
    gc.set_threshold(gc.get_count()[0] + allocation, 1, 1)
    gc.enable()


def sweep(steps: Steps, flavour: str, kind: str, first: int, last: int, stride: int) -> None:
    """Each step is an activity in which the collector finds an open socket; it begins at each allocation in turn."""
    warnings.simplefilter("ignore")
    context = victims.trusting()
    for step in steps:
        before = _beginning(kind, flavour, context)
        try:
            if flavour == "blocking":
                for allocation in range(first, last, stride):
                    _sweep_one(step, kind, context, allocation)
                    steps.count(connections=2)
                    _alive(step, kind)
            else:
                victims.run_loop(
                    flavour, _sweep_async(steps, step, kind, context, range(first, last, stride))
                )
        finally:
            gc.set_threshold(700, 10, 10)
            gc.enable()
        settle(*before, 8.0, gc.collect)


def _alive(step: str, kind: str) -> None:
    """Wait until nothing lingers, so that the next close has to start all anew."""
    if step == "close":
        limit = time.monotonic() + SILENCE / 2
        while library_threads() and time.monotonic() < limit:
            time.sleep(0.0005)


def _sweep_one(step: str, kind: str, context: Any, allocation: int) -> None:
    forgotten = victims.dial(kind, context)
    victims.exchange(forgotten)
    sock = victims.dial(kind, context)
    victims.exchange(sock)
    gc.collect()
    gc.freeze()
    gc.disable()
    Cycle(forgotten)
    del forgotten
    _collect_at(allocation)
    if step == "close":
        sock.close()
    elif step == "connect":
        victims.dial(kind, context).close()
    elif step == "send and receive":
        victims.exchange(sock)
    else:
        net.serve(victims.shout, 0, "127.0.0.1").stop()
    sock.close()
    gc.enable()
    gc.unfreeze()
    gc.collect()


async def _sweep_async(steps: Steps, step: str, kind: str, context: Any, allocations: range) -> None:
    for allocation in allocations:
        forgotten = await victims.dial_async(kind, context)
        await victims.exchange_async(forgotten)
        sock = await victims.dial_async(kind, context)
        await victims.exchange_async(sock)
        gc.collect()
        gc.freeze()
        gc.disable()
        Cycle(forgotten)
        del forgotten
        _collect_at(allocation)
        if step == "close":
            sock.close()
        elif step == "connect":
            (await victims.dial_async(kind, context)).close()
        elif step == "send and receive":
            await victims.exchange_async(sock)
        else:
            async with asyncnet.serve(victims.shout_async, 0, "127.0.0.1"):
                pass
        sock.close()
        gc.enable()
        gc.unfreeze()
        gc.collect()
        steps.count(connections=2)
        await running_port().sleep(0)
        _alive(step, kind)


# ---------------------------------------------------------------------------------------- the collector's own moments


def by_default(steps: Steps, kind: str, seconds: float) -> None:
    """The settings of an ordinary program, where every second connection is forgotten in a cycle."""
    warnings.simplefilter("ignore")
    context = victims.trusting()
    for _ in steps:
        before = _beginning(kind, "blocking", context)
        over = time.monotonic() + seconds

        def work(over: float = over) -> int:
            made = 0
            while time.monotonic() < over:
                sock = victims.dial(kind, context)
                made += 1
                if made % 2:
                    Cycle(sock)
                else:
                    sock.close()
                del sock
            return made

        threads = [Later(work) for _ in range(2)]
        for thread in threads:
            made = thread.get(seconds + SILENCE, "a thread whose sockets the collector finds")
            steps.count(connections=made)
        settle(*before, 8.0, gc.collect)


STEPS = ("closed and dropped", "dropped", "closed", "by threads", "dropped while it lingers")


def _scenes(budget: Budget, environment: dict[str, str]) -> list[Scene]:
    full = budget.full
    scenes = []
    for flavour, kind in itertools.product(("blocking", *victims.LOOPS), ("tcp", "tls12", "tls13")):
        if kind == "tls12" and not full:
            continue
        label = f"{flavour} {kind}"
        arguments = {"flavour": flavour, "kind": kind}
        fault = "FA2" if kind != "tcp" else ""
        scenes.append(
            Scene(
                f"{label}, a collection at every allocation",
                "collector:at_every_allocation",
                STEPS,
                {**arguments, "rounds": 2000 if full else 40 if budget.seconds > 30 else 8},
                600 if full else 2 * SILENCE,
                fault,
            )
        )
        last, stride = (1500, 1) if full else (160, 3 if budget.seconds > 30 else 40)
        scenes.append(
            Scene(
                f"{label}, a collection at one allocation after the other",
                "collector:sweep",
                ("close", "connect", "send and receive", "serve and stop"),
                {**arguments, "first": 1, "last": last, "stride": stride},
                SILENCE,
                fault,
            )
        )
    for kind in ("tls13",):
        scenes.append(
            Scene(
                f"blocking {kind}, the collector as it is",
                "collector:by_default",
                ["every second connection is forgotten"],
                {"kind": kind, "seconds": 60.0 if full else min(4.0, budget.seconds / 4)},
                120 if full else 30,
                "FA2",
            )
        )
    scenes = varied(budget.shuffled(scenes), "kind")
    return [dataclasses.replace(scene, environment=environment) for scene in scenes]


def run(budget: Budget) -> Iterator[Finding]:
    """Collect garbage at every moment."""
    with peers() as environment:
        yield from play("collector", budget, _scenes(budget, environment), jobs=3)
