"""R6, R7, R9: the definition of a line, the moment at which it is there, and its length."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scenarios.flavours import Flavour, Sock, in_thread
from tests.scenarios.scene import (
    Scene,
    Transport,
    Wire,
    arrived,
    begin,
    over_every_stream,
    over_one,
    over_one_and_tls,
    soon,
)
from wireline import BUFFER_SIZE, MAX_LINE_LENGTH, LineTooLongError, ReadLineResult, SocketTimeout

pytestmark = [pytest.mark.anyio, over_every_stream]


async def lines_of(sock: Sock, **options: object) -> list[bytes]:
    return [line async for line in sock.lines(**options)]


# R6.

SPELLINGS = [
    (b"plain\n", b"plain"),
    (b"plain\r\n", b"plain"),
    (b"\n", b"\r\n"),
    (b"\r\n", b"\r\n"),
    (b"a\rb\r\n", b"a\rb"),
    (b"a\r\r\n", b"a\r"),
    (b"\r\r\n", b"\r"),
    (b"\ra\n", b"\ra"),
    (b"nul\0 and \xff\n", b"nul\0 and \xff"),
]


@over_one
@pytest.mark.parametrize(("sent", "line"), SPELLINGS, ids=[repr(sent) for sent, _ in SPELLINGS])
@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
async def test_R6_the_terminators_of_a_line(scene: Scene, buffered: bool, sent: bytes, line: bytes) -> None:
    sock, peer = await scene.wire(buffered=buffered)
    peer.sendall(sent + b"next\n" + sent)
    assert await soon(sock.recv_line()) == line
    assert await soon(sock.recv_line(timeout=5)) == b"next"
    into = bytearray(b"what was there before")
    assert await soon(sock.recv_line_into(into)) == len(line)
    assert into == line
    peer.close()
    assert await soon(sock.recv_line()) == b""
    assert await soon(sock.recv_line_into(into)) == 0
    assert into == b""


async def test_R6_byte_by_byte(wire: Wire) -> None:
    sock, peer = wire
    for sent, line in SPELLINGS:
        for position in range(len(sent)):
            peer.sendall(sent[position : position + 1])
            await arrived(sock, 1)
            if position < len(sent) - 1:
                with pytest.raises(SocketTimeout):
                    await sock.recv_line(0)
        assert await sock.recv_line(0) == line


async def test_R6_lines_gives_every_line_without_its_end_and_empty_ones_as_nothing(wire: Wire) -> None:
    sock, peer = wire
    peer.sendall(b"".join(sent for sent, _ in SPELLINGS))
    peer.close()
    assert await soon(lines_of(sock)) == [line.removeprefix(b"\r\n") for _, line in SPELLINGS]


async def test_R6_try_recv_line_never_waits_and_tells_an_end_from_no_line_yet(wire: Wire) -> None:
    sock, peer = wire
    assert sock.try_recv_line() == (ReadLineResult.NONE, b"")
    peer.sendall(b"hal")
    await arrived(sock, 3)
    assert sock.try_recv_line() == (ReadLineResult.PARTIAL_LINE, b"hal")
    peer.sendall(b"f\n\r\nrest")
    await arrived(sock, 8)
    assert sock.try_recv_line() == (ReadLineResult.FULL_LINE, b"half")
    assert sock.try_recv_line() == (ReadLineResult.FULL_LINE, b"\r\n")
    assert sock.try_recv_line() == (ReadLineResult.PARTIAL_LINE, b"rest")
    peer.close()
    assert await soon(sock.recv_line()) == b""
    assert sock.try_recv_line() == (ReadLineResult.DISCONNECTED, b"rest")
    assert await soon(sock.recv(9)) == b"rest"
    assert sock.try_recv_line() == (ReadLineResult.DISCONNECTED, b"")


@given(
    st.lists(st.text(alphabet="ab\r", max_size=3), max_size=300),
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.integers(1, 400), max_size=8),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_R6_lines_and_single_reads_agree(
    flavour: Flavour, transport: Transport, texts: list[str], terminator: bytes, counts: list[int]
) -> None:
    sent = b"".join(text.encode() + terminator for text in texts)
    expected = [line.removesuffix(b"\r") for line in sent.split(b"\n")[:-1]]
    async with Scene(flavour, transport) as scene:
        sock, peer = await scene.wire()
        peer.sendall(sent)
        peer.close()
        got: list[bytes] = []
        for count in counts:  # some by iteration, one by a call of its own, and so on
            async for line in sock.lines():
                got.append(line)
                count -= 1
                if not count:
                    break
            got.append((await sock.recv_line()).removeprefix(b"\r\n"))
        got += await lines_of(sock)
        assert [line for line in got if line] == [line for line in expected if line]
        assert await sock.recv(1) == b""


# R7.


@over_one_and_tls
@pytest.mark.parametrize("line", [b"", b"short", b"x" * BUFFER_SIZE])
@pytest.mark.parametrize("terminator", [b"\n", b"\r\n"])
async def test_R7_a_complete_line_does_not_wait_for_later_bytes(
    wire: Wire, line: bytes, terminator: bytes
) -> None:
    sock, peer = wire
    reading = await begin(sock.recv_line())
    peer.sendall(line + terminator)
    assert await soon(reading) == (line or b"\r\n")
    peer.sendall(line + terminator + b"the begi")
    assert await soon(sock.recv_line()) == (line or b"\r\n")
    iterator = aiter(sock.lines())
    peer.sendall(b"nning" + terminator)
    assert await soon(anext(iterator)) == b"the beginning"


async def test_R7_a_line_of_exactly_the_longest_length_does_not_wait_either(wire: Wire) -> None:
    sock, peer = wire
    for terminator in (b"\n", b"\r\n"):
        peer.sendall(b"12345" + terminator)
        assert await soon(sock.recv_line(max_length=5)) == b"12345"


# R9.


@pytest.mark.parametrize("timeout", [None, 5])
async def test_R9_every_line_of_many_obeys_its_own_limit(wire: Wire, timeout: float | None) -> None:
    """Lines arrive in bulk, and are read one by one with any limit."""
    sock, peer = wire
    lines = [b"%02d%s" % (number, b"x" * (number % 7)) for number in range(200)]
    peer.sendall(b"".join(line + b"\n" for line in lines))
    for number, line in enumerate(lines):
        if number % 5:
            assert await soon(sock.recv_line(timeout)) == line
        elif number % 10:
            with pytest.raises(LineTooLongError):
                await soon(sock.recv_line(timeout, max_length=1, on_long="raise"))
            assert await soon(sock.recv_line(timeout, max_length=len(line), on_long="raise")) == line
        else:
            pieces = [line[start : start + 2] for start in range(0, len(line), 2)]
            assert [await soon(sock.recv_line(timeout, max_length=2)) for _ in pieces] == pieces
    with pytest.raises(SocketTimeout):
        await sock.recv_line(0)


@over_one_and_tls
@pytest.mark.parametrize("max_length", [3, 100, MAX_LINE_LENGTH])
async def test_R9_lines_obeys_its_limit(wire: Wire, max_length: int) -> None:
    sock, peer = wire
    peer.sendall(b"123\n\r\n" * 120 + b"1234\n")
    got = []
    with pytest.raises((LineTooLongError, SocketTimeout)) as caught:
        async for line in sock.lines(max_length, timeout=0.05):
            got.append(line)
    assert got[:240] == [b"123", b""] * 120
    assert got[240:] == ([] if max_length == 3 else [b"1234"])
    assert isinstance(caught.value, LineTooLongError) is (max_length == 3)


@over_one
@pytest.mark.parametrize("terminator", [b"\n", b"\r\n"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 9, 10, 11])
@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
async def test_R9_a_long_line_is_returned_in_pieces_of_exactly_max_length(
    scene: Scene, buffered: bool, length: int, terminator: bytes
) -> None:
    sock, peer = await scene.wire(buffered=buffered)
    line = b"0123456789a"[:length]
    peer.sendall(line + terminator + b"next" + terminator)
    pieces = [line[start : start + 5] for start in range(0, length, 5)]
    got = [await soon(sock.recv_line(max_length=5)) for _ in pieces]
    assert got == pieces
    assert await soon(sock.recv_line(max_length=5)) == b"next", "and no phantom empty line before it"


async def test_R9_carriage_returns_at_the_limit_are_data_or_terminator_as_the_next_byte_decides(
    wire: Wire,
) -> None:
    sock, peer = wire
    peer.sendall(b"12345\r")
    await arrived(sock, 6)
    with pytest.raises(SocketTimeout):
        await sock.recv_line(0, max_length=5)
    peer.sendall(b"67\n")
    assert await soon(sock.recv_line(max_length=5)) == b"12345"
    assert await soon(sock.recv_line(max_length=5)) == b"\r67"


@over_one_and_tls
@pytest.mark.parametrize("read", ["recv_line", "recv_line_into", "lines", "recv_until"])
async def test_R9_a_line_that_is_refused_stays_readable(wire: Wire, read: str) -> None:
    sock, peer = wire
    reads = {
        "recv_line": lambda limit: sock.recv_line(max_length=limit, on_long="raise"),
        "recv_line_into": lambda limit: sock.recv_line_into(bytearray(), max_length=limit, on_long="raise"),
        "lines": lambda limit: lines_of(sock, max_length=limit),
        "recv_until": lambda limit: sock.recv_until(b"\n", limit),
    }
    peer.sendall(b"123456\nrest")
    for limit in (1, 5, 5):
        with pytest.raises(LineTooLongError) as caught:
            await soon(reads[read](limit))
        assert caught.value.limit == limit
    assert await soon(sock.recv_line(max_length=6, on_long="raise")) == b"123456"
    assert await soon(sock.recv(4)) == b"rest"


@pytest.mark.parametrize("on_long", ["truncate", "raise"])
async def test_R9_a_peer_that_never_ends_its_line_is_held_back(wire: Wire, on_long: str) -> None:
    sock, peer = wire
    endless = await begin(in_thread(peer.sendall, b"x" * 30_000_000))
    if on_long == "raise":
        with pytest.raises(LineTooLongError):
            await soon(sock.recv_line(on_long="raise"))
        kept = len(await soon(sock.recv_line(0))) + len(await soon(sock.recv_some(BUFFER_SIZE)))
        assert kept <= MAX_LINE_LENGTH + BUFFER_SIZE
    else:
        assert await soon(sock.recv_line()) == b"x" * MAX_LINE_LENGTH
    assert not endless.done()
    sock.close(linger=0)
    with pytest.raises(ConnectionError):
        await soon(endless)
