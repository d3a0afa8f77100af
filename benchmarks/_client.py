"""Clients of a database: their tasks, and how they are measured. The other end is the database's own server."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from benchmarks._database import Database
from benchmarks._process import Cores, FailedError, Process
from benchmarks._programs import absent
from benchmarks._rows import Reading
from benchmarks._task import Doer, Task


@dataclass(frozen=True)
class ClientWork:
    """The task of a client, the same for all its contestants."""

    what: str
    database: Database
    size: int
    """Bytes of a message: a row, a value."""
    batch: int
    """Messages in a batch."""
    batches: int
    """Measured in a round; another one before them warms up."""

    @property
    def task(self) -> Task:
        """The same in numbers."""
        return Task(self.what, 1, self.size, None)

    def scaled(self, factor: float) -> ClientWork:
        """The same work, more or less of it."""
        return replace(self, batches=max(1, round(self.batches * factor)))


@dataclass(frozen=True)
class ClientContestant:
    """A client that can do a work."""

    name: str
    work: ClientWork
    function: str
    """``module:function``, see ``_client_trial``."""
    program: str
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""
    every: int = 1
    """It takes part in one round out of so many."""

    @property
    def doer(self) -> Doer:
        return Doer(self.program, self.work.task)

    def missing(self) -> str:
        return absent(self.needs) or self.work.database.missing()

    def remark(self, scale: float) -> str:
        return ""

    def measure(self, scale: float, cores: Cores) -> Reading:
        work = self.work.scaled(scale)
        with work.database.running(cores.load) as port:
            numbers = (port, work.batch, work.batches)
            words = [sys.executable, "-m", "benchmarks._client_trial", self.function, *map(str, numbers)]
            with Process(words, cores.contestant) as client:
                spent = client.read()
                failure = client.complaint()
        if failure:
            raise FailedError(failure)
        if spent["checked"] != work.batches + 1:
            raise FailedError(f"{spent['checked']:g} batches were right, of {work.batches + 1}")
        return Reading(work.batch * work.batches, spent["seconds"], spent["user"], spent["system"])
