"""The module ``wireline``: exactly the shared names, and no heavy import."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys
import types

import wireline
from tests.cases import in_turn
from wireline import _targets, address, errors, options, timing

CONTRACT = """
    BUFFER_SIZE MAX_LINE_LENGTH MAX_FRAME_SIZE
    AF_INET AF_INET6 AF_UNIX SOCK_STREAM SOCK_DGRAM IPPROTO_TCP IPPROTO_UDP SOMAXCONN
    Address IpAddress IpAddressFamily ip_family parse_ip_address is_ip_address
    IPV4_ANY IPV4_LOOPBACK IPV4_BROADCAST IPV6_ANY IPV6_LOOPBACK
    to_sockaddr from_sockaddr get_primary_ip_addr
    SockOpt SocketFlag ReadLineResult is_disconnection_error
    WirelineError DialError ClosedError BusyError EndOfStreamError LineTooLongError SocketTimeout
    Frame FrameError FrameTooLongError Backoff Deadline KeepAlive TcpInfo PeerCredentials RelayReport SocketStats
""".split()
OF_THE_CORE = ["Frame", "KeepAlive", "PeerCredentials", "RelayReport", "SocketStats", "TcpInfo"]
"""Names that are defined in modules with names that are not public."""

ADDED = ["AcceptResult", "SAFE_DISCONN", "Target", "Timeout", "format_ip", "parse_hostname", "parse_target"]

SOURCE = pathlib.Path(wireline.__file__)


def test_wireline_has_the_names_of_the_contract_and_those_that_were_added() -> None:
    assert sorted(wireline.__all__) == sorted(CONTRACT + ADDED)


def test_wireline_shows_the_names_in_all_and_no_others() -> None:
    public = {name for name, value in vars(wireline).items() if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(wireline, name), types.ModuleType)}
    for name in wireline.__all__:
        getattr(wireline, name)  # some are loaded when they are used
    public = {name for name in vars(wireline) if not name.startswith("_")}
    assert public - modules - {"annotations"} == set(wireline.__all__)


def test_wireline_shows_every_public_name_of_its_modules() -> None:
    modules = (_targets, address, errors, options, timing)
    names = [name for module in modules for name in module.__all__]
    assert sorted(wireline.__all__) == sorted([*names, *OF_THE_CORE])
    for module in modules:
        for name in module.__all__:
            assert getattr(wireline, name) is getattr(module, name)


def test_every_name_is_exported_under_itself_for_type_checkers() -> None:
    imports = [node for node in ast.walk(ast.parse(SOURCE.read_text())) if isinstance(node, ast.ImportFrom)]
    private = ("__future__", "typing", "wireline._public")
    aliases = [alias for node in imports if node.module not in private for alias in node.names]
    assert all(alias.name == alias.asname for alias in aliases)
    assert sorted(alias.name for alias in aliases) == sorted(wireline.__all__)


@in_turn("statement", ["import wireline", "from wireline import *"])
def test_wireline_loads_neither_asyncio_nor_ssl_nor_a_flavour(statement: str) -> None:
    heavy = [
        "asyncio",
        "ssl",
        "ctypes",
        "threading",
        "wireline.net",
        "wireline.asyncnet",
        "wireline.tls",
        "wireline.cli",
    ]
    # -S: `site` and .pth files of this machine may import anything.
    code = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parents[1])}
    result = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")
