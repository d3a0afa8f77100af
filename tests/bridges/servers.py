"""Real servers for the libraries: each in a directory of its own, on loopback or a Unix socket, ended by its id."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.interop.programs import _free_port
from tests.tls import certificates
from tests.tools import IN_CI, require_tool

PATIENCE = 20.0
"""Seconds after which a server that does not answer counts as hanging."""


class Tcp(NamedTuple):
    """Where a server listens on loopback, in clear and over TLS."""

    port: int
    tls_port: int


@contextlib.contextmanager
def _directory(owner: str | None = None) -> Iterator[pathlib.Path]:
    """Make a directory whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="wl-", ignore_cleanup_errors=True) as name:
        if owner is not None:
            shutil.chown(name, owner)
        yield pathlib.Path(name)


@contextlib.contextmanager
def _running(*argv: str, where: pathlib.Path, user: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server; what it says is in a file."""
    with open(where / "output", "wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, user=user)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(
    process: subprocess.Popen[bytes], where: pathlib.Path, family: int, address: str | tuple[str, int]
) -> None:
    """Connect until the server accepts."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket(family) as probe:
            try:
                probe.connect(address)
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    said = (where / "output").read_text(errors="replace")[-2000:]
                    raise AssertionError(f"{process.args!r} does not listen:\n{said}") from None
        time.sleep(0.02)


def _unprivileged(name: str) -> str | None:
    """Return the user that a server runs as: none but root can choose one, and these servers refuse root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name).pw_name
    return "nobody"


@contextlib.contextmanager
def redis() -> Iterator[Tcp]:
    """Run a redis-server."""
    program = require_tool("redis-server", "redis-server")
    leaf = certificates.server()
    with _directory() as where:
        port, tls_port = _free_port(), _free_port()
        options = f"--bind 127.0.0.1 --port {port} --tls-port {tls_port} --dir {where} --save".split()
        tls = ["--tls-cert-file", leaf.cert, "--tls-key-file", leaf.key, "--tls-auth-clients", "no"]
        with _running(program, *options, "", *tls, where=where) as process:
            _wait_until_it_listens(process, where, socket.AF_INET, ("127.0.0.1", port))
            yield Tcp(port, tls_port)


@contextlib.contextmanager
def mosquitto() -> Iterator[Tcp]:
    """Run a mosquitto."""
    program = shutil.which("mosquitto", path="/usr/sbin") or require_tool("mosquitto", "mosquitto")
    leaf = certificates.server()
    with _directory() as where:
        port, tls_port = _free_port(), _free_port()
        listener = "listener {} 127.0.0.1\nallow_anonymous true\n"
        tls = f"certfile {leaf.cert}\nkeyfile {leaf.key}\n"
        configuration = where / "configuration"
        # Otherwise it changes its user, which may not read the key.
        configuration.write_text(
            "user root\npersistence false\n" + listener.format(port) + listener.format(tls_port) + tls
        )
        with _running(program, "-c", str(configuration), where=where) as process:
            _wait_until_it_listens(process, where, socket.AF_INET, ("127.0.0.1", port))
            yield Tcp(port, tls_port)


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """Run a MariaDB with a user ``root`` without a password; gives the path of its Unix socket."""
    program = shutil.which("mariadbd", path="/usr/sbin") or require_tool("mariadbd", "mariadb-server")
    install = require_tool("mariadb-install-db", "mariadb-server")
    with _directory() as where:
        data, path = where / "data", str(where / "s")
        common = ["--no-defaults", f"--datadir={data}"]
        if os.geteuid() == 0:
            common.append("--user=root")
        small = ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M", "--innodb-flush-method=nosync"]
        subprocess.run(
            [install, *common, *small[:1], "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        leaf = certificates.server()
        small += [f"--ssl-cert={leaf.cert}", f"--ssl-key={leaf.key}"]
        quiet = ["--skip-networking", f"--socket={path}", f"--pid-file={where / 'pid'}"]
        with _running(program, *common, *small, *quiet, where=where) as process:
            _wait_until_it_listens(process, where, socket.AF_UNIX, path)
            yield path


_ACCESS = """
host all trusted 127.0.0.1/32 trust
host all in_clear 127.0.0.1/32 password
host all hashed 127.0.0.1/32 md5
"""
_INITDB = ("--no-sync", "-A", "scram-sha-256", "--no-locale", "-E", "UTF8")


class Postgres(NamedTuple):
    """Where a PostgreSQL listens; the user ``postgres`` has the password ``secret``, checked by SCRAM-SHA-256.

    Users of other names are authenticated as ``_ACCESS`` says, once a test has created them.
    """

    port: int

    password = "secret"


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL that speaks TLS too."""
    bin_directory = _postgres_programs()
    user = _unprivileged("postgres")
    leaf = certificates.server()
    with _directory(user) as where:
        data = where / "data"
        password = where / "password"
        password.write_text(Postgres.password)
        for source in leaf:
            shutil.copy(source, where)
        key = where / pathlib.Path(leaf.key).name
        if user is not None:
            shutil.chown(key, user)
            shutil.chown(password, user)
        key.chmod(0o600)
        subprocess.run(
            [f"{bin_directory}/initdb", "-D", data, "-U", "postgres", "--pwfile", password, *_INITDB],
            check=True,
            capture_output=True,
            timeout=60,
            user=user,
            cwd=where,
        )
        access = data / "pg_hba.conf"
        access.write_text(_ACCESS + access.read_text())
        port = _free_port()
        settings = f"port={port} listen_addresses=127.0.0.1 unix_socket_directories={where} fsync=off ssl=on"
        settings += f" ssl_cert_file={where / pathlib.Path(leaf.cert).name} ssl_key_file={key}"
        options = [word for each in settings.split() for word in ("-c", each)]
        with _running(
            f"{bin_directory}/postgres", "-D", str(data), *options, where=where, user=user
        ) as process:
            _wait_until_it_listens(process, where, socket.AF_INET, ("127.0.0.1", port))
            _wait_until_it_is_ready(bin_directory, where, port)
            yield Postgres(port)


def _wait_until_it_is_ready(bin_directory: str, where: pathlib.Path, port: int) -> None:
    command = [f"{bin_directory}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "5"]
    for _ in range(100):
        if subprocess.run(command, timeout=PATIENCE, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError((where / "output").read_text(errors="replace")[-2000:])


def _postgres_programs() -> str:
    """Find the directory of the programs, which Debian does not put on the path."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return str(found[-1].parent)
    if (program := shutil.which("initdb")) is not None:
        return str(pathlib.Path(program).parent)
    missing = "the program 'initdb' is not installed (on Debian: apt-get install postgresql)"
    if IN_CI:
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
