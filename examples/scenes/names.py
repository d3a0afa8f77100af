"""``dial`` does not wait for a dead address if another one answers.

The dead address is that of a listener whose queue is full: the operating system drops connection attempts, like a
firewall or a broken route. A program that tries one address after the other would wait there for minutes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from unittest import mock

from examples import echo_threads
from examples.scenes.stage import Failed, Stage
from wireline.net import dial

SockAddr = tuple[str, int]

NAME = "two-addresses.test"


def play(stage: Stage) -> None:
    """Dial a name that resolves to both, the dead one first."""
    with _dead_address() as dead, echo_threads.start(0) as server:
        live = (server.local_addr.host, server.local_addr.port)
        stage.show(f"{NAME} is {_spell(dead)}, which never answers, and {_spell(live)}, an echo server")
        with mock.patch("socket.getaddrinfo", _resolver([dead, live])):
            stage.show(f">>> sock = dial('{NAME}', 7, timeout=5)")
            began = time.monotonic()
            sock = dial(NAME, 7, timeout=5)
            seconds = time.monotonic() - began
        with sock:
            stage.check(sock.peer_addr == live, f"{_spell(live)} has won", sock.peer_addr)
            # RFC 8305: the next address gets its turn after 250 ms.
            stage.check(0.2 < seconds < 0.9, f"that took {seconds:.3f} s", f"{seconds:.3f} s")
            sock.send(b"is this the live one?\r\n")
            stage.check_bytes(sock.recv_line(timeout=5), b"is this the live one?", "it answers")


def _resolver(addresses: list[SockAddr]) -> mock.Mock:
    """A stand-in for ``socket.getaddrinfo`` that knows one name."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
    return mock.Mock(return_value=found)


@contextlib.contextmanager
def _dead_address() -> Iterator[SockAddr]:
    """An address that never answers: the queue of its listener is filled until a connection stays pending."""
    with contextlib.ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address: SockAddr = listener.getsockname()
        for _ in range(64):
            filler = open_sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
            # On loopback a connection that is taken is taken at once.
            if not select.select([], [filler], [], 0.1)[1]:
                break
        else:
            raise Failed("this system takes any number of connections for a listener with a queue of none")
        yield address


def _spell(address: SockAddr) -> str:
    return f"{address[0]}:{address[1]}"
