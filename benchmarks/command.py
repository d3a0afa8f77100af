"""The command as whole processes: the copy of a file beside netcat, and the start-up.

``python -m benchmarks.command`` copies a file over loopback with each program in turn, round after round, compares the
copy with the original, and prints the median of the ratios. CPU time is that of both processes, from their start to
their end: on a busy machine the elapsed time says little. A start-up is compared with that of the bare interpreter.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import IO, NamedTuple

_HOST = "127.0.0.1"

# Seconds for one process. A guess for a loaded machine.
_PATIENCE = 120.0

# Bytes after which the file repeats: a prime, which fits no buffer.
_PERIOD = 1_000_003

_WIRELINE = (sys.executable, "-m", "wireline")


class WrongWorkError(Exception):
    """A program failed, or its copy differs from the original."""


class Cost(NamedTuple):
    """Seconds."""

    elapsed: float
    cpu: float


class Copier(NamedTuple):
    """A receiver, which prints a line on standard error when it listens, and a sender; ``PORT`` stands for the port."""

    name: str
    receiver: Sequence[str]
    sender: Sequence[str]


NETCAT = Copier("nc", ("nc.openbsd", "-l", "-v", _HOST, "PORT"), ("nc.openbsd", "-N", _HOST, "PORT"))
OURS = Copier(
    "wireline",
    (*_WIRELINE, "listen", f"{_HOST}:PORT"),
    (*_WIRELINE, "connect", "--at-eof", "half-close", f"{_HOST}:PORT"),
)


@contextmanager
def running(command: Sequence[str], source: IO[bytes] | int, output: IO[bytes] | int) -> Iterator[Process]:
    """Start a process, and end it with the block."""
    popen = subprocess.Popen(command, stdin=source, stdout=output, stderr=subprocess.PIPE)
    watchdog = threading.Timer(_PATIENCE, popen.kill)
    watchdog.start()
    try:
        yield Process(command[0], popen)
    finally:
        watchdog.cancel()
        watchdog.join()
        with popen:
            popen.kill()  # nothing, if it has ended


class Process:
    """A running process."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes]) -> None:
        self._name = name
        self._popen = popen
        self._began = perf_counter()

    def first_line(self) -> None:
        """Wait until it has printed a line on standard error, or ended."""
        assert self._popen.stderr is not None
        self._popen.stderr.readline()

    def cost(self) -> Cost:
        """Wait for its end.

        Raises:
            WrongWorkError: it failed.
        """
        assert self._popen.stderr is not None
        words = self._popen.stderr.read().decode(errors="replace").strip()
        _, status, usage = os.wait4(self._popen.pid, 0)
        elapsed = perf_counter() - self._began
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise WrongWorkError(f"{self._name} ended with {self._popen.returncode}: {words}")
        return Cost(elapsed, usage.ru_utime + usage.ru_stime)


def copy(copier: Copier, original: Path, copied: Path) -> Cost:
    """Copy a file, and compare the two.

    Raises:
        WrongWorkError: the copy is wrong, or a process failed.
    """
    with socket.create_server((_HOST, 0)) as free:
        port = str(free.getsockname()[1])
    receiver, sender = (
        [word.replace("PORT", port) for word in words] for words in (copier.receiver, copier.sender)
    )
    with original.open("rb") as source, copied.open("wb") as output:
        with running(receiver, subprocess.DEVNULL, output) as receiving:
            receiving.first_line()
            with running(sender, source, subprocess.DEVNULL) as sending:
                sent = sending.cost()
            received = receiving.cost()
    if not filecmp.cmp(original, copied, shallow=False):
        raise WrongWorkError(f"{copier.name} made a copy that differs from the original")
    return Cost(sent.elapsed, sent.cpu + received.cpu)


def start(*command: str) -> Cost:
    """Run a program that has nothing to do.

    Raises:
        WrongWorkError: it failed.
    """
    with running(command, subprocess.DEVNULL, subprocess.DEVNULL) as process:
        return process.cost()


@contextmanager
def closing_server() -> Iterator[str]:
    """The address of a server that accepts each connection and closes it."""

    def serve() -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:  # the end
                return

    with socket.create_server((_HOST, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"{_HOST}:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            thread.join()


def measure_copies(contestants: Sequence[Copier], size: int, rounds: int) -> None:
    """Let all contestants copy a file in each round, and print the costs of each, and the ratios to the first."""
    costs: dict[str, list[Cost]] = {each.name: [] for each in contestants}
    with tempfile.TemporaryDirectory(prefix="wireline-benchmarks-") as directory:
        original, copied = Path(directory, "original"), Path(directory, "copied")
        with original.open("wb") as file:
            for block in cycle([random.Random(7).randbytes(_PERIOD)]):
                if not file.write(block[: size - file.tell()]):
                    break
        for number in range(rounds):
            for each in contestants if number % 2 else reversed(contestants):
                costs[each.name].append(copy(each, original, copied))
    first, *others = costs.items()
    _show(f"{size:,} bytes, {first[0]}", first[1], [])
    for name, found in others:
        _show(f"{size:,} bytes, {name}", found, first[1])


def measure_starts(rounds: int) -> None:
    """Start the interpreter and two command lines in each round, and print the costs, and the ratios."""
    with closing_server() as target:
        commands = {
            "the interpreter": (sys.executable, "-c", "pass"),
            "wireline --version": (*_WIRELINE, "--version"),
            "wireline connect": (*_WIRELINE, "connect", target),
        }
        costs = {name: [start(*command)] for name, command in commands.items()}  # the first run is a warm-up
        for _ in range(rounds):
            for name, command in commands.items():
                costs[name].append(start(*command))
    bare, *others = costs.items()
    _show(f"start of {bare[0]}", bare[1][1:], [])
    for name, found in others:
        _show(f"start of {name}", found[1:], bare[1][1:])


def _show(name: str, costs: Sequence[Cost], others: Sequence[Cost]) -> None:
    cpu, elapsed = median(each.cpu for each in costs), median(each.elapsed for each in costs)
    line = f"{name:35}  CPU {cpu:7.3f} s  elapsed {elapsed:7.3f} s"
    if others:
        ratios = [ours.cpu / max(theirs.cpu, 1e-6) for ours, theirs in zip(costs, others, strict=True)]
        slower = [ours.elapsed / theirs.elapsed for ours, theirs in zip(costs, others, strict=True)]
        line += f"  ratio of CPU {median(ratios):.2f}, of elapsed {median(slower):.2f}"
    print(line, flush=True)


def main(words: Sequence[str] | None = None, contestants: Sequence[Copier] = (NETCAT, OURS)) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.command",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0, every program did its work, however long it took; 1, one did not; 2, usage",
    )
    parser.add_argument("--size", type=int, default=400_000_000, metavar="BYTES", help="of the file")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="copies by each program")
    options = parser.parse_args(words)
    if options.size < 1 or options.rounds < 1:
        parser.error("there must be at least one round, and one byte")
    missing = [each for each in contestants if shutil.which(each.receiver[0]) is None]
    for each in missing:
        print(f"left out: {each.name} ({each.receiver[0]} is not installed)")
    try:
        measure_copies([each for each in contestants if each not in missing], options.size, options.rounds)
        measure_starts(3 * options.rounds)
    except WrongWorkError as error:
        print(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
