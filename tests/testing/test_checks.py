"""Our sockets pass the checks, and each check fails for a socket that breaks its promise."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest

from tests.asyncnet.loops import WAYS
from wireline import BusyError, ClosedError, EndOfStreamError, SocketTimeout
from wireline.net import Socket
from wireline.testing import CHECKS, Check, _checks, async_pair, pair
from wireline.testing._pairs import Kind

ASYNCIO, UVLOOP, PORTABLE = WAYS

every_check = pytest.mark.parametrize("check", CHECKS, ids=str)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@every_check
def test_the_blocking_flavour_keeps_its_promises(check: Check, kind: Kind) -> None:
    check.run(lambda: pair(kind))


@pytest.mark.parametrize(
    ("kind", "way"),
    [("tcp6", ASYNCIO), ("tls", UVLOOP), ("unix", PORTABLE)],
    ids=["tcp6-asyncio", "tls-uvloop", "unix-portable"],
)
@every_check
def test_the_async_flavour_keeps_its_promises(check: Check, kind: Kind, way: Any) -> None:
    way.run(functools.partial(check.run_async, functools.partial(async_pair, kind)))


def test_each_check_has_a_name_and_a_description() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) > 12
    assert all(str(check) == check.name and check.description.endswith(".") for check in CHECKS)


# Broken promises.


class Wrapper:
    """A wrapper of one of our sockets, as in users' programs."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class TakesWhatComes(Wrapper):
    def recv(self, size: int, timeout: float | None = None) -> bytes:
        return self.sock.recv_some(size, timeout)


class WantsAll(Wrapper):
    def recv(self, size: int, timeout: float | None = None) -> bytes:
        return self.sock.recv_exactly(size, timeout)


class ForgetsTheRest(Wrapper):
    def recv_line(self, timeout: float | None = None) -> bytes:
        return self.sock.recv_some(100, timeout).partition(b"\n")[0]


class TakesZeroForNever(Wrapper):
    def recv_line(self, timeout: float | None = None) -> bytes:
        if not timeout:
            raise SocketTimeout("recv_line", 0)
        return self.sock.recv_line(timeout)


class LosesWhatItHad(Wrapper):
    def recv_line(self, timeout: float | None = None) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += self.sock.recv_some(1, timeout)
        return line[:-1]


class Strips(Wrapper):
    def recv_line(self, timeout: float | None = None) -> bytes:
        return self.sock.recv_line(timeout).strip() or b"\r\n"


class LooksAhead(Wrapper):
    def recv_line(self, timeout: float | None = None) -> bytes:
        line = self.sock.recv_line(timeout)
        self.sock.recv_some(1, timeout)
        return line


class ReturnsHalfALine(Wrapper):
    def recv_line(self, timeout: float | None = None) -> bytes:
        return self.sock.recv_line(timeout) or self.sock.recv(100, timeout)


class CountsTheNewline(Wrapper):
    def recv_line(self, max_length: int = 100, **options: Any) -> bytes:
        return self.sock.recv_line(max_length=max_length + 1, **options)


class LetsTwoIn(Wrapper):
    def recv(self, size: int, timeout: float | None = None) -> bytes:
        try:
            return self.sock.recv(size, timeout)
        except BusyError:
            return b""


class ClosesLate(Wrapper):
    def close(self) -> None:
        pass


class EndsAfterClose(Wrapper):
    def recv(self, size: int, timeout: float | None = None) -> bytes:
        try:
            return self.sock.recv(size, timeout)
        except ClosedError:
            return b""


class SendsSome(Wrapper):
    def send(self, data: bytes, timeout: float | None = None) -> None:
        self.sock.send_some(data, timeout)


class SendsLater(Wrapper):
    def send(self, data: bytes, timeout: float | None = None) -> None:
        threading.Timer(0.01, self.sock.send, (data,)).start()


class TakesNothingForTheEnd(Wrapper):
    def send(self, data: bytes, timeout: float | None = None) -> None:
        self.sock.send(data, timeout=timeout) if data else self.sock.shutdown_write()


class ClosesBoth(Wrapper):
    def shutdown_write(self) -> None:
        self.sock.close()


BROKEN: dict[str, type[Wrapper]] = {
    "R1_recv_waits_until_all_the_bytes_are_there": TakesWhatComes,
    "R1_recv_returns_fewer_bytes_only_at_the_end": WantsAll,
    "R2_recv_some_returns_what_is_there": ForgetsTheRest,
    "R4_a_timeout_of_0_does_not_wait": TakesZeroForNever,
    "R5_after_a_timeout_nothing_is_lost": LosesWhatItHad,
    "R6_a_line_ends_at_either_newline": Strips,
    "R7_a_line_that_is_there_waits_for_nothing": LooksAhead,
    "R8_an_unfinished_line_is_still_readable": ReturnsHalfALine,
    "R9_a_line_is_never_longer_than_allowed": CountsTheNewline,
    "R11_a_second_reader_is_refused": LetsTwoIn,
    "R13_close_wakes_a_waiting_read": ClosesLate,
    "R14_after_close_every_call_is_refused": EndsAfterClose,
    "W1_send_means_all_of_it": SendsSome,
    "W4_the_buffer_is_the_callers_again": SendsLater,
    "W6_sending_nothing_is_nothing": TakesNothingForTheEnd,
    "half_close_ends_one_direction_only": ClosesBoth,
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checks, "_TIMEOUT", 0.3)


@pytest.mark.usefixtures("impatient")
@every_check
def test_each_check_fails_for_a_socket_that_breaks_its_promise(check: Check) -> None:
    with pair() as made:
        with pytest.raises((AssertionError, OSError, EndOfStreamError)):
            check.run(lambda: (BROKEN[check.name](made.client), made.server))


@pytest.mark.usefixtures("impatient")
def test_the_message_shows_the_wrong_value() -> None:
    check = next(check for check in CHECKS if check.name.startswith("R8"))
    with pair() as made, pytest.raises(AssertionError, match=r"half a line: expected b'', got b'unfinished'"):
        check.run(lambda: (ReturnsHalfALine(made.client), made.server))


def test_a_socket_of_the_other_flavour_is_refused() -> None:
    async def main() -> None:
        made = await async_pair()
        with pytest.raises(TypeError, match="use run_async"):
            CHECKS[1].run(lambda: made)

    ASYNCIO.run(main)
