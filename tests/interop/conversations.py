"""Conversations with a program through its standard streams, with a wireline socket at the other end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.interop.programs import PATIENCE, Program
from wireline import Address
from wireline.net import Socket

THEIRS = bytes(range(256)) * 1024
"""The data of the program: 256 KiB, more than any buffer on the way."""
OURS = THEIRS[::-1] + b"the end"


def hold_a_conversation(program: Program, sock: Socket, *, may_half_close: bool = True) -> None:
    """Lines in turn, then everything in both directions at once, then both half-close.

    Args:
        program: relays between its standard streams and ``sock``.
        sock: the other end.
        may_half_close: the program goes on sending when we have half-closed; else we do it after it has.
    """
    for number in range(10):
        program.type(b"question %d\r\n" % number)
        assert sock.recv_line(PATIENCE) == b"question %d" % number
        sock.send(b"answer %d\n" % number, timeout=PATIENCE)
        program.says(rb"^answer %d\n$" % number, on_stdout=True)
    with ThreadPoolExecutor(2) as pool:
        out = pool.submit(program.finish, THEIRS)
        sent = pool.submit(_send, sock, may_half_close)
        received = read_to_the_end(sock)
        sent.result()
        sock.shutdown_write()
        assert out.result() == OURS
    assert received == THEIRS


def _send(sock: Socket, half_close: bool) -> None:
    sock.send(OURS, timeout=PATIENCE)
    if half_close:
        sock.shutdown_write()


def read_to_the_end(sock: Socket) -> bytes:
    """Everything until the peer is done."""
    pieces = []
    while piece := sock.recv_some(timeout=PATIENCE):
        pieces.append(piece)
    return b"".join(pieces)


def exchange_datagrams(program: Program, sock: Socket, peer: Address | None = None) -> Address:
    """Datagrams in turn; the program speaks first unless ``peer`` says where to find it. Returns where it is."""
    if peer is not None:
        sock.send_to(peer.host, peer.port, b"who is there?\n", timeout=PATIENCE)
        program.says(rb"^who is there\?\n$", on_stdout=True)
    for number in range(5):
        program.type(b"question %d\n" % number)
        datagram = sock.recv_from(1500, timeout=PATIENCE)
        assert datagram.data == b"question %d\n" % number
        assert peer in (None, datagram.address)
        peer = datagram.address
        answer = b"answer %d\n" % number
        assert sock.send_to(peer.host, peer.port, answer, timeout=PATIENCE) == len(answer)
        program.says(rb"^answer %d\n$" % number, on_stdout=True)
    assert peer is not None
    return peer


def exchange_connected_datagrams(program: Program, sock: Socket) -> None:
    """The same with a socket from ``dial``."""
    for number in range(5):
        sock.send(b"question %d\n" % number, timeout=PATIENCE)
        program.says(rb"^question %d\n$" % number, on_stdout=True)
        program.type(b"answer %d\n" % number)
        assert sock.recv_some(timeout=PATIENCE) == b"answer %d\n" % number
