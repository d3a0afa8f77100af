"""The contract: every public name of a flavour, with these parameters, in this order, with these defaults.

The table says it once. A flavour joins with one row in ``FLAVOURS``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import wireline
from tests.scenarios.flavours import WAITING
from wireline import asyncnet, net
from wireline.options import Handshake


class Flavour(NamedTuple):
    """The socket of a flavour, and its way to wait."""

    module: ModuleType
    socket: str
    awaits: bool
    adds: frozenset[str] = frozenset()
    """Public names that only this flavour has."""


FLAVOURS = [
    Flavour(net, "Socket", awaits=False, adds=frozenset({"as_socket"})),
    Flavour(
        asyncnet,
        "AsyncSocket",
        awaits=True,
        adds=frozenset({"StartingServer", "as_streams", "as_transport"}),
    ),
]


class Entry(NamedTuple):
    """One function or method: its parameters as they are written, and whether it waits."""

    parameters: str
    waits: bool = False


FLAGS = "flags=SAFE_DISCONN"
FRAME = "header, *, length_field=-1, length_adjust=0, max_size=MAX_FRAME_SIZE"
LINE = f"timeout=None, {FLAGS}, max_length=MAX_LINE_LENGTH, *, on_long='truncate'"

# `...` stands for a default that is the flavour's own business.
METHODS = {
    "__init__": Entry(
        "domain=AF_INET, sock_type=SOCK_STREAM, protocol=IPPROTO_TCP, *, buffered=True, inheritable=False, "
        "packet_info=False, default_flags=SAFE_DISCONN"
    ),
    "from_fd": Entry(
        "fd, domain=..., sock_type=..., protocol=..., *, buffered=True, default_flags=SAFE_DISCONN"
    ),
    "from_socket": Entry("sock, *, buffered=True, default_flags=SAFE_DISCONN"),
    "detach": Entry(""),
    "adopt": Entry(""),
    "connect": Entry("address, port=0, timeout=None", waits=True),
    "connect_unix": Entry("path, timeout=None", waits=True),
    "bind_unix": Entry("path"),
    "bind_addr": Entry("port=0, address=''"),
    "listen": Entry("backlog=SOMAXCONN"),
    "accept_addr": Entry(f"{FLAGS}, inheritable=False, timeout=None", waits=True),
    "accept": Entry(f"{FLAGS}, inheritable=False, timeout=None", waits=True),
    "try_accept_addr": Entry(""),
    "send": Entry(f"data, {FLAGS}, timeout=None", waits=True),
    "send_many": Entry(f"parts, {FLAGS}, timeout=None", waits=True),
    "send_some": Entry("data, timeout=None", waits=True),
    "try_send": Entry("data"),
    "sendfile": Entry("file, offset=0, count=None, timeout=None", waits=True),
    "try_send_some": Entry("data"),
    "send_to": Entry(f"address, port, data, {FLAGS}, timeout=None", waits=True),
    "recv": Entry(f"size, timeout=None, {FLAGS}", waits=True),
    "recv_into": Entry(f"buffer, size=None, timeout=None, {FLAGS}", waits=True),
    "recv_some": Entry(f"max_size=BUFFER_SIZE, timeout=None, {FLAGS}", waits=True),
    "recv_exactly": Entry("size, timeout=None", waits=True),
    "recv_until": Entry("delimiter, max_length=MAX_LINE_LENGTH, timeout=None", waits=True),
    "recv_line": Entry(LINE, waits=True),
    "recv_line_into": Entry(f"buffer, {LINE}", waits=True),
    "try_recv_line": Entry("max_length=MAX_LINE_LENGTH"),
    "lines": Entry(f"max_length=MAX_LINE_LENGTH, timeout=None, *, {FLAGS}"),
    "recv_struct": Entry("fmt, timeout=None", waits=True),
    "recv_frame": Entry(f"{FRAME}, timeout=None", waits=True),
    "frames": Entry(f"{FRAME}, timeout=None, {FLAGS}"),
    "fill": Entry("size=1, timeout=None", waits=True),
    "consume": Entry("size"),
    "unread": Entry("data"),
    "recv_some_into": Entry(f"buffer, timeout=None, {FLAGS}", waits=True),
    "try_recv": Entry("max_size=BUFFER_SIZE"),
    "recv_from": Entry(f"size, {FLAGS}, timeout=None", waits=True),
    "recv_from_into": Entry(f"buffer, size=None, {FLAGS}, timeout=None", waits=True),
    "recv_many_from": Entry("max_count=64, size=2048, timeout=None", waits=True),
    "send_many_to": Entry("datagrams, timeout=None", waits=True),
    "join_group": Entry("group, interface=None"),
    "leave_group": Entry("group, interface=None"),
    "skip": Entry("size, timeout=None", waits=True),
    "wait_readable": Entry("timeout=None", waits=True),
    "wait_writable": Entry("timeout=None", waits=True),
    "send_fds": Entry("data, fds, timeout=None", waits=True),
    "recv_fds": Entry("size, max_fds, timeout=None", waits=True),
    "close": Entry(f"{FLAGS}, *, linger=None"),
    "shutdown_write": Entry("timeout=None", waits=True),
    "start_tls": Entry(
        "ctx, handshake=Handshake.AS_CLIENT, hostname='', timeout=None, *, leftover='refuse'", waits=True
    ),
    "fileno": Entry(""),
    "getsockopt": Entry("level, option, size=0"),
    "setsockopt": Entry("level, option, value"),
    "set_keep_alive": Entry("keep_alive"),
    "tcp_info": Entry(""),
    "peer_credentials": Entry(""),
    "get_sock_opt": Entry("opt, level=None"),
    "set_sock_opt": Entry("opt, value, level=None"),
    "get_socket_error": Entry(""),
    "socket_error": Entry(f"err=-1, is_async=False, last_error=-1, {FLAGS}"),
    "get_peer_certificates": Entry("*, verified=True"),
    "get_psk_identity": Entry(""),
}
PROPERTIES = {"has_data_buffered", "is_closed", "is_ssl", "local_addr", "peer_addr", "stats"}
PROPERTIES |= {"multicast_interface", "multicast_loop", "multicast_ttl"}
PROPERTIES |= {"got_handshake", "ssl_handle", "ssl_pointer", "tls_info"}

FUNCTIONS = {
    "dial": Entry(
        "address, port=None, protocol=IPPROTO_TCP, *, buffered=True, timeout=None, tls=None, hostname=None,"
        "local_addr=None, family=0, options=(), keep_alive=KeepAlive(), resolver=None, default_flags=SAFE_DISCONN",
        waits=True,
    ),
    "listeners_from_environment": Entry(""),
    "relay": Entry("a, b, *, idle_timeout=None, half_close_timeout=None, progress=None", waits=True),
    "serve": Entry(
        "handler, port=0, address='', *, tls=None, max_connections=None, handshake_timeout=10.0,"
        "backlog=SOMAXCONN, reuse_port=False, buffered=True, on_error=None, sock=None, options=(), mode=None,"
        "keep_alive=KeepAlive(), on_full='wait', max_per_address=None, max_handshakes=None,"
        "first_byte_timeout=None, idle_timeout=None, lifetime=None, min_rate=None, default_flags=SAFE_DISCONN",
        waits=True,
    ),
}
SERVER_METHODS = {
    "wait": Entry("timeout=None", waits=True),
    "stop": Entry("drain=0.0", waits=True),
    "request_stop": Entry("drain=0.0"),
}
SERVER_PROPERTIES = {"clients", "connections", "local_addr", "local_addrs", "sockets", "stats", "stopping"}

POOL_METHODS = {
    "__init__": Entry(
        "connect, *, max_size=10, max_idle=None, idle_timeout=60.0, max_lifetime=None, healthy=None"
    ),
    "acquire": Entry("timeout=None"),
    "close": Entry(""),
}
POOL_PROPERTIES = {"stats", "is_closed"}
TUPLES = {
    "Accepted": ("client", "address"),
    "Datagram": ("data", "address"),
    "ReceivedFds": ("data", "fds", "truncated"),
    "ReceivedInto": ("size", "address"),
    "StopReport": ("drained", "forced"),
}

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.module.__name__)


def parameters_of(function: Any) -> list[inspect.Parameter]:
    """The parameters of a function without the object it is a method of."""
    parameters = list(inspect.signature(function).parameters.values())
    return [each for each in parameters if each.name not in ("self", "cls")]


def check(name: str, function: Any, entry: Entry, flavour: Flavour) -> None:
    written: list[inspect.Parameter] = parameters_of(
        eval(f"lambda {entry.parameters}: 0", vars(wireline) | {"Handshake": Handshake})
    )
    found = parameters_of(function)
    assert [(each.name, each.kind) for each in found] == [(each.name, each.kind) for each in written], name
    for ours, theirs in zip(found, written, strict=True):
        if theirs.default is not ...:
            assert ours.default == theirs.default, f"{name}({ours.name})"
    # The result of the asynchronous `serve` can be awaited, and entered as well.
    awaitable = function is asyncnet.serve or inspect.iscoroutinefunction(function)
    assert awaitable == (entry.waits and flavour.awaits), name


def check_class(cls: type, methods: Mapping[str, Entry], properties: set[str], flavour: Flavour) -> None:
    for name, entry in methods.items():
        check(f"{cls.__name__}.{name}", getattr(cls, name), entry, flavour)
    for name in properties:
        assert isinstance(inspect.getattr_static(cls, name), property), name
    public = {name for name in dir(cls) if not name.startswith("_")}
    assert public == {*methods, *properties} - {"__init__"}


@every_flavour
def test_the_socket_has_every_method_of_the_contract_and_no_other(flavour: Flavour) -> None:
    check_class(getattr(flavour.module, flavour.socket), METHODS, PROPERTIES, flavour)


@every_flavour
def test_the_server_and_the_pool_have_every_method_of_the_contract_and_no_other(flavour: Flavour) -> None:
    check_class(flavour.module.Server, SERVER_METHODS, SERVER_PROPERTIES, flavour)
    check_class(flavour.module.Pool, POOL_METHODS, POOL_PROPERTIES, flavour)


@every_flavour
def test_the_functions_of_the_module(flavour: Flavour) -> None:
    for name, entry in FUNCTIONS.items():
        check(name, getattr(flavour.module, name), entry, flavour)


@every_flavour
def test_results_have_names(flavour: Flavour) -> None:
    for name, fields in TUPLES.items():
        assert getattr(flavour.module, name)._fields == fields
    assert flavour.module.Datagram.truncated is flavour.module.ReceivedInto.truncated is False
    datagram = flavour.module.Datagram(b"data", ("host", 1))
    assert datagram.destination is datagram.interface is None


@every_flavour
def test_both_can_be_used_in_a_block(flavour: Flavour) -> None:
    enter, leave = ("__aenter__", "__aexit__") if flavour.awaits else ("__enter__", "__exit__")
    for cls in (getattr(flavour.module, flavour.socket), flavour.module.Server):
        assert hasattr(cls, enter)
        assert hasattr(cls, leave)


@every_flavour
def test_the_alias_of_send_is_for_the_blocking_flavour_only(flavour: Flavour) -> None:
    assert hasattr(getattr(flavour.module, flavour.socket), "__iand__") is not flavour.awaits


@every_flavour
def test_the_module_of_a_flavour_shows_these_names(flavour: Flavour) -> None:
    assert set(flavour.module.__all__) == {
        flavour.socket,
        "Server",
        "Handler",
        "Pool",
        "PoolStats",
        "ServerStats",
        "StopEvent",
        *FUNCTIONS,
        *TUPLES,
        *flavour.adds,
    }


def test_the_scenarios_await_every_call_that_waits() -> None:
    assert {name for name, entry in METHODS.items() if entry.waits} == WAITING
