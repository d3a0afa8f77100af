"""An HTTP/1.0 responder: ``wireline.net.serve`` and twenty lines of a protocol that others speak."""

from __future__ import annotations

from wireline import Address
from wireline.net import Socket

PATIENCE = 10.0

PAGES = {
    "/small": b"hello\r\n",
    "/page": b"".join(b"line %d of a page\r\n" % number for number in range(400)),
    "/large": bytes(range(256)) * 4096,
    "/empty": b"",
}
"""The pages: from nothing to 1 MiB; ``/page`` is several KB."""


def respond(client: Socket, _: Address) -> None:
    """Answer one request; returning closes the connection, which is the end of the body."""
    method, target, _version = client.recv_line(PATIENCE).decode().split()
    headers = [line.partition(b":") for line in _head(client)]
    sizes = [int(value) for name, _, value in headers if name.lower() == b"content-length"]
    body = PAGES.get(target.partition("?")[0])
    status = b"200 OK" if body is not None else b"404 Not Found"
    if method == "POST":
        body = client.recv_exactly(sum(sizes), PATIENCE)
    if body is None:
        body = b"no such page\r\n"
    client.send(b"HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
    if method != "HEAD":
        client.send(body, timeout=PATIENCE)


def _head(client: Socket) -> list[bytes]:
    lines = []
    for line in client.lines(timeout=PATIENCE):
        if not line:
            break
        lines.append(line)
    return lines
