"""Servers for many connections: their tasks, and how they are measured."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from benchmarks import _certificate
from benchmarks._process import Cores, FailedError, Process
from benchmarks._programs import MANY, MANY_TLS, Load, Program
from benchmarks._rows import Reading
from benchmarks._task import Doer, Task

if sys.platform != "win32":
    import resource

_OTHER_DESCRIPTORS = 64
"""Open descriptors of a process besides its connections: a generous guess."""


@dataclass(frozen=True)
class Service:
    """The task of a server, the same for all its contestants."""

    role: str
    """The role of the server on a connection, see ``servers``."""
    load: str
    """The role of the load, see ``load.c``."""
    messages: int
    """How many are measured in a round; connections where the load is ``connect``, ``resume`` or ``idle``."""
    connections: int = 64
    """At once; where the load opens them all the time, so many are being opened."""
    outstanding: int = 1
    size: int = 64
    tls: bool = False

    @property
    def other_end(self) -> Load:
        """The programs for the role ``load``."""
        return MANY_TLS if self.tls else MANY

    @property
    def task(self) -> Task:
        """The same in numbers."""
        what = self.role if self.load == "echo" else self.load
        return Task(what, self.connections, self.size, self.outstanding, self.tls)

    @property
    def warm_up(self) -> int:
        """The number of messages before the measured ones: at least one on every connection that is kept."""
        return max(1, self.messages // 10, self.connections if self.load == "echo" else 0)

    @property
    def descriptors(self) -> int:
        """How many one side needs at once."""
        kept = self.messages + self.warm_up if self.load == "idle" else self.connections
        return kept + _OTHER_DESCRIPTORS

    def scaled(self, factor: float) -> Service:
        """The same service with more or less work.

        The number of idle connections stays as in their row: it is their memory that is measured, and more of them do
        not make it more exact.
        """
        if self.load == "idle" and 0.5 <= factor <= 1:
            return self
        return replace(self, messages=max(1, round(self.messages * factor)))

    def within(self, limit: int) -> Service:
        """The same service, with fewer idle connections where there are no more descriptors than ``limit``."""
        if self.load != "idle" or self.descriptors <= limit:
            return self
        return replace(self, messages=max(1, limit - _OTHER_DESCRIPTORS) * 10 // 11)


def allow_descriptors(needed: int) -> int:
    """Let this process and its children have so many, as far as the system lets it; return how many they may have."""
    if sys.platform == "win32":
        return needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # macOS has a second limit, which it does not tell
            return soft
        soft = wanted
    return needed if soft == resource.RLIM_INFINITY else soft


@dataclass(frozen=True)
class ServerContestant:
    """A server that can do a service."""

    name: str
    work: Service
    program: Program
    every: int = 1
    """It takes part in one round out of so many."""

    @property
    def doer(self) -> Doer:
        return Doer(self.program.name, self.work.task)

    def missing(self) -> str:
        reason = self.program.missing() or (_certificate.obstacle() if self.work.tls else "")
        return reason or self._want_of_descriptors()

    def remark(self, scale: float) -> str:
        remarks = [self.work.other_end.remark, self._limits(scale)]
        return "; ".join(filter(None, remarks))

    def _want_of_descriptors(self) -> str:
        """Where connections are measured, fewer would be another measurement."""
        needed = self.work.descriptors
        if self.work.load == "idle" or needed <= (limit := allow_descriptors(needed)):
            return ""
        return f"{needed} descriptors are needed, the limit is {limit}"

    def _limits(self, scale: float) -> str:
        wanted = self.work.scaled(scale)
        limit = allow_descriptors(wanted.descriptors)
        fitting = wanted.within(limit)
        if fitting == wanted:
            return ""
        count, less = (each.descriptors - _OTHER_DESCRIPTORS for each in (wanted, fitting))
        return f"{less} connections instead of {count}: the limit is {limit} descriptors"

    def measure(self, scale: float, cores: Cores) -> Reading:
        work = self.work.scaled(scale)
        work = work.within(allow_descriptors(work.descriptors))
        words = [work.role, str(_certificate.certificate())] if work.tls else [work.role]
        with Process(self.program.command(words), cores.contestant) as server:
            port = int(server.read()["port"])
            try:
                return _measure(server, work, port, cores.load)
            except FailedError as error:
                server.dismiss()
                last = server.last_words()
                if last in str(error):
                    raise
                raise FailedError(f"{error}; its last words: {last}") from None


def _measure(server: Process, work: Service, port: int, core: int | None) -> Reading:
    """Let the load take its three steps, and look at the server before and after the second."""
    numbers = (work.connections, work.outstanding, work.size, work.messages, work.warm_up, port)
    with Process(work.other_end.chosen.command([work.load, *map(str, numbers)]), core) as load:
        load.read()
        memory = server.memory()
        before = server.ask()
        spent = load.ask()
        after = server.ask()
        memory = server.memory() - memory
        ended = load.ask()
        complaint = load.complaint()
    if complaint:
        raise FailedError(complaint)
    if ended["checked"] != work.messages + work.warm_up:
        raise FailedError(f"{ended['checked']:g} were right, of {work.messages + work.warm_up}")
    return Reading(
        work.messages,
        spent["seconds"],
        after["user"] - before["user"],
        after["system"] - before["system"],
        memory,
        spent["busy"] / spent["seconds"],
    )
