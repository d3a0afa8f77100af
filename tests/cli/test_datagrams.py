"""The command with ``udp://`` targets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.command import udp_socket
from tests.cli.conftest import Start

HOSTS = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


@HOSTS
def test_connect_sends_a_datagram_and_prints_the_reply(start: Start, host: str) -> None:
    with udp_socket(host) as (peer, target):
        command = start("connect", target)
        command.type(b"one\ntwo\n")
        data, sender = peer.recvfrom(100)
        assert data == b"one\ntwo\n"  # a chunk is a datagram
        for reply in (b"a", b"", b"b"):
            peer.sendto(reply, sender)
        assert command.read(2) == b"ab"
        command.type(b"three")
        assert peer.recv(100) == b"three"
        assert command.finish(b"") == (0, b"", "")


def test_connect_waits_for_a_reply_after_the_end_of_input(start: Start) -> None:
    with udp_socket() as (peer, target):
        command = start("connect", target)
        command.type(b"ask")
        _, sender = peer.recvfrom(100)
        assert command.process.stdin is not None
        command.process.stdin.close()
        peer.sendto(b"answer", sender)
        assert command.end() == (0, b"answer", "")


def test_connect_waits_for_replies_no_longer_than_the_timeout(start: Start) -> None:
    """Datagrams have no half-close to wait for."""
    with udp_socket() as (peer, target):
        command = start("connect", "--timeout", "0.1", target)
        command.type(b"ask")
        assert peer.recv(100) == b"ask"
        begin = time.monotonic()
        assert command.finish(b"") == (0, b"", "")
        assert time.monotonic() - begin < 1.5


def test_connect_cuts_a_file_into_the_largest_datagrams(start: Start, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    with udp_socket() as (peer, target), path.open("rb") as file:
        command = start("connect", target, stdin=file)
        pieces = [peer.recv(1 << 17), peer.recv(1 << 17)]
        assert [len(piece) for piece in pieces] == [65507, 100_000 - 65507]
        assert b"".join(pieces) == data
        assert command.finish().code == 0


def test_connect_to_a_port_without_a_listener_is_3(start: Start) -> None:
    with udp_socket() as (_, target):
        pass
    result = start("connect", target).finish(b"anybody?")
    assert result.code == 3
    assert result.err.startswith(f"wireline: {target} refused the connection: nothing listens there")


@HOSTS
def test_listen_exchanges_data_with_the_first_sender_only(start: Start, host: str) -> None:
    spelled = f"[{host}]" if ":" in host else host
    command = start("listen", f"udp://{spelled}:0")
    port = command.port()
    with udp_socket(host) as (first, _), udp_socket(host) as (stranger, _):
        first.sendto(b"hello", (host, port))
        assert command.read(5) == b"hello"
        stranger.sendto(b"me too", (host, port))
        first.sendto(b"again", (host, port))
        assert command.read(5) == b"again"
        command.type(b"answer")
        assert first.recv(100) == b"answer"
        assert command.finish(b"") == (0, b"", "")


def test_listen_on_every_interface_answers_ipv4_too(start: Start) -> None:
    command = start("listen", "--echo", "udp://:0")
    port = command.port()
    for host in ("127.0.0.1", "::1"):
        with udp_socket(host) as (peer, _):
            peer.sendto(b"hello", (host, port))
            assert peer.recv(100) == b"hello"


def test_listen_without_a_datagram_in_time_is_4(start: Start) -> None:
    command = start("listen", "--timeout", "0.1", "udp://127.0.0.1:0")
    command.port()
    assert command.finish(b"").code == 4


def test_listen_keep_prints_the_datagrams_of_all_senders(start: Start) -> None:
    command = start("listen", "--keep", "udp://127.0.0.1:0", stdin=subprocess.DEVNULL)
    port = command.port()
    with udp_socket() as (one, _), udp_socket() as (other, _):
        one.sendto(b"1", ("127.0.0.1", port))
        assert command.read(1) == b"1"
        other.sendto(b"2", ("127.0.0.1", port))
        assert command.read(1) == b"2"
    command.send_signal(signal.SIGINT)
    assert command.end() == (0, b"", "")


def test_listen_keep_ends_with_its_output(start: Start) -> None:
    command = start("listen", "--keep", "udp://127.0.0.1:0", redirect="> /dev/full")
    port = command.port()
    with udp_socket() as (peer, _):
        peer.sendto(b"1", ("127.0.0.1", port))
        assert command.end().code == 1


@HOSTS
def test_echo_answers_each_datagram_to_its_sender(start: Start, host: str) -> None:
    spelled = f"[{host}]" if ":" in host else host
    command = start("listen", "--echo", f"udp://{spelled}:0")
    target = command.listening_on()
    assert target.startswith(f"udp://{spelled}:")
    port = int(target.rpartition(":")[2])
    with udp_socket(host) as (one, _), udp_socket(host) as (other, _):
        for sender, data in ((one, b"1"), (other, b"2"), (one, b""), (other, os.urandom(60_000))):
            sender.sendto(data, (host, port))
            assert sender.recv(1 << 17) == data
    command.send_signal(signal.SIGINT)
    assert command.end() == (0, b"", "")


def test_echo_ends_after_the_timeout(start: Start) -> None:
    command = start("listen", "--echo", "--timeout", "2", "udp://127.0.0.1:0")
    port = command.port()
    with udp_socket() as (peer, _):
        peer.sendto(b"x", ("127.0.0.1", port))
        assert peer.recv(10) == b"x"
    assert command.end() == (0, b"", "")


def test_echo_survives_a_sender_that_cannot_be_replied_to(start: Start) -> None:
    command = start("listen", "--echo", "udp://127.0.0.1:0")
    port = command.port()
    # A broken or malicious sender may use source port 0, to which no reply can be sent.
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        raw.sendto(b"\0\0" + port.to_bytes(2, "big") + b"\0\x09\0\0x", ("127.0.0.1", 0))
    with udp_socket() as (peer, _):
        peer.sendto(b"x", ("127.0.0.1", port))
        assert peer.recv(10) == b"x"
    command.send_signal(signal.SIGINT)
    result = command.end()
    assert result.code == 0
    assert result.err.startswith("wireline: communication with udp://127.0.0.1:0 failed: ")


def test_discard_drops_everything(start: Start) -> None:
    command = start("listen", "--discard", "--timeout", "0.2", "udp://127.0.0.1:0")
    port = command.port()
    with udp_socket() as (peer, _):
        peer.sendto(b"x", ("127.0.0.1", port))
        assert command.end() == (0, b"", "")
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(10)
