"""A minimal HTTP client that gets several pages at once, each over a socket of its own, plain or inside TLS.

It speaks HTTP/1.0, where one connection is one page; ``http_client.py`` knows more of the protocol. For real work
there are real HTTP clients::

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

# Guesses: more than any server sends.
LONGEST_LINE = 8192  # bytes
MOST_HEADERS = 100


class Response(NamedTuple):
    """What the server answered. The names of the headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def get(url: str, timeout: float = 10.0, tls: SslContext | None = None) -> Response:
    """Get a page.

    Args:
        url: ``http://host[:port]/path``, or ``https://``.
        timeout: seconds for the whole page.
        tls: whom to trust, for ``https://``; without one it is the CAs of the system.

    Raises:
        ValueError: this is no such URL, or what came is no HTTP.
        EOFError: the page was cut off.
        OSError: the network failed; it is a TimeoutError if the server was too slow, and an SslError if it is not who
            it should be, or if the page was cut off.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or " " in url:
        raise ValueError(f"{url!r} is not http://host/path or https://host/path")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    context = (tls or SslContext()) if parts.scheme == "https" else None
    port = parts.port or PORTS[parts.scheme]
    host = parts.netloc.rpartition("@")[2]  # with the port, without a name and password
    # One deadline for all of it. Each call has a `timeout` of its own, too.
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
        raise ValueError("this body is encoded as only HTTP/1.1 knows, and nobody asked for that")
    if "content-length" in headers:
        return await sock.recv_exactly(int(headers["content-length"]))
    # It ends with the connection. Without flags a reset is an error, and is not taken for that end.
    pieces = []
    while piece := await sock.recv_some(flags=SocketFlag(0)):
        pieces.append(piece)
    return b"".join(pieces)


async def get_all(
    urls: Sequence[str], timeout: float = 10.0, tls: SslContext | None = None
) -> list[Response | Exception]:
    """Get pages, all at once; each is a response, or what went wrong with it."""

    async def get_one(url: str) -> Response | Exception:
        try:
            return await get(url, timeout, tls)
        except (OSError, EOFError, ValueError) as error:
            return error

    return await asyncio.gather(*map(get_one, urls))


def main(argv: Sequence[str] | None = None) -> int:
    """Write pages to standard output in the order in which they were asked for."""
    parser = argparse.ArgumentParser(description="Get pages by HTTP, all at once.")
    parser.add_argument("urls", metavar="url", nargs="+")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each page (10)")
    parser.add_argument("--ca-file", help="PEM file with the CA to trust, else those of the system")
    options = parser.parse_args(argv)

    failed = False
    try:
        tls = SslContext(ca_file=options.ca_file) if options.ca_file else None
    except OSError as error:  # it is not there, or no such file
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
