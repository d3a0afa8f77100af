"""S10: a server binds every address of a name, takes over sockets that exist, and sets the mode of its path."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Any

import pytest

from tests.scenarios import tasks
from tests.scenarios.flavours import Sock, in_thread
from tests.scenarios.names import Names
from tests.scenarios.scene import (
    PATIENCE,
    Scene,
    address_of,
    all_of,
    no_descriptor_is_lost,
    over,
    over_one,
    raw_option,
    read_exactly,
    soon,
    turns,
)
from wireline import Address, KeepAlive

pytestmark = pytest.mark.anyio

unix = over("unix")


async def greet(client: Sock, _: Address) -> None:
    await client.send(b"hello")


def asked(*address: Any) -> bytes:
    with socket.create_connection(address, PATIENCE) as peer:
        return peer.recv(5)


def exists(path: str) -> bool:
    return os.path.exists(path)


# Every address of a name.


@over_one
async def test_S10_every_address_of_a_name_is_bound_with_one_port(scene: Scene, names: Names) -> None:
    """FA14: only the first address of a name was bound, and clients of the others were refused."""
    name = names.add("some.test", ("127.0.0.1", 0), ("::1", 0, 0, 0), ("127.0.0.2", 0), ("127.0.0.1", 0))
    async with await scene.flavour.serve(greet, 0, name) as server:
        assert [address.host for address in server.local_addrs] == ["127.0.0.1", "::1", "127.0.0.2"]
        assert len({address.port for address in server.local_addrs}) == 1
        assert server.local_addr == server.local_addrs[0]
        assert [each.local_addr for each in server.sockets] == list(server.local_addrs)
        for address in server.local_addrs:
            assert await soon(in_thread(asked, *address)) == b"hello"
        kept = server.local_addrs
    assert server.local_addrs == kept
    for address in kept:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, PATIENCE)


@over_one
async def test_S10_a_family_that_the_host_lacks_is_left_out(
    scene: Scene, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.socket.bind

    def bind(sock: socket.socket, address: Any) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "IPv6 is switched off")
        real(sock, address)

    monkeypatch.setattr(socket.socket, "bind", bind)
    name = names.add("some.test", ("::1", 0, 0, 0), ("127.0.0.1", 0))
    async with await scene.flavour.serve(greet, 0, name) as server:
        assert [address.host for address in server.local_addrs] == ["127.0.0.1"]
    only = names.add("six.test", ("::1", 0, 0, 0))
    with no_descriptor_is_lost(), pytest.raises(OSError, match="switched off"):
        await scene.flavour.serve(greet, 0, only)


@over_one
async def test_S10_any_other_error_closes_all(scene: Scene, names: Names) -> None:
    foreign = names.add("some.test", ("127.0.0.1", 0), ("192.0.2.1", 0))
    with no_descriptor_is_lost(), pytest.raises(OSError) as caught:
        await scene.flavour.serve(greet, 0, foreign)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    taken = socket.create_server(("127.0.0.2", 0))
    with contextlib.closing(taken):
        name = names.add("taken.test", ("127.0.0.1", 0), ("127.0.0.2", 0))
        with no_descriptor_is_lost(), pytest.raises(OSError) as caught:
            await scene.flavour.serve(greet, taken.getsockname()[1], name)
        assert caught.value.errno == errno.EADDRINUSE


@over_one
@pytest.mark.full
async def test_S10_another_port_is_tried_if_one_is_not_free_everywhere(
    scene: Scene, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = socket.socket.bind, [3]

    def bind(sock: socket.socket, address: Any) -> None:
        if address[0] == "127.0.0.2" and left[0]:
            left[0] -= 1
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        real(sock, address)

    monkeypatch.setattr(socket.socket, "bind", bind)
    name = names.add("some.test", ("127.0.0.1", 0), ("127.0.0.2", 0))
    with no_descriptor_is_lost():
        async with await scene.flavour.serve(greet, 0, name) as server:
            assert len(server.local_addrs) == 2
        await turns()
        left[0] = 1000
        with pytest.raises(OSError) as caught:
            await scene.flavour.serve(greet, 0, name)
    assert caught.value.errno == errno.EADDRINUSE


@over_one
async def test_options_are_set_before_the_socket_is_bound(scene: Scene) -> None:
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192), (socket.SOL_SOCKET, socket.SO_PRIORITY, 4)]
    seen = tasks.Queue()

    async def handler(client: Sock, _: Address) -> None:
        keep = raw_option(client, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await seen.put((keep, raw_option(client, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)))

    for keep_alive, expected in ((KeepAlive(), (1, 15)), (KeepAlive(70), (1, 70)), (None, (0, None))):
        server = await scene.flavour.serve(handler, 0, "127.0.0.1", options=options, keep_alive=keep_alive)
        async with server:
            assert raw_option(server.sockets[0], socket.SOL_SOCKET, socket.SO_PRIORITY) == 4
            scene.raw_connect(server.local_addr)
            on, idle = await soon(seen.get())
            assert (on, idle if on else None) == expected
    with no_descriptor_is_lost(), pytest.raises(OSError) as caught:
        await scene.flavour.serve(handler, 0, "127.0.0.1", options=[(socket.SOL_SOCKET, 0x7FFF, 1)])
    assert caught.value.errno == errno.ENOPROTOOPT


# Sockets that exist already.


@pytest.mark.parametrize("whose", ["standard library's", "ours"])
async def test_S10_a_server_takes_over_a_listening_socket_and_only_closes_it(
    scene: Scene, whose: str
) -> None:
    plain = scene.raw_listener()
    where = address_of(plain)
    twin = scene.closed_at_the_end(plain.dup())  # stands for another process
    sock: Any = plain if whose != "ours" else scene.flavour.from_socket(plain)
    given = getattr(sock, "_sock", sock)  # behind the face of the blocking flavour
    async with await scene.flavour.serve(greet, sock=given) as server:
        assert server.local_addrs == (where,)
        assert given.fileno() == -1, "it belongs to the server"
        assert await soon(all_of(scene.raw_connect(where))) == b"hello"
    late = scene.raw_connect(where)
    twin.settimeout(PATIENCE)
    twin.accept()[0].close()
    assert await soon(all_of(late)) == b""
    if scene.transport.is_unix:
        assert exists(where.host)


@over_one
@pytest.mark.full
async def test_S10_systemd_gives_several(scene: Scene, tmp_path: Any) -> None:
    listeners = [
        socket.create_server(("127.0.0.1", 0)),
        socket.create_server(("::1", 0), family=socket.AF_INET6),
    ]
    path = str(tmp_path / "s")
    third = socket.socket(socket.AF_UNIX)
    third.bind(path)
    third.listen()
    before = len(os.listdir("/proc/self/fd"))
    async with await scene.flavour.serve(greet, sock=[*listeners, third]) as server:
        assert [address.host for address in server.local_addrs] == ["127.0.0.1", "::1", path]
        for address in server.local_addrs[:2]:
            assert await soon(in_thread(asked, *address)) == b"hello"
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(path)
            assert await soon(in_thread(read_exactly, peer, 5)) == b"hello"
    await turns()
    assert len(os.listdir("/proc/self/fd")) <= before - 3


@over_one
async def test_a_socket_that_does_not_listen_is_refused_and_stays_as_it_was(scene: Scene) -> None:
    listening = scene.raw_listener()
    bound, stream, datagrams = scene.raw_bound(), scene.raw(), socket.socket(type=socket.SOCK_DGRAM)
    with datagrams:
        for wrong in (bound, stream, datagrams, [listening, bound], [listening, listening]):
            with no_descriptor_is_lost(), pytest.raises(ValueError):
                await scene.flavour.serve(greet, sock=wrong)
        for options in (
            {"port": 80},
            {"address": "127.0.0.1"},
            {"reuse_port": True},
            {"options": [(1, 2, 3)]},
        ):
            with pytest.raises(ValueError, match="already has its own"):
                await scene.flavour.serve(greet, sock=listening, **options)
    with pytest.raises(ValueError, match="mode"):
        await scene.flavour.serve(greet, sock=listening, mode=0o600)
    assert all(each.fileno() >= 0 for each in (listening, bound, stream))


# The mode of a path.


@unix
async def test_FA20_the_path_has_its_mode_from_the_first_moment(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA20: the mode could not be set, and a chmod after the bind was too late."""
    seen: list[int] = []
    real = socket.socket.bind

    def bind(sock: socket.socket, path: Any) -> None:
        real(sock, path)
        seen.append(stat.S_IMODE(os.stat(path).st_mode))

    monkeypatch.setattr(socket.socket, "bind", bind)
    for umask in (0, 0o022, 0o077):
        kept = os.umask(umask)
        try:
            for mode in (0o600, 0o660, 0o666, 0):
                where = scene.path()
                async with await scene.flavour.serve(greet, 0, f"unix:{where}", mode=mode):
                    assert stat.S_IMODE(os.stat(where).st_mode) == mode
                assert not seen.pop() & ~mode
                assert not exists(where)
        finally:
            assert os.umask(kept) == umask


@unix
@pytest.mark.full
async def test_mode_is_for_a_path(scene: Scene) -> None:
    for address in ("127.0.0.1", "", "unix:@wireline-mode"):
        with no_descriptor_is_lost(), pytest.raises(ValueError, match="mode"):
            await scene.flavour.serve(greet, 0, address, mode=0o600)
