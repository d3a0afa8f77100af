"""A minimal HTTP client that gets several pages at once, each over a socket of its own, plain or over TLS.

It uses HTTP/1.0, with one connection for each page; ``http_client.py`` knows more of the protocol. For real work use an
HTTP library::

    python examples/async_http_client.py http://localhost:8000/ http://localhost:8000/README.md
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from wireline import SocketFlag
from wireline.asyncnet import AsyncSocket, dial
from wireline.tls import SslContext

PORTS = {"http": 80, "https": 443}

# Guesses: no server sends more.
LONGEST_LINE = 8192  # bytes
MOST_HEADERS = 100


class Response(NamedTuple):
    """The server's answer. The names of the headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def get(url: str, timeout: float = 10.0, tls: SslContext | None = None) -> Response:
    """Get a page.

    Args:
        url: ``http://host[:port]/path``, or ``https://``.
        timeout: seconds for the whole page.
        tls: the CAs to trust, for ``https://``; by default those of the system.

    Raises:
        ValueError: the URL is of another kind, or the answer is not HTTP.
        EOFError: the page was cut off.
        OSError: the network failed; a TimeoutError if the server was too slow, an SslError if its certificate is
            refused or the page was cut off.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or " " in url:
        raise ValueError(f"{url!r} is not http://host/path or https://host/path")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    context = (tls or SslContext()) if parts.scheme == "https" else None
    port = parts.port or PORTS[parts.scheme]
    host = parts.netloc.rpartition("@")[2]  # with the port, without a name and password
    # One deadline for the whole page. Each call also has a `timeout` of its own.
    async with asyncio.timeout(timeout), await dial(parts.hostname, port, tls=context) as sock:
        await sock.send(f"GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode("ascii"))
        status = await _read_status(sock)
        headers = await _read_headers(sock)
        return Response(status, headers, await _read_body(sock, headers))


async def _read_status(sock: AsyncSocket) -> int:
    line = await sock.recv_line(max_length=LONGEST_LINE, on_long="raise")
    version, _, rest = line.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise ValueError(f"this is no HTTP: {line[:60]!r}")
    return int(rest[:3])


async def _read_headers(sock: AsyncSocket) -> dict[str, str]:
    headers: dict[str, str] = {}
    async for line in sock.lines(LONGEST_LINE):
        if not line:
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or len(headers) == MOST_HEADERS:
            raise ValueError(f"this is no header, or one too many: {line[:60]!r}")
        headers[name.lower()] = value.strip()
    raise EOFError("the server left in the middle of the headers")


async def _read_body(sock: AsyncSocket, headers: dict[str, str]) -> bytes:
    if "transfer-encoding" in headers:
        raise ValueError("the body has a transfer encoding, which HTTP/1.0 does not know")
    if "content-length" in headers:
        return await sock.recv_exactly(int(headers["content-length"]))
    # The body ends with the connection. Without flags a reset is an error, and not such an end.
    pieces = []
    while piece := await sock.recv_some(flags=SocketFlag(0)):
        pieces.append(piece)
    return b"".join(pieces)


async def get_all(
    urls: Sequence[str], timeout: float = 10.0, tls: SslContext | None = None
) -> list[Response | Exception]:
    """Get pages, all at once; each result is a response, or its error."""

    async def get_one(url: str) -> Response | Exception:
        try:
            return await get(url, timeout, tls)
        except (OSError, EOFError, ValueError) as error:
            return error

    return await asyncio.gather(*map(get_one, urls))


def main(argv: Sequence[str] | None = None) -> int:
    """Write pages to standard output in the order of the URLs."""
    parser = argparse.ArgumentParser(description="Get pages by HTTP, all at once.")
    parser.add_argument("urls", metavar="url", nargs="+")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each page (10)")
    parser.add_argument("--ca-file", help="PEM file with the CA to trust, else those of the system")
    options = parser.parse_args(argv)

    failed = False
    try:
        tls = SslContext(ca_file=options.ca_file) if options.ca_file else None
    except OSError as error:  # the file is missing, or not PEM
        print(f"async_http_client: {error}", file=sys.stderr)
        return 1
    responses = asyncio.run(get_all(options.urls, options.timeout, tls))
    for url, response in zip(options.urls, responses, strict=True):
        if isinstance(response, Exception):
            reason = str(response) or "it took too long"  # a TimeoutError of `asyncio.timeout` has no text
            print(f"async_http_client: {url}: {reason}", file=sys.stderr)
            failed = True
            continue
        print(f"{url}: {response.status}, {len(response.body)} bytes", file=sys.stderr)
        sys.stdout.buffer.write(response.body)
        failed |= response.status >= 400
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
