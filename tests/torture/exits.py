"""The end of the interpreter: programs that end in every way, with everything that can be open (endings.py).

Each has ended in time, with the right status and nothing odd on stderr, and all bytes sent before its close arrived.
"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Iterator

from tests.torture import victims
from tests.torture.children import ROOT
from tests.torture.endings import NOT_ON_TRIO, PROGRAMS, SIZE, arrives, status
from tests.torture.registry import Budget, Finding
from tests.torture.stage import Broken, Scene, Steps, expect, peers, play

MAY_TAKE = 12.0
"""Seconds from start to end. The longest sends two megabytes to a slow reader, and lingers for 2 s."""

ODD = (
    "Exception ignored",
    "Fatal Python error",
    "can't create new thread",
    "can't start new thread",
    "RuntimeError",
)
"""Texts that must not be on stderr."""


def ends(steps: Steps, flavour: str, kind: str) -> None:
    """Each step is a program."""
    for program in steps:
        steps.count(connections=1)
        key = victims.new_gate()
        with subprocess.Popen(
            # As an ordinary program runs: sockets that it forgot to close are not shown.
            [
                sys.executable,
                "-X",
                "faulthandler",
                "-m",
                "tests.torture.endings",
                program,
                flavour,
                kind,
                key,
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                text, _ = process.communicate(timeout=MAY_TAKE)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                try:
                    text, _ = process.communicate(timeout=3)
                except subprocess.TimeoutExpired:
                    process.kill()
                    text, _ = process.communicate()
                raise Broken(f"the program does not end within {MAY_TAKE:g} s\n{text}") from None
        odd = [
            line
            for line in text.splitlines()
            if line.startswith(ODD) or any(word in line for word in ODD[:4])
        ]
        expect(process.returncode in status(program), f"the exit status is {process.returncode}\n{text}")
        expect(not odd, f"it says: {odd[0] if odd else ''}\n{text}")
        if arrives(program):
            victims.expect_report(key, SIZE, "sent before the program closed, and ended")


def _scenes(budget: Budget, environment: dict[str, str]) -> list[Scene]:
    scenes = []
    for flavour in ("blocking", *victims.LOOPS):
        names = [name for name in PROGRAMS if name.startswith("async_") == (flavour != "blocking")]
        if flavour == "trio":
            names = [name for name in names if name not in NOT_ON_TRIO]
        for kind in ("tcp", "tls12", "tls13"):
            if kind == "tls12" and not budget.full:
                continue
            mixed = budget.shuffled(names)
            half = (len(mixed) + 1) // 2
            for part in (mixed[:half], mixed[half:]):
                for fault, chosen in (
                    ("FA30", [name for name in part if "uncaught" in name]),
                    ("FA9", [name for name in part if "uncaught" not in name]),
                ):
                    if chosen:
                        arguments = {"flavour": flavour, "kind": kind}
                        scenes.append(Scene(f"{flavour} {kind}", "exits:ends", chosen, arguments, 60, fault))
    return [dataclasses.replace(scene, environment=environment) for scene in budget.shuffled(scenes)]


def run(budget: Budget) -> Iterator[Finding]:
    """End in every way."""
    rounds = 10 if budget.full else 1
    with peers() as environment:
        for _ in range(rounds):
            yield from play("exits", budget, _scenes(budget, environment), jobs=4)
