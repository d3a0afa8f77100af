"""A part of the torture harness for ``test_interrupted`` and ``test_signal_close``: few interruptions of many calls."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from tests.torture import interruptions
from tests.torture.children import Child
from tests.torture.interruptions import LIMIT, SCENES, Bad, Scene, Tally, World
from tests.torture.opcodes import LIBRARY, Interrupted, Interrupter, Place, place_of
from tests.torture.registry import Budget, Finding
from wireline import WirelineError

__all__ = ["at_instructions", "by_signals", "in_except"]

Say = Callable[[dict[str, Any]], None]


def at_instructions(
    kind: str, scenes: list[str], action: str, directory: str, seconds: float, *, everything: bool
) -> list[Finding]:
    """Interrupt calls before some of their instructions, or before each.

    Args:
        kind: of the stream: ``plain``, ``tls12`` or ``tls13``.
        scenes: names of ``SCENES``.
        action: ``raise``, or ``disturb``: the handler closes.
        directory: with certificates.
        seconds: how long it may take.
        everything: in each run the same sample, or all.
    """
    only = f"^{kind} ({'|'.join(scenes)}) "
    for patience in (1, 8):  # a busy machine may need the time to begin
        budget = Budget("full" if everything else "ci", seconds * patience, only=only)
        # Each scene has its share: the harness takes one for each quarter of a second.
        share = max(seconds, len(scenes) * 0.8) * patience
        found = list(interruptions._instructions(budget, kind, action, directory, share))
        if budget.counts.interruptions > 3 * len(scenes):
            return found
    raise AssertionError("nothing was interrupted")


def by_signals(kind: str, scene: str, directory: str, seconds: float) -> list[str]:
    """Interrupt a call by real signals, each at a random moment."""
    return _told("tests.net.interrupting:_by_signals", kind, scene, directory, seconds)


def in_except(kind: str, scene: str, directory: str, seconds: float) -> list[str]:
    """Interrupt a call, and close the socket while the exception is being handled, as ``with`` does."""
    return _told("tests.net.interrupting:_in_except", kind, scene, directory, seconds)


def _told(target: str, kind: str, scene: str, directory: str, seconds: float) -> list[str]:
    arguments = {"kind": kind, "name": scene, "directory": directory, "seconds": seconds}
    tally, found, count = Tally(), [], 0
    with Child(target, arguments) as child:
        for record in child.records(3 * LIMIT):
            count = record.get("count", count)
            for what, text in record.get("bad", ()):
                place, reachable, returning = record["place"]
                if tally.judge(what, place, reachable, returning):
                    found.append(f"{scene}, {place}: {what}: {text}")
    assert count, "nothing was interrupted"
    return found


# In the child.


def _by_signals(say: Say, kind: str, name: str, directory: str, seconds: float) -> None:
    world = World(kind, directory)
    place: list[Place] = []
    armed: list[bool] = []  # no `Event`, whose lock the handler would wait for

    def handle(_: int, frame: FrameType | None) -> None:
        inner = frame
        while inner is not None and not inner.f_code.co_filename.startswith(LIBRARY):
            inner = inner.f_back
        if inner is not None and armed:
            armed.clear()
            place[:] = [place_of(frame)]
            raise Interrupted

    signal.signal(signal.SIGALRM, handle)
    chance = random.Random(1)
    count = 0
    longest = 0.002
    for mode, number in _rounds(name, seconds):
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        scene = SCENES[name](world, mode, number)
        place.clear()
        error: Exception | None = None
        armed[:] = [True]
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(2e-6, longest), 1 / 5000)
        try:
            scene.act()
        except Exception as caught:  # noqa: BLE001 -- it is judged below
            error = caught
        finally:
            armed.clear()
            signal.setitimer(signal.ITIMER_REAL, 0)
        if not place:
            longest = min(longest, 2 * (time.perf_counter() - began))
        count += bool(place)
        del error  # and its traceback with it
        _judge(say, scene, place[0] if place else None, count)
    _end()


def _in_except(say: Say, kind: str, name: str, directory: str, seconds: float) -> None:
    world = World(kind, directory)
    count = 0
    for mode in SCENES[name].modes:
        for _ in range(2):  # objects of the process are made in the first one
            survey, found = interruptions._case(SCENES[name](world, mode, 0), 0, "raise")
            assert not found, f"{name} {mode} fails without an interruption: {found}"
        order = random.Random(1).sample(survey.reachable, len(survey.reachable))
        until = time.monotonic() + seconds / len(SCENES[name].modes)
        for at in order:
            if time.monotonic() > until:
                break
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            scene = SCENES[name](world, mode, at)
            with Interrupter(at, interruptions._raise) as interrupter:
                try:
                    scene.act()
                except Interrupted:
                    count += 1
                    scene.sock.close()
                    _judge(say, scene, interrupter.place, count, check=False)
                except (OSError, WirelineError):
                    scene.finish()
                else:
                    scene.finish()
    _end()


def _judge(say: Say, scene: Scene, place: Place | None, count: int, *, check: bool = True) -> None:
    found: list[Bad] = []
    for step in (scene.check, scene.finish) if check else (scene.finish,):
        try:
            step()
        except Bad as bad:
            found.append(bad)
    if place is not None:
        bad = [(each.kind, str(each)) for each in found]
        say({"place": [place.where, place.reachable, place.returning], "bad": bad, "count": count})


def _rounds(name: str, seconds: float) -> Iterator[tuple[str, int]]:
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        modes = [mode for mode in SCENES[name].modes if mode != "none"] or list(SCENES[name].modes)
        yield modes[number % len(modes)], number
        number += 1


def _end() -> None:
    faulthandler.cancel_dump_traceback_later()
    with contextlib.suppress(OSError, ssl.SSLError):
        socket.socket().close()
    os._exit(0)
