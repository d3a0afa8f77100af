"""R12, W2, FB5: the ``default_flags`` of a socket are the flags of every call that is given none."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.scenarios import tls
from tests.scenarios.flavours import Sock
from tests.scenarios.scene import (
    Scene,
    Wire,
    arrived,
    eventually,
    in_clear,
    over_every_stream,
    readable,
    reset,
    soon,
)
from wireline import SAFE_DISCONN, Address, ReadLineResult, SocketFlag
from wireline.tls import TruncatedError

pytestmark = [pytest.mark.anyio, over_every_stream]

STRICT: dict[str, Any] = {"default_flags": SocketFlag.NONE}
GONE = (BrokenPipeError, ConnectionResetError)


async def reset_by_peer(scene: Scene, wire: Wire) -> None:
    if scene.transport.tls is None:
        await scene.reset(wire)
    else:
        reset(wire.peer.sock)
    await readable(wire.sock)


async def sends_fail(sock: Sock) -> None:
    """Send to a connection that the peer has aborted."""
    for number in range(20):
        with pytest.raises(GONE):
            await soon(sock.send(b"%d" % number))
        with pytest.raises(GONE):
            await soon(sock.send_many([b"many"]))
    await soon(sock.send(b"x", SAFE_DISCONN))


async def test_R12_W2_a_reset_is_an_error_of_lines_and_of_every_send(scene: Scene) -> None:
    wire = await scene.wire(**STRICT)
    wire.peer.sendall(b"one\ntwo\n")
    await arrived(wire.sock, 8)
    await reset_by_peer(scene, wire)
    lines = []
    with pytest.raises(ConnectionResetError if scene.transport.tls is None else TruncatedError):
        async for line in wire.sock.lines():
            lines.append(line)
    assert lines == [b"one", b"two"]
    await sends_fail(wire.sock)


READS: dict[str, Callable[[Sock], object]] = {
    "recv": lambda sock: sock.recv(5),
    "recv with a timeout": lambda sock: sock.recv(5, 5),
    "recv_into": lambda sock: sock.recv_into(bytearray(5)),
    "recv_some": lambda sock: sock.recv_some(),
    "recv_some_into": lambda sock: sock.recv_some_into(bytearray(5)),
    "recv_line": lambda sock: sock.recv_line(),
    "recv_line of another length": lambda sock: sock.recv_line(5, max_length=10),
    "recv_line_into": lambda sock: sock.recv_line_into(bytearray()),
    "recv_exactly": lambda sock: sock.recv_exactly(5),
    "recv_until": lambda sock: sock.recv_until(b"\n"),
    "recv_struct": lambda sock: sock.recv_struct("!I"),
    "recv_frame": lambda sock: sock.recv_frame("!I"),
    "fill": lambda sock: sock.fill(5),
    "skip": lambda sock: sock.skip(5),
    "try_recv": lambda sock: sock.try_recv(),
    "try_recv_line": lambda sock: sock.try_recv_line(),
    "lines": lambda sock: anext(aiter(sock.lines())),
    "frames": lambda sock: anext(aiter(sock.frames("!I"))),
}


async def result_of(call: object) -> object:
    return await soon(call) if isinstance(call, Awaitable) else call


@in_clear  # over TLS a reset is a cut with any flags, see T3
async def test_R12_a_reset_is_an_error_of_every_read(scene: Scene) -> None:
    for buffered in (True, False):
        wire = await scene.wire(buffered=buffered, **STRICT)
        await reset_by_peer(scene, wire)
        for name, read in READS.items():
            for _ in range(2):
                with pytest.raises(ConnectionResetError):
                    await result_of(read(wire.sock))
                    pytest.fail(f"{name} does not raise, buffered: {buffered}")


@in_clear
async def test_R12_flags_of_a_call_replace_the_default(scene: Scene) -> None:
    for default, given in ((SocketFlag.NONE, SAFE_DISCONN), (SAFE_DISCONN, SocketFlag.NONE)):
        wire = await scene.wire(default_flags=default)
        sock = wire.sock
        wire.peer.sendall(b"line\n")
        await arrived(sock, 5)
        assert await soon(sock.recv_line(flags=SocketFlag.PEEK)) == b"line"
        assert await soon(sock.recv_line(flags=given)) == b"line"
        await reset_by_peer(scene, wire)
        reads = {
            "recv": lambda sock, flags: sock.recv(1, flags=flags),
            "recv_some": lambda sock, flags: sock.recv_some(flags=flags),
            "recv_line": lambda sock, flags: sock.recv_line(flags=flags),
        }
        for read in reads.values():
            if given:
                assert await soon(read(sock, given)) == b""
            else:
                with pytest.raises(ConnectionResetError):
                    await soon(read(sock, given))
        lines = [line async for line in sock.lines(flags=SAFE_DISCONN)]
        assert lines == []
        if default:
            assert await soon(sock.recv_exactly(0)) == b""
            assert sock.try_recv() == b""
            assert sock.try_recv_line() == (ReadLineResult.DISCONNECTED, b"")
            await soon(sock.send(b"x"))
        with pytest.raises(GONE):
            await soon(sock.send(b"x", SocketFlag.NONE))


# Where the default is given, and where it is inherited.


async def take_over(scene: Scene) -> None:
    """Give them to ``from_socket`` and ``from_fd``."""

    def from_fd(sock: socket.socket, **options: Any) -> Sock:
        taken = scene.flavour.from_fd(sock.fileno(), **options)
        sock.detach()
        return taken

    for take in (scene.flavour.from_socket, from_fd):
        listener = scene.raw_listener()
        raw = scene.raw()
        raw.connect(listener.getsockname())
        with pytest.raises(ValueError, match="PEEK"):
            take(raw, default_flags=SocketFlag.PEEK)
        with pytest.raises(TypeError, match="SocketFlag"):
            take(raw, default_flags=0)
        wire = Wire(scene.closed_at_the_end(take(raw, **STRICT)), scene.raw_accept(listener))
        await reset_by_peer(scene, wire)
        await sends_fail(wire.sock)
        with pytest.raises(ConnectionResetError):
            wire.sock.socket_error(-1, last_error=errno.ECONNRESET)
        wire.sock.socket_error(-1, last_error=errno.ECONNRESET, flags=SAFE_DISCONN)


@in_clear
async def test_S4_calls_that_make_a_socket_follow_them_and_pass_them_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = scene.listener(**STRICT)
    failures: list[OSError] = []
    accept_now = socket.socket._accept  # type: ignore[attr-defined]

    def failing_accept(sock: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return accept_now(sock)

    monkeypatch.setattr(socket.socket, "_accept", failing_accept)
    for accept in (listener.accept_addr, listener.try_accept_addr):
        peer = scene.raw_connect(listener.local_addr)
        await readable(listener)
        failures.append(ConnectionAbortedError(errno.ECONNABORTED, "aborted"))
        with pytest.raises(ConnectionAbortedError):
            await result_of(accept())
        accepted: Any = await result_of(accept())
        client = scene.closed_at_the_end(accepted[-2])
        await reset_by_peer(scene, Wire(client, peer))
        await sends_fail(client)
    scene.raw_connect(listener.local_addr)
    failures.append(ConnectionAbortedError(errno.ECONNABORTED, "aborted"))
    scene.closed_at_the_end(await soon(listener.accept(SAFE_DISCONN)))
    assert not failures
    await take_over(scene)


async def test_dial_and_serve_take_them(scene: Scene) -> None:
    failed = []

    async def handler(client: Sock, _: Address) -> None:
        await client.recv_line(timeout=5)
        await client.send(b"ready\n")
        with pytest.raises((*GONE, TruncatedError)):
            await client.recv_line(timeout=5)
        with pytest.raises(GONE):
            for _ in range(20):
                await client.send(b"x")
        failed.append(True)

    options: dict[str, Any] = {} if scene.transport.tls is None else {"tls": tls.context(scene.transport.tls)}
    server = await scene.serve(handler, **STRICT)
    where = server.local_addr
    target = [f"unix:{where.host}"] if scene.transport.is_unix else ["localhost", where.port]
    if not options and not scene.transport.is_unix:
        target[0] = where.host
    client = await scene.dial(*target, timeout=5, **options, **STRICT)
    await client.send(b"hello\n")
    assert await client.recv_line(timeout=5) == b"ready"
    if scene.transport.is_unix:
        await client.send(b"unread")
        await server.stop()
        await sends_fail(client)
        return
    client.close(linger=0)
    await eventually(lambda: failed)
