"""curl against an HTTP/1.0 responder made from ``asyncnet.serve``."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest

from tests.interop.responder import PAGES, PATIENCE
from tests.interop.test_curl import base, curl
from wireline import Address
from wireline.asyncnet import AsyncSocket, Server, serve

pytestmark = [pytest.mark.interop, pytest.mark.anyio]


async def respond(client: AsyncSocket, _: Address) -> None:
    """Answer one request; returning closes the connection, which is the end of the body."""
    method, target, _version = (await client.recv_line(PATIENCE)).decode().split()
    sizes = []
    async for line in client.lines(timeout=PATIENCE):
        if not line:
            break
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            sizes.append(int(value))
    body = PAGES.get(target.partition("?")[0])
    status = b"200 OK" if body is not None else b"404 Not Found"
    if method == "POST":
        body = await client.recv_exactly(sum(sizes), PATIENCE)
    if body is None:
        body = b"no such page\r\n"
    await client.send(b"HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
    if method != "HEAD":
        await client.send(body, timeout=PATIENCE)


@pytest.fixture(params=["127.0.0.1", "::1"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with serve(respond, 0, request.param) as running:
        yield running


async def get(*words: str, code: int = 0) -> bytes:
    return await asyncio.to_thread(curl, *words, code=code)


def outputs(directory: pathlib.Path, url: str, count: int) -> list[str]:
    """Words for curl: get ``url`` so many times, each into a file of its own."""
    words = []
    for number in range(count):
        words += ["--output", str(directory / str(number)), f"{url}?{number}"]
    return words


def bodies(directory: pathlib.Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.iterdir()]


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_arrives_whole(server: Server, page: str) -> None:
    assert await get(base(server) + page) == PAGES[page]


async def test_fifty_requests_one_after_the_other(server: Server, tmp_path: pathlib.Path) -> None:
    report = await get(
        "--write-out", "%{http_code} %{num_connects}\n", *outputs(tmp_path, f"{base(server)}/page", 50)
    )
    assert report == b"200 1\n" * 50
    assert bodies(tmp_path) == [PAGES["/page"]] * 50
    assert server.connections <= 1  # the last one may still be closing


async def test_fifty_requests_at_once(tmp_path: pathlib.Path) -> None:
    """None of them has its answer before the last one has connected."""
    all_connected = asyncio.Barrier(50)

    async def respond_together(client: AsyncSocket, address: Address) -> None:
        await all_connected.wait()
        await respond(client, address)

    async with serve(respond_together, 0, "127.0.0.1") as server:
        at_once = ["--parallel", "--parallel-immediate", "--parallel-max", "50"]
        report = await get(
            *at_once, "--write-out", "%{http_code}\n", *outputs(tmp_path, f"{base(server)}/page", 50)
        )
    assert report == b"200\n" * 50
    assert bodies(tmp_path) == [PAGES["/page"]] * 50


async def test_max_connections_lets_the_others_wait(tmp_path: pathlib.Path) -> None:
    """Twenty ask at once, and are answered five by five."""
    five = asyncio.Barrier(5)
    most = 0

    async def respond_by_fives(client: AsyncSocket, address: Address) -> None:
        nonlocal most
        most = max(most, server.connections)
        await five.wait()
        await respond(client, address)

    async with serve(respond_by_fives, 0, "127.0.0.1", max_connections=5) as server:
        await get("--parallel", "--parallel-immediate", *outputs(tmp_path, f"{base(server)}/large", 20))
    assert bodies(tmp_path) == [PAGES["/large"]] * 20
    assert most == 5


async def test_head_has_the_size_and_no_body(server: Server) -> None:
    head = await get("--head", base(server) + "/page")
    assert head == b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PAGES["/page"])


async def test_a_missing_page_is_404(server: Server) -> None:
    assert await get("--write-out", "%{http_code}", base(server) + "/nowhere") == b"no such page\r\n404"
    await get("--fail", base(server) + "/nowhere", code=22)


async def test_a_posted_body_is_returned(server: Server, tmp_path: pathlib.Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(PAGES["/large"])
    # Without `Expect:` curl would wait a second for a "100 Continue" that HTTP/1.0 does not have.
    answer = await get("--header", "Expect:", "--data-binary", f"@{sent}", base(server) + "/echo")
    assert answer == PAGES["/large"]


async def test_over_a_unix_socket(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "http"
    async with serve(respond, 0, f"unix:{path}"):
        assert await get("--unix-socket", str(path), "http://localhost/page") == PAGES["/page"]
