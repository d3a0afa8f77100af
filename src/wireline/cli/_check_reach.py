"""Who answers: every address of a target, each tried at the same time as the others."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import NamedTuple

from wireline import AF_UNIX, DialError, SocketTimeout, Target
from wireline.net import Socket


class Place(NamedTuple):
    """One address of the target, ready for ``Socket``."""

    family: int
    host: str
    port: int

    def __str__(self) -> str:
        scheme = "unix" if self.family == AF_UNIX else "tcp"
        return str(
            Target(scheme, path=self.host) if scheme == "unix" else Target(scheme, self.host, self.port)
        )

    def connect(self, timeout: float) -> Socket:
        """Connect to it.

        Raises:
            OSError: it does not answer, or not in time.
        """
        sock = Socket(self.family)
        try:
            if self.family == AF_UNIX:
                sock.connect_unix(self.host, timeout)
            else:
                sock.connect(self.host, self.port, timeout)
        except BaseException:
            sock.close()
            raise
        return sock


class Attempt(NamedTuple):
    """How it went with one address."""

    place: Place
    seconds: float
    error: OSError | None
    sock: Socket | None


def find(target: Target, timeout: float) -> list[Place]:
    """Return the addresses of a target, in the resolver's order.

    Raises:
        socket.gaierror: the name has none.
        TimeoutError: the resolver did not answer in time.
        UnicodeError: it is no name.
    """
    if target.path:
        return [Place(AF_UNIX, target.path, 0)]
    found: Future[list[Place]] = Future()
    # A daemon: nothing interrupts `getaddrinfo`, and nobody shall have to wait for it at the end.
    threading.Thread(target=_look_up, args=(target, found), name="wireline-resolve", daemon=True).start()
    try:
        return found.result(timeout)
    except TimeoutError:
        if found.done():
            raise
        raise TimeoutError(f"its name was not found within {timeout:g} s") from None


def _look_up(target: Target, found: Future[list[Place]]) -> None:
    try:
        answers = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
        found.set_exception(error)
        return
    places = [Place(int(family), str(sockaddr[0]), int(sockaddr[1])) for family, _, _, _, sockaddr in answers]
    found.set_result(list(dict.fromkeys(places)))


def race(places: list[Place], timeout: float) -> list[Attempt]:
    """Connect to all of them at once, and wait for each to answer or to fail. Whoever gets the sockets closes them."""
    with ThreadPoolExecutor(max_workers=len(places)) as threads:
        return list(threads.map(lambda place: _try(place, timeout), places))


def _try(place: Place, timeout: float) -> Attempt:
    began = monotonic()
    sock, failed = None, None
    try:
        sock = place.connect(timeout)
    except OSError as error:
        failed = error
    return Attempt(place, monotonic() - began, failed, sock)


def failure(target: Target, attempts: list[Attempt]) -> OSError:
    """What to raise if nobody answered."""
    if len(attempts) == 1 or all(isinstance(attempt.error, SocketTimeout) for attempt in attempts):
        assert attempts[0].error is not None
        return attempts[0].error
    tried = tuple(
        ((attempt.place.host, attempt.place.port), attempt.error, attempt.seconds)
        for attempt in attempts
        if attempt.error is not None
    )
    return DialError(str(target), tried)
