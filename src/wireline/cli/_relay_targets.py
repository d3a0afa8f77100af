"""The targets of a relay: which one a client gets, and what happens to those that do not answer.

A target that has failed is tried last for `RETRY_AFTER` seconds. Then one client tries it in its place, while it stays
last for the others. So a target that has been dead for a while costs one client in that time its time limit; when it
dies, every client that gets it waits, until the first one has reached its limit.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from wireline import ClosedError, Target
from wireline.cli._outcome import Failure, Outcome, ReportedFailure, Stage, classify, during
from wireline.cli._stderr import print_stderr
from wireline.cli.parser._relay_tls_options import TARGET
from wireline.net import Socket

RETRY_AFTER = 10.0
"""Seconds for which a target that has failed is tried last. A guess; nginx has the same."""

ONE_OF_SEVERAL_TIMEOUT = 10.0
"""Seconds for connecting to one of several targets, without ``--timeout``. The system would take two minutes."""


class Targets:
    """The targets, and which of them have failed."""

    def __init__(self, targets: Sequence[Target], balance: str, connect: Callable[[Target], Socket]) -> None:
        """Begin with all targets usable.

        Args:
            targets: in the order given.
            balance: ``round-robin`` or ``first``.
            connect: connects to a target.
        """
        self._targets = list(targets)
        self._in_turn = balance == "round-robin"
        self._connect = connect
        self._turns = itertools.count()
        self._lock = threading.Lock()
        self._retry_at: dict[Target, float] = {}

    def connect(self, client: Socket) -> tuple[Socket, Target]:
        """Connect to the target of a client, or to another one if it fails.

        Raises:
            Failure: the only target failed.
            ReportedFailure: all of several failed.
            ClosedError: the client was closed meanwhile.
        """
        if len(self._targets) == 1:
            return self._try(self._targets[0]), self._targets[0]
        turn = next(self._turns) if self._in_turn else 0
        failures: dict[Target, Failure] = {}
        new_failures: list[Target] = []
        while (target := self._choose(turn, failures)) is not None:
            if client.is_closed:
                raise ClosedError("connect: the relay was aborted")
            try:
                sock = self._try(target)
            except Failure as failure:
                failures[target] = failure
                if self._note_failure(target):
                    new_failures.append(target)
            else:
                for each in new_failures:
                    print_stderr(f"wireline: clients get another target: {_sentence(failures[each])}")
                self._note_success(target)
                return sock, target
        raise _no_target(failures)

    def _try(self, target: Target) -> Socket:
        with during(Stage.CONNECT, target):
            return self._connect(target)

    def _choose(self, turn: int, tried: Collection[Target]) -> Target | None:
        """The next target of a client; None if it has tried all."""
        now = monotonic()
        with self._lock:
            left = [target for target in self._targets if target not in tried]
            if not left:
                return None
            usable = [target for target in left if self._retry_at.get(target, now) <= now] or left
            target = usable[turn % len(usable)]
            if target in self._retry_at:
                self._retry_at[target] = now + RETRY_AFTER  # for the others
            return target

    def _note_failure(self, target: Target) -> bool:
        """Note that a target has failed; return whether it had not before."""
        with self._lock:
            is_new = target not in self._retry_at
            self._retry_at[target] = monotonic() + RETRY_AFTER
        return is_new

    def _note_success(self, target: Target) -> None:
        with self._lock:
            was_failed = self._retry_at.pop(target, None) is not None
        if was_failed:
            print_stderr(f"wireline: {target} answers again")


def _no_target(failures: dict[Target, Failure]) -> ReportedFailure:
    reasons = [f"({number}) {_sentence(failure)}" for number, failure in enumerate(failures.values(), 1)]
    code = classify(next(iter(failures.values()))).code
    return ReportedFailure(Outcome(code, f"no target answers: {' '.join(reasons)}"))


def _sentence(failure: Failure) -> str:
    return TARGET.renamed(classify(failure).sentence)
