"""``--allow``: the clients that are served."""

from __future__ import annotations

import ipaddress
import threading
from time import monotonic
from typing import TYPE_CHECKING

from wireline import Address, Deadline, Target
from wireline.cli._datagrams import buffer_size, sender_name
from wireline.cli._peer import NO_FLAGS
from wireline.cli._stderr import print_stderr

if TYPE_CHECKING:
    from wireline.cli.parser._option_types import Network
    from wireline.net import Datagram, Socket

_REPORT_INTERVAL = 1.0
"""Seconds between two lines about clients that are refused: they may be a flood."""


class Allowed:
    """The clients that ``--allow`` lets in, and a line now and then about the others."""

    def __init__(self, networks: list[Network] | None) -> None:
        self._networks = networks
        self._lock = threading.Lock()
        self._said_at = -_REPORT_INTERVAL
        self._unsaid = 0

    def __contains__(self, address: Address) -> bool:
        if self._networks is None:
            return True
        try:
            ip = ipaddress.ip_address(address.host.partition("%")[0])
        except ValueError:  # of a Unix socket among those of systemd
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self._networks)

    def report(self, name: str) -> None:
        """Say that a client was refused, and how many were since the last line."""
        with self._lock:
            if monotonic() - self._said_at < _REPORT_INTERVAL:
                self._unsaid += 1
                return
            self._said_at = monotonic()
            more, self._unsaid = self._unsaid, 0
        others = f", and {more} more before it" if more else ""
        print_stderr(f"wireline: refused {name}{others}: --allow does not include it")

    def receive(self, sock: Socket, target: Target, timeout: float | None) -> Datagram:
        """Receive the next datagram of a sender that is allowed; ``target`` is where ``sock`` listens.

        Raises:
            SocketTimeout: there was none in time.
            OSError: the socket failed.
        """
        size, deadline = buffer_size(target), Deadline(timeout)
        while True:
            datagram = sock.recv_from(size, NO_FLAGS, deadline)
            if datagram.address in self:
                return datagram
            self.report(sender_name(target, datagram.address))
