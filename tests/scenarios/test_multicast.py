"""W8: multicast, broadcast, and where a datagram was sent to."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.scenarios.flavours import Sock
from tests.scenarios.scene import Scene, over, raw_option, soon
from wireline import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPV4_LOOPBACK,
    SOCK_DGRAM,
    SocketFlag,
    SocketTimeout,
    SockOpt,
    parse_ip_address,
)
from wireline.net import Datagram

pytestmark = [pytest.mark.anyio, over("udp4", "udp6")]

GROUPS = {AF_INET: ("239.255.7.1", "239.255.7.2"), AF_INET6: ("ff15::7:1", "ff15::7:2")}


def multicast_interface(family: int) -> str:
    """The name of an interface that sends multicast back to this host."""
    if family == AF_INET:
        return "lo"
    for number, name in socket.if_nameindex():
        with socket.socket(AF_INET6, SOCK_DGRAM) as receiver, socket.socket(AF_INET6, SOCK_DGRAM) as sender:
            receiver.bind(("::", 0))
            receiver.settimeout(0.2)
            group = GROUPS[AF_INET6][1]
            membership = socket.inet_pton(AF_INET6, group) + number.to_bytes(4, sys.byteorder)
            try:
                receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 0)
                sender.sendto(b"x", (group, receiver.getsockname()[1]))
                receiver.recv(1)
            except OSError:
                continue
            return name
    pytest.skip("no interface of this machine has a route for IPv6 multicast")


def everywhere(scene: Scene, **options: object) -> Sock:
    """A socket that is bound to every interface."""
    sock = scene.socket(**options)
    sock.bind_addr(0)
    return sock


async def arrives(sock: Sock, data: bytes) -> Datagram | None:
    """The next datagram; None if none arrives."""
    try:
        datagram: Datagram = await sock.recv_from(99, timeout=0.05)
    except SocketTimeout:
        return None
    assert datagram.data == data
    return datagram


async def test_W8_a_datagram_knows_where_it_was_sent_to(scene: Scene) -> None:
    here, there = scene.bound(), everywhere(scene, packet_info=True)
    host, port = scene.transport.host, there.local_addr.port
    for number in range(3):
        await soon(here.send_to(host, port, b"%d" % number))
    peeked = await soon(there.recv_from(9, SocketFlag.PEEK))
    datagrams = [peeked, await soon(there.recv_from(9)), *await soon(there.recv_many_from(1))]
    assert [datagram.data for datagram in datagrams] == [b"0", b"0", b"1"]
    for datagram in datagrams:
        data, address = datagram
        assert datagram == (data, address)
        assert address == here.local_addr
        assert datagram.destination == parse_ip_address(host)
        assert datagram.interface == "lo"
        assert not datagram.truncated
    assert await soon(there.recv(9)) == b"2"
    # It waits for the next, and that is cut.
    await soon(here.send_to(host, port, b"0123456789"))
    cut = await soon(there.recv_from(4))
    assert (cut.data, cut.truncated, cut.destination) == (b"0123", True, parse_ip_address(host))
    await soon(here.send_to(host, port, b"0123456789"))
    into = await soon(there.recv_from_into(bytearray(4)))
    assert (into, into.truncated) == ((4, here.local_addr), True)
    # Without the option none of it is known.
    await soon(there.send_to(*here.local_addr, b"x"))
    datagram = await soon(here.recv_from(9))
    assert datagram.destination is datagram.interface is None


@over("udp6")
async def test_W8_the_destination_of_a_mapped_datagram_is_plain_ipv4(scene: Scene) -> None:
    both = scene.socket(packet_info=True)
    raw_option(both, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    both.bind_addr(0, "::")
    sender = scene.closed_at_the_end(scene.flavour.socket(AF_INET, SOCK_DGRAM))
    await soon(sender.send_to("127.0.0.1", both.local_addr.port, b"ping"))
    datagram = await soon(both.recv_from(10))
    assert (datagram.destination, datagram.interface) == (IPV4_LOOPBACK, "lo")


async def test_W8_a_member_of_a_group_receives_what_is_sent_to_it(scene: Scene) -> None:
    family = scene.transport.family
    name = multicast_interface(family)
    group, other = GROUPS[family]
    receiver, sender = everywhere(scene, packet_info=True), scene.socket()
    port = receiver.local_addr.port
    sender.multicast_interface = name
    sender.multicast_ttl = 0  # for this host only
    for interface in (name, socket.if_nametoindex(name)):
        receiver.join_group(group, interface)
        with pytest.raises(OSError, match="in use"):
            receiver.join_group(parse_ip_address(group), interface)
        await soon(sender.send_to(group, port, b"to all"))
        datagram = await arrives(receiver, b"to all")
        assert datagram is not None
        assert (datagram.destination, datagram.interface) == (parse_ip_address(group), name)
        sender.multicast_loop = False
        assert sender.multicast_loop is False
        if name != "lo":  # it returns everything by itself
            await soon(sender.send_to(group, port, b"to others"))
            assert await arrives(receiver, b"") is None
        sender.multicast_loop = True
        receiver.leave_group(group, interface)
        await soon(sender.send_to(group, port, b"to the rest"))
        assert await arrives(receiver, b"") is None
        with pytest.raises(OSError, match="assign"):
            receiver.leave_group(group, interface)
    with pytest.raises(OSError, match="interface") as caught:
        receiver.join_group(other, "nosuchinterface")
    assert "nosuchinterface" in str(caught.value.__notes__)
    # C3: a replaced descriptor is in the same groups.
    for each in GROUPS[family]:
        receiver.join_group(each, name)
    receiver.leave_group(other, name)
    receiver._replace_fd()
    port = receiver.local_addr.port
    for each in (other, group):
        await soon(sender.send_to(each, port, each.encode()))
    datagram = await arrives(receiver, group.encode())
    assert datagram is not None
    assert datagram.destination == parse_ip_address(group)


async def test_W8_an_interface_has_other_names(scene: Scene) -> None:
    family = scene.transport.family
    name = multicast_interface(family)
    group, _ = GROUPS[family]
    receiver, sender = everywhere(scene), scene.socket()
    assert sender.multicast_interface is None
    for interface in (name, socket.if_nametoindex(name)):
        sender.multicast_interface = interface
        assert sender.multicast_interface == name
    sender.multicast_ttl = 0
    if family == AF_INET6:  # the zone of the group
        receiver.join_group(f"{group}%{name}")
        await soon(sender.send_to(group, receiver.local_addr.port, b"x"))
        assert await arrives(receiver, b"x") is not None
        receiver.leave_group(group, name)
    else:  # an address
        for interface in ("127.0.0.1", IPV4_LOOPBACK):
            receiver.join_group(group, interface)
            sender.multicast_interface = interface
            assert sender.multicast_interface == IPV4_LOOPBACK
            await soon(sender.send_to(group, receiver.local_addr.port, b"x"))
            assert await arrives(receiver, b"x") is not None
            receiver.leave_group(group, interface)
    sender.multicast_interface = None
    assert sender.multicast_interface is None


async def test_W8_multicast_options_have_their_defaults_and_limits(scene: Scene) -> None:
    sock = scene.socket()
    assert (sock.multicast_ttl, sock.multicast_loop, sock.multicast_interface) == (1, True, None)
    for value in (0, 255):
        sock.multicast_ttl = value
        assert sock.multicast_ttl == value
    for wrong, error in ((256, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error):
            sock.multicast_ttl = wrong
    for wrong, error in ((0, ValueError), ("", ValueError), ("::1", ValueError), (b"lo", TypeError)):
        with pytest.raises(error):
            sock.multicast_interface = wrong
    assert (sock.multicast_ttl, sock.multicast_interface) == (255, None)


@over("udp4")
async def test_W8_a_broadcast_needs_the_option(scene: Scene) -> None:
    receiver, sender = everywhere(scene, packet_info=True), scene.socket()
    broadcast = parse_ip_address("127.255.255.255"), receiver.local_addr.port
    with pytest.raises(PermissionError):
        await soon(sender.send_to(*broadcast, b"x"))
    sender.set_sock_opt(SockOpt.BROADCAST, True)
    await soon(sender.send_to(*broadcast, b"x"))
    datagram = await soon(receiver.recv_from(9))
    assert (datagram.data, datagram.destination) == (b"x", broadcast[0])


@over("unixgram")
async def test_W8_other_sockets_have_neither_multicast_nor_packet_info(scene: Scene) -> None:
    for kind in ((AF_INET,), (AF_UNIX, SOCK_DGRAM), (AF_UNIX,)):
        with pytest.raises(ValueError, match="packet_info is for datagram sockets"):
            scene.flavour.socket(*kind, packet_info=True)
    sock = scene.bound()
    for name in ("multicast_ttl", "multicast_loop", "multicast_interface"):
        with pytest.raises(TypeError, match=f"{name} needs an IP socket"):
            getattr(sock, name)
    for call in (sock.join_group, sock.leave_group):
        with pytest.raises(TypeError, match="_group needs an IP socket"):
            call("239.1.2.3")


WITHOUT_A_ROUTE = """
from wireline import SOCK_DGRAM
from wireline.net import Socket
with Socket(sock_type=SOCK_DGRAM) as sock:
    for call in (
        lambda: sock.send_to("192.0.2.1", 9, b"x"),
        lambda: sock.send_many_to([(b"x", "192.0.2.1", 9)] * 3),
        lambda: sock.send_to("239.1.2.3", 9, b"x"),
        lambda: sock.join_group("239.1.2.3"),
        lambda: sock.connect("192.0.2.1", 9),
    ):
        try:
            call()
        except OSError as error:
            print(error.strerror, sock.last_bytes_sent)
    sock.join_group("239.1.2.3", "lo")
    print(sock.try_recv())
"""


def test_W8_without_a_route_the_error_says_so() -> None:
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", WITHOUT_A_ROUTE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1)")
    if "unshare" in done.stderr:
        pytest.skip(f"no network namespace can be made: {done.stderr.strip()}")
    assert done.stderr == ""
    *refused, last = done.stdout.splitlines()
    assert last == "None"
    assert refused[:3] == ["Network is unreachable 0"] * 3
    assert refused[3:] == ["No such device 0", "Network is unreachable 0"]
