"""An example gets a page from Python's own web server."""

from __future__ import annotations

import contextlib
import functools
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from examples import http_client
from examples.scenes.stage import Stage, example


def play(stage: Stage) -> None:
    """Get a page and compare it with its file."""
    page = Path(http_client.__file__).read_bytes()
    (stage.directory / "page.txt").write_bytes(page)
    with web_server(stage.directory) as port:
        with example(stage, "http_client.py", f"http://127.0.0.1:{port}/page.txt") as client:
            stage.check_bytes(client.finish(), page, f"the page has its {len(page)} bytes")
        missing = http_client.get(f"http://127.0.0.1:{port}/nothing")
        stage.check(missing.status == 404, "a missing page is 404", missing.status)


@contextlib.contextmanager
def web_server(directory: Path, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve a directory, by https if there is a context; gives the port."""
    handler = functools.partial(_SilentHandler, directory=str(directory))
    with _QuietServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that disconnects."""


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
