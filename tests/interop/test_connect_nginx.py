"""``wireline connect`` with nginx as a reverse proxy, which drops the request of a client that half-closes at once."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator

import pytest

from tests.cli.command import Command
from tests.interop.web import nginx
from tests.tls import certificates
from wireline import Address
from wireline.net import Socket, serve

REQUEST = b"GET / HTTP/1.0\n\n"


def upstream(client: Socket, address: Address) -> None:
    """Answer after a pause in which nginx notices a client that has left."""
    client.recv_until(b"\r\n\r\n")
    threading.Event().wait(0.3)
    client.send(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.fixture(params=[False, True], ids=["clear", "tls"])
def target(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[list[str]]:
    """The target and the options that it needs."""
    with serve(upstream, 0, "127.0.0.1") as server:
        where = f"proxy_pass http://127.0.0.1:{server.local_addr.port};"
        with nginx(tmp_path, certificates.server() if request.param else None, location=where) as port:
            words = ["--ca-file", certificates.ca_file()] if request.param else []
            yield [*words, f"{'tls://' if request.param else ''}localhost:{port}"]


@pytest.mark.parametrize("in_file", [False, True], ids=["pipe", "file"])
def test_the_example_of_the_help_gets_its_answer(
    target: list[str], in_file: bool, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "request"
    path.write_bytes(REQUEST)
    words = ("connect", "--crlf", "--timeout", "10", "--expect-reply", *target)
    with path.open("rb") as file:
        command = Command(*words, **({"stdin": file} if in_file else {}))
        try:
            result = command.finish(None if in_file else REQUEST)
        finally:
            command.abandon()
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(b"HTTP/1.1 200 OK\r\n")
    assert result.out.endswith(b"hello")


@pytest.mark.parametrize("target", [False], indirect=True)  # over TLS, nginx does not look for the end
def test_a_half_close_at_once_gets_nothing_and_that_is_said(target: list[str]) -> None:
    command = Command("connect", "--crlf", "--at-eof", "half-close", *target)
    try:
        result = command.finish(REQUEST)
    finally:
        command.abandon()
    assert (result.code, result.out) == (0, b"")
    assert result.err.endswith(" closed the connection without sending a byte\n")
