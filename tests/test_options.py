"""Limits, flags and option names."""

from __future__ import annotations

import errno
import socket

import pytest

import wireline
from tests.cases import in_turn
from wireline import (
    BUFFER_SIZE,
    MAX_LINE_LENGTH,
    SAFE_DISCONN,
    AcceptResult,
    ReadLineResult,
    SocketFlag,
    SockOpt,
    is_disconnection_error,
)

NO_FLAGS = SocketFlag(0)
OS_NAMES = {
    "ACCEPT_CONN": "SO_ACCEPTCONN",
    "BROADCAST": "SO_BROADCAST",
    "DEBUG": "SO_DEBUG",
    "DONT_ROUTE": "SO_DONTROUTE",
    "KEEP_ALIVE": "SO_KEEPALIVE",
    "OOB_INLINE": "SO_OOBINLINE",
    "REUSE_ADDR": "SO_REUSEADDR",
    "REUSE_PORT": "SO_REUSEPORT",
    "NO_DELAY": "TCP_NODELAY",
}


def test_limits_are_the_documented_numbers_of_bytes() -> None:
    assert BUFFER_SIZE == 65536
    assert MAX_LINE_LENGTH == 1_000_000


@in_turn(
    "name",
    [
        "AF_INET",
        "AF_INET6",
        "AF_UNIX",
        "SOCK_STREAM",
        "SOCK_DGRAM",
        "IPPROTO_TCP",
        "IPPROTO_UDP",
        "SOMAXCONN",
    ],
)
def test_the_constants_of_the_socket_module_are_its_own(name: str) -> None:
    assert getattr(wireline, name) is getattr(socket, name)


def test_every_option_has_its_number_and_its_level() -> None:
    assert {option.name for option in SockOpt} == set(OS_NAMES)
    for option in SockOpt:
        assert option.to_int() == getattr(socket, OS_NAMES[option.name])
        assert option.level == (socket.IPPROTO_TCP if option is SockOpt.NO_DELAY else socket.SOL_SOCKET)


def test_S9_no_delay_is_tcp_nodelay_and_not_so_debug() -> None:
    with socket.socket() as sock:
        sock.setsockopt(SockOpt.NO_DELAY.level, SockOpt.NO_DELAY.to_int(), 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_DEBUG)


@in_turn("option", [option for option in SockOpt if option.name not in ("ACCEPT_CONN", "DEBUG")])
def test_the_operating_system_accepts_every_option(option: SockOpt) -> None:
    with socket.socket() as sock:
        for value in (1, 0):
            sock.setsockopt(option.level, option.to_int(), value)
            assert bool(sock.getsockopt(option.level, option.to_int())) is bool(value)


def test_an_option_that_the_platform_lacks_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(OSError, match="this platform has no SO_REUSEPORT") as caught:
        SockOpt.REUSE_PORT.to_int()
    assert caught.value.errno == errno.ENOPROTOOPT


@in_turn(
    "flags, number",
    [
        (NO_FLAGS, 0),
        (SocketFlag.SAFE_DISCONN, 0),
        (SocketFlag.PEEK, socket.MSG_PEEK),
        (SocketFlag.PEEK | SocketFlag.SAFE_DISCONN, socket.MSG_PEEK),
    ],
)
def test_safe_disconn_has_no_flag_of_the_operating_system(flags: SocketFlag, number: int) -> None:
    assert flags.to_os_flags() == number


def test_the_enums_have_the_documented_members() -> None:
    assert SAFE_DISCONN is SocketFlag.SAFE_DISCONN
    assert {flag.name for flag in SocketFlag} == {"PEEK", "SAFE_DISCONN"}
    assert {result.name for result in ReadLineResult} == {"FULL_LINE", "PARTIAL_LINE", "DISCONNECTED", "NONE"}
    assert {result.name for result in AcceptResult} == {"NO_CLIENT", "NO_HANDSHAKE", "SUCCESS"}


GONE = ["ECONNRESET", "EPIPE", "ENETRESET", "ECONNABORTED", "ESHUTDOWN"]
NOT_GONE = [
    "EAGAIN",
    "EINTR",
    "ETIMEDOUT",
    "ECONNREFUSED",
    "EHOSTUNREACH",
    "EHOSTDOWN",
    "EBADF",
    "ENOTCONN",
    "EMFILE",
]


@in_turn("flags", [SAFE_DISCONN, SAFE_DISCONN | SocketFlag.PEEK])
@in_turn("name", GONE)
def test_a_peer_that_has_gone_is_a_disconnection_with_safe_disconn(name: str, flags: SocketFlag) -> None:
    code = getattr(errno, name)
    assert is_disconnection_error(flags, code)
    assert is_disconnection_error(flags, OSError(code, "said by a test"))


@in_turn("flags", [NO_FLAGS, SocketFlag.PEEK])
@in_turn("name", GONE)
def test_without_safe_disconn_nothing_is_a_plain_disconnection(name: str, flags: SocketFlag) -> None:
    assert not is_disconnection_error(flags, getattr(errno, name))
    assert not is_disconnection_error(flags, OSError(getattr(errno, name), "said by a test"))


@in_turn("name", NOT_GONE)
def test_other_errors_are_errors(name: str) -> None:
    assert not is_disconnection_error(SAFE_DISCONN, getattr(errno, name))


def test_an_error_without_a_number_is_an_error() -> None:
    assert not is_disconnection_error(SAFE_DISCONN, OSError("no number"))
    assert not is_disconnection_error(SAFE_DISCONN, 0)


def test_the_exceptions_of_the_socket_module_are_recognized() -> None:
    for kind, code in ((ConnectionResetError, errno.ECONNRESET), (BrokenPipeError, errno.EPIPE)):
        assert is_disconnection_error(SAFE_DISCONN, kind(code, "said by a test"))
