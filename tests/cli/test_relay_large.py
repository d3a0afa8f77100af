"""A gibibyte through ``wireline relay``: the data arrives unchanged and in order, and memory use does not grow."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command, accept, connect, tcp_server
from tests.cli.conftest import Start

MIB = 1 << 20
SIZE = 1024 * MIB
WARM = 16 * MIB
"""Bytes after which the relay has allocated all memory of a connection."""


def pieces() -> Iterator[memoryview]:
    """A file that exists only as a seed: a random block, numbered, so that no two pieces are the same."""
    block = bytearray(random.Random(1).randbytes(MIB))
    for number in range(SIZE // MIB):
        block[:8] = number.to_bytes(8)
        yield memoryview(block)


def send_everything(sock: socket.socket, digest: list[str]) -> None:
    sent = hashlib.sha256()
    for piece in pieces():
        sent.update(piece)
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)
    digest.append(sent.hexdigest())


def peak(relay: Command) -> int:
    """The peak resident memory of a process in bytes (VmHWM)."""
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.long
@pytest.mark.stress
@pytest.mark.timeout(150)  # 3 s on an idle machine
def test_a_gibibyte_arrives_unchanged_and_memory_does_not_grow(start: Start) -> None:
    digest: list[str] = []
    with tcp_server() as (server, target):
        relay = start("relay", "127.0.0.1:0", target)
        with connect(relay.port()) as client, accept(server) as peer:
            sender = threading.Thread(target=send_everything, args=(client, digest))
            sender.start()
            received, arrived, buffer = hashlib.sha256(), 0, bytearray(MIB)
            before = 0
            while size := peer.recv_into(buffer):
                received.update(memoryview(buffer)[:size])
                arrived += size
                if not before and arrived >= WARM:
                    before = peak(relay)
            sender.join()
            after = peak(relay)
    assert arrived == SIZE
    assert digest == [received.hexdigest()]
    assert after - before < 8 * MIB
    assert after < 96 * MIB
