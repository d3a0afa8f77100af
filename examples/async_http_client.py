# async: The blocking twin of this file is http_client.py; `make twins` makes it.
"""An HTTP client over a socket, plain or over TLS: an example of a protocol of lines and counted bytes.

It knows the three ways in which HTTP/1.1 marks the end of a body. For real work use an HTTP library: this client
follows no redirects, keeps the whole page in memory, and uses a connection for each page::

    python examples/async_http_client.py http://localhost:8000/ http://localhost:8000/README.md
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
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
        timeout: seconds for each step: connecting, a header, a piece of the body.
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
    async with await dial(parts.hostname, port, timeout=timeout, tls=context) as sock:
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        await sock.send(request.encode("ascii"), timeout=timeout)
        status = await _read_status(sock, timeout)
        while 100 <= status < 200:  # interim responses
            await _read_headers(sock, timeout)
            status = await _read_status(sock, timeout)
        headers = await _read_headers(sock, timeout)
        return Response(status, headers, await _read_body(sock, status, headers, timeout))


async def _read_status(sock: AsyncSocket, timeout: float) -> int:
    line = await sock.recv_line(timeout, max_length=LONGEST_LINE, on_long="raise")
    version, _, rest = line.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise ValueError(f"this is no HTTP: {line[:60]!r}")
    return int(rest[:3])


async def _read_headers(sock: AsyncSocket, timeout: float) -> dict[str, str]:
    headers: dict[str, str] = {}
    async for line in sock.lines(LONGEST_LINE, timeout):
        if not line:
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or len(headers) == MOST_HEADERS:
            raise ValueError(f"this is no header, or one too many: {line[:60]!r}")
        headers[name.lower()] = value.strip()
    raise EOFError("the server left in the middle of the headers")


async def _read_body(sock: AsyncSocket, status: int, headers: dict[str, str], timeout: float) -> bytes:
    if status in (204, 304):  # these never have a body
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        chunks = [chunk async for chunk in _chunks(sock, timeout)]  # async:
        # blocking: chunks = _chunks(sock, timeout)
        return b"".join(chunks)
    if "content-length" in headers:
        return await sock.recv_exactly(int(headers["content-length"]), timeout)
    # The body ends with the connection. Without flags a reset is an error, and not such an end.
    pieces = []
    while piece := await sock.recv_some(timeout=timeout, flags=SocketFlag(0)):
        pieces.append(piece)
    return b"".join(pieces)


async def _chunks(sock: AsyncSocket, timeout: float) -> AsyncIterator[bytes]:
    """Each chunk is its size in hexadecimal on a line, the bytes, and an empty line. The last chunk has size 0."""
    while size := int((await sock.recv_until(b"\r\n", LONGEST_LINE, timeout)).partition(b";")[0], 16):
        yield await sock.recv_exactly(size, timeout)
        if await sock.recv_exactly(2, timeout) != b"\r\n":
            raise ValueError("a chunk is longer than it says")
    await _read_headers(sock, timeout)  # trailers: only their end matters here


async def get_all(
    urls: Sequence[str], timeout: float = 10.0, tls: SslContext | None = None
) -> list[Response | Exception]:
    """Get pages, in the async flavour all at once; each result is a response, or its error."""

    async def get_one(url: str) -> Response | Exception:
        try:
            return await get(url, timeout, tls)
        except (OSError, EOFError, ValueError) as error:
            return error

    return await asyncio.gather(*map(get_one, urls))  # blocking: return [get_one(url) for url in urls]


def main(argv: Sequence[str] | None = None) -> int:
    """Write pages to standard output in the order of the URLs."""
    parser = argparse.ArgumentParser(description="Get pages by HTTP.")
    parser.add_argument("urls", metavar="url", nargs="+")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each step (10)")
    parser.add_argument("--ca-file", help="PEM file with the CA to trust, else those of the system")
    parser.add_argument("--headers", action="store_true", help="show the headers on standard error")
    options = parser.parse_args(argv)

    program = Path(__file__).stem
    try:
        tls = SslContext(ca_file=options.ca_file) if options.ca_file else None
    except OSError as error:  # the file is missing, or not PEM
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    failed = False
    responses = asyncio.run(get_all(options.urls, options.timeout, tls))
    for url, response in zip(options.urls, responses, strict=True):
        if isinstance(response, Exception):
            print(f"{program}: {url}: {response}", file=sys.stderr)
            failed = True
            continue
        print(f"{url}: {response.status}, {len(response.body)} bytes", file=sys.stderr)
        for name, value in response.headers.items() if options.headers else ():
            print(f"{name}: {value}", file=sys.stderr)
        sys.stdout.buffer.write(response.body)
        failed |= response.status >= 400
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
