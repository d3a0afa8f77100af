"""nginx with the responder's pages as files, in clear or with a certificate."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

from tests.interop.programs import Program, on_a_free_port
from tests.interop.responder import PAGES
from tests.tls import certificates
from tests.tools import require_tool

_CONFIGURATION = """
daemon off;
master_process off;
pid {where}/pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {where}/body;
    proxy_temp_path {where}/proxy;
    fastcgi_temp_path {where}/fastcgi;
    uwsgi_temp_path {where}/uwsgi;
    scgi_temp_path {where}/scgi;
    root {where};
    server {{
        listen 127.0.0.1:{port}{tls};
        location / {{ {location} }}
    }}
}}
"""
_TLS = """ ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:sessions:1m;
        ssl_certificate {leaf.cert};
        ssl_certificate_key {leaf.key}"""


@contextlib.contextmanager
def nginx(where: pathlib.Path, leaf: certificates.Leaf | None = None, location: str = "") -> Iterator[int]:
    """Run it in a directory of its own; gives the port.

    Args:
        where: for its files.
        leaf: its certificate, with which it uses TLS.
        location: what it does with requests; by default it serves the pages.
    """
    # On Debian it is where only root looks.
    program = shutil.which("nginx", path="/usr/sbin") or require_tool("nginx", "nginx")
    for page, body in PAGES.items():
        (where / page[1:]).write_bytes(body)

    def start(port: int) -> Program:
        tls = _TLS.format(leaf=leaf) if leaf else ""
        (where / "nginx.conf").write_text(
            _CONFIGURATION.format(where=where, port=port, tls=tls, location=location)
        )
        return Program(program, "-e", "stderr", "-c", str(where / "nginx.conf"))

    with on_a_free_port(start, rb"event method") as (_, port):
        yield port
