"""IP addresses, sockaddr tuples, and the checks of ports, hosts and Unix paths."""

from __future__ import annotations

import copy
import ipaddress
import os
import pathlib
import pickle
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wireline
from tests.cases import in_turn
from wireline import (
    IPV4_ANY,
    IPV4_BROADCAST,
    IPV4_LOOPBACK,
    IPV6_ANY,
    IPV6_LOOPBACK,
    Address,
    IpAddress,
    IpAddressFamily,
    address,
    format_ip,
    from_sockaddr,
    get_primary_ip_addr,
    ip_family,
    is_ip_address,
    parse_ip_address,
    to_sockaddr,
)
from wireline.address import check_host, check_port, parse_zoned_ip, to_display_address, unix_path

ports = st.integers(0, 65535)
mapped = st.ip_addresses(v=4).map(lambda ip: ipaddress.IPv6Address(f"::ffff:{ip}"))
plain_ips = st.ip_addresses() | mapped
scope_ids = st.integers(1, 2**32 - 1)
NOT_STR = [None, 1, 1.5, b"127.0.0.1", bytearray(b"::1"), ["127.0.0.1"], IPV4_LOOPBACK, object()]


# -------------------------------------------------------------------------------------------- text to address


@in_turn(
    "text, expected",
    [
        ("0.0.0.0", IPV4_ANY),
        ("127.0.0.1", IPV4_LOOPBACK),
        ("255.255.255.255", IPV4_BROADCAST),
        ("::", IPV6_ANY),
        ("::1", IPV6_LOOPBACK),
        ("0:0:0:0:0:0:0:1", IPV6_LOOPBACK),
        ("2001:DB8::A", ipaddress.IPv6Address("2001:db8::a")),
        ("::ffff:1.2.3.4", ipaddress.IPv6Address("::ffff:102:304")),
        ("0000:0000:0000:0000:0000:ffff:255.255.255.255", ipaddress.IPv6Address("::ffff:ffff:ffff")),
    ],
)
def test_A1_accepts_the_same_as_ipaddress(text: str, expected: IpAddress) -> None:
    assert parse_ip_address(text) == expected
    assert is_ip_address(text)


BAD_ADDRESSES = [
    "",
    " ",
    "localhost",
    "1",
    "127.1",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.",
    ".1.2.3",
    "1..2.3",
    "1.2.3.256",
    "1.2.3.1000",
    "1.2.3.-4",
    "1.2.3.+4",
    "0x7f.0.0.1",
    "01.2.3.4",
    "1.2.3.04",
    "1.2.3.00",
    " 1.2.3.4",
    "1.2.3.4 ",
    "1.2.3.4\n",
    "\t1.2.3.4",
    "1.2.3.4/8",
    "1.2.3.4:80",
    "1.2.3.\N{ARABIC-INDIC DIGIT FOUR}",
    "1.2.3.4\0",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::9",
    "00001::",
    "12345::",
    "g::",
    ":1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:",
    " ::1",
    "::1 ",
    "::1\n",
    "::1/128",
    "[::1]",
    "::1.2.3",
    "::1.2.3.04",
    "1.2.3.4::",
    "::\N{FULLWIDTH DIGIT ONE}",
]
ZONED = ["fe80::1%eth0", "fe80::1%1", "::ffff:1.2.3.4%2"]


def test_A1_refuses_everything_else_and_says_what_it_saw() -> None:
    for text in [*BAD_ADDRESSES, *ZONED, "fe80::1%", "%eth0", "1.2.3.4%1", "fe80::1%a%b"]:
        assert not is_ip_address(text), text
        with pytest.raises(ValueError, match=r"is (not|more than) an IP address") as caught:
            parse_ip_address(text)
        assert repr(text) in str(caught.value)


def test_A1_a_refusal_names_its_reason() -> None:
    for text, reason in [
        ("01.2.3.4", "Leading zeros"),
        ("12345::", "At most 4 characters"),
        ("1.2.3", "Expected 4 octets"),
        ("fe80::1%eth0", "zone id"),
    ]:
        with pytest.raises(ValueError, match=reason):
            parse_ip_address(text)


@in_turn("text", ["1" * 10_000_000, ":" * 10_000_000, "fe80::1%" + "x" * 10_000_000])
def test_A1_an_endless_text_costs_nothing_and_is_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=f"{len(text)} characters") as caught:
        parse_ip_address(text)
    assert len(str(caught.value)) < 200
    assert not is_ip_address(text)


@in_turn("value", NOT_STR)
def test_A1_only_text_is_parsed(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        parse_ip_address(value)  # type: ignore[arg-type]
    assert not is_ip_address(value)


@given(st.text() | st.text("0123456789abcdef:.%/ ") | st.binary() | st.integers() | st.none() | st.floats())
def test_is_ip_address_never_raises_and_agrees_with_parse(value: str | bytes | float | None) -> None:
    answer = is_ip_address(value)
    try:
        parse_ip_address(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        assert answer is False
    else:
        assert answer is True


@given(plain_ips)
def test_A1_parse_inverts_every_spelling(ip: IpAddress) -> None:
    for text in (str(ip), format_ip(ip), ip.exploded, str(ip).upper()):
        assert parse_ip_address(text) == ip


@in_turn("text", ZONED)
def test_a_zone_id_is_kept_where_the_operating_system_takes_one(text: str) -> None:
    ip = parse_zoned_ip(text)
    assert isinstance(ip, ipaddress.IPv6Address)
    assert ip.scope_id == text.partition("%")[2]
    assert format_ip(ip) == str(ip) == text


# -------------------------------------------------------------------------------------------- address to text


@in_turn(
    "spelling, canonical",
    [
        # RFC 5952: sections 4.1, 4.2.1, 4.2.2, 4.2.3 and 4.3, and the mixed notation of section 5.
        ("2001:0db8::0001", "2001:db8::1"),
        ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:DB8::AbCd", "2001:db8::abcd"),
        ("::ffff:c000:280", "::ffff:192.0.2.128"),
        ("0:0:0:0:0:FFFF:192.0.2.128", "::ffff:192.0.2.128"),
        ("::ffff:0:0", "::ffff:0.0.0.0"),
        ("::fffe:c000:280", "::fffe:c000:280"),
        ("::1.2.3.4", "::102:304"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("192.0.2.128", "192.0.2.128"),
    ],
)
def test_A2_text_is_rfc_5952_on_every_python_version(spelling: str, canonical: str) -> None:
    ip = parse_ip_address(spelling)
    assert str(ip) == f"{ip}" == format_ip(ip) == canonical
    assert format_ip(ipaddress.ip_address(spelling)) == canonical


@given(mapped)
def test_A2_the_mapped_addresses_that_the_library_makes_are_ordinary_ones(ip: ipaddress.IPv6Address) -> None:
    ours = parse_ip_address(format_ip(ip))
    assert ours == ip
    assert hash(ours) == hash(ip)
    assert isinstance(ours, IpAddress)
    assert ours in {ip}
    assert ours in ipaddress.ip_network("::ffff:0:0/96")
    assert repr(ours) == f"IPv6Address('{format_ip(ip)}')"
    for twin in (copy.copy(ours), pickle.loads(pickle.dumps(ours))):
        assert twin == ip
        assert str(twin) == format_ip(ip)
    assert str(ours - int(ours) + 1) == "::1"


@given(st.ip_addresses(v=4), st.ip_addresses(v=6))
def test_addresses_of_different_families_are_never_equal(
    v4: ipaddress.IPv4Address, v6: ipaddress.IPv6Address
) -> None:
    assert v4 != v6
    assert v4 != parse_ip_address(f"::ffff:{v4}")
    assert parse_ip_address(f"::{v4}") != v4
    assert ip_family(v4) is IpAddressFamily.IPV4
    assert ip_family(v6) is IpAddressFamily.IPV6


@in_turn("value", ["127.0.0.1", 4, None, ipaddress.ip_network("10.0.0.0/8")])
def test_only_addresses_have_a_family_and_a_sockaddr(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        ip_family(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=type(value).__name__):
        to_sockaddr(value, 80)  # type: ignore[arg-type]


def test_constants() -> None:
    assert [str(ip) for ip in (IPV4_ANY, IPV4_LOOPBACK, IPV4_BROADCAST)] == [
        "0.0.0.0",
        "127.0.0.1",
        "255.255.255.255",
    ]
    assert [str(ip) for ip in (IPV6_ANY, IPV6_LOOPBACK)] == ["::", "::1"]
    assert wireline.IpAddress == ipaddress.IPv4Address | ipaddress.IPv6Address


# --------------------------------------------------------------------------------------------------- sockaddr


@given(plain_ips, ports)
def test_sockaddr_round_trip(ip: IpAddress, port: int) -> None:
    sockaddr = to_sockaddr(ip, port)
    assert len(sockaddr) == (2 if ip.version == 4 else 4)
    assert from_sockaddr(sockaddr) == (ip, port)


@given(st.ip_addresses(v=6) | mapped, ports, scope_ids)
def test_sockaddr_round_trip_keeps_the_scope_id(ip: ipaddress.IPv6Address, port: int, scope: int) -> None:
    zoned = ipaddress.IPv6Address(f"{ip}%{scope}")
    sockaddr = to_sockaddr(zoned, port)
    assert sockaddr == (format_ip(ip), port, 0, scope)
    back, back_port = from_sockaddr(sockaddr)
    assert (back, back_port) == (zoned, port)
    assert str(back) == f"{format_ip(ip)}%{scope}"


def test_sockaddr_takes_an_interface_by_its_name() -> None:
    index, name = socket.if_nameindex()[0]
    assert to_sockaddr(ipaddress.IPv6Address(f"fe80::1%{name}"), 80) == ("fe80::1", 80, 0, index)


def test_sockaddr_of_an_unknown_interface_is_the_operating_systems_error() -> None:
    with pytest.raises(OSError) as caught:
        to_sockaddr(ipaddress.IPv6Address("fe80::1%no-such-if"), 80)
    assert caught.value.__notes__ == ["looking for the interface 'no-such-if'"]


@in_turn("scope", ["4294967296", "9" * 5000])
def test_sockaddr_refuses_a_scope_id_that_does_not_fit(scope: str) -> None:
    with pytest.raises(ValueError, match="scope id is at most 4294967295, got"):
        to_sockaddr(ipaddress.IPv6Address(f"fe80::1%{scope}"), 80)


@in_turn(
    "sockaddr, expected",
    [
        (("::1", 80), (IPV6_LOOPBACK, 80)),
        (["127.0.0.1", 80], (IPV4_LOOPBACK, 80)),
        (Address("127.0.0.1", 80), (IPV4_LOOPBACK, 80)),
        (("fe80::1%7", 80, 0, 0), (ipaddress.IPv6Address("fe80::1%7"), 80)),
        (("fe80::1%eth0", 80, 0, 7), (ipaddress.IPv6Address("fe80::1%7"), 80)),
        (("::1", 80, 123, 0), (IPV6_LOOPBACK, 80)),
    ],
)
def test_from_sockaddr_takes_every_form_of_the_socket_module(
    sockaddr: tuple[str, int], expected: tuple[IpAddress, int]
) -> None:
    assert from_sockaddr(sockaddr) == expected


NO_SOCKADDRS: list[object] = [
    None,
    "",
    "/run/x",
    b"\0abstract",
    80,
    (),
    ("127.0.0.1",),
    ("127.0.0.1", "80"),
    (b"127.0.0.1", 80),
    ("127.0.0.1", 80, 0),
    ("127.0.0.1", 80, 0, 0),
    ("::1", 80, 0),
    ("::1", 80, 0, -1),
    ("::1", 80, 0, 2**32),
    ("::1", 80, 0, 0, 0),
    ("localhost", 80),
    ("", 80),
    ("127.0.0.1", -1),
    ("127.0.0.1", 65536),
    (4242, 0),
    ("eth0", 0x0800, 0, 1, b"\0" * 6),
]


def test_from_sockaddr_of_an_unknown_family_or_shape_is_a_value_error() -> None:
    for sockaddr in NO_SOCKADDRS:
        with pytest.raises(ValueError):
            pytest.fail(f"{sockaddr!r}: {from_sockaddr(sockaddr)}")  # type: ignore[arg-type]


@in_turn("family, ip", [(socket.AF_INET, IPV4_LOOPBACK), (socket.AF_INET6, IPV6_LOOPBACK)])
def test_the_socket_module_takes_and_gives_our_sockaddr(family: int, ip: IpAddress) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(to_sockaddr(ip, 0))
        assert from_sockaddr(sock.getsockname()) == (ip, sock.getsockname()[1])


# -------------------------------------------------------------------------------------------- primary address


class FakeSocket:
    """A fake of `socket.socket`: it has the kernel's answer, and records a close."""

    made: FakeSocket
    name: tuple[object, ...] | OSError = ("192.0.2.7", 4242)

    def __init__(self, family: int, sock_type: int) -> None:
        FakeSocket.made = self
        self.family, self.sock_type, self.closed = family, sock_type, False

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def connect(self, sockaddr: tuple[object, ...]) -> None:
        self.dest = sockaddr
        if isinstance(self.name, OSError):
            raise self.name

    def getsockname(self) -> tuple[object, ...] | OSError:
        return self.name


@in_turn(
    "dest, loopback",
    [("127.0.0.1", IPV4_LOOPBACK), (IPV4_LOOPBACK, IPV4_LOOPBACK), ("::1", IPV6_LOOPBACK)],
)
def test_primary_address_towards_loopback_is_loopback(dest: str | IpAddress, loopback: IpAddress) -> None:
    assert get_primary_ip_addr(dest) == loopback


def test_primary_address_is_asked_of_a_datagram_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", FakeSocket)
    assert get_primary_ip_addr() == ipaddress.IPv4Address("192.0.2.7")
    made = FakeSocket.made
    assert (made.family, made.sock_type) == (socket.AF_INET, socket.SOCK_DGRAM)
    assert made.dest[0] == "8.8.8.8"
    assert made.closed


def test_primary_address_keeps_the_scope_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", FakeSocket)
    monkeypatch.setattr(FakeSocket, "name", ("fe80::7", 4242, 0, 3))
    assert get_primary_ip_addr("fe80::1%3") == ipaddress.IPv6Address("fe80::7%3")
    assert FakeSocket.made.family == socket.AF_INET6
    assert FakeSocket.made.dest == ("fe80::1", FakeSocket.made.dest[1], 0, 3)


def test_primary_address_without_a_route_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", FakeSocket)
    monkeypatch.setattr(FakeSocket, "name", OSError(101, "Network is unreachable"))
    with pytest.raises(OSError, match="unreachable") as caught:
        get_primary_ip_addr("2001:db8::1")
    assert caught.value.__notes__ == ["looking for the route to 2001:db8::1"]
    assert FakeSocket.made.closed


def test_primary_address_takes_no_name() -> None:
    with pytest.raises(ValueError, match="localhost"):
        get_primary_ip_addr("localhost")
    with pytest.raises(TypeError, match="int"):
        get_primary_ip_addr(8)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------- display and checks


@in_turn(
    "sockaddr, shown",
    [
        (("192.0.2.1", 80), ("192.0.2.1", 80)),
        (("2001:db8::1", 80, 0, 0), ("2001:db8::1", 80)),
        (("fe80::1", 80, 0, 2), ("fe80::1%2", 80)),
        (("::ffff:192.0.2.1", 80, 0, 0), ("192.0.2.1", 80)),
        (("::ffff:192.0.2.1", 80, 0, 2), ("192.0.2.1", 80)),
        (("::ffff:1:2", 80, 0, 0), ("::ffff:1:2", 80)),
        (("::192.0.2.1", 80, 0, 0), ("::192.0.2.1", 80)),
        ("/run/echo", ("/run/echo", 0)),
        (b"\0echo", ("\0echo", 0)),
        (b"\0\xff", ("\0\udcff", 0)),
        ("", ("", 0)),
        (b"", ("", 0)),
        (None, ("", 0)),
    ],
)
def test_S2_W8_peers_are_shown_as_they_are(
    sockaddr: tuple[str, int] | str | bytes | None, shown: tuple[str, int]
) -> None:
    result = to_display_address(sockaddr)
    assert type(result) is Address
    assert result == shown


def test_W8_a_mapped_sender_is_shown_as_plain_ipv4() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        receiver.settimeout(1)
        receiver.bind(("::", 0))
        sender.bind(("127.0.0.1", 0))
        sender.sendto(b"", ("127.0.0.1", receiver.getsockname()[1]))
        assert to_display_address(receiver.recvfrom(1)[1]) == sender.getsockname()


@given(plain_ips, ports)
def test_the_displayed_address_is_the_same_address(ip: IpAddress, port: int) -> None:
    shown = to_display_address(to_sockaddr(ip, port))
    same = ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip
    assert (parse_ip_address(shown.host), shown.port) == (same, port)


class Eighty:
    def __index__(self) -> int:
        return 80


@in_turn("port, number", [(0, 0), (80, 80), (65535, 65535), (Eighty(), 80)])
def test_check_port_takes_integers(port: int, number: int) -> None:
    assert check_port(port) == number
    assert type(check_port(port)) is int


@in_turn("port", [-1, 65536, 2**64])
def test_check_port_out_of_range_says_what_is_allowed(port: int) -> None:
    with pytest.raises(ValueError, match=f"0 to 65535, got {port}"):
        check_port(port)


@in_turn("port", [True, False, None, "80", b"80", 80.0, "http"])
def test_check_port_takes_nothing_else(port: object) -> None:
    with pytest.raises(TypeError, match=f"a port is an int, not {type(port).__name__}"):
        check_port(port)  # type: ignore[arg-type]


@in_turn(
    "host, text",
    [
        ("", ""),
        ("localhost", "localhost"),
        (" localhost ", " localhost "),
        ("fe80::1%eth0", "fe80::1%eth0"),
        (IPV4_LOOPBACK, "127.0.0.1"),
        (ipaddress.IPv6Address("fe80::1%2"), "fe80::1%2"),
        (ipaddress.IPv6Address("::ffff:1.2.3.4"), "::ffff:1.2.3.4"),
    ],
)
def test_check_host_takes_names_and_addresses(host: str | IpAddress, text: str) -> None:
    assert check_host(host) == text


@in_turn("host", [None, 1, b"localhost", ("localhost", 80)])
def test_check_host_takes_nothing_else(host: object) -> None:
    with pytest.raises(TypeError, match=f"not {type(host).__name__}"):
        check_host(host)  # type: ignore[arg-type]


def test_check_host_refuses_a_nul() -> None:
    with pytest.raises(ValueError, match="contain a NUL"):
        check_host("good.example\0.evil.example")


# ------------------------------------------------------------------------------------------------- Unix paths


@in_turn("path", ["/run/x", b"/run/x", "relative", "/run/\N{SNOWMAN}", b"/run/\xff", "@literal"])
def test_unix_path_takes_paths_as_they_are(path: str | bytes) -> None:
    assert unix_path(path) == path


def test_unix_path_takes_path_objects() -> None:
    assert unix_path(pathlib.Path("some", "where")) == os.path.join("some", "where")


@in_turn("path", [None, 1, bytearray(b"/run/x"), ("/run/x",)])
def test_unix_path_takes_nothing_else(path: object) -> None:
    with pytest.raises(TypeError, match=type(path).__name__):
        unix_path(path)  # type: ignore[arg-type]


@in_turn("path", ["", b"", "/run/\0x", b"/run/x\0", "/\0"])
def test_unix_path_empty_or_with_a_nul_is_a_value_error(path: str | bytes) -> None:
    with pytest.raises(ValueError, match="Unix socket's path"):
        unix_path(path)


@in_turn("path", ["\0", b"\0"])
def test_unix_path_an_abstract_name_is_more_than_a_nul(
    path: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "_HAS_ABSTRACT_NAMES", True)
    with pytest.raises(ValueError, match="Unix socket's path"):
        unix_path(path)


@in_turn("path", ["\0a\0b", "\0\0", b"\0a\0"])
def test_unix_path_a_nul_inside_an_abstract_name_is_a_byte_of_it(
    path: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA17: unix(7): null bytes in the name have no special significance."""
    monkeypatch.setattr(address, "_HAS_ABSTRACT_NAMES", True)
    assert unix_path(path) == path


def test_unix_path_abstract_names_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_HAS_ABSTRACT_NAMES", False)
    with pytest.raises(ValueError, match="on Linux only"):
        unix_path("\0name")


@pytest.mark.skipif(sys.platform != "linux", reason="the sizes are Linux's")
@in_turn(
    "path, allowed",
    [
        ("x" * 107, 107),
        ("/" + "\N{SNOWMAN}" * 35 + "x", 107),
        (b"\xff" * 107, 107),
        ("\0" + "x" * 107, 108),
        (b"\0" + b"x" * 107, 108),
    ],
)
def test_S8_unix_path_is_measured_in_bytes(
    path: str | bytes, allowed: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unix_path(path) == path
    longer = path + "x" if isinstance(path, str) else path + b"x"
    with pytest.raises(ValueError, match=f"at most {allowed} bytes, got {allowed + 1}"):
        unix_path(longer)
    monkeypatch.chdir(tmp_path)
    if not os.fsencode(path).startswith(b"/"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)  # the kernel agrees with the limit
            with pytest.raises(OSError, match="too long"):
                sock.connect(longer)
