"""Programs that end in all ways a program can end in, for exits.py.

    python -m tests.torture.endings PROGRAM FLAVOUR KIND KEY

``KEY`` is the name under which the peer keeps its input, if the program sends something that has to arrive.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from tests.scenarios import tasks
from tests.torture import victims, waits
from wireline import asyncnet, net

SIZE = 2_000_000

_kept: list[object] = []
"""As the globals of a program."""


def _command(key: str) -> bytes:
    return f"sink {key} - slowly\n".encode()


def _send(kind: str, key: str, *, by_name: bool = False) -> net.Socket:
    """Connect, and send the bytes that have to arrive."""
    if by_name:
        tls = victims.trusting() if kind.startswith("tls") else None
        sock = net.dial("localhost", victims.where()[kind], tls=tls, timeout=10)
    else:
        sock = victims.dial(kind)
    sock.send(_command(key))
    sock.send(bytes(SIZE), timeout=20)
    return sock


async def _send_async(kind: str, key: str) -> asyncnet.AsyncSocket:
    sock = await victims.dial_async(kind)
    await sock.send(_command(key))
    await sock.send(bytes(SIZE), timeout=20)
    return sock


def _soon(number: int, after: float = 0.3) -> None:
    """Send a signal to this process."""
    timer = threading.Timer(after, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def _serve(kind: str) -> tuple[Any, socket.socket]:
    tls = victims.serving() if kind.startswith("tls") else None
    server = net.serve(victims.shout, 0, "127.0.0.1", tls=tls)
    client = victims.connect_raw(kind, server.local_addr.port)
    victims.exchange_raw(client)
    return server, client


def _serving_async(kind: str) -> Any:
    tls = victims.serving() if kind.startswith("tls") else None
    return asyncnet.serve(victims.shout_async, 0, "127.0.0.1", tls=tls)


async def _connect_async(kind: str, server: Any) -> socket.socket:
    client = await waits.to_thread(victims.connect_raw, kind, server.local_addr.port)
    await waits.to_thread(victims.exchange_raw, client)
    return client


async def _serve_async(kind: str) -> tuple[Any, socket.socket]:
    server = await _serving_async(kind)
    return server, await _connect_async(kind, server)


# ------------------------------------------------------------------------------------------------ the blocking flavour


def a_server_runs(kind: str, key: str) -> None:
    _kept.extend(_serve(kind))


def a_server_in_a_local_variable(kind: str, key: str) -> None:
    _serve(kind)


def a_thread_reads(kind: str, key: str) -> None:
    sock = victims.dial(kind)
    _kept.append(sock)
    threading.Thread(target=sock.recv_line, daemon=True).start()
    time.sleep(0.1)


def a_thread_accepts(kind: str, key: str) -> None:
    listener = net.Socket()
    if kind.startswith("tls"):
        victims.serving().wrap_socket(listener)
    listener.bind_addr(0, "127.0.0.1")
    listener.listen()
    threading.Thread(target=listener.accept, daemon=True).start()
    time.sleep(0.1)


def sockets_are_open(kind: str, key: str) -> None:
    _kept.extend([victims.dial(kind), net.Socket(), victims.trusting()])


def sends_and_closes(kind: str, key: str) -> None:
    _send(kind, key).close()


def sends_and_closes_ten(kind: str, key: str) -> None:
    """Nine others linger beside it, with peers that do not end by themselves."""
    others = [victims.dial(kind) for _ in range(9)]
    for other in others:
        other.send(b"finish never\n")
    sock = _send(kind, key)
    for other in others:
        other.close()
    sock.close()


def atexit_sends(kind: str, key: str) -> None:
    atexit.register(lambda: _send(kind, key).close())


def atexit_sends_by_name(kind: str, key: str) -> None:
    atexit.register(lambda: _send(kind, key, by_name=True).close())


def atexit_closes(kind: str, key: str) -> None:
    sock = victims.dial(kind)

    def finish() -> None:
        sock.send(_command(key))
        sock.send(bytes(SIZE), timeout=20)
        sock.close()

    atexit.register(finish)


def the_last_thread_sends(kind: str, key: str) -> None:
    def late() -> None:
        time.sleep(0.3)  # the main thread has returned by then
        _send(kind, key, by_name=True).close()

    threading.Thread(target=late).start()


def atexit_of_asyncio(kind: str, key: str) -> None:
    async def main() -> None:
        (await _send_async(kind, key)).close()

    atexit.register(lambda: asyncio.run(main()))


def uncaught(kind: str, key: str) -> NoReturn:
    sock = victims.dial(kind)
    victims.exchange(sock)
    raise ValueError("uncaught, on purpose")


def uncaught_beside_a_server(kind: str, key: str) -> NoReturn:
    _server, _client = _serve(kind)
    raise ValueError("uncaught, on purpose")


def uncaught_in_with(kind: str, key: str) -> None:
    with _send(kind, key):
        raise ValueError("uncaught, on purpose")


def sys_exit_with_a_socket(kind: str, key: str) -> None:
    sock = victims.dial(kind)
    victims.exchange(sock)
    sys.exit(0)


def interrupted_in_recv(kind: str, key: str) -> None:
    with _send(kind, key) as sock:
        _soon(signal.SIGINT)
        sock.recv_line()


def interrupted_in_send(kind: str, key: str) -> None:
    with victims.dial(kind) as sock:
        sock.send(b"gate never count 1\n")
        _soon(signal.SIGINT)
        sock.send(bytes(20_000_000))


def interrupted_in_wait(kind: str, key: str) -> None:
    server, client = _serve(kind)
    with server, client:
        _soon(signal.SIGINT)
        server.wait()


def interrupted_in_stop(kind: str, key: str) -> None:
    server, client = _serve(kind)
    with client:
        _soon(signal.SIGINT)
        server.stop(drain=60)


def interrupted_in_accept(kind: str, key: str) -> None:
    with net.Socket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        _soon(signal.SIGINT)
        listener.accept()


def terminated_in_recv(kind: str, key: str) -> None:
    def leave(*_: object) -> NoReturn:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    with _send(kind, key) as sock:
        _soon(signal.SIGTERM)
        sock.recv_line()


# --------------------------------------------------------------------------------------------------- the async flavour


async def async_sends_and_closes(kind: str, key: str) -> None:
    (await _send_async(kind, key)).close()


async def async_sockets_are_open(kind: str, key: str) -> None:
    _kept.extend([await victims.dial_async(kind), asyncnet.AsyncSocket()])


async def async_a_server_runs(kind: str, key: str) -> None:
    _kept.extend(await _serve_async(kind))


async def async_a_task_reads(kind: str, key: str) -> None:
    sock = await victims.dial_async(kind)
    _kept.extend([sock, tasks.ensure_future(sock.recv_line())])
    await tasks.sleep(0.1)


async def async_uncaught(kind: str, key: str) -> None:
    sock = await victims.dial_async(kind)
    await victims.exchange_async(sock)
    raise ValueError("uncaught, on purpose")


async def async_uncaught_beside_a_server(kind: str, key: str) -> None:
    _server, _client = await _serve_async(kind)
    raise ValueError("uncaught, on purpose")


async def async_uncaught_in_a_server(kind: str, key: str) -> None:
    async with _serving_async(kind) as server:
        _kept.append(await _connect_async(kind, server))
        raise ValueError("uncaught, on purpose")


async def async_uncaught_in_with(kind: str, key: str) -> None:
    async with await _send_async(kind, key):
        raise ValueError("uncaught, on purpose")


async def async_interrupted_in_recv(kind: str, key: str) -> None:
    async with await _send_async(kind, key) as sock:
        _soon(signal.SIGINT)
        await sock.recv_line()


async def async_interrupted_in_wait(kind: str, key: str) -> None:
    server, _client = await _serve_async(kind)
    _soon(signal.SIGINT)
    async with server:
        await server.wait()


async def async_interrupted_in_a_server(kind: str, key: str) -> None:
    async with _serving_async(kind) as server:
        _kept.append(await _connect_async(kind, server))
        _soon(signal.SIGINT)
        await server.wait()


async def async_interrupted_beside_a_task(kind: str, key: str) -> None:
    """The task that reads is not the one that gets the interruption."""
    async with await _send_async(kind, key), await victims.dial_async(kind) as other:
        reading = tasks.ensure_future(other.recv_line())
        _soon(signal.SIGINT)
        await reading


async def async_atexit_sends(kind: str, key: str) -> None:
    await victims.exchange_async(await victims.dial_async(kind))
    atexit.register(lambda: _send(kind, key).close())


ARRIVES = (
    "interrupted_in_recv",
    "interrupted_beside_a_task",
    "terminated_in_recv",
    "uncaught_in_with",
    "atexit",
    "send",
)
"""Parts of the names of programs whose bytes have to arrive."""

PROGRAMS: dict[str, Callable[[str, str], Any]] = {
    program.__name__: program
    for program in list(globals().values())
    if callable(program)
    and getattr(program, "__module__", "") == __name__
    and not program.__name__.startswith("_")
}


NOT_ON_TRIO = ("async_a_server_runs", "async_uncaught_beside_a_server", "async_interrupted_in_wait")
"""Programs with a server that is in no block."""


def arrives(program: str) -> bool:
    """Whether the program's bytes have to arrive."""
    return any(part in program for part in ARRIVES) and program != "interrupted_in_send"


def status(program: str) -> tuple[int, ...]:
    """The exit statuses that are right."""
    if "uncaught" in program:
        return (1,)
    if "interrupted" in program:
        return (-signal.SIGINT, 130)
    return (0,)


if __name__ == "__main__":
    name, flavour, kind_, key_ = sys.argv[1:]
    made = PROGRAMS[name](kind_, key_)
    if flavour != "blocking":
        victims.run_loop(flavour, made)
