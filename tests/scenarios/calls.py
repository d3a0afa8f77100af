"""Tables of calls, for the promises that hold for each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from tests.scenarios.flavours import Sock

MANY = 100_000
"""More bytes than a buffer has, fewer than the kernel holds for a peer that does not read."""

Call: TypeAlias = Callable[[Sock, float | None], Awaitable[object]]
"""Makes one call on a socket, with a timeout."""


async def first_of_lines(sock: Sock, timeout: float | None) -> bytes:
    return bytes(await anext(aiter(sock.lines(timeout=timeout)), b""))


READS: dict[str, Call] = {
    "recv": lambda sock, timeout: sock.recv(MANY, timeout),
    "recv_into": lambda sock, timeout: sock.recv_into(bytearray(MANY), timeout=timeout),
    "recv_exactly": lambda sock, timeout: sock.recv_exactly(MANY, timeout),
    "recv_until": lambda sock, timeout: sock.recv_until(b"\0", timeout=timeout),
    "recv_line": lambda sock, timeout: sock.recv_line(timeout),
    "recv_line_into": lambda sock, timeout: sock.recv_line_into(bytearray(), timeout),
    "lines": first_of_lines,
    "skip": lambda sock, timeout: sock.skip(MANY, timeout),
}
"""Every read of a stream but ``recv_some``. Each asks for more than a few bytes without a newline."""

every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)
