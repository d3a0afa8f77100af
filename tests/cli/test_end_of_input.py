"""The end of standard input of ``wireline connect``: ``--at-eof``, ``--quit-after``, ``--expect-reply``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from tests.cases import in_turn
from tests.cli.command import accept, read_all, tcp_server, udp_socket
from tests.cli.conftest import Start
from tests.cli.terminal import on_terminal
from tests.tls import certificates
from wireline.cli import main
from wireline.cli._end_of_input import EndOfInput, end_of_input
from wireline.cli.parser._parser import parse

NOTHING = "closed the connection without sending a byte"


@contextlib.contextmanager
def asyncio_tls_server() -> Iterator[str]:
    """Answers each request after a pause, as a server with some work to do; yields its target."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificates.server())

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readline()
        await asyncio.sleep(0.3)
        writer.write(request.upper())
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    starting = asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    try:
        yield f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_end_tasks(loop))
        loop.close()


async def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("words", [(), ("--at-eof", "wait"), ("--quit-after", "5")])
def test_the_answer_of_an_asyncio_tls_server(start: Start, words: tuple[str, ...]) -> None:
    with asyncio_tls_server() as target:
        ca = ["--ca-file", certificates.ca_file()]
        result = start("connect", "--expect-reply", *ca, *words, target).finish(b"hello\n")
    assert result == (0, b"HELLO\n", "")


def test_an_asyncio_tls_server_gives_a_client_up_that_half_closes(start: Start) -> None:
    with asyncio_tls_server() as target:
        words = ["--at-eof", "half-close", "--expect-reply", "--ca-file", certificates.ca_file()]
        result = start("connect", *words, target).finish(b"hello\n")
    assert (result.code, result.out) == (6, b"")
    assert result.err == f"wireline: {target} {NOTHING}\n"


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_by_default_the_half_close_follows_two_seconds_of_silence(
    start: Start, kind: str, tmp_path: object
) -> None:
    with tcp_server() as (server, target), open(f"{tmp_path}/input", "w+b") as file:
        file.write(b"question")
        file.seek(0)
        command = start("connect", target, **({"stdin": file} if kind == "file" else {}))
        with accept(server) as peer:
            if kind == "pipe":
                command.type(b"question")
                assert command.process.stdin is not None
                command.process.stdin.close()
                command.process.stdin = None
            assert peer.recv(100) == b"question"
            began = time.monotonic()
            assert read_all(peer) == b""
            assert 1.5 < time.monotonic() - began < 10
            peer.sendall(b"answer")
        assert command.finish() == (0, b"answer", "")


def test_a_terminal_that_ends_its_input(start: Start) -> None:
    with (
        tcp_server() as (server, target),
        on_terminal("connect", "--at-eof", "half-close", target) as command,
    ):
        with accept(server) as peer:
            command.type("hello\n\x04")
            assert read_all(peer) == b"hello\n"
        command.see(NOTHING)
        assert command.end() == 0


def test_quit_after(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--quit-after", "0.5", target)
        with accept(server) as peer:
            peer.sendall(b"answer")
            assert command.finish(b"question") == (0, b"answer", "")
            assert read_all(peer) == b"question"


def test_close_ends_at_once_and_all_input_arrives(start: Start, tmp_path: object) -> None:
    data = os.urandom(3_000_000)
    with tcp_server() as (server, target):
        command = start("connect", "--at-eof", "close", target)
        with accept(server) as peer:
            received = threading.Thread(target=lambda: pieces.append(read_all(peer)))
            pieces: list[bytes] = []
            received.start()
            assert command.finish(data) == (0, b"", "")
            received.join()
    assert pieces == [data]


def test_wait_never_half_closes(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--at-eof", "wait", target)
        with accept(server) as peer:
            peer.settimeout(3)
            assert command.process.stdin is not None
            command.process.stdin.close()
            command.process.stdin = None
            with pytest.raises(TimeoutError):
                peer.recv(1)
            peer.sendall(b"answer")
        assert command.finish() == (0, b"answer", "")


# No reply.


@pytest.mark.parametrize(
    ("words", "data", "code", "message"),
    [
        ([], b"question", 0, NOTHING),
        ([], b"", 0, ""),
        (["--expect-reply"], b"question", 6, NOTHING),
        (["--expect-reply"], b"", 6, NOTHING),
    ],
)
def test_a_peer_that_ends_without_a_byte(
    start: Start, words: list[str], data: bytes, code: int, message: str
) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--at-eof", "half-close", *words, target)
        with accept(server) as peer:
            command.type(data)
            assert command.process.stdin is not None
            command.process.stdin.close()
            command.process.stdin = None
            assert read_all(peer) == data
        assert command.finish() == (code, b"", f"wireline: {target} {message}\n" if message else "")


def test_a_required_reply_that_is_late(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--expect-reply", "--quit-after", "0.3", target)
        with accept(server):
            result = command.finish(b"question")
    assert (result.code, result.out) == (4, b"")
    assert result.err == f"wireline: {target} sent no reply in time; wait longer with --quit-after\n"


@pytest.mark.parametrize("required", [False, True])
def test_a_datagram_without_a_reply(start: Start, required: bool) -> None:
    words = ["--expect-reply"] if required else []
    with udp_socket() as (_, target):
        result = start("connect", "--quit-after", "0.3", *words, target).finish(b"question")
    assert result.code == (4 if required else 0)
    assert result.err == (
        f"wireline: {target} sent no reply in time; wait longer with --quit-after\n" if required else ""
    )


def test_a_datagram_with_a_reply(start: Start) -> None:
    with udp_socket() as (peer, target):
        command = start("connect", "--expect-reply", target)
        command.type(b"question")
        _, sender = peer.recvfrom(100)
        peer.sendto(b"answer", sender)
        assert command.finish(b"") == (0, b"answer", "")


WRONG_USAGE: list[tuple[list[str], str]] = [
    (["--at-eof", "never", "h:1"], "invalid choice: 'never'"),
    (["--at-eof", "close", "--quit-after", "3", "h:1"], "use one of them"),
    (["--at-eof", "wait", "udp://h:1"], "udp:// has none"),
    (["--quit-after", "0", "h:1"], "not a number of seconds above 0"),
]


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words, complaint in WRONG_USAGE:
        assert main(["connect", *words]) == 2
        assert complaint in capsys.readouterr().err


@in_turn("target", ["udp://127.0.0.1:9", "unix-dgram:/path"])
def test_with_datagrams_the_wait_for_replies_starts_at_once(target: str) -> None:
    assert end_of_input(parse(["connect", target])) == EndOfInput(half_close_after=0.0)
    assert end_of_input(parse(["connect", "--quit-after", "3", target])) == EndOfInput(0.0, 3.0)
