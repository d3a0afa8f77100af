"""How a typed program uses `wireline`. Type checkers read this file; nothing runs it."""

from __future__ import annotations

import ipaddress
import ssl
from typing import assert_type

import wireline
from wireline import (
    Address,
    Backoff,
    BusyError,
    ClosedError,
    Deadline,
    DialError,
    EndOfStreamError,
    FrameError,
    FrameTooLongError,
    IpAddress,
    IpAddressFamily,
    LineTooLongError,
    ReadLineResult,
    SocketFlag,
    SocketTimeout,
    SockOpt,
    Target,
    Timeout,
    WirelineError,
)
from wireline.tls import SslContext, TlsInfo


def addresses(text: str) -> IpAddress:
    ip = wireline.parse_ip_address(text)
    assert_type(wireline.ip_family(ip), IpAddressFamily)
    assert_type(wireline.is_ip_address(text), bool)
    assert_type(wireline.format_ip(ip), str)
    assert_type(wireline.parse_hostname(text), str)
    assert_type(wireline.parse_hostname(ip), str)
    assert_type(wireline.get_primary_ip_addr(), IpAddress)
    assert_type(wireline.get_primary_ip_addr("::1"), IpAddress)
    assert_type(wireline.IPV4_ANY, ipaddress.IPv4Address)
    assert_type(wireline.IPV6_LOOPBACK, ipaddress.IPv6Address)
    back, port = wireline.from_sockaddr(wireline.to_sockaddr(ip, 80))
    assert_type(back, IpAddress)
    assert_type(port, int)
    host, number = Address("localhost", 80)
    assert_type(host, str)
    assert_type(number, int)
    target = wireline.parse_target("[::1]:80", listening=True)
    assert_type(target, Target)
    assert_type(target.path, str)
    return ip


def options(flags: SocketFlag, result: ReadLineResult) -> bool:
    both = SocketFlag.PEEK | wireline.SAFE_DISCONN
    assert_type(both, SocketFlag)
    assert_type(both.to_os_flags(), int)
    assert_type(SockOpt.NO_DELAY.level, int)
    assert_type(SockOpt.NO_DELAY.to_int(), int)
    limits: int = wireline.BUFFER_SIZE + wireline.MAX_LINE_LENGTH
    kinds: list[int] = [limits, wireline.AF_INET, wireline.AF_INET6, wireline.AF_UNIX]
    kinds += [
        wireline.SOCK_STREAM,
        wireline.SOCK_DGRAM,
        wireline.IPPROTO_TCP,
        wireline.IPPROTO_UDP,
        wireline.SOMAXCONN,
    ]
    match result:
        case ReadLineResult.FULL_LINE | ReadLineResult.PARTIAL_LINE:
            return True
        case ReadLineResult.DISCONNECTED | ReadLineResult.NONE:
            return wireline.is_disconnection_error(flags, 32)


def time_limits(timeout: Timeout = None) -> Deadline:
    deadline = Deadline(timeout)
    assert_type(deadline.remaining(), float)
    assert_type(deadline.expired(), bool)
    delays = Backoff(0.1, limit=10, random=lambda: 0.5)
    for delay in delays:
        assert_type(delay, float)
    assert_type(next(delays), float)
    delays.reset()
    return Deadline(None) if deadline.expired() else Deadline(1.5)


def errors(error: WirelineError) -> OSError | None:
    match error:
        case DialError():
            for _, reason, seconds in error.attempts:
                assert_type(reason, OSError)
                assert_type(seconds, float)
        case EndOfStreamError():
            assert_type(error.partial, bytes)
        case FrameTooLongError() | FrameError():
            assert_type(error.size, int)
            assert_type(error.limit, int)
            value: ValueError = error
            print(value)
        case LineTooLongError():
            assert_type(error.limit, int)
        case SocketTimeout():
            assert_type(error.operation, str)
            assert_type(error.seconds, float)
            assert_type(error.bytes_sent, int | None)
        case BusyError():
            busy: RuntimeError = error
            print(busy)
        case _:
            pass
    built_in: tuple[type[OSError], type[EOFError], type[TimeoutError]] = (
        ClosedError,
        EndOfStreamError,
        SocketTimeout,
    )
    return built_in[0]()


def tls_of_an_operator(keys: bytes) -> SslContext:
    context = SslContext(
        cert_data=keys,
        key_data=keys,
        ca_data=keys,
        min_version=ssl.TLSVersion.TLSv1_2,
        max_version=ssl.TLSVersion.TLSv1_3,
        groups=["X25519"],
        pinned=("sha256/",),
        partial_chain=False,
        ticket_keys=keys,
        psk_decoy=True,
        keylog_file=True,
        password=lambda: "secret",
    )
    context.reload()
    return context


def facts_of_tls(info: TlsInfo) -> None:
    assert_type(info.group, str | None)
    assert_type(info.ocsp_response, bytes | None)
