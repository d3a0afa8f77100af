"""``examples/redis_client.py`` and its async form, with a real Redis and with hostile servers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import async_redis_client, redis_client
from tests.bridges.postgres_peers import server
from tests.bridges.servers import Tcp
from wireline import SocketTimeout

pytestmark = pytest.mark.interop

flavours = pytest.mark.parametrize("flavour", ["blocking", "async"])


class Waiting:
    """An async client with the methods of a blocking one."""

    def __init__(self, runner: asyncio.Runner, client: async_redis_client.Redis) -> None:
        self._runner = runner
        self._client = client

    @property
    def is_closed(self) -> bool:
        return self._client.is_closed

    def execute(self, *words: str | bytes | int, timeout: float = 5) -> object:
        return self._runner.run(self._client.execute(*words, timeout=timeout))

    def subscribe(self, *channels: str) -> None:
        self._runner.run(self._client.subscribe(*channels))

    def messages(self, timeout: float = 5) -> Iterator[tuple[bytes, bytes]]:
        messages = self._client.messages(timeout)

        async def after(iterator: AsyncIterator[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
            return await anext(iterator)

        while True:
            yield self._runner.run(after(messages))

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def connect(flavour: str) -> Iterator[Callable[[int], Any]]:
    """A function of a port that connects; the clients are closed at the end."""
    with asyncio.Runner() as runner:
        clients: list[Any] = []

        def connect_to(port: int) -> Any:
            if flavour == "async":
                clients.append(
                    Waiting(runner, runner.run(async_redis_client.Redis.connect("127.0.0.1", port)))
                )
            else:
                clients.append(redis_client.Redis.connect("127.0.0.1", port))
            return clients[-1]

        yield connect_to
        for client in clients:
            client.close()


@flavours
def test_commands_and_all_kinds_of_replies(redis_server: Tcp, connect: Callable[[int], Any]) -> None:
    client = connect(redis_server.port)
    value = bytes(range(256)) * 1000
    assert client.execute("SET", "bytes", value) == "OK"
    assert client.execute("GET", "bytes") == value
    assert client.execute("GET", "nothing") is None
    assert client.execute("INCRBY", "count", 41) == 41
    assert client.execute("EVAL", "return {1, {'two', {}}, false, redis.status_reply('fine')}", 0) == [
        1,
        [b"two", []],
        None,
        "fine",
    ]
    with pytest.raises(
        async_redis_client.RedisError if isinstance(client, Waiting) else redis_client.RedisError,
        match=r"^ERR",
    ):
        client.execute("NONSENSE")
    assert client.execute("DEL", "count", "bytes") == 2


@flavours
def test_messages_arrive_in_order_and_a_timeout_loses_none(
    redis_server: Tcp, connect: Callable[[int], Any]
) -> None:
    listener, publisher = connect(redis_server.port), connect(redis_server.port)
    listener.subscribe("news")
    with pytest.raises(SocketTimeout):
        next(listener.messages(timeout=0.2))
    sent = [b"%d:" % number + b"\r\n" * (number % 50) for number in range(2000)] + [bytes(1 << 20)]
    for data in sent:
        assert publisher.execute("PUBLISH", "news", data) == 1
    messages = listener.messages()
    assert [next(messages) for _ in sent] == [(b"news", data) for data in sent]
    assert not listener.is_closed


def saying(*parts: bytes) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        sock.recv(65536)
        for part in parts:
            sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    return talk


@flavours
@pytest.mark.sampled
def test_a_hostile_reply_closes_the_connection(connect: Callable[[int], Any]) -> None:
    replies = [
        b"",
        b"$5\r\nhel",
        b"$-2\r\n",
        b"$99999999999\r\n",
        b"*-7\r\n",
        b"*1\r\n" * 20,
        b"*4000000000\r\n",
    ]
    replies += [b"HTTP/1.1 400 Bad Request\r\n", b":one\r\n", b"$\r\n", b"\r\n", b"+" + b"x" * 100_000]
    for reply in replies:
        with server(saying(reply)) as config:
            client = connect(config.port)
            with pytest.raises((EOFError, ValueError)):
                pytest.fail(f"{reply!r}: {client.execute('GET', 'colour')!r}")
            assert client.is_closed, reply


@flavours
def test_messages_are_the_same_wherever_the_input_is_cut(connect: Callable[[int], Any]) -> None:
    replies = [
        [b"subscribe", b"news", b"1"],
        *([b"message", b"news", b"x" * size] for size in range(0, 40, 7)),
    ]
    whole = b"".join(redis_client.command(*words) for words in replies)
    for cut in range(0, len(whole), 3):
        with server(saying(whole[:cut], whole[cut:])) as config:
            client = connect(config.port)
            client.subscribe("news")
            messages = client.messages()
            found = [next(messages) for _ in replies[1:]]
            client.close()
        assert found == [(b"news", words[2]) for words in replies[1:]]


@pytest.mark.parametrize("name", ["redis_client.py", "async_redis_client.py"])
def test_the_program_executes_a_command(redis_server: Tcp, name: str) -> None:
    program = Path(redis_client.__file__).with_name(name)
    for words, shown in {("PING",): "PONG\n", ("ECHO", "hello"): "b'hello'\n"}.items():
        command = [sys.executable, str(program), "127.0.0.1", str(redis_server.port), *words]
        assert subprocess.run(command, capture_output=True, text=True, timeout=10).stdout == shown
