"""Where the lines of the page run: a directory with their files, hosts and ports of this machine, and their programs.

Everything here is written in the page's words, ``example.com:9000``, and substituted when it is used.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.cli.tasks.page import PROGRAMS, files, programs_of
from tests.tls import certificates
from tests.tools import require_tool

PATIENCE = 20.0
"""Seconds after which a program that should have ended or said something has failed."""

HOSTS = {
    "example.com": "127.0.0.1",
    "mail.example.com": "localhost",
    "db.example.com": "localhost",
    "ldap.example.com": "localhost",
    "redis.example.com": "localhost",
    "192.0.2.0/24": "127.0.0.2/32",
    "192.0.2.7": "127.0.0.2",
    "192.0.2.8": "127.0.0.3",
    "255.255.255.255": "127.255.255.255",
}
"""The hosts of the page, and what stands for them. Others, such as ``www.example.com``, are only in certificates."""

PORTS = (25, 80, 143, 389, 443, 1024, 1080, 3128, 5432, 6379, 6380, *range(8000, 8011), 8080, 8443, 9000)
"""The ports of the page. Each test has ports of its own in the same order, so that a range stays one."""

PATHS = {"/run/": "{where}/", "unix:@app": "unix:@{name}", "ABSTRACT-LISTEN:app": "ABSTRACT-LISTEN:{name}"}
PATHS["ABSTRACT-CONNECT:app"] = "ABSTRACT-CONNECT:{name}"
"""The directory of sockets, and the abstract name."""

LIMITS = {"-w 5": "-w 1", "--timeout 5": "--timeout 1", "connect-timeout=5": "connect-timeout=1"}
LIMITS |= {"-m 10": "-m 1", "--max 10": "--max 1", "max-children=10": "max-children=1"}
LIMITS |= {"-i 60": "-i 1", "-T 60": "-T 1", "--idle 60": "--idle 1"}
"""Numbers that would make a test long."""

_SERVICES = ("munin", "git", "zabbix-agent", "amqp", "xmpp-client", "svn")
"""Services with ports above 1024, one of which stands for ``smtp``."""

_USES_SYSTEM_CAS = re.compile(
    r"wireline (?:connect|check) (?!.*(?:--ca-file|--psk-file)).*(?:tls://|--starttls)"
)

_RUNS = range(10_000, 30_000, len(PORTS))
"""The first ports of all runs, below those that the system gives to clients."""

_numbers = itertools.count(os.getpid() * 100)  # each process begins elsewhere

_NAMES = ("localhost", "127.0.0.1", "127.0.0.2", "::1", "www.example.com")


class Done(NamedTuple):
    """How a line ended."""

    code: int
    out: str
    err: str


class Running:
    """A line that runs in a shell, with the files of its output."""

    def __init__(self, line: str, where: Path, env: dict[str, str], name: str) -> None:
        self.line = line
        self._out, self._err = where / f"{name}.stdout", where / f"{name}.stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                ["sh", "-c", line],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                bufsize=0,
                cwd=where,
                env=env,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_bytes().decode(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_bytes().decode(errors="replace")

    def type(self, text: str) -> None:
        """Write to standard input, and leave it open."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def says(self, pattern: str, *, on_stderr: bool = False) -> re.Match[str]:
        """Wait until the output has a text."""

        def look() -> re.Match[str] | None:
            return re.search(pattern, self.err if on_stderr else self.out)

        wait_until(
            lambda: look() is not None or self.process.poll() is not None, lambda: f"{self}, not {pattern!r}"
        )
        found = look()
        assert found, f"{self} has not said {pattern!r}"
        return found

    def code(self) -> int:
        """Wait for the end."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} has not ended") from None

    def done(self) -> Done:
        """Wait for the end; the output."""
        return Done(self.code(), self.out, self.err)

    def signal(self, number: int) -> None:
        """Send a signal to the program, which has taken the place of the shell if the line begins with ``exec``."""
        self.process.send_signal(number)

    def abandon(self) -> None:
        """End it, and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.end_input()
        self.process.wait()

    def __str__(self) -> str:
        state = "runs" if self.process.poll() is None else f"ended with {self.process.returncode}"
        return f"{self.line!r}, which {state}, out {self.out!r}, err {self.err!r}"


def wait_until(holds: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """Look every few milliseconds; nothing tells when a foreign program is ready."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.005)


class Bench:
    """The place of one test.

    Attributes:
        ours: whether the lines are those of ``wireline``.
        where: the directory.
        hosts: what stands for the hosts of the page.
        started: the lines that have run.
    """

    def __init__(self, where: Path, *, ours: bool) -> None:
        self.ours = ours
        self.where = where
        self.hosts = dict(HOSTS)
        self.started: set[str] = set()
        self._has_system_ca = False
        self._running: list[Running] = []
        self._names = itertools.count()
        self._reservation, self._ports = _reserve_ports()
        self._words = {"{where}": str(where), "{name}": where.name}
        self.env = {**os.environ, "PATH": f"{where}/bin:{os.environ['PATH']}:/usr/sbin:/sbin"}
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
            self.env.pop(name, None)
        self._install_programs()

    def _install_programs(self) -> None:
        """``wireline`` of this checkout, also without an environment; ``nc`` may be another program on this machine."""
        bins = self.where / "bin"
        bins.mkdir()
        path = os.environ.get("PYTHONPATH", "")
        script = (
            f'#!/bin/sh\nPYTHONPATH={shlex.quote(path)} exec {shlex.quote(sys.executable)} -m wireline "$@"\n'
        )
        (bins / "wireline").write_text(script)
        (bins / "wireline").chmod(0o755)
        if (nc := shutil.which("nc.openbsd")) is not None:
            (bins / "nc").symlink_to(nc)

    def port(self, number: int) -> int:
        """The port that stands for one of the page."""
        return self._ports[number]

    def use_port(self, number: int, port: int) -> None:
        """Let another port stand for one of the page."""
        self._ports[number] = port

    def use_service(self) -> None:
        """Let a free service with a port above 1024 stand for ``smtp``."""
        for name in _SERVICES:
            with contextlib.suppress(OSError):
                if _is_free(port := socket.getservbyname(name, "tcp")):
                    self._words["smtp"] = name
                    self.use_port(25, port)
                    return
        raise AssertionError(f"the ports of all of {_SERVICES} are in use")

    def here(self, text: str) -> str:
        """Replace the hosts, ports, paths and limits of the page."""
        if self.ours and self._has_system_ca and _USES_SYSTEM_CAS.search(text):
            text = re.sub("wireline (connect|check) ", r"wireline \1 --ca-file system.pem ", text)
        for table in (LIMITS, PATHS, self._words):
            for word, replacement in table.items():
                text = text.replace(word, replacement)
        for host, replacement in self.hosts.items():
            text = re.sub(rf"(?<![\w.]){re.escape(host)}(?![\w.])", replacement, text)
        return re.sub(
            r"(?<![\w.])(\d+)(?![\w.])",
            lambda number: str(self._ports.get(int(number[1]), number[1])),
            text,
        )

    def write_certificates(self, server: certificates.Leaf | None = None) -> None:
        """Write ``server.pem``, ``me.pem``, their keys, and ``ca.pem``, which the system trusts."""
        leaf = server or certificates.issue("tasks", certificates.ca(), *_NAMES)
        me = certificates.client()
        for name, path in (("server", leaf), ("me", me)):
            shutil.copy(path.cert, self.where / f"{name}.pem")
            shutil.copy(path.key, self.where / f"{name}.key")
        shutil.copy(certificates.ca_file(), self.where / "ca.pem")
        self.trust(certificates.ca_file())
        self.hosts["example.com"] = "localhost"

    def trust(self, path: str) -> None:
        """Let the CA of a file be the only one that the system trusts.

        Programs with OpenSSL read ``SSL_CERT_FILE``. ``wireline`` does not, and gets an option where it has none.
        """
        shutil.copy(path, self.where / "system.pem")
        self.env["SSL_CERT_FILE"] = str(self.where / "system.pem")
        self._has_system_ca = True

    def write_files(self) -> None:
        """Write the files of the page."""
        for command in files():
            assert self.run(command).code == 0

    def start(self, line: str, *, listens: int | str = 0) -> Running:
        """Start a line.

        Args:
            line: in the words of the page.
            listens: the port or the path on which it will listen: wait for that.
        """
        for program in programs_of(line):
            if program != "wireline":
                require_tool(*PROGRAMS[program])
        if listens:
            wait_until(lambda: not self._listens(listens), lambda: f"{listens} is still in use")
        running = Running(self.here(line), self.where, self.env, f"line-{next(self._names)}")
        self._running.append(running)
        self.started.add(line.removeprefix("exec "))
        if listens:
            self.wait_for_listener(listens, running)
        return running

    def start_nginx(self, server: str, port: int) -> None:
        """Run a server of nginx, given in the words of its configuration."""
        scratch = " ".join(
            f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.where / "nginx.conf").write_text(
            "daemon off; master_process off; pid nginx.pid; error_log stderr notice; events {}\n"
            f"http {{ access_log off; {scratch} server {{ {self.here(server)} }} }}\n"
        )
        self.start("nginx -e stderr -p . -c nginx.conf", listens=port)

    def run(self, line: str, typed: str = "") -> Done:
        """Run a line to its end."""
        running = self.start(line)
        # A program that does not read its input may have ended.
        with contextlib.suppress(BrokenPipeError):
            running.type(typed)
        running.end_input()
        return running.done()

    def wait_for_listener(self, where: int | str, running: Running) -> None:
        """Wait until a program listens on a port, or has a Unix socket."""
        wait_until(
            lambda: self._listens(where) or running.process.poll() is not None,
            lambda: f"{running} does not listen",
        )
        assert self._listens(where), f"{running} does not listen"

    def _listens(self, where: int | str) -> bool:
        if isinstance(where, str):
            path = self.here(where)
            rows = Path("/proc/net/unix").read_text(errors="replace").splitlines()
            return any(row.endswith(f" {path}") for row in rows)
        end = f":{self.port(where):04X}"
        return any(
            words[1].endswith(end) and (words[3] == "0A" or name.startswith("udp"))  # TCP_LISTEN
            for name in ("tcp", "tcp6", "udp", "udp6")
            for words in map(str.split, Path(f"/proc/net/{name}").read_text().splitlines()[1:])
        )

    def end(self, running: Running) -> None:
        """End a line, so that another one can have its port."""
        running.abandon()
        self._running.remove(running)

    def abandon(self) -> None:
        """End everything."""
        for running in self._running:
            running.abandon()
        self._reservation.close()


def _reserve_ports() -> tuple[socket.socket, dict[int, int]]:
    """Take a run of ports. No program has bound them yet, so an abstract name keeps them from other tests."""
    for _ in _RUNS:
        first = _RUNS[next(_numbers) % len(_RUNS)]
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0wireline-task-{first}")
            if all(map(_is_free, range(first, first + len(PORTS)))):
                return reservation, dict(zip(PORTS, itertools.count(first), strict=False))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        reservation.close()
    raise AssertionError("no ports are free")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET6) as tcp, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        try:
            # Without SO_REUSEADDR: `nc -p` cannot have a port in TIME_WAIT either.
            tcp.bind(("::", port))
            udp.bind(("::", port))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def bench(*, ours: bool) -> Iterator[Bench]:
    """Make the place of a test. The directory is not pytest's: a path of a Unix socket has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="wireline-task-", ignore_cleanup_errors=True) as where:
        place = Bench(Path(where), ours=ours)
        try:
            yield place
        finally:
            place.abandon()
