"""A program: scenes in which a server with limits meets crowds, forks and signals. Each runs in a process of its own.

It is started with the name of the scene, and says ``ok``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from wireline import Address, asyncnet, net
from wireline.asyncnet import AsyncSocket
from wireline.net import Socket

LOOPBACK = "127.0.0.1"

LIMIT = 10.0
"""Seconds after which something that should have happened counts as never."""

CROWD = 10_000
"""The clients of a crowd."""

_scenes: dict[str, Callable[[], None]] = {}

# Many connections at once, each silent; then a line with how many of them the server has ended.
_CLIENTS = """
import select, socket, sys
port, count, at_once = map(int, sys.argv[1:])
poll, left = select.poll(), {}
opened = ended = 0
while ended < count:
    while opened < count and len(left) < at_once:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", port))
        poll.register(sock, select.POLLIN)
        left[sock.fileno()] = sock
        opened += 1
    ready = poll.poll(20_000)
    if not ready:
        break
    for number, _ in ready:
        poll.unregister(number)
        left.pop(number).close()
        ended += 1
print(ended)
"""


def scene(function: Callable[[], None]) -> Callable[[], None]:
    _scenes[function.__name__] = function
    return function


def echo(client: Socket, _: Address) -> None:
    for line in client.lines():
        client.send(line + b"\n")


async def echo_async(client: AsyncSocket, _: Address) -> None:
    async for line in client.lines():
        await client.send(line + b"\n")


def ask(where: Any) -> bytes:
    with socket.create_connection(where, LIMIT) as peer:
        peer.sendall(b"x\n")
        return peer.recv(9)


def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


def resources() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@contextlib.contextmanager
def crowd(port: int, at_once: int = CROWD) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _CLIENTS, str(port), str(CROWD), str(at_once)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as clients:
        yield clients


def answer(clients: subprocess.Popen[str]) -> int:
    assert clients.stdout is not None
    return int(clients.stdout.readline())


@scene
def silent_crowd() -> None:
    """Threads are dear: as many as ``max_connections`` at a time, and the others wait in the queue.

    The clients are no more at a time than the queue has places for: the kernel drops the SYN of a further one, and the
    pause before it is sent again doubles up to half a minute.
    """
    before = resources()
    places = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with net.serve(echo, 0, LOOPBACK, first_byte_timeout=0.5, max_connections=1000, backlog=CROWD) as server:
        with crowd(server.local_addr.port, places) as clients:
            assert answer(clients) == CROWD
        eventually(lambda: server.connections == 0)
        assert ask(server.local_addr) == b"x\n"
    assert resources() == before


@scene
def async_silent_crowd() -> None:
    async def main() -> None:
        before = resources()
        serving = asyncnet.serve(
            echo_async, 0, LOOPBACK, first_byte_timeout=2.0, idle_timeout=60, backlog=CROWD
        )
        async with serving as server:
            with crowd(server.local_addr.port) as clients:
                most, late = 0, 0.0
                reading = asyncio.get_running_loop().run_in_executor(None, answer, clients)
                while not reading.done():
                    began = time.monotonic()
                    await asyncio.sleep(0.01)
                    late = max(late, time.monotonic() - began)
                    most = max(most, server.connections)
                assert await reading == CROWD
            assert most > CROWD / 4, most
            assert late < 3.0, f"the loop stood still for {late} s"
            await asyncio.to_thread(eventually, lambda: server.connections == 0)
            assert await asyncio.to_thread(ask, server.local_addr) == b"x\n"
        await asyncio.get_running_loop().shutdown_default_executor()
        assert len(asyncio.all_tasks()) == 1
        assert resources()[1] == before[1]

    asyncio.run(main())


@scene
def greedy_address() -> None:
    before = resources()
    with net.serve(echo, 0, LOOPBACK, max_per_address=10) as server:
        peers = []
        for _ in range(1000):
            with contextlib.suppress(ConnectionResetError):
                peers.append(socket.create_connection(server.local_addr, LIMIT))
        eventually(lambda: server.connections == 10)
        assert resources()[1] == before[1] + 1 + 10
        for peer in peers:
            peer.close()
        eventually(lambda: server.connections == 0)
        assert ask(server.local_addr) == b"x\n"
    eventually(lambda: resources() == before)


@scene
def fork_after_serve() -> None:
    """A child that stops its copy waits for nothing, and the limits of the parent hold."""
    options: dict[str, Any] = {"first_byte_timeout": 0.5, "max_connections": 5, "max_per_address": 5}
    with net.serve(echo, 0, LOOPBACK, **options) as server:
        silent, live = (socket.create_connection(server.local_addr, LIMIT) for _ in range(2))
        live.sendall(b"a\n")
        assert live.recv(9) == b"a\n"
        child = os.fork()
        if not child:
            began = time.monotonic()
            report = server.stop(LIMIT)
            os._exit(int(report != (0, 0) or time.monotonic() - began > 1 or bool(server.clients)))
        assert os.waitpid(child, 0)[1] == 0
        live.sendall(b"b\n")
        assert live.recv(9) == b"b\n"
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        assert ask(server.local_addr) == b"x\n"
        for peer in (silent, live):
            peer.close()


@scene
def shared_socket() -> None:
    """The server's end does not disturb another process that accepts from the same socket."""
    listener = socket.create_server((LOOPBACK, 0))
    where = listener.getsockname()
    other = os.fork()
    if not other:
        listener.settimeout(
            LIMIT
        )  # it is not blocking any more: that is a state of the socket, which both share
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(ConnectionError):
                if client.recv(9) == b"quit\n":
                    os._exit(0)
                client.sendall(b"other")
    server = net.serve(lambda client, _: client.send(client.recv_some() + b"!"), sock=listener)
    answers = set()
    for _ in itertools.count():
        with socket.create_connection(where, LIMIT) as peer:
            peer.sendall(b"x\n")
            answers.add(peer.recv(9))
        if len(answers) == 2:
            break
    server.stop(1)
    for _ in range(10):
        assert ask(where) == b"other"
    with socket.create_connection(where, LIMIT) as peer:
        peer.sendall(b"quit\n")
    assert os.waitpid(other, 0)[1] == 0


@scene
def signals() -> None:
    """Handlers that raise, and handlers that ask the server, while the limits are at work."""
    numbers = itertools.count()

    def on_alarm(_: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not attempt.__code__:
            frame = frame.f_back
        if next(numbers) % 2 and frame is not None:
            raise KeyError("a signal handler's")
        assert len(server.clients) <= 3
        server.stopping.is_set()

    def attempt(server: net.Server) -> bool:
        try:
            done = ask(server.local_addr) == b"x\n"
            server.stopping.wait(0.001)
        except (KeyError, OSError):
            return False
        return done

    before = resources()
    with net.serve(echo, 0, LOOPBACK, idle_timeout=0.2, max_connections=3, max_per_address=3) as server:
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
        until, answered = time.monotonic() + 1.5, 0
        while time.monotonic() < until:
            with contextlib.suppress(KeyError):  # in the last bytecode of it
                answered += attempt(server)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert answered
        eventually(lambda: server.connections == 0)
        for _ in range(3):
            assert ask(server.local_addr) == b"x\n"
        signal.signal(signal.SIGALRM, lambda *_: server.request_stop())
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert server.stopping.wait(LIMIT)
        server.wait(LIMIT)
    eventually(lambda: resources() == before)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    # On purpose, this program forks where there are threads, and its signal handlers lose sockets.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", ResourceWarning)
    _scenes[sys.argv[1]]()
    print("ok")
