"""The interface of a contestant that is a client of a database: where the server is, a clock, and checks.

python -m benchmarks._client_trial MODULE:FUNCTION PORT BATCH BATCHES
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator

from benchmarks._trial import Stopwatch, WrongBytesError, settle_allocator


def _nothing() -> None:
    pass


class ClientTrial:
    """One run of one contestant.

    Attributes:
        port: of the server, on 127.0.0.1.
        batch: messages in a batch: rows of one COPY, or queries.
    """

    def __init__(self, port: int, batch: int, batches: int) -> None:
        self.port = port
        self.batch = batch
        self._batches = batches
        self._watch = Stopwatch()
        self._checked = 0

    def batches(self, prepare: Callable[[], object] = _nothing) -> Iterator[int]:
        """The messages of each batch. The first is to warm up; in others the clock runs until ``check``.

        Args:
            prepare: called before each, while the clock stands.
        """
        settle_allocator()
        for number in range(self._batches + 1):
            prepare()
            if number:
                self._watch.start()
            yield self.batch

    def check(self, received: object, expected: object) -> None:
        """Stop the clock and compare what was received with what should have been.

        Raises:
            WrongBytesError: they differ.
        """
        self._watch.stop()
        if received != expected:
            raise WrongBytesError(f"batch {self._checked} is wrong: {str(received)[:200]}")
        self._checked += 1

    def report(self) -> None:
        """Report the cost, and the number of batches that were checked."""
        watch = self._watch
        spent = {"seconds": watch.seconds, "user": watch.user, "system": watch.system}
        print(json.dumps({**spent, "checked": self._checked}), flush=True)


def main(arguments: list[str]) -> None:
    """Call the function with a trial."""
    program, *numbers = arguments
    module, _, name = program.partition(":")
    trial = ClientTrial(*map(int, numbers))
    getattr(importlib.import_module(module), name)(trial)
    trial.report()


if __name__ == "__main__":
    main(sys.argv[1:])
