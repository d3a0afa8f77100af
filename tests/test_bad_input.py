"""Bad input of every kind gets the error that the documentation names, before any system call, and does no harm.

Three tables: the arguments of every method and function, each with the values that are refused; the states of a
socket, each with the methods that cannot be used in it; and the exceptions, with the reason. Every public name and
every parameter must be in one of them. Both flavours are held to the same tables: a call that is awaited must be
refused in its first step, without a loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import io
import itertools
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

import wireline
import wireline.asyncnet
import wireline.net
from tests.cases import in_turn
from tests.faults.syscalls import Syscalls
from tests.tls import certificates
from wireline import (
    AF_INET,
    AF_UNIX,
    MAX_FRAME_SIZE,
    SOCK_DGRAM,
    SOCK_STREAM,
    ClosedError,
    ReadLineResult,
    SocketFlag,
    SocketTimeout,
    SockOpt,
)
from wireline.asyncnet import AsyncSocket
from wireline.net import Server, Socket, dial, serve
from wireline.tls import Handshake, SslContext

pytestmark = pytest.mark.in_both_flavours

FLAVOURS: dict[str, type[Any]] = {"blocking": Socket, "async": AsyncSocket}
FLAVOUR_MODULES: dict[str, Any] = {"blocking": wireline.net, "async": wireline.asyncnet}
ONLY_BLOCKING = {"__iand__"}
"""Names without an awaited counterpart."""

NAN = float("nan")
LOOPBACK = "127.0.0.1"
HUGE = 2**70
"""Larger than any C integer."""

# Wrong arguments, and the error for each.

Bad = list[tuple[object, type[Exception]]]


def bad(error: type[Exception], *values: object) -> Bad:
    return [(value, error) for value in values]


NO_INTS = bad(TypeError, "1", b"1", 1.5, None, [], True)
TIMEOUTS = bad(TypeError, "1", b"1", [], True, 1j) + bad(ValueError, -1, -0.001, -HUGE, NAN, -float("inf"))
SIZES = NO_INTS + bad(ValueError, -1, -HUGE)
LENGTHS = SIZES + bad(ValueError, 0)
PORTS = NO_INTS + bad(ValueError, -1, 65536, HUGE)
HOSTS = bad(TypeError, None, 5, b"localhost", ["localhost"], (LOOPBACK, 80)) + bad(
    ValueError, "local\0host", "\0"
)
PEERS = HOSTS + bad(ValueError, "")
PATHS = bad(TypeError, None, 5, ["path"]) + bad(ValueError, "", b"", "a\0b", b"a\0b", "\0", b"\0", "x" * 200)
DATA = bad(TypeError, "text", None, 5, 1.5, [1, 2], {}, object())
FLAGS = bad(TypeError, 1, 0, "PEEK", None, [], SocketFlag, SockOpt.NO_DELAY)
NO_PEEK = FLAGS + bad(ValueError, SocketFlag.PEEK, SocketFlag.PEEK | SocketFlag.SAFE_DISCONN)
C_INTS = NO_INTS + bad(ValueError, -1, 2**31, HUGE)
OPTIONAL_C_INTS = [(value, error) for value, error in C_INTS if value is not None]
OPTIONS = bad(TypeError, "NO_DELAY", 1, None, SocketFlag.PEEK, SockOpt)
ON_LONG = bad(ValueError, "cut", "", "RAISE", None)
SPARSE = memoryview(bytearray(20))[::2]
BUFFERS = bad(TypeError, b"read-only", memoryview(b"read-only"), "text", None, 5, []) + bad(
    ValueError, SPARSE
)
BUFFER_SIZES = [(value, error) for value, error in SIZES if value is not None] + bad(ValueError, 11, HUGE)


CONTEXTS = bad(TypeError, "tls", 5, True, ssl.create_default_context())
VERIFIES = SslContext(ca_file=certificates.ca_file())
VERIFIES.ssl_context(Handshake.AS_CLIENT)  # which reads the files


class Call(NamedTuple):
    """A method or function, valid arguments, and for each parameter invalid ones."""

    good: dict[str, object]
    bad: dict[str, Bad]
    on: tuple[str, ...] = ("stream", "stream with lines")
    """The kinds of socket to try it on."""


PARTS = bad(TypeError, None, 5, b"one buffer", "text", bytearray(b"one"), ["text"], [None], [5])
READ = {"timeout": TIMEOUTS, "flags": FLAGS}
LINE = {**READ, "max_length": LENGTHS, "on_long": ON_LONG}
WAIT = {"timeout": TIMEOUTS}
FORMATS = bad(TypeError, None, 5, [], bytearray(b"!I")) + bad(ValueError, "!Y", "nonsense", b"!Y")
FRAME = {
    "header": [*FORMATS, *bad(TypeError, "!d", "!?", "!4s"), *bad(ValueError, "", "!")],
    "length_field": NO_INTS + bad(ValueError, 1, -2, HUGE),
    "length_adjust": NO_INTS,
    "max_size": SIZES,
}
OUTGOING = (
    bad(
        TypeError,
        None,
        5,
        b"one",
        "text",
        [b"one"],
        [(b"one",)],
        [(b"one", LOOPBACK)],
        [("text", LOOPBACK, 1)],
    )
    + [([(b"x", LOOPBACK, 1), (b"x", LOOPBACK, port)], error) for port, error in PORTS]
    + [([(b"x", LOOPBACK, 1), (b"x", peer, 1)], error) for peer, error in PEERS]
)
GROUP = "239.1.2.3"
GROUPS = bad(TypeError, None, 5, b"239.1.2.3", [GROUP]) + bad(
    ValueError, "", "localhost", LOOPBACK, "ff15::1", wireline.IPV6_LOOPBACK, "239.1.2.3%lo"
)
INTERFACES = bad(TypeError, b"lo", 1.5, [], True) + bad(ValueError, "", "l\0", 0, -1, HUGE, "::1")
DATAGRAM, UNIX, FRESH, LISTENER = ("datagram",), ("Unix",), ("unconnected",), ("listening",)
ANY = ("unconnected", "listening", "stream", "datagram", "Unix")

METHODS = {
    "__init__": Call(
        {},
        {"domain": C_INTS, "sock_type": C_INTS, "protocol": C_INTS, "default_flags": NO_PEEK},
        ("no",),
    ),
    "from_fd": Call(
        {"fd": 0},
        {
            "fd": C_INTS,
            "domain": OPTIONAL_C_INTS,
            "sock_type": OPTIONAL_C_INTS,
            "protocol": OPTIONAL_C_INTS,
            "default_flags": NO_PEEK,
        },
        ("no",),
    ),
    "from_socket": Call(
        {"sock": None},
        {"sock": bad(TypeError, None, 5, "sock", Socket), "default_flags": NO_PEEK},
        ("no",),
    ),
    "bind_addr": Call({}, {"port": PORTS, "address": HOSTS}, FRESH),
    "bind_unix": Call({"path": "/nowhere/at/all"}, {"path": PATHS}, UNIX),
    "listen": Call({}, {"backlog": C_INTS}, FRESH),
    "connect": Call({"address": LOOPBACK, "port": 1}, {"address": PEERS, "port": PORTS, **WAIT}, FRESH),
    "connect_unix": Call({"path": "/nowhere"}, {"path": PATHS, **WAIT}, UNIX),
    "accept": Call({}, READ, LISTENER),
    "accept_addr": Call({}, READ, LISTENER),
    "recv": Call({"size": 1}, {"size": SIZES, **READ}, ("stream", "stream with lines", "connected datagram")),
    "recv_some": Call({}, {"max_size": SIZES, **READ}, ("stream", "stream with lines", "connected datagram")),
    "recv_into": Call(
        {"buffer": bytearray(10)},
        {"buffer": BUFFERS, "size": BUFFER_SIZES, **READ},
        ("stream", "stream with lines", "connected datagram"),
    ),
    "recv_exactly": Call({"size": 1}, {"size": SIZES, **WAIT}),
    "recv_until": Call(
        {"delimiter": b"x"},
        {
            "delimiter": bad(TypeError, "x", None, 5, memoryview(b"x"), [b"x"], (b"x", "y"), (None,))
            + bad(ValueError, b"", bytearray(), (), (b"x", b"")),
            "max_length": SIZES,
            **WAIT,
        },
    ),
    "recv_line": Call({}, LINE),
    "recv_line_into": Call(
        {"buffer": bytearray()}, {"buffer": bad(TypeError, b"", "", None, SPARSE), **LINE}
    ),
    "try_recv_line": Call({}, {"max_length": LENGTHS}),
    "lines": Call({}, {"max_length": LENGTHS, **WAIT, "flags": NO_PEEK}),
    "recv_struct": Call({"fmt": "!I"}, {"fmt": FORMATS, **WAIT}),
    "recv_frame": Call({"header": "!I"}, {**FRAME, **WAIT}),
    "frames": Call({"header": "!I"}, {**FRAME, **WAIT, "flags": NO_PEEK}),
    "fill": Call({}, {"size": SIZES + bad(ValueError, MAX_FRAME_SIZE + 1), **WAIT}),
    "consume": Call({"size": 0}, {"size": SIZES}),
    "unread": Call({"data": b"x"}, {"data": DATA}),
    "recv_some_into": Call(
        {"buffer": bytearray(10)},
        {"buffer": BUFFERS, **READ},
        ("stream", "stream with lines", "connected datagram"),
    ),
    "try_recv": Call({}, {"max_size": SIZES}, ("stream", "stream with lines", "connected datagram")),
    "skip": Call({"size": 1}, {"size": SIZES, **WAIT}),
    "send_fds": Call(
        {"data": b"x", "fds": [0]},
        {
            "data": DATA + bad(ValueError, b"", bytearray()),
            "fds": bad(TypeError, 5, None, ["0"], [None], "0", [True])
            + bad(ValueError, [-1], [2**31], [0] * 254),
            **WAIT,
        },
        ("Unix", "Unix datagram"),
    ),
    "recv_fds": Call(
        {"size": 1, "max_fds": 1}, {"size": SIZES, "max_fds": SIZES, **WAIT}, ("Unix", "Unix datagram")
    ),
    "send": Call({"data": b"x"}, {"data": DATA, **READ}, ("stream", "connected datagram")),
    "send_many": Call({"parts": [b"x"]}, {"parts": PARTS, **READ}),
    "send_some": Call({"data": b"x"}, {"data": DATA, **WAIT}, ("stream", "connected datagram")),
    "try_send": Call({"data": b"x"}, {"data": DATA}, ("stream", "connected datagram")),
    "sendfile": Call(
        {"file": io.BytesIO(b"x")},
        {
            "file": bad(TypeError, None, 5, b"bytes", "path", io.StringIO("text"), object())
            + bad(io.UnsupportedOperation, io.BufferedWriter(io.BytesIO())),
            "offset": SIZES + bad(ValueError, HUGE),
            "count": [(value, error) for value, error in SIZES if value is not None] + bad(ValueError, HUGE),
            **WAIT,
        },
        ("stream",),
    ),
    "try_send_some": Call({"data": b"x"}, {"data": DATA}, ("stream", "connected datagram")),
    "__iand__": Call({"data": b"x"}, {"data": DATA}, ("stream", "connected datagram")),
    "wait_readable": Call({}, WAIT, ("stream", "connected datagram", "listening")),
    "wait_writable": Call({}, WAIT, ("stream", "connected datagram")),
    "shutdown_write": Call({}, WAIT, ("stream",)),
    "start_tls": Call(
        {"ctx": VERIFIES, "hostname": "localhost"},
        {
            "ctx": CONTEXTS,
            "handshake": bad(TypeError, "AS_CLIENT", 1, None, ssl.PROTOCOL_TLS_CLIENT),
            "hostname": bad(TypeError, None, 5, b"localhost") + bad(ValueError, "", "a\0b", "a b"),
            "leftover": bad(ValueError, None, "drop", "", 1),
            **WAIT,
        },
    ),
    "send_to": Call(
        {"address": LOOPBACK, "port": 1, "data": b"x"},
        {"address": PEERS, "port": PORTS, "data": DATA, **READ},
        DATAGRAM,
    ),
    "recv_from": Call({"size": 1}, {"size": SIZES, **READ}, DATAGRAM),
    "recv_from_into": Call(
        {"buffer": bytearray(10)}, {"buffer": BUFFERS, "size": BUFFER_SIZES, **READ}, DATAGRAM
    ),
    "recv_many_from": Call(
        {}, {"max_count": NO_INTS + bad(ValueError, 0, -1), "size": SIZES, **WAIT}, DATAGRAM
    ),
    "send_many_to": Call({"datagrams": [(b"x", LOOPBACK, 1)]}, {"datagrams": OUTGOING, **WAIT}, DATAGRAM),
    "join_group": Call({"group": GROUP}, {"group": GROUPS, "interface": INTERFACES}, DATAGRAM),
    "leave_group": Call({"group": GROUP}, {"group": GROUPS, "interface": INTERFACES}, DATAGRAM),
    "get_sock_opt": Call({"opt": SockOpt.REUSE_ADDR}, {"opt": OPTIONS, "level": OPTIONAL_C_INTS}, ANY),
    "set_sock_opt": Call(
        {"opt": SockOpt.REUSE_ADDR, "value": True}, {"opt": OPTIONS, "level": OPTIONAL_C_INTS}, ANY
    ),
    "getsockopt": Call({"level": 1, "option": 2}, {"level": C_INTS, "option": C_INTS, "size": C_INTS}, ANY),
    "setsockopt": Call(
        {"level": 1, "option": 2, "value": 1},
        {
            "level": C_INTS,
            "option": C_INTS,
            "value": bad(TypeError, "1", None, 1.5, True, []) + bad(ValueError, 2**31),
        },
        ANY,
    ),
    "set_keep_alive": Call(
        {"keep_alive": None}, {"keep_alive": bad(TypeError, True, 15, (15, 15, 9), "on")}, ANY
    ),
    "socket_error": Call(
        {"err": -1, "last_error": errno.ECONNRESET},
        {"err": bad(TypeError, "1", None), "last_error": bad(TypeError, "1", None), "flags": FLAGS},
        ANY,
    ),
    "get_peer_certificates": Call({"verified": False}, {}, ANY),
    "close": Call({}, {"linger": TIMEOUTS, "flags": FLAGS}, ANY),
}

TRUTH_VALUES = {"buffered", "inheritable", "packet_info", "reuse_port", "is_async", "value", "verified"}
"""Parameters of which only the truth value is used, as usual in Python."""

TAKES_NOTHING = set(
    "adopt detach fileno tcp_info peer_credentials stats"
    " get_socket_error try_accept_addr is_closed is_ssl has_data_buffered last_bytes_sent local_addr"
    " multicast_interface multicast_loop multicast_ttl"
    " peer_addr got_handshake get_psk_identity tls_info ssl_handle ssl_pointer".split()
)
"""Methods without parameters, and properties."""


# Sockets of every kind, of either flavour. Those that are connected have a peer of the standard library, past the shim.

Kind = type[Any]


@contextmanager
def no_socket(flavour: Kind) -> Iterator[Any]:
    yield flavour


@contextmanager
def unconnected(flavour: Kind) -> Iterator[Any]:
    with contextlib.closing(flavour()) as sock:
        yield sock


@contextmanager
def listening(flavour: Kind) -> Iterator[Any]:
    with unconnected(flavour) as sock:
        sock.bind_addr(0, LOOPBACK)
        sock.listen()
        yield sock


@contextmanager
def connected(flavour: Kind, received: bytes = b"") -> Iterator[Any]:
    with listening(flavour) as listener, Syscalls.plain() as peer:
        peer.connect(listener.local_addr)
        _, client, _ = listener.try_accept_addr()
        with contextlib.closing(client) as sock:
            peer.sendall(received)
            yield sock


@contextmanager
def with_lines(flavour: Kind) -> Iterator[Any]:
    with connected(flavour, b"first\nsecond\nthird\n") as sock:
        assert sock.try_recv_line() == (ReadLineResult.FULL_LINE, b"first")
        yield sock
        if not sock.is_closed:
            # The failed call has lost no data.
            assert sock.try_recv_line() == (ReadLineResult.FULL_LINE, b"second")
            assert sock.try_recv_line() == (ReadLineResult.FULL_LINE, b"third")


@contextmanager
def datagram(flavour: Kind) -> Iterator[Any]:
    with contextlib.closing(flavour(AF_INET, SOCK_DGRAM)) as sock:
        sock.bind_addr(0, LOOPBACK)
        yield sock


@contextmanager
def connected_datagram(flavour: Kind) -> Iterator[Any]:
    with Syscalls.plain(AF_INET, SOCK_DGRAM) as plain:
        plain.bind((LOOPBACK, 0))
        plain.connect(plain.getsockname())
        with contextlib.closing(flavour.from_socket(plain)) as sock:
            yield sock


@contextmanager
def unix(flavour: Kind) -> Iterator[Any]:
    with contextlib.closing(flavour(AF_UNIX, SOCK_STREAM)) as sock:
        yield sock


@contextmanager
def unix_datagram(flavour: Kind) -> Iterator[Any]:
    with contextlib.closing(flavour(AF_UNIX, SOCK_DGRAM)) as sock:
        yield sock


@contextmanager
def closed(make: Callable[[Kind], contextlib.AbstractContextManager[Any]], flavour: Kind) -> Iterator[Any]:
    with make(flavour) as sock:
        sock.close()
        yield sock


@contextmanager
def detached(flavour: Kind) -> Iterator[Any]:
    with connected(flavour) as sock, Syscalls.plain(fileno=sock.detach()):
        yield sock


SOCKETS: dict[str, Callable[[Kind], contextlib.AbstractContextManager[Any]]] = {
    "no": no_socket,
    "unconnected": unconnected,
    "listening": listening,
    "stream": connected,
    "stream with lines": with_lines,
    "datagram": datagram,
    "connected datagram": connected_datagram,
    "Unix": unix,
    "Unix datagram": unix_datagram,
    "closed": functools.partial(closed, unconnected),
    "closed listener": functools.partial(closed, listening),
    "closed stream": functools.partial(closed, connected),
    "closed stream with lines": functools.partial(closed, with_lines),
    "closed datagram": functools.partial(closed, connected_datagram),
    "closed Unix": functools.partial(closed, unix),
    "detached": detached,
}


@pytest.fixture
def syscalls(monkeypatch: pytest.MonkeyPatch) -> Syscalls:
    return Syscalls(monkeypatch)


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


class Bystander:
    """An event loop that claims to run and does nothing: a call that uses it was not refused at once."""

    time = call_at = add_reader = None

    def is_closed(self) -> bool:
        return True

    def is_running(self) -> bool:
        return False


BYSTANDER = Bystander()


def at_once(result: object) -> object:
    """Return the result of a call; a call that is awaited must not suspend."""
    if not inspect.iscoroutine(result):
        return result
    asyncio._set_running_loop(BYSTANDER)  # type: ignore[arg-type]
    try:
        result.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        asyncio._set_running_loop(None)
    result.close()
    raise AssertionError("it waits")


def bound(sock: Any, name: str) -> Callable[..., object]:
    """Return a method of a socket, or the constructor."""
    method: Callable[..., object] = sock if name == "__init__" else getattr(sock, name)
    return method


def refusal(
    syscalls: Syscalls, error: type[Exception], function: Callable[..., object], /, **arguments: object
) -> Exception:
    """Call it, and return the error that it must raise before any system call."""
    with syscalls.forbidding(), pytest.raises(error) as caught:
        at_once(function(**arguments))
    assert str(caught.value)
    return caught.value


def test_bad_arguments_are_refused_before_any_system_call(flavour: str, syscalls: Syscalls) -> None:
    for name in METHODS:
        if flavour != "async" or name not in ONLY_BLOCKING:
            with noted(name):
                check_bad_arguments(flavour, name, syscalls)


def check_bad_arguments(flavour: str, name: str, syscalls: Syscalls) -> None:
    call = METHODS[name]
    for kind, parameter in itertools.product(call.on, call.bad):
        with noted(f"{parameter} on {kind}"), SOCKETS[kind](FLAVOURS[flavour]) as sock:
            for value, error in call.bad[parameter]:
                with noted(value):
                    if isinstance(sock, AsyncSocket) and sock._fd.port.loop is not None:
                        # So that a task which has used its share does not yield first.
                        sock._fd.port.budget = 128
                    refusal(syscalls, error, bound(sock, name), **{**call.good, parameter: value})
            assert kind == "no" or not sock.is_closed


@contextmanager
def noted(value: object) -> Iterator[None]:
    """Name the value in a failure."""
    try:
        yield
    except BaseException as problem:
        problem.add_note(f"with {value!r}")
        raise


# Calls that a state does not allow.

State = dict[str, tuple[type[Exception], int | None]]


def refusing(error: type[Exception], code: int | None, *kinds: str) -> State:
    return dict.fromkeys(kinds, (error, code))


ENDED = refusing(
    ClosedError, errno.EBADF, *(kind for kind in SOCKETS if kind.startswith("closed") or kind == "detached")
)
ENDED_DATAGRAM = refusing(ClosedError, errno.EBADF, "closed datagram")
ENDED_STREAM = {kind: refusal for kind, refusal in ENDED.items() if kind not in ENDED_DATAGRAM}
NO_STREAM = refusing(OSError, errno.ENOTCONN, "unconnected", "Unix") | refusing(
    OSError, errno.EINVAL, "listening"
)
NO_STREAM |= ENDED
NO_DATAGRAMS = refusing(TypeError, None, "datagram", "connected datagram", "Unix datagram")
NO_LISTENER = (
    refusing(OSError, errno.EINVAL, "unconnected", "stream", "stream with lines", "Unix") | ENDED_STREAM
)
NO_PEER = refusing(OSError, errno.ENOTCONN, "unconnected", "listening", "Unix", "datagram")
NO_DESTINATION = refusing(OSError, errno.EDESTADDRREQ, "datagram", "Unix datagram")
NO_STREAMS = refusing(TypeError, None, "unconnected", "listening", "stream", "Unix") | ENDED_DATAGRAM
NO_IP = refusing(TypeError, None, "unconnected", "listening", "stream", "datagram") | ENDED
NO_UNIX = refusing(TypeError, None, "Unix", "Unix datagram") | ENDED

NO_FDS = refusing(
    TypeError,
    None,
    *("unconnected", "listening", "stream", "stream with lines", "datagram", "connected datagram"),
) | refusing(OSError, errno.ENOTCONN, "Unix")
NO_FDS |= ENDED

NO_TLS = refusing(ssl.SSLError, None, "unconnected", "listening", "stream", "datagram", "Unix") | ENDED

STATES: dict[str, State] = {
    "recv": NO_STREAM,
    "recv_some": NO_STREAM,
    "recv_into": NO_STREAM,
    "recv_exactly": NO_STREAM | NO_DATAGRAMS,
    "recv_until": NO_STREAM | NO_DATAGRAMS,
    "recv_line": NO_STREAM | NO_DATAGRAMS,
    "recv_line_into": NO_STREAM | NO_DATAGRAMS,
    "try_recv_line": NO_STREAM | NO_DATAGRAMS,
    "lines": NO_STREAM | NO_DATAGRAMS,
    "recv_struct": NO_STREAM | NO_DATAGRAMS,
    "recv_frame": NO_STREAM | NO_DATAGRAMS,
    "frames": NO_STREAM | NO_DATAGRAMS,
    "fill": NO_STREAM | NO_DATAGRAMS,
    "consume": NO_STREAM | NO_DATAGRAMS,
    "unread": NO_STREAM | NO_DATAGRAMS,
    "recv_some_into": NO_STREAM,
    "try_recv": NO_STREAM,
    "skip": NO_STREAM | NO_DATAGRAMS,
    "send_fds": NO_FDS | refusing(OSError, errno.EDESTADDRREQ, "Unix datagram"),
    "recv_fds": NO_FDS,
    "send": NO_STREAM | NO_DESTINATION,
    "send_many": NO_STREAM | NO_DATAGRAMS,
    "send_some": NO_STREAM | NO_DESTINATION,
    "sendfile": NO_STREAM | NO_DATAGRAMS,
    "try_send_some": NO_STREAM | NO_DESTINATION,
    "__iand__": NO_STREAM | NO_DESTINATION,
    "wait_readable": refusing(OSError, errno.ENOTCONN, "unconnected", "Unix") | ENDED,
    "wait_writable": NO_STREAM,
    "shutdown_write": NO_STREAM | NO_DATAGRAMS,
    "start_tls": NO_STREAM | NO_DATAGRAMS,
    "send_to": NO_STREAMS,
    "recv_from": NO_STREAMS,
    "recv_from_into": NO_STREAMS,
    "recv_many_from": NO_STREAMS,
    "send_many_to": NO_STREAMS,
    "join_group": NO_STREAMS,
    "leave_group": NO_STREAMS,
    "multicast_interface": NO_STREAMS,
    "multicast_loop": NO_STREAMS,
    "multicast_ttl": NO_STREAMS,
    "accept": NO_LISTENER | NO_DATAGRAMS,
    "accept_addr": NO_LISTENER | NO_DATAGRAMS,
    "try_accept_addr": NO_LISTENER | NO_DATAGRAMS,
    "listen": NO_DATAGRAMS | ENDED | refusing(OSError, errno.EISCONN, "stream"),
    "connect": NO_UNIX
    | refusing(OSError, errno.EINVAL, "listening")
    | refusing(OSError, errno.EISCONN, "stream", "stream with lines"),
    "connect_unix": NO_IP,
    "bind_addr": NO_UNIX,
    "bind_unix": NO_IP,
    "local_addr": ENDED,
    "peer_addr": NO_PEER | ENDED,
    "getsockopt": ENDED,
    "setsockopt": ENDED,
    "set_keep_alive": ENDED,
    "tcp_info": ENDED,
    "peer_credentials": ENDED,
    "get_sock_opt": ENDED,
    "set_sock_opt": ENDED,
    "get_socket_error": ENDED,
    "get_peer_certificates": ENDED,
    "get_psk_identity": ENDED,
    "tls_info": NO_TLS,
    "ssl_handle": NO_TLS,
    "ssl_pointer": NO_TLS,
    "detach": ENDED | refusing(OSError, errno.EBUSY, "stream with lines"),
    "adopt": ENDED,
}

WORKS_IN_EVERY_STATE = {
    "__init__",
    "from_fd",
    "from_socket",
    "close",
    "fileno",
    "got_handshake",
    "has_data_buffered",
    "is_closed",
    "is_ssl",
    "last_bytes_sent",
    "socket_error",
    "stats",
    "try_send",
}


def test_the_wrong_state_is_refused_before_any_system_call(flavour: str, syscalls: Syscalls) -> None:
    for name in STATES:
        if flavour != "async" or name not in ONLY_BLOCKING:
            with noted(name):
                check_wrong_states(flavour, name, syscalls)


def check_wrong_states(flavour: str, name: str, syscalls: Syscalls) -> None:
    good = METHODS[name].good if name in METHODS else {}
    for kind, (error, code) in STATES[name].items():
        with noted(kind), SOCKETS[kind](FLAVOURS[flavour]) as sock:
            if isinstance(inspect.getattr_static(sock, name), property):
                caught = refusal(syscalls, error, functools.partial(getattr, sock, name))
            else:
                caught = refusal(syscalls, error, getattr(sock, name), **good)
            assert code is None or (isinstance(caught, OSError) and caught.errno == code)


@pytest.mark.parametrize("kind", [kind for kind in SOCKETS if kind != "no"])
def test_calls_that_work_in_every_state(flavour: str, kind: str, syscalls: Syscalls) -> None:
    with SOCKETS[kind](FLAVOURS[flavour]) as sock:
        ended = kind in ENDED
        assert sock.is_closed is ended
        assert (sock.fileno() == -1) is ended
        assert sock.is_ssl is False
        with pytest.raises(ssl.SSLError, match="does not use TLS"):
            _ = sock.got_handshake
        assert sock.last_bytes_sent == 0
        assert sock.has_data_buffered is (kind == "stream with lines")
        assert sock.stats.bytes_sent == 0
        with pytest.raises(ConnectionResetError):
            sock.socket_error(-1, last_error=errno.ECONNRESET, flags=SocketFlag(0))
        with syscalls.recording(everywhere=True) as calls:
            sent = sock.try_send(b"x")
            assert sent is (kind in ("stream", "stream with lines", "connected datagram"))
        assert (calls != []) is (kind in ("stream", "stream with lines", "connected datagram"))
        if kind != "stream with lines":
            sock.close()
            sock.close()


@pytest.mark.parametrize("kind", list(ENDED))
def test_close_of_a_closed_socket_checks_its_arguments(flavour: str, kind: str, syscalls: Syscalls) -> None:
    with SOCKETS[kind](FLAVOURS[flavour]) as sock:
        refusal(syscalls, ValueError, sock.close, linger=-1)
        refusal(syscalls, TypeError, sock.close, linger="1")


def test_a_socket_of_the_standard_library_that_is_closed_or_does_tls_is_not_taken_over(
    flavour: str, syscalls: Syscalls
) -> None:
    import ssl

    kind = FLAVOURS[flavour]
    one, other = socket.socketpair()
    one.close()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        kind.from_socket(one)
    assert caught.value.errno == errno.EBADF
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with Syscalls.plain() as plain:
        with context.wrap_socket(
            plain, server_hostname="localhost", do_handshake_on_connect=False
        ) as wrapped:
            refusal(syscalls, TypeError, kind.from_socket, sock=wrapped)
            assert wrapped.fileno() >= 0
    other.close()


async def done(result: Any) -> Any:
    """Return the result of a call of either flavour."""
    return await result if inspect.iscoroutine(result) else result


async def with_sizes_that_are_only_large(kind: Kind) -> None:
    with connected_datagram(kind) as sock, connected(kind, b"line\n") as stream:
        for size in (2**40, HUGE):
            await done(sock.send(b"datagram"))
            assert (await done(sock.recv_from(size, timeout=5))).data == b"datagram"
            await done(sock.send(b"datagram"))
            assert await done(sock.recv(size, timeout=5)) == b"datagram"
            assert await done(stream.recv_some(size, timeout=5, flags=SocketFlag.PEEK)) == b"line\n"
            assert await done(stream.recv_line(5, SocketFlag.PEEK, size)) == b"line"
            with pytest.raises(SocketTimeout):
                await done(stream.recv_exactly(size, timeout=0))


def test_sizes_that_are_only_large_are_not_bad(flavour: str) -> None:
    asyncio.run(with_sizes_that_are_only_large(FLAVOURS[flavour]))


# Unix sockets take a path where others take a host.


def test_a_destination_of_a_unix_datagram_socket_is_a_path(flavour: str, syscalls: Syscalls) -> None:
    with unix_datagram(FLAVOURS[flavour]) as sock:
        for value, error in PATHS:
            with noted(value):
                refusal(syscalls, error, sock.send_to, address=value, port=0, data=b"x")


# The functions of a module, and the result of `serve`.

UNIX_PATHS = bad(ValueError, "unix:", "unix:@", "unix:a\0b", "unix:" + "x" * 200)
SOCKET_OPTIONS = bad(TypeError, None, 5, "abc", [1], [(1, 2)], [(1, 2, "3")], [("1", 2, 3)], [(1, None, 3)])
SOCKET_OPTIONS += bad(ValueError, [(-1, 2, 3)], [(1, 2, HUGE)])
CONTEXTS = bad(TypeError, "tls", 5, True, ssl.create_default_context())
COUNTS = bad(TypeError, "1", 1.5, True, []) + bad(ValueError, 0, -1, HUGE)
DURATIONS = TIMEOUTS + bad(TypeError, wireline.Deadline(1)) + bad(ValueError, 0, 0.0)
FUNCTIONS = {
    "dial": Call(
        {"address": LOOPBACK, "port": 1},
        {
            "address": PEERS + UNIX_PATHS,
            "port": PORTS,
            "protocol": bad(TypeError, "tcp", None, 6.0, True, [])
            + bad(ValueError, 0, 132, -1, SOCK_STREAM, HUGE),
            **WAIT,
            "tls": CONTEXTS,
            "hostname": bad(ValueError, "localhost", ""),  # without tls it is not checked
            "local_addr": bad(
                TypeError, "localhost", 5, ("localhost",), ["localhost", 0], (None, 0), ("", "0")
            )
            + bad(ValueError, ("localhost", -1), ("local\0host", 0)),
            "family": NO_INTS + bad(ValueError, AF_UNIX, -1, 99, HUGE),
            "options": SOCKET_OPTIONS,
            "keep_alive": bad(TypeError, True, 15, (15, 15, 9), "on"),
            "resolver": bad(TypeError, 5, "resolver", []),
            "default_flags": NO_PEEK,
        },
    ),
    "serve": Call(
        {"handler": print, "port": 0, "address": LOOPBACK},
        {
            "handler": bad(TypeError, None, 5, "handler", []),
            "port": PORTS,
            "address": HOSTS + UNIX_PATHS,
            "max_connections": COUNTS,
            "backlog": C_INTS,
            "tls": CONTEXTS,
            "handshake_timeout": TIMEOUTS + bad(TypeError, wireline.Deadline(1)),
            "on_error": bad(TypeError, 5, "on_error", []),
            "sock": bad(TypeError, 5, "sock", [5], {}, 0) + bad(ValueError, [], ()),
            "options": SOCKET_OPTIONS,
            "on_full": bad(ValueError, None, 5, "", "WAIT", "block", []),
            "max_per_address": COUNTS,
            "max_handshakes": COUNTS,
            "first_byte_timeout": DURATIONS,
            "idle_timeout": DURATIONS,
            "lifetime": DURATIONS,
            "min_rate": bad(TypeError, "1", [], True, 1j) + bad(ValueError, 0, -1, NAN, float("inf")),
            "mode": bad(TypeError, "600", 1.5, True, []) + bad(ValueError, -1, 0o1000, HUGE, 0o600),
            "keep_alive": bad(TypeError, True, 15, (15, 15, 9), "on"),
            "default_flags": NO_PEEK,
        },
    ),
}
SERVER = {
    "wait": Call({}, WAIT),
    "stop": Call({}, {"drain": TIMEOUTS}),
    "request_stop": Call({}, {"drain": TIMEOUTS}),
}


@pytest.mark.parametrize(
    ("name", "parameter"), [(name, parameter) for name in FUNCTIONS for parameter in FUNCTIONS[name].bad]
)
def test_bad_arguments_of_a_function_are_refused_before_any_system_call(
    flavour: str, name: str, parameter: str, syscalls: Syscalls
) -> None:
    good, values, _ = FUNCTIONS[name]
    for value, error in values[parameter]:
        with noted(value):
            refusal(syscalls, error, getattr(FLAVOUR_MODULES[flavour], name), **{**good, parameter: value})


@in_turn("name, parameter", [("wait", "timeout"), ("stop", "drain")])
def test_bad_arguments_of_a_server_are_refused_and_it_goes_on(name: str, parameter: str) -> None:
    with serve(lambda client, address: None, 0, LOOPBACK) as server:
        for value, error in SERVER[name].bad[parameter]:
            with noted(value), pytest.raises(error):
                getattr(server, name)(**{parameter: value})
        with dial(*server.local_addr, timeout=5) as client:
            assert client.recv_some(timeout=5) == b""


@in_turn("name, parameter", [("wait", "timeout"), ("stop", "drain")])
def test_bad_arguments_of_an_asynchronous_server_are_refused_and_it_goes_on(
    name: str, parameter: str
) -> None:
    async def handler(client: AsyncSocket, _: object) -> None:
        await client.send(b"x")

    async def main() -> None:
        async with wireline.asyncnet.serve(handler, 0, LOOPBACK) as server:
            for value, error in SERVER[name].bad[parameter]:
                with noted(value), pytest.raises(error):
                    await getattr(server, name)(**{parameter: value})
            async with await wireline.asyncnet.dial(*server.local_addr, timeout=5) as client:
                assert await client.recv_some(timeout=5) == b"x"

    asyncio.run(main())


# The functions of `wireline`.

IPS = bad(TypeError, None, 5, LOOPBACK, b"\x7f\0\0\1")
ADDRESSES = bad(TypeError, None, 5, b"1.2.3.4", [])
ADDRESSES += bad(ValueError, "", " ", "localhost", "1.2.3", "1.2.3.4.5", "01.2.3.4", " 1.2.3.4", "1.2.3.4\0")
ADDRESSES += bad(ValueError, "::1::", "[::1]", "00001::", "1" * 5000)
HOSTNAMES = bad(TypeError, None, 5, b"localhost", [])
HOSTNAMES += bad(ValueError, "", " ", "a b", "a..b", "h:1", "https://h", "*.h", "h\0", "[::1", "a" * 5000)
ZONES = bad(ValueError, "fe80::1%1", "1.2.3.4%1")
SOCKADDRS = bad(ValueError, None, 5, "path", b"path", (), (LOOPBACK,), (LOOPBACK, "80"), (LOOPBACK, -1))
SOCKADDRS += bad(ValueError, ("name", 1), ("::1", 1, 0))
TARGETS = bad(TypeError, None, 5, b"localhost:1") + bad(
    ValueError, "", "localhost", "localhost:", ":1", "h:0"
)
TARGETS += bad(ValueError, "h:65536", "::1:80", "http://h:1", "unix:", "x" * 999)
TOP_LEVEL = {
    "format_ip": Call({}, {"ip": IPS}),
    "from_sockaddr": Call({}, {"sockaddr": SOCKADDRS}),
    "get_primary_ip_addr": Call({}, {"dest": ADDRESSES}),
    "ip_family": Call({}, {"ip": IPS}),
    "is_disconnection_error": Call(
        {"flags": SocketFlag.SAFE_DISCONN, "error": errno.EPIPE},
        {"flags": FLAGS, "error": bad(TypeError, None, "EPIPE", ValueError("no OSError"))},
    ),
    "parse_hostname": Call({}, {"hostname": HOSTNAMES}),
    "parse_ip_address": Call({}, {"text": ADDRESSES + ZONES}),
    "parse_target": Call({}, {"text": TARGETS}),
    "to_sockaddr": Call({"ip": wireline.IPV4_LOOPBACK, "port": 1}, {"ip": IPS, "port": PORTS}),
}


@pytest.mark.parametrize(
    ("name", "parameter"), [(name, parameter) for name in TOP_LEVEL for parameter in TOP_LEVEL[name].bad]
)
def test_bad_arguments_of_top_level_functions(name: str, parameter: str, syscalls: Syscalls) -> None:
    good, values, _ = TOP_LEVEL[name]
    for value, error in values[parameter]:
        with noted(value):
            refusal(syscalls, error, getattr(wireline, name), **{**good, parameter: value})


def test_is_ip_address_never_raises() -> None:
    values = [value for value, _ in ADDRESSES + ZONES + IPS if value != LOOPBACK]
    assert not any(wireline.is_ip_address(value) for value in values)


# Nothing was forgotten.


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def parameters(function: Callable[..., object]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "cls"}


def test_every_method_of_a_socket_is_in_the_tables() -> None:
    names = public(Socket) | {"__init__", "__iand__", "last_bytes_sent"}
    assert names == METHODS.keys() | TAKES_NOTHING
    assert names == STATES.keys() | WORKS_IN_EVERY_STATE
    assert not METHODS.keys() & TAKES_NOTHING
    assert not STATES.keys() & WORKS_IN_EVERY_STATE


def test_every_parameter_of_a_method_is_in_the_table() -> None:
    for name, call in METHODS.items():
        taken = parameters(getattr(Socket, name))
        assert taken - call.bad.keys() <= TRUTH_VALUES, name
        assert call.bad.keys() <= taken, name


def test_functions_without_arguments_have_no_parameter() -> None:
    for name in TAKES_NOTHING - {"last_bytes_sent"}:
        found = getattr(Socket, name)
        assert isinstance(found, property) or not parameters(found), name


def test_every_function_and_parameter_of_net_is_in_the_tables() -> None:
    functions = {name for name in wireline.net.__all__ if inspect.isfunction(getattr(wireline.net, name))}
    # Without parameters; in tests/bridges; in tests/scenarios/test_relay.py.
    elsewhere = {"listeners_from_environment", "as_socket", "relay"}
    assert functions - elsewhere == FUNCTIONS.keys()
    for name, call in FUNCTIONS.items():
        assert parameters(getattr(wireline.net, name)) - call.bad.keys() <= TRUTH_VALUES
    methods = {name for name in public(Server) if inspect.isfunction(getattr(Server, name))}
    assert methods == SERVER.keys()
    assert all(parameters(getattr(Server, name)) == call.bad.keys() for name, call in SERVER.items())


def test_every_top_level_function_is_in_the_table() -> None:
    functions = {name for name in wireline.__all__ if inspect.isfunction(getattr(wireline, name))}
    assert functions - {"is_ip_address"} == TOP_LEVEL.keys()
    for name, call in TOP_LEVEL.items():
        assert parameters(getattr(wireline, name)) - {"listening"} == call.bad.keys()
