"""socat at the other end of an ``AsyncSocket``, as the one that connects and as the one that listens."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from tests.interop import test_socat
from tests.interop.async_conversations import (
    exchange_connected_datagrams,
    exchange_datagrams,
    hold_a_conversation,
    says,
)
from tests.interop.programs import PATIENCE, Program
from tests.interop.test_socat import TCP, UDP, UNIX, bracketed, socat
from wireline import AF_UNIX, IPPROTO_UDP, SOCK_DGRAM, Address
from wireline.asyncnet import AsyncSocket, dial, serve

pytestmark = [pytest.mark.interop, pytest.mark.anyio]

names = test_socat.names


async def said_port(program: Program) -> int:
    return int((await says(program, rb"listening on .*:(\d+)\n"))[1])


@pytest.mark.parametrize(("host", "family", "version"), TCP)
async def test_socat_connects(host: str, family: int, version: str) -> None:
    async with AsyncSocket(family) as listener:
        listener.bind_addr(0, host)
        listener.listen()
        with socat(f"TCP{version}:{bracketed(host)}:{listener.local_addr.port}") as program:
            client, address = await listener.accept_addr(timeout=PATIENCE)
            async with client:
                assert address.host == host
                assert client.peer_addr == address
                await hold_a_conversation(program, client)


@pytest.mark.parametrize(("host", "family", "version"), TCP)
async def test_socat_listens(host: str, family: int, version: str) -> None:
    with socat(f"TCP{version}-LISTEN:0,bind={bracketed(host)}") as program:
        port = await said_port(program)
        async with await dial(host, port, timeout=PATIENCE) as sock:
            assert sock.peer_addr == (host, port)
            await hold_a_conversation(program, sock)


@pytest.mark.parametrize("kind", UNIX)
async def test_socat_connects_to_a_unix_socket(kind: str, names: dict[str, tuple[str, str, str]]) -> None:
    verb, theirs, ours = names[kind]
    async with AsyncSocket(AF_UNIX) as listener:
        listener.bind_unix(ours)
        listener.listen()
        with socat(f"{verb}-CONNECT:{theirs}") as program:
            async with await listener.accept(timeout=PATIENCE) as client:
                await hold_a_conversation(program, client)


@pytest.mark.parametrize("kind", UNIX)
async def test_socat_listens_on_a_unix_socket(kind: str, names: dict[str, tuple[str, str, str]]) -> None:
    verb, theirs, ours = names[kind]
    with socat(f"{verb}-LISTEN:{theirs}") as program:
        await says(program, rb"listening on AF=1")
        async with AsyncSocket(AF_UNIX) as sock:
            await sock.connect_unix(ours, timeout=PATIENCE)
            assert sock.peer_addr == (ours, 0)
            await hold_a_conversation(program, sock)


@pytest.mark.parametrize(("host", "family", "version"), UDP)
async def test_socat_sends_datagrams(host: str, family: int, version: str) -> None:
    async with AsyncSocket(family, SOCK_DGRAM) as sock:
        sock.bind_addr(0, host)
        with socat(f"UDP{version}:{bracketed(host)}:{sock.local_addr.port}") as program:
            peer = await exchange_datagrams(program, sock)
            assert peer.host == host


@pytest.mark.parametrize(("host", "family", "version"), UDP)
async def test_socat_answers_datagrams(host: str, family: int, version: str) -> None:
    with socat(f"UDP{version}-LISTEN:0,bind={bracketed(host)}") as program:
        port = await said_port(program)
        async with await dial(host, port, IPPROTO_UDP, timeout=PATIENCE) as sock:
            await exchange_connected_datagrams(program, sock)


@pytest.mark.parametrize("kind", UNIX)
async def test_socat_exchanges_unix_datagrams(kind: str, names: dict[str, tuple[str, str, str]]) -> None:
    verb, theirs, ours = names[kind]
    async with AsyncSocket(AF_UNIX, SOCK_DGRAM) as sock:
        sock.bind_unix(ours)
        with socat(f"{verb}-SENDTO:{theirs},bind={theirs}.socat") as program:
            peer = await exchange_datagrams(program, sock)
            assert peer == (ours + ".socat", 0)


async def test_several_socats_talk_to_one_server_at_once(tmp_path: pathlib.Path) -> None:
    """None of them has its answer before all of them have asked."""
    all_connected = asyncio.Barrier(4)

    async def answer(client: AsyncSocket, _: Address) -> None:
        question = await client.recv_line(PATIENCE)
        await all_connected.wait()
        await client.send(question[::-1] + b"\n", timeout=PATIENCE)
        assert await client.recv_line(PATIENCE) == b""

    async def ask(number: int) -> bytes:
        with socat(f"UNIX-CONNECT:{tmp_path / 'socket'}") as program:
            return await asyncio.to_thread(program.finish, b"%d: socat\n" % number)

    async with serve(answer, 0, f"unix:{tmp_path / 'socket'}"), asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*map(ask, range(4)))
    assert answers == [b"tacos :%d\n" % number for number in range(4)]
