"""Scenes: short programs that use the library as programs do, written for both flavours.

A scene raises ``Wrong`` when it is given something else than was sent. It closes its sockets in every case.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import wireline.asyncnet
import wireline.net
from tests.scenarios import tasks
from tests.torture.peer import Peer
from wireline import AF_INET, RelayReport, SocketFlag, SocketTimeout
from wireline.asyncnet import AsyncSocket
from wireline.net import ReceivedFds, Socket
from wireline.tls import Handshake, SslContext

PATIENCE = 2.0
"""Seconds after which a call of a scene has missed a wake-up; none of them has to wait that long."""

LOUD = SocketFlag(0)
"""No SAFE_DISCONN: a failed send is to be an error, else the scene would wait for an answer to it."""

BULK = 1_500_000
ECHOED = bytes(range(256)) * 40
ECHO_COMMAND = b"echo %d\n" % len(ECHOED)


class Wrong(Exception):
    """The received bytes are not the ones that were sent."""


class Ended(OSError):
    """The stream has ended before all was there: right only if the failed call says that the connection is gone."""


@dataclass
class Stage:
    """The tools of a scene."""

    kind: str
    peer: Peer
    tls: SslContext | None


def expect(got: object, wanted: object) -> None:
    if wanted and (got is None or got == b""):
        raise Ended(f"the stream ended, expected {str(wanted)[:80]!r}")
    if got != wanted:
        raise Wrong(f"got {str(got)[:80]!r}, expected {str(wanted)[:80]!r}")


def expect_visits(stage: Stage) -> None:
    """One failed call may spoil one visit, not more."""
    bad = [answer for answer in stage.peer.visits() if answer != "ok"]
    if len(bad) > 1:
        raise Wrong(f"one call failed, and of three visits these were spoiled: {bad}")


# The blocking flavour.


def dialled(stage: Stage) -> Socket:
    return wireline.net.dial("127.0.0.1", stage.peer.port(stage.kind), tls=stage.tls, timeout=PATIENCE)


def ping(sock: Socket, word: str) -> None:
    sock.send(f"ping {word}\n".encode(), LOUD, timeout=PATIENCE)
    expect(sock.recv_line(PATIENCE, LOUD), f"pong {word}".encode())


def dial(stage: Stage) -> None:
    with dialled(stage) as sock:
        expect(sock.peer_addr.port, stage.peer.port(stage.kind))


def connect(stage: Stage) -> None:
    with Socket() as sock:
        if stage.tls is not None:
            stage.tls.wrap_socket(sock)
        sock.connect("127.0.0.1", stage.peer.port(stage.kind), PATIENCE)
        ping(sock, "connected")


def accept(stage: Stage) -> None:
    with Socket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        if stage.tls is not None:
            stage.tls.wrap_socket(listener)
        try:
            stage.peer.visit(listener.local_addr.port, stage.kind)
            with listener.accept(LOUD, timeout=PATIENCE) as client:
                while line := client.recv_line(PATIENCE, LOUD):
                    client.send_many([line, b"\n"], LOUD, PATIENCE)
        finally:
            listener.close()
            stage.peer.visits()


def echo(stage: Stage) -> None:
    with dialled(stage) as sock:
        for _ in range(3):
            sock.send(b"echo %d\n" % len(ECHOED), LOUD)
            sock.send(ECHOED, LOUD, PATIENCE)
            expect(sock.recv_exactly(len(ECHOED), PATIENCE), ECHOED)
        sock.send(b"drip 50\n" + ECHOED[:50], LOUD)
        got = bytearray()
        while len(got) < 50:
            got += sock.recv_some(timeout=PATIENCE, flags=LOUD)
        expect(got, ECHOED[:50])


def lines(stage: Stage) -> None:
    with dialled(stage) as sock:
        for word in ("a", "b", "c"):
            ping(sock, word)
        sock.send_many([b"ping %d\n" % i for i in range(20)], LOUD)
        found = sock.lines(timeout=PATIENCE)
        for i in range(20):
            expect(next(found, None), b"pong %d" % i)
        sock.send(b"late\n", LOUD)  # without a timeout: the kernel waits
        expect(sock.recv_line(), b"at last")


def half_close(stage: Stage) -> None:
    with dialled(stage) as sock:
        sock.send(b"reverse\n" + ECHOED, LOUD)
        sock.shutdown_write(PATIENCE)
        expect(sock.recv(2 * len(ECHOED), PATIENCE, LOUD), ECHOED[::-1])
        expect(sock.recv_some(timeout=PATIENCE, flags=LOUD), b"")


def give_up(stage: Stage) -> None:
    with dialled(stage) as sock:
        for timeout in (0.0, 0.004):
            with contextlib.suppress(SocketTimeout):
                raise Wrong(f"something was received: {sock.recv_line(timeout, LOUD)!r}")
        ping(sock, "afterwards")
        sock.send(b"slow %d\n" % BULK, LOUD, PATIENCE)
        try:
            sock.send(bytes(BULK), LOUD, timeout=0.002)
        except SocketTimeout as error:
            if error.bytes_sent is None:
                raise Wrong("a send that timed out does not say how much went out") from error
            sock.send(bytes(BULK - error.bytes_sent), LOUD, timeout=PATIENCE)
        expect(sock.recv_line(PATIENCE, LOUD), b"got all")


def bulk(stage: Stage) -> None:
    with dialled(stage) as sock:
        sock.send(b"slow %d\n" % BULK, LOUD)
        sock.send(bytes(BULK), LOUD, timeout=PATIENCE)
        expect(sock.recv_line(PATIENCE, LOUD), b"got all")


def serve(stage: Stage) -> None:
    def answer(client: Socket, _: object) -> None:
        # The handler's errors are the business of its connection: the library logs them.
        while line := client.recv_line(PATIENCE):
            client.send(line + b"\n")

    with wireline.net.serve(answer, 0, "127.0.0.1", tls=stage.tls) as server:
        stage.peer.visit(server.local_addr.port, stage.kind, 3)
        stage.peer.visited(3 * PATIENCE)
        server.stop(drain=0.2)
    expect_visits(stage)


def datagrams(stage: Stage) -> None:
    with Socket(AF_INET, wireline.SOCK_DGRAM, wireline.IPPROTO_UDP) as sock:
        sock.bind_addr(0, "127.0.0.1")
        here = sock.local_addr
        for i in range(3):
            sock.send_to("127.0.0.1", here.port, b"%d" % i)
            expect(sock.recv_from(10, timeout=PATIENCE).data, b"%d" % i)
        with contextlib.suppress(SocketTimeout):
            raise Wrong(f"something was received: {sock.recv_from(10, timeout=0.003)!r}")


def send_file(stage: Stage) -> None:
    with tempfile.TemporaryFile() as file, dialled(stage) as sock:
        file.write(bytes(BULK))
        sock.send(b"slow %d\n" % BULK, LOUD)
        expect(sock.sendfile(file, timeout=PATIENCE), BULK)
        expect(sock.recv_line(PATIENCE, LOUD), b"got all")


def relay(stage: Stage) -> None:
    client, near = socket.socketpair()
    with client, near, Socket.from_socket(near) as source, dialled(stage) as sink:
        client.sendall(ECHO_COMMAND + ECHOED)
        client.shutdown(socket.SHUT_WR)
        report = wireline.net.relay(source, sink, idle_timeout=PATIENCE / 4)
        _expect_relayed(report, source, client)


def _expect_relayed(report: RelayReport, source: Socket | AsyncSocket, client: socket.socket) -> None:
    if report.error is not None:
        if report.failed == "b":  # what could not be sent is left
            left = source.try_recv(2 * len(ECHOED)) or b""
            expect(report.a_to_b + len(left), len(ECHO_COMMAND) + len(ECHOED))
        raise report.error
    source.close()
    got = bytearray()
    while piece := os.read(client.fileno(), 65536):  # `client.recv` may be the call that fails
        got += piece
    expect(got, ECHOED)


def pass_fds(stage: Stage) -> None:
    read, write = os.pipe()
    try:
        near, far = socket.socketpair()
        with near, far, Socket.from_socket(near) as ours, Socket.from_socket(far) as theirs:
            ours.send_fds(b"descriptors", [read, write], PATIENCE)
            _expect_fds(theirs.recv_fds(100, 4, PATIENCE))
    finally:
        os.close(read)
        os.close(write)


def _expect_fds(received: ReceivedFds) -> None:
    for fd in received.fds:
        os.close(fd)
    expect((received.data, len(received.fds)), (b"descriptors", 2))


# The async flavour.


async def async_dialled(stage: Stage) -> AsyncSocket:
    port = stage.peer.port(stage.kind)
    return await wireline.asyncnet.dial("127.0.0.1", port, tls=stage.tls, timeout=PATIENCE)


async def async_ping(sock: AsyncSocket, word: str) -> None:
    await sock.send(f"ping {word}\n".encode(), LOUD, timeout=PATIENCE)
    expect(await sock.recv_line(PATIENCE, LOUD), f"pong {word}".encode())


async def async_dial(stage: Stage) -> None:
    async with await async_dialled(stage) as sock:
        expect(sock.peer_addr.port, stage.peer.port(stage.kind))


async def async_connect(stage: Stage) -> None:
    async with AsyncSocket() as sock:
        if stage.tls is not None:
            stage.tls.wrap_socket(sock)
        await sock.connect("127.0.0.1", stage.peer.port(stage.kind), PATIENCE)
        await async_ping(sock, "connected")


async def async_accept(stage: Stage) -> None:
    async with AsyncSocket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        if stage.tls is not None:
            stage.tls.wrap_socket(listener)
        try:
            stage.peer.visit(listener.local_addr.port, stage.kind)
            async with await listener.accept(LOUD, timeout=PATIENCE) as client:
                while line := await client.recv_line(PATIENCE, LOUD):
                    await client.send_many([line, b"\n"], LOUD, PATIENCE)
        finally:
            listener.close()
            stage.peer.visits()


async def async_echo(stage: Stage) -> None:
    async with await async_dialled(stage) as sock:
        for _ in range(3):
            await sock.send(b"echo %d\n" % len(ECHOED), LOUD)
            await sock.send(ECHOED, LOUD, PATIENCE)
            expect(await sock.recv_exactly(len(ECHOED), PATIENCE), ECHOED)
        await sock.send(b"drip 50\n" + ECHOED[:50], LOUD)
        got = bytearray()
        while len(got) < 50:
            got += await sock.recv_some(timeout=PATIENCE, flags=LOUD)
        expect(got, ECHOED[:50])


async def async_lines(stage: Stage) -> None:
    async with await async_dialled(stage) as sock:
        for word in ("a", "b", "c"):
            await async_ping(sock, word)
        await sock.send_many([b"ping %d\n" % i for i in range(20)], LOUD)
        found = sock.lines(timeout=PATIENCE)
        for i in range(20):
            expect(await anext(found, None), b"pong %d" % i)
        await sock.send(b"late\n", LOUD)
        expect(await sock.recv_line(), b"at last")


async def async_half_close(stage: Stage) -> None:
    async with await async_dialled(stage) as sock:
        await sock.send(b"reverse\n" + ECHOED, LOUD)
        await sock.shutdown_write(PATIENCE)
        expect(await sock.recv(2 * len(ECHOED), PATIENCE, LOUD), ECHOED[::-1])
        expect(await sock.recv_some(timeout=PATIENCE, flags=LOUD), b"")


async def async_give_up(stage: Stage) -> None:
    async with await async_dialled(stage) as sock:
        for timeout in (0.0, 0.004):
            with contextlib.suppress(SocketTimeout):
                raise Wrong(f"something was received: {await sock.recv_line(timeout, LOUD)!r}")
        await _cancelled(functools.partial(sock.recv_line, None, LOUD))
        await async_ping(sock, "afterwards")
        await sock.send(b"slow %d\n" % BULK, LOUD, PATIENCE)
        if await _cancelled(functools.partial(sock.send, bytes(BULK), LOUD)):
            await sock.send(bytes(BULK - sock.last_bytes_sent), LOUD, timeout=PATIENCE)
        expect(await sock.recv_line(PATIENCE, LOUD), b"got all")


async def _cancelled(call: Callable[[], Awaitable[object]]) -> bool:
    """Start a call and cancel it; False if it was done before that."""

    async def made() -> None:
        await call()

    task = tasks.ensure_future(made())
    await tasks.sleep(0.003)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def async_bulk(stage: Stage) -> None:
    async with await async_dialled(stage) as sock:
        await sock.send(b"slow %d\n" % BULK, LOUD)
        await sock.send(bytes(BULK), LOUD, timeout=PATIENCE)
        expect(await sock.recv_line(PATIENCE, LOUD), b"got all")


async def async_serve(stage: Stage) -> None:
    async def answer(client: AsyncSocket, _: object) -> None:
        while line := await client.recv_line(PATIENCE):
            await client.send(line + b"\n")

    async with wireline.asyncnet.serve(answer, 0, "127.0.0.1", tls=stage.tls) as server:
        stage.peer.visit(server.local_addr.port, stage.kind, 3)
        for _ in range(int(3 * PATIENCE / 0.002)):
            if stage.peer.visited():
                break
            await tasks.sleep(0.002)
        await server.stop(drain=0.2)
    expect_visits(stage)


async def async_datagrams(stage: Stage) -> None:
    async with AsyncSocket(AF_INET, wireline.SOCK_DGRAM, wireline.IPPROTO_UDP) as sock:
        sock.bind_addr(0, "127.0.0.1")
        here = sock.local_addr
        for i in range(3):
            await sock.send_to("127.0.0.1", here.port, b"%d" % i)
            expect((await sock.recv_from(10, timeout=PATIENCE)).data, b"%d" % i)
        with contextlib.suppress(SocketTimeout):
            raise Wrong(f"something was received: {await sock.recv_from(10, timeout=0.003)!r}")


async def async_send_file(stage: Stage) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(BULK))
        async with await async_dialled(stage) as sock:
            await sock.send(b"slow %d\n" % BULK, LOUD)
            expect(await sock.sendfile(file, timeout=PATIENCE), BULK)
            expect(await sock.recv_line(PATIENCE, LOUD), b"got all")


async def async_relay(stage: Stage) -> None:
    client, near = socket.socketpair()
    with client, near:
        async with AsyncSocket.from_socket(near) as source, await async_dialled(stage) as sink:
            client.sendall(ECHO_COMMAND + ECHOED)
            client.shutdown(socket.SHUT_WR)
            report = await wireline.asyncnet.relay(source, sink, idle_timeout=PATIENCE / 4)
            _expect_relayed(report, source, client)


async def async_pass_fds(stage: Stage) -> None:
    read, write = os.pipe()
    try:
        near, far = socket.socketpair()
        with near, far:
            async with AsyncSocket.from_socket(near) as ours, AsyncSocket.from_socket(far) as theirs:
                await ours.send_fds(b"descriptors", [read, write], PATIENCE)
                _expect_fds(await theirs.recv_fds(100, 4, PATIENCE))
    finally:
        os.close(read)
        os.close(write)


NAMES = (
    *("dial", "connect", "accept", "echo", "lines", "half_close", "give_up", "bulk", "serve", "datagrams"),
    *("send_file", "relay", "pass_fds"),
)
ONLY_PLAIN = ("datagrams", "pass_fds")
"""Scenes without a stream of TLS."""

BLOCKING: dict[str, Callable[[Stage], None]] = {
    scene.__name__: scene
    for scene in (
        *(dial, connect, accept, echo, lines, half_close, give_up, bulk, serve, datagrams),
        *(send_file, relay, pass_fds),
    )
}
ASYNC: dict[str, Callable[[Stage], Awaitable[None]]] = {
    scene.__name__.removeprefix("async_"): scene
    for scene in (
        async_dial,
        async_connect,
        async_accept,
        async_echo,
        async_lines,
        async_half_close,
        async_give_up,
        async_bulk,
        async_serve,
        async_datagrams,
        async_send_file,
        async_relay,
        async_pass_fds,
    )
}


def context(directory: str) -> SslContext:
    """The configuration of our side, for both roles; the peer decides about the version."""
    ours = SslContext(
        cert_file=f"{directory}/server.pem", key_file=f"{directory}/server.key", ca_file=f"{directory}/ca.pem"
    )
    for role in Handshake:  # the files are read now: no call of a scene is to read them
        ours.ssl_context(role)
    return ours
