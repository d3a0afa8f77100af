"""The costs of an exchange and of an idle connection, in numbers that every machine agrees on: calls and bytes."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.asyncnet.loops import WAYS, Way
from tests.tls import certificates
from wireline import ReadLineResult
from wireline.asyncnet import AsyncSocket
from wireline.tls import Handshake, SslContext

ROOT = Path(__file__).parents[2]
POLLING = pytest.mark.parametrize("way", [way for way in WAYS if not way.portable], ids=lambda way: way.name)


class Calls:
    """Calls of the library's functions while it records; a continuation after an await counts as one."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "/wireline/" in frame.f_code.co_filename.replace("\\", "/"):
            self.made.append(frame.f_code.co_name)

    @contextmanager
    def recording(self) -> Iterator[None]:
        before = sys.getprofile()
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(before)


async def _echo_some(sock: AsyncSocket, timeout: float | None) -> None:
    while data := await sock.recv_some(timeout=timeout):
        await sock.send(data)


async def _echo_lines(sock: AsyncSocket, timeout: float | None) -> None:
    while line := await sock.recv_line(timeout):
        await sock.send(line + b"\n")


@POLLING
@pytest.mark.skipif(not hasattr(select, "epoll"), reason="elsewhere the loop calls the reader itself")
@pytest.mark.parametrize("echo", [_echo_some, _echo_lines])
@pytest.mark.parametrize(("timeout", "more"), [(None, []), (30, ["check_timeout"])])
async def test_an_exchange_makes_no_call_whose_result_is_known(
    way: Way,
    echo: Callable[[AsyncSocket, float | None], Coroutine[None, None, None]],
    timeout: float | None,
    more: list[str],
) -> None:
    """From the loop to the reader, through the core to the task, and back to sleep; no request is made."""
    with socket.create_server(("127.0.0.1", 0)) as listener:  # a Unix stream receives by a call more
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    calls = Calls()
    with peer:
        async with AsyncSocket.from_socket(ours) as sock:
            echoing = asyncio.create_task(echo(sock, timeout))
            for _ in range(3):
                await asyncio.sleep(0)
                with calls.recording():
                    calls.made.clear()
                    peer.send(b"message\n")
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                assert await loop.sock_recv(peer, 100) == b"message\n"
            peer.close()
            await echoing
    read = "recv_some" if echo is _echo_some else "recv_line"
    taken = ["accept"] if echo is _echo_some else ["accept", "whole_line"]
    woken = ["_dispatch", "__call__", *taken, read, "wait"]
    asleep = [read, *more, "wait", "add_done_callback"]
    assert calls.made == [*woken, "send", *asleep]


@POLLING
@pytest.mark.skipif(not hasattr(select, "epoll"), reason="elsewhere the loop calls the reader itself")
async def test_a_TLS_exchange_adds_three_calls_and_takes_no_lock(way: Way) -> None:
    """One for the receive, two for the send."""
    leaf = certificates.server()
    server = SslContext(cert_file=leaf.cert, key_file=leaf.key)
    client = SslContext(ca_file=certificates.ca_file())
    near, far = (AsyncSocket.from_socket(sock) for sock in socket.socketpair())
    calls = Calls()
    async with near, far:
        await asyncio.gather(
            server.wrap_connected_async(near, Handshake.AS_SERVER),
            client.wrap_connected_async(far, Handshake.AS_CLIENT, "localhost"),
        )
        echoing = asyncio.create_task(_echo_some(near, None))
        for _ in range(3):
            await far.send(b"message")
            with calls.recording():
                calls.made.clear()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert await far.recv_some() == b"message"
        await far.shutdown_write()
        await echoing
    decrypted = ["_dispatch", "__call__", "accept", "feed_some", "recv_some", "wait"]
    encrypted = ["send", "send", "seal"]
    assert calls.made == [*decrypted, *encrypted, "recv_some", "wait", "add_done_callback"]


@POLLING
async def test_a_line_that_was_split_ahead_is_taken_without_asking_the_core(way: Way) -> None:
    ours, peer = socket.socketpair()
    calls = Calls()
    with peer:
        async with AsyncSocket.from_socket(ours) as sock:
            peer.send(b"line\n" * 400)
            for _ in range(200):
                assert await sock.recv_line() == b"line"
            with calls.recording():
                assert sock.try_recv_line() == (ReadLineResult.FULL_LINE, b"line")
    assert calls.made == ["try_recv_line"]


@pytest.mark.parametrize("way", ["asyncio", "uvloop"])
def test_an_idle_connection_takes_little_memory(way: str) -> None:
    """The objects of Python that a connection holds which has read, sent and waits for more."""
    # Coverage keeps memory of its own for each frame.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.asyncnet.idle", way],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    # 3.2 KB on CPython 3.13, of which its task and the coroutines in it, to be had nowhere for less, are 1.4.
    assert int(ran.stdout) < 3_600
