"""One connection, and a contestant that holds the clock itself: its task, and how it is measured."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from benchmarks import _certificate
from benchmarks._build import build, obstacle
from benchmarks._payload import Payload, file_of
from benchmarks._process import Cores, FailedError, Process
from benchmarks._programs import ONE_TLS, absent
from benchmarks._rows import Reading
from benchmarks._task import Doer, Task

READ = {Payload.LINES: "read lines", Payload.FRAMES: "read frames", Payload.COUNTED: "read lines with bodies"}


@dataclass(frozen=True)
class Work:
    """The task, the same for all its contestants."""

    payload: Payload
    load: str | None
    """The role in ``_load``; None if there is no other end."""
    pieces: int
    """The number that is measured in a round: about half a second of work. Rounds are many rather than long, because a
    disturbance of the machine often lasts longer."""
    warm_up: int
    tls: bool = False

    @property
    def task(self) -> Task:
        """The same in numbers."""
        if self.load is None:
            return Task("alone", None, None, None)
        what = {"echo": "echo", "drain": "send", "feed": "receive", "relay": "relay"}[self.load]
        if self.payload in READ:
            what = READ[self.payload]
        outstanding = 1 if self.load == "echo" else None
        return Task(what, 1, self.payload.size // self.payload.messages, outstanding, self.tls)

    def scaled(self, factor: float) -> Work:
        """The same work, more or less of it."""
        pieces, warm_up = (max(1, round(each * factor)) for each in (self.pieces, self.warm_up))
        return replace(self, pieces=pieces, warm_up=warm_up)


@dataclass(frozen=True)
class Contestant:
    """A program that can do a work."""

    name: str
    work: Work
    function: str
    """``module:function``, see ``_contestant``; or ``file:role`` of a program that is compiled."""

    program: str = ""
    """The name of its program; if empty, its own name."""
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""
    every: int = 1
    """It takes part in one round out of so many."""

    @property
    def doer(self) -> Doer:
        return Doer(self.program or self.name, self.work.task)

    def missing(self) -> str:
        source = self.function.partition(":")[0]
        reason = obstacle(source) if source.endswith(".nim") else absent(self.needs)
        return reason or (_certificate.obstacle() if self.work.tls else "")

    def remark(self, scale: float) -> str:
        return ONE_TLS.remark if self.work.tls else ""

    def command(self, work: Work) -> list[str]:
        """How to start it."""
        payload = work.payload
        source, _, role = self.function.partition(":")
        if source.endswith(".nim"):
            sizes = (payload.size // payload.messages, payload.size, work.pieces, work.warm_up)
            return [str(build(source)), role, str(file_of(payload)), *map(str, sizes)]
        program = [sys.executable, "-m", "benchmarks._contestant", self.function]
        certificate = [str(_certificate.certificate())] if work.tls else []
        return [*program, payload.name, str(work.pieces), str(work.warm_up), *certificate]

    def measure(self, scale: float, cores: Cores) -> Reading:
        work = self.work.scaled(scale)
        with Process(self.command(work), cores.contestant) as program:
            seen = {"checked": 0.0}
            if work.load is not None:
                seen = _bear_load(program, work, cores)
            spent = program.read()
            failure = program.complaint()
        if failure:
            raise FailedError(failure)
        checked = seen["checked"] + spent["checked"]
        if checked != work.pieces + work.warm_up:
            raise FailedError(f"{checked:g} pieces were right, of {work.pieces + work.warm_up}")
        messages = work.pieces * work.payload.messages
        times = spent["seconds"], spent["user"], spent["system"]
        return Reading(messages, *times, load=seen.get("busy", 0.0))


def _load_command(work: Work, port: int) -> list[str]:
    """How to start the load: without TLS always in Python, which is no slower there with one connection."""
    numbers = [str(work.pieces), str(work.warm_up), str(port)]
    if not work.tls:
        return [sys.executable, "-m", "benchmarks._load", str(work.load), work.payload.name, *numbers]
    if ONE_TLS.chosen is ONE_TLS.slow:
        return ONE_TLS.slow.command([str(work.load), work.payload.name, *numbers])
    file = str(file_of(work.payload))
    return ONE_TLS.quick.command([str(work.load), file, str(work.payload.size), *numbers])


def _bear_load(program: Process, work: Work, cores: Cores) -> dict[str, float]:
    """Run the load against a contestant; return its report: the number of checked pieces, and how busy it was."""
    command = _load_command(work, int(program.read()["port"]))
    with Process(command, cores.load) as load:
        try:
            return load.read()
        except FailedError as error:
            # Either side may have failed first: if a contestant fails, its load sees the end of the connection.
            own = program.complaint()
            raise FailedError(f"{own}; its load: {error}" if own else str(error)) from None
