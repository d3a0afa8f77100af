"""A real redis-server: a pipeline of commands, and their replies through ``recv_line`` and ``recv_exactly``."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.interop.programs import PATIENCE, Program, on_a_free_port
from tests.tools import require_tool
from wireline import AF_UNIX, Address
from wireline.net import Socket, dial

pytestmark = pytest.mark.interop

Reply = bytes | int | None | list["Reply"]


@pytest.fixture(scope="module")
def redis() -> Iterator[tuple[Address, str]]:
    """Where a redis-server listens: TCP and a Unix socket."""
    program = require_tool("redis-server", "redis-server")
    # pytest's own directories may be too deep for the path of a Unix socket.
    with tempfile.TemporaryDirectory() as directory:
        path = str(pathlib.Path(directory) / "redis")

        def start(port: int) -> Program:
            where = ["--bind", "127.0.0.1", "--port", str(port), "--unixsocket", path, "--dir", directory]
            return Program(program, *where, "--save", "", "--appendonly", "no", "--daemonize", "no")

        with on_a_free_port(start, rb"ready to accept connections at", on_stdout=True) as (_, port):
            yield Address("127.0.0.1", port), path


@contextmanager
def connected(redis: tuple[Address, str], kind: str, *, buffered: bool = True) -> Iterator[Socket]:
    """A connection to a database with nothing in it."""
    where, path = redis
    if kind == "unix":
        sock = Socket(AF_UNIX, buffered=buffered)
        sock.connect_unix(path, timeout=PATIENCE)
    else:
        sock = dial(where.host, where.port, timeout=PATIENCE, buffered=buffered)
    with sock:
        sock.send(command(b"FLUSHALL"))
        assert read_reply(sock) == b"OK"
        yield sock


def command(*words: bytes) -> bytes:
    """A command as redis takes it (RESP 2)."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def read_reply(sock: Socket) -> Reply:
    line = sock.recv_line(PATIENCE)
    kind, rest = line[:1], line[1:]
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        if int(rest) < 0:
            return None
        value = sock.recv_exactly(int(rest), PATIENCE)
        assert sock.recv_exactly(2, PATIENCE) == b"\r\n"
        return value
    if kind == b"*":
        return [read_reply(sock) for _ in range(int(rest))]
    raise AssertionError(f"not a reply that was expected: {line!r}")


def value_of(number: int) -> bytes:
    """A value that looks like replies and ends of lines, of 0 to 300 bytes."""
    return (b"\r\n$%d\r\n\r+OK\n" % number * 40)[: number * 7 % 301]


def pipeline(count: int) -> tuple[list[bytes], list[Reply]]:
    """Commands, and redis' answer to each."""
    commands: list[bytes] = []
    replies: list[Reply] = []
    for number in range(count // 4):
        key, value = b"key\r\n%d" % number, value_of(number)
        commands += [command(b"SET", key, value), command(b"GET", key), command(b"INCR", b"counter")]
        replies += [b"OK", value, number + 1]
        commands += [command(b"MGET", key, b"nothing", key)]
        replies += [[value, None, value]]
    return commands, replies


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_pipeline_of_a_thousand_commands(redis: tuple[Address, str], kind: str) -> None:
    commands, replies = pipeline(1000)
    assert len(commands) == 1000
    with connected(redis, kind) as sock, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(sock.send, b"".join(commands), timeout=PATIENCE)
        assert [read_reply(sock) for _ in commands] == replies
        sent.result()
        assert not sock.has_data_buffered


def test_one_command_at_a_time_without_a_buffer(redis: tuple[Address, str]) -> None:
    commands, replies = pipeline(60)
    with connected(redis, "tcp", buffered=False) as sock:
        for line, reply in zip(commands, replies, strict=True):
            sock.send(line)
            assert read_reply(sock) == reply


def test_a_value_of_several_megabytes(redis: tuple[Address, str]) -> None:
    value = bytes(range(256)) * (16 * 1024)
    with connected(redis, "unix") as sock:
        sock.send(command(b"SET", b"large", value))
        assert read_reply(sock) == b"OK"
        sock.send(command(b"GET", b"large"))
        assert read_reply(sock) == value


def test_the_end_of_the_connection(redis: tuple[Address, str]) -> None:
    with connected(redis, "tcp") as sock:
        sock.send(command(b"PING") + command(b"QUIT"))
        assert list(sock.lines(timeout=PATIENCE)) == [b"+PONG", b"+OK"]
        assert sock.recv_line(PATIENCE) == b""
