"""curl against an HTTP/1.0 responder made from ``serve``."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.interop.responder import PAGES, PATIENCE, respond
from tests.tools import require_tool
from wireline.net import Server, serve

pytestmark = pytest.mark.interop


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(respond, 0, request.param) as running:
        yield running


def base(server: Server) -> str:
    host, port = server.local_addr
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def curl(*words: str, code: int = 0) -> bytes:
    argv = [
        require_tool("curl", "curl"),
        "--http1.0",
        "--silent",
        "--show-error",
        "--globoff",
        "--noproxy",
        "*",
    ]
    done = subprocess.run([*argv, *words], capture_output=True, timeout=PATIENCE)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_a_page_arrives_whole(server: Server, page: str) -> None:
    assert curl(base(server) + page) == PAGES[page]


def test_fifty_requests_one_after_the_other(server: Server, tmp_path: pathlib.Path) -> None:
    # With `--output` before every address each body is a file of its own.
    addresses = []
    for number in range(50):
        addresses += ["--output", str(tmp_path / str(number)), f"{base(server)}/page?{number}"]
    report = curl("--write-out", "%{http_code} %{num_connects}\n", *addresses)
    assert report == b"200 1\n" * 50
    bodies = [path.read_bytes() for path in tmp_path.iterdir()]
    assert bodies == [PAGES["/page"]] * 50
    assert server.connections <= 1  # the last one may still be closing


def test_head_has_the_size_and_no_body(server: Server) -> None:
    head = curl("--head", base(server) + "/page")
    assert head == b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PAGES["/page"])


def test_a_missing_page_is_404(server: Server) -> None:
    assert curl("--write-out", "%{http_code}", base(server) + "/nowhere") == b"no such page\r\n404"
    curl("--fail", base(server) + "/nowhere", code=22)


def test_a_posted_body_is_returned(server: Server, tmp_path: pathlib.Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(PAGES["/large"])
    # Without `Expect:` curl would wait a second for a "100 Continue" that HTTP/1.0 does not have.
    answer = curl("--header", "Expect:", "--data-binary", f"@{sent}", base(server) + "/echo")
    assert answer == PAGES["/large"]


def test_over_a_unix_socket(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "http"
    with serve(respond, 0, f"unix:{path}"):
        assert curl("--unix-socket", str(path), "http://localhost/page") == PAGES["/page"]
