"""The command with broadcast addresses and multicast groups: the replies have other addresses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cases import in_turn
from tests.cli.command import PATIENCE
from tests.cli.conftest import Start
from tests.cli.terminal import on_terminal
from tests.scenarios.test_multicast import multicast_interface
from wireline.cli import main

BROADCAST = "127.255.255.255"
GROUP = "239.255.7.3"
GROUP6 = "ff15::7:3"
LINK_GROUP6 = "ff02::7:3"


@contextlib.contextmanager
def member(port: int = 0, group: str = GROUP) -> Iterator[tuple[socket.socket, int]]:
    """A member of a group on the loopback interface, and its port; several may share the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(PATIENCE)
        sock.bind((group, port))
        request = struct.pack("@4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex("lo"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        yield sock, sock.getsockname()[1]


def replying_socket() -> socket.socket:
    """A socket whose address the command has never sent to."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def test_connect_receives_the_replies_to_a_broadcast(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener, replying_socket() as other:
        listener.settimeout(PATIENCE)
        listener.bind(("", 0))
        port = listener.getsockname()[1]
        target = f"udp://{BROADCAST}:{port}"
        command = start("connect", "-v", "--timeout", "0.2", target)
        command.type(b"who is there?")
        data, sender = listener.recvfrom(100)
        assert data == b"who is there?"
        listener.sendto(b"me", sender)
        assert command.read(2) == b"me"
        other.sendto(b"and me", sender)
        assert command.read(6) == b"and me"
        command.type(b"again")
        assert listener.recv(100) == b"again"
        result = command.finish(b"")
        assert (result.code, result.out) == (0, b"")
        assert result.err == (
            f"wireline: sending to {target}\n"
            f"wireline: 2 bytes from udp://127.0.0.1:{port}\n"
            f"wireline: 6 bytes from udp://127.0.0.1:{other.getsockname()[1]}\n"
        )


def test_the_senders_of_replies_on_a_terminal() -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.settimeout(PATIENCE)
        listener.bind(("", 0))
        target = f"udp://{BROADCAST}:{listener.getsockname()[1]}"
        with on_terminal("connect", "-v", "--timeout", "0.2", target, stdin=read) as command:
            os.close(read)
            os.write(write, b"ping")
            listener.sendto(b"pong\n", listener.recvfrom(10)[1])
            command.see("pong")
            os.close(write)
            assert command.end() == 0
            port = listener.getsockname()[1]
            assert command.screen() == [
                f"wireline: sending to {target}",
                f"wireline: 5 bytes from udp://127.0.0.1:{port}",
                "pong",
            ]


def test_a_broadcast_has_the_port_of_source(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener, replying_socket() as free:
        listener.settimeout(PATIENCE)
        listener.bind(("", 0))
        port = free.getsockname()[1]
        free.close()
        command = start("connect", "--source", f":{port}", f"udp://{BROADCAST}:{listener.getsockname()[1]}")
        command.type(b"x")
        assert listener.recvfrom(10)[1][1] == port
        assert command.finish(b"").code == 0


def test_a_broadcast_without_a_reply(start: Start) -> None:
    with replying_socket() as listener:  # it gets no broadcast: its address is another one
        target = f"udp://{BROADCAST}:{listener.getsockname()[1]}"
        result = start("connect", "--expect-reply", "--timeout", "0.2", target).finish(b"anybody?")
        assert result.code == 4
        assert result.err == f"wireline: {target} sent no reply in time; wait longer with --quit-after\n"


def test_connect_receives_the_replies_of_all_members_of_a_group(start: Start) -> None:
    with member() as (one, port), member(port) as (other, _), replying_socket() as reply:
        command = start("connect", "--timeout", "0.2", "--interface", "lo", f"udp://{GROUP}:{port}")
        command.type(b"to all")
        data, sender = one.recvfrom(100)
        assert data == other.recv(100) == b"to all"
        for sock, text in ((one, b"1"), (reply, b"2")):
            sock.sendto(text, sender)
            assert command.read(1) == text
        command.type(b"more")
        assert one.recv(100) == b"more"
        assert command.finish(b"") == (0, b"", "")


def test_a_datagram_to_a_group_stays_in_the_network(start: Start) -> None:
    with member() as (sock, port):
        sock.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL, which `socket` does not name
        command = start("connect", "--timeout", "0.2", "--interface", "lo", f"udp://{GROUP}:{port}")
        command.type(b"x")
        _, ((_, _, ttl),), _, _ = sock.recvmsg(10, 64)
        assert int.from_bytes(ttl, sys.byteorder) == 1
        assert command.finish(b"").code == 0


def test_listen_joins_a_group_and_answers_its_first_sender(start: Start) -> None:
    command = start("listen", "--timeout", "0.5", "--interface", "lo", f"udp://{GROUP}:0")
    target = command.listening_on()
    assert target.startswith(f"udp://{GROUP}:")
    port = int(target.rpartition(":")[2])
    with replying_socket() as sender, replying_socket() as elsewhere:
        for sock in (sender, elsewhere):
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        elsewhere.sendto(b"not to the group", ("127.0.0.1", port))
        sender.sendto(b"hello", (GROUP, port))
        assert command.read(5) == b"hello"
        command.type(b"answer")
        assert sender.recv(100) == b"answer"
        assert command.finish(b"") == (0, b"", "")


def test_several_listeners_of_a_group_share_a_port(start: Start) -> None:
    one = start("listen", "--keep", "--interface", "lo", f"udp://{GROUP}:0", stdin=subprocess.DEVNULL)
    target = one.listening_on()
    other = start("listen", "--keep", "--interface", "lo", target, stdin=subprocess.DEVNULL)
    assert other.listening_on() == target
    assert start("connect", "--interface", "lo", "--timeout", "0.1", target).finish(b"to both").code == 0
    for command in (one, other):
        assert command.read(7) == b"to both"
        command.send_signal(signal.SIGINT)
        assert command.end() == (0, b"", "")


@pytest.mark.parametrize("group", [GROUP6, LINK_GROUP6])
@pytest.mark.parametrize("spelling", ["zone", "option", "number"])
def test_ipv6_groups_have_an_interface(start: Start, group: str, spelling: str) -> None:
    name = multicast_interface(socket.AF_INET6)
    zone = {"zone": f"%{name}", "option": "", "number": f"%{socket.if_nametoindex(name)}"}[spelling]
    words = ["--interface", name] if spelling == "option" else []
    listener = start("listen", "--echo", *words, f"udp://[{group}{zone}]:0")
    printed = listener.listening_on()
    # Only the address of a link is incomplete without its interface.
    shown_zone = (zone or f"%{name}") if group == LINK_GROUP6 else ""
    assert printed.startswith(f"udp://[{group}{shown_zone}]:")
    target = f"udp://[{group}{zone}]:{printed.rpartition(':')[2]}"
    command = start("connect", *words, "--timeout", "0.2", target)
    command.type(b"hello")
    assert command.read(5) == b"hello"
    assert command.finish(b"") == (0, b"", "")


@in_turn(
    "words, sentence",
    [
        (["connect", "--interface", "lo", "127.0.0.1:9"], "for multicast groups, and 127.0.0.1:9 is none"),
        (["listen", "--interface", "lo", "udp://:9"], "for multicast groups, and udp://:9 is none"),
        (["connect", "udp://[ff02::1]:9"], "ff02::1 is a group of one link: name its interface"),
        (["listen", "udp://[ff01::1]:9"], "ff01::1 is a group of one link: name its interface"),
        (["connect", "--interface", "lo", "udp://[ff02::1%lo]:9"], "leave out --interface"),
        (["connect", "-6", f"udp://{GROUP}:9"], "is an address of the other kind"),
    ],
)
def test_wrong_usage(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("target", ["udp://239.1.2.3:9", "udp://[ff02::1%nosuch]:9"])
def test_an_interface_that_does_not_exist_is_named(start: Start, target: str) -> None:
    words = [] if "%" in target else ["--interface", "nosuch"]
    for command, verb, code in (("connect", "connect to", 3), ("listen", "listen on", 1)):
        result = start(command, *words, target).finish(b"x")
        sentence = f"wireline: cannot {verb} {target}: this machine has no network interface 'nosuch'\n"
        assert result == (code, b"", sentence)


def test_a_source_of_the_other_kind_is_3(start: Start) -> None:
    result = start("connect", "--source", "[::1]", "--interface", "lo", f"udp://{GROUP}:9").finish(b"x")
    assert result.code == 3
    assert "--source needs an address of this machine, and of the same kind as the target's" in result.err


@in_turn(
    "words, sentence",
    [
        (["connect", "udp://239.1.2.3:9"], "cannot connect to udp://239.1.2.3:9: Network is unreachable;"),
        (["connect", "udp://255.255.255.255:9"], "cannot connect to udp://255.255.255.255:9: Network is "),
        (["listen", "udp://239.1.2.3:9"], "No such device; name the interface of the multicast group with"),
    ],
)
def test_without_a_route_the_error_says_so(words: list[str], sentence: str) -> None:
    prefix = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", "wireline"]
    try:
        done = subprocess.run(
            [*prefix, *words], input="x", capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare(1)")
    if "unshare" in done.stderr:
        pytest.skip(f"no network namespace can be made: {done.stderr.strip()}")
    assert sentence in done.stderr
    assert done.returncode == (3 if words[0] == "connect" else 1)
