"""Names that resolve to the addresses of a scenario, without the machine's resolver."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from wireline._os import resolver

SockAddr = tuple[Any, ...]


class Names:
    """A table of names. Other names are looked up by the system."""

    def __init__(self) -> None:
        self._known: dict[str, list[SockAddr]] = {}
        self._silent: set[str] = set()
        self._answer = threading.Event()
        self._real = socket.getaddrinfo
        self.asked: list[str] = []
        """Every name that was looked up, in order."""

    def add(self, name: str, *addresses: SockAddr) -> str:
        """Let ``name`` stand for these socket addresses, which have ports of their own."""
        self._known[name] = list(addresses)
        return name

    def add_silent(self, name: str) -> str:
        """Let the lookup of ``name`` hang: its name server does not answer."""
        self._silent.add(name)
        return name

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[int, int, int, str, SockAddr]]:
        if host not in self._known and host not in self._silent:
            return self._real(host, port, family, type, proto, flags)
        self.asked.append(host)
        if host in self._silent:
            self._answer.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "the name server answered too late")
        families = {4: socket.AF_INET6, 2: socket.AF_INET}
        found = [(families[len(address)], address) for address in self._known[host]]
        infos = [(each, type, proto, "", address) for each, address in found if family in (0, each)]
        if not infos:
            raise socket.gaierror(socket.EAI_NONAME, "no address of this family")
        return infos

    @contextmanager
    def in_place(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
        """Answer for the system; at the end the lookups that hang fail."""
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)
        try:
            yield self
        finally:
            self._answer.set()
            # The workers stay and wait for more names. Those that are under way are not to be asked of the system.
            while resolver._pool._in_progress:
                threading.Event().wait(0.001)
