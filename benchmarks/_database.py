"""The servers that drivers are measured with: PostgreSQL and Redis, on loopback, started for each measurement."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._process import FailedError

_PATIENCE = 20.0
"""Seconds until a server has to answer. A guess for a loaded machine."""


@dataclass(frozen=True)
class Database:
    """A server program."""

    name: str
    find: Callable[[], str]
    """Returns the path of the program; empty if it is not installed."""
    command: Callable[[str, int], Sequence[str]]
    """How to start it, of its path and a port."""
    answers: Callable[[int], bool]
    """Whether a server at a port answers."""
    user: Callable[[], str | None] = lambda: None
    """Returns the user that it runs as; None is ours."""

    def missing(self) -> str:
        """The reason why it cannot run here; empty if it can."""
        return "" if self.find() else f"{self.name} is not installed"

    @contextlib.contextmanager
    def running(self, core: int | None) -> Iterator[int]:
        """Run it on a core, and give its port.

        Raises:
            FailedError: it does not listen.
        """
        port = _free_port()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                self.command(self.find(), port), stdout=output, stderr=output, user=self.user(), cwd="/"
            )
            try:
                if core is not None and sys.platform == "linux":
                    os.sched_setaffinity(process.pid, {core})  # what it starts is there, too
                self._wait(process, port)
                yield port
            finally:
                process.terminate()
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _wait(self, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self.answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise FailedError(f"{self.name} does not answer")
            time.sleep(0.02)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answer(port: int, question: bytes) -> bytes:
    """The first byte of the answer to a question; empty if there is none."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
        probe.sendall(question)
        return probe.recv(1)
    return b""


# PostgreSQL. Debian does not put its programs on the path, and they refuse to run as root.


def _find_postgres() -> str:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    return str(Path(initdb).with_name("postgres")) if initdb else ""


def _postgres_user() -> str | None:
    if os.geteuid() != 0:
        return None
    import pwd  # Windows has none

    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


@functools.cache
def _data_directory(program: str) -> str:
    """Make an empty cluster, once a run."""
    user = _postgres_user()
    directory = tempfile.mkdtemp(prefix="wireline-benchmarks-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    if user is not None:
        shutil.chown(directory, user)
    options = ["--no-sync", "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8"]
    initdb = str(Path(program).with_name("initdb"))
    subprocess.run(
        [initdb, "-D", f"{directory}/data", *options], check=True, capture_output=True, user=user, cwd="/"
    )
    return f"{directory}/data"


def _postgres_command(program: str, port: int) -> Sequence[str]:
    settings = f"port={port} listen_addresses=127.0.0.1 unix_socket_directories= fsync=off"
    return [program, "-D", _data_directory(program), *(f"--{each}" for each in settings.split())]


def _redis_command(program: str, port: int) -> Sequence[str]:
    options = f"--bind 127.0.0.1 --port {port} --client-output-buffer-limit pubsub 0 0 0 --save"
    return [program, *options.split(), ""]


def _postgres_answers(port: int) -> bool:
    """While it starts, it accepts connections and answers with an error."""
    return _answer(port, b"\0\0\0\x17\0\3\0\0user\0postgres\0\0") == b"R"


POSTGRES = Database("PostgreSQL", _find_postgres, _postgres_command, _postgres_answers, _postgres_user)
REDIS = Database(
    "Redis",
    lambda: shutil.which("redis-server") or "",
    _redis_command,
    lambda port: _answer(port, b"PING\r\n") == b"+",
)
