"""``relay``: every byte both ways, every kind of end, and no byte lost when it is given up."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator

import pytest

from tests.scenarios import tasks
from tests.scenarios.flavours import Sock, in_thread
from tests.scenarios.scene import (
    A_WHILE,
    RawPeer,
    Scene,
    Wire,
    all_of,
    begin,
    eventually,
    in_clear,
    over,
    over_every_stream,
    over_one,
    pattern,
    raw_option,
    read_exactly,
    reset,
    soon,
)
from wireline import BusyError, ClosedError, RelayReport, SocketTimeout, _relay_common
from wireline._os import splice

pytestmark = [pytest.mark.anyio, over_every_stream]

UP, DOWN = pattern(5_000_000), pattern(4_000_000)


@pytest.fixture(autouse=True)
def no_descriptor_and_no_pipe_is_lost() -> Iterator[None]:
    yield
    assert len(splice._allowed) == splice._MAX_PIPES


async def two_wires(scene: Scene) -> tuple[Wire, Wire]:
    return await scene.wire(), await scene.wire()


async def sent_and_ended(peer: RawPeer, data: bytes) -> None:
    await in_thread(peer.sendall, data)
    peer.shutdown(socket.SHUT_WR)


async def test_relay_passes_every_byte_in_both_directions_and_the_ends(scene: Scene) -> None:
    near, far = await two_wires(scene)
    shown: list[tuple[int, int]] = []
    running = await begin(
        scene.flavour.relay(near.sock, far.sock, progress=lambda *moved: shown.append(moved))
    )
    sending = [
        tasks.ensure_future(in_thread(peer.sendall, data))
        for peer, data in ((near.peer, UP), (far.peer, DOWN))
    ]
    got = [
        await begin(in_thread(read_exactly, peer, len(data)))
        for peer, data in ((near.peer, DOWN), (far.peer, UP))
    ]
    assert [await soon(each) for each in got] == [DOWN, UP]
    await soon(tasks.gather(*sending))
    for peer in (near.peer, far.peer):
        peer.shutdown(socket.SHUT_WR)
    for peer in (near.peer, far.peer):
        assert await soon(all_of(peer)) == b""
    report: RelayReport = await soon(running)
    assert (report.a_to_b, report.b_to_a, report.reason) == (len(UP), len(DOWN), "end")
    assert (report.failed, report.error) == (None, None)
    assert shown == sorted(shown)
    assert shown[-1] == (len(UP), len(DOWN))
    assert near.sock.stats.bytes_received == far.sock.stats.bytes_sent == len(UP)
    assert far.sock.stats.bytes_received == near.sock.stats.bytes_sent == len(DOWN)
    for sock in (near.sock, far.sock):  # neither is closed, and both report the end
        assert await soon(sock.recv_some()) == b""


async def test_relay_passes_a_half_close_on_in_either_order(scene: Scene) -> None:
    for turned in (False, True):
        await half_close_either_way(scene, turned)


async def half_close_either_way(scene: Scene, turned: bool) -> None:
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    first, second = (far.peer, near.peer) if turned else (near.peer, far.peer)
    await sent_and_ended(first, b"question")
    assert await soon(all_of(second)) == b"question"
    second.sendall(b"answer")
    assert await soon(in_thread(read_exactly, first, 6)) == b"answer"
    assert not running.done()
    await sent_and_ended(second, b", and more")
    assert await soon(all_of(first)) == b", and more"
    assert (await soon(running)).reason == "end"


async def test_relay_sends_what_was_received_and_not_read_first(scene: Scene) -> None:
    near, far = await two_wires(scene)
    near.peer.sendall(b"a line\nanother\nthe rest")
    assert await soon(near.sock.recv_line()) == b"a line"
    near.sock.unread(b"back: ")
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    near.peer.sendall(b", and more")
    assert await soon(in_thread(read_exactly, far.peer, 32)) == b"back: another\nthe rest, and more"
    for peer in (near.peer, far.peer):
        peer.shutdown(socket.SHUT_WR)
    assert (await soon(running)).a_to_b == 32


async def undelivered(near: Wire, far: Wire, report: RelayReport, data: bytes) -> None:
    """Every byte is at the other side, or is read next here."""
    reading = await begin(in_thread(read_exactly, far.peer, report.a_to_b))
    # Over TLS the end of the last record may still be here, and goes with the next send.
    await soon(far.sock.send(b"!"))
    arrived = await soon(reading)
    rest = await soon(near.sock.recv(len(data) - len(arrived)))
    assert arrived + rest == data
    assert await soon(in_thread(read_exactly, far.peer, 1)) == b"!"


async def test_relay_that_is_idle_leaves_what_was_not_delivered_to_the_next_read(scene: Scene) -> None:
    """The far side does not read, so nothing moves."""
    near, far = await two_wires(scene)
    data = pattern(20_000_000)
    sending = tasks.ensure_future(in_thread(near.peer.sendall, data))
    report = await soon(scene.flavour.relay(near.sock, far.sock, idle_timeout=0.2))
    assert report.reason == "idle"
    assert 0 < report.a_to_b < len(data)
    await undelivered(near, far, report, data)
    await soon(sending)


@over("unix")
async def test_relay_reports_a_side_that_cannot_be_sent_to_also_if_that_stays(scene: Scene) -> None:
    """Its error was lost when the other direction then was idle."""
    near, far = await two_wires(scene)
    far.peer.shutdown(socket.SHUT_RD)
    near.peer.sendall(b"not read yet")
    report = await soon(scene.flavour.relay(near.sock, far.sock, idle_timeout=0.1))
    assert (report.reason, report.failed, type(report.error)) == ("reset", "b", BrokenPipeError)
    assert await soon(near.sock.recv_some()) == b"not read yet"


@over("unix")
async def test_relay_delivers_the_late_answer_of_a_side_that_reads_no_more(scene: Scene) -> None:
    """It refuses an upload and thinks about what to say: to end at the failed send would cut its answer off."""
    near, far = await two_wires(scene)
    far.peer.shutdown(socket.SHUT_RD)
    near.peer.sendall(b"an upload")
    running = await begin(scene.flavour.relay(near.sock, far.sock), A_WHILE)
    assert not running.done()
    far.peer.sendall(b"413 too large")
    far.peer.close()
    assert await soon(in_thread(read_exactly, near.peer, 13)) == b"413 too large"
    report = await soon(running)
    assert (report.reason, report.failed, type(report.error)) == ("reset", "b", BrokenPipeError)


@pytest.mark.full
async def test_relay_is_not_idle_while_one_side_sends(scene: Scene) -> None:
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock, idle_timeout=0.5))
    for number in range(8):
        far.peer.sendall(bytes([number]))
        await tasks.sleep(0.1)
    assert await soon(in_thread(read_exactly, near.peer, 8)) == bytes(range(8))
    report = await soon(running)
    assert (report.reason, report.b_to_a) == ("idle", 8)
    assert 1.1 < report.seconds < 3


@pytest.mark.full
async def test_relay_that_is_half_closed_may_have_another_limit(scene: Scene) -> None:
    near, far = await two_wires(scene)
    running = await begin(
        scene.flavour.relay(near.sock, far.sock, idle_timeout=60, half_close_timeout=0.1), A_WHILE
    )
    assert not running.done()
    near.peer.shutdown(socket.SHUT_WR)
    report = await soon(running)
    assert report.reason == "idle"
    assert report.seconds < 5


async def test_relay_delivers_the_bytes_before_a_reset_and_names_the_side(scene: Scene) -> None:
    for failing in ("a", "b"):
        await break_one_side(scene, failing)


async def break_one_side(scene: Scene, failing: str) -> None:
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    bad, good = (near, far) if failing == "a" else (far, near)
    bad.peer.sendall(b"last words")
    assert await soon(in_thread(read_exactly, good.peer, 4)) == b"last"
    if scene.transport.is_unix:  # there a reset is a peer that closes and has not read everything
        good.peer.sendall(b"unread")
        await tasks.sleep(A_WHILE)
    if scene.transport.tls is None:
        reset(bad.peer)
    else:
        bad.peer.cut()  # its `close` would say goodbye first
    assert await soon(in_thread(read_exactly, good.peer, 6)) == b" words"
    report = await soon(running)
    assert (report.reason, report.failed) == ("reset", failing)
    assert isinstance(report.error, OSError)
    good.sock.close(linger=0)


@pytest.mark.full
async def test_relay_to_a_side_that_is_gone_is_a_reset(scene: Scene) -> None:
    """The other side only sends: no read finds out."""
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    near.peer.shutdown(socket.SHUT_WR)
    near.peer.close()
    with pytest.raises(OSError):
        await soon(in_thread(send_until_it_fails, far.peer, running))
    report = await soon(running)
    assert (report.reason, report.failed) == ("reset", "a")


def send_until_it_fails(peer: RawPeer, running: tasks.Task[object]) -> None:
    while not running.done():
        # When the relay has ended nothing reads, and a send into a full buffer would wait for ever.
        if select.select([], [peer.fileno()], [], 0.01)[1]:
            peer.sendall(bytes(1_000))
    raise OSError("the relay has ended")


@over_one
async def test_relay_delivers_the_answer_to_an_upload_that_is_refused(scene: Scene) -> None:
    """The server answers and closes with most of the upload unread: its kernel sends a reset."""
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    sending = tasks.ensure_future(in_thread(near.peer.sendall, bytes(30_000_000)))
    assert await soon(in_thread(read_exactly, far.peer, 10)) == bytes(10)
    far.peer.sendall(b"413 too large")
    far.peer.close()
    assert await soon(in_thread(read_exactly, near.peer, 13)) == b"413 too large"
    report = await soon(running)
    assert (report.reason, report.failed) == ("reset", "b")
    near.sock.close(linger=0)
    with pytest.raises(ConnectionError):
        await soon(sending)


async def test_relay_goes_on_without_an_event_after_its_limit_of_one_turn(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stopped with bytes that it had received, and nothing more arrived to wake it."""
    monkeypatch.setattr(_relay_common, "_TURN", 0)
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    for size in (1, 100_000):
        near.peer.sendall(bytes(size))
        assert await soon(in_thread(read_exactly, far.peer, size)) == bytes(size)
    for peer in (near.peer, far.peer):
        peer.shutdown(socket.SHUT_WR)
    assert (await soon(running)).a_to_b == 100_001


async def test_close_ends_a_relay(scene: Scene) -> None:
    for closed in ("a", "b"):
        await close_one_side(scene, closed)


async def close_one_side(scene: Scene, closed: str) -> None:
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock), A_WHILE)
    (near if closed == "a" else far).sock.close()
    with pytest.raises(ClosedError):
        await soon(running)
    other = far if closed == "a" else near
    other.peer.sendall(b"well")
    assert await soon(other.sock.recv_exactly(4)) == b"well"
    with pytest.raises(ClosedError):
        await soon(scene.flavour.relay(near.sock, far.sock))


@over_one
async def test_close_ends_a_relay_that_is_half_closed(scene: Scene) -> None:
    """Nothing is waited for from the side that has ended."""
    for closed in ("a", "b"):
        await close_after_a_half_close(scene, closed)


async def close_after_a_half_close(scene: Scene, closed: str) -> None:
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    near.peer.shutdown(socket.SHUT_WR)
    assert await soon(all_of(far.peer)) == b""
    (near if closed == "a" else far).sock.close()
    with pytest.raises(ClosedError):
        await soon(running)


@pytest.mark.full
async def test_relay_refuses_a_socket_in_use_and_harms_no_other_call(scene: Scene) -> None:
    near, far = await two_wires(scene)
    reading = await begin(far.sock.recv_some(), A_WHILE)
    with pytest.raises(BusyError):
        await soon(scene.flavour.relay(near.sock, far.sock))
    far.peer.sendall(b"x")
    assert await soon(reading) == b"x"
    running = await begin(scene.flavour.relay(near.sock, far.sock), A_WHILE)
    with pytest.raises(BusyError):
        await soon(near.sock.recv_some())
    for peer in (near.peer, far.peer):
        peer.shutdown(socket.SHUT_WR)
    assert (await soon(running)).reason == "end"


@pytest.mark.full
async def test_relay_holds_back_a_side_whose_other_side_does_not_read(scene: Scene) -> None:
    near, far = await two_wires(scene)
    for sock in (near.sock, far.sock):
        raw_option(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        raw_option(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    running = await begin(scene.flavour.relay(near.sock, far.sock, idle_timeout=10))
    sending = tasks.ensure_future(in_thread(near.peer.sendall, bytes(30_000_000)))
    await tasks.sleep(0.3)
    assert not sending.done()
    got = await begin(in_thread(read_exactly, far.peer, 30_000_000))
    await soon(tasks.gather(sending, got))
    for peer in (near.peer, far.peer):
        peer.shutdown(socket.SHUT_WR)
    assert (await soon(running)).a_to_b == 30_000_000


# splice(2).


@over_one
async def test_relay_does_without_splice_where_the_system_refuses_it(scene: Scene) -> None:
    """No descriptor for a pipe, or a kind of socket that cannot: what is in the pipe then goes the other way."""
    for failing in ("pipe2", "first", "source", "sink"):
        with pytest.MonkeyPatch.context() as patch:
            await relay_without_splice(scene, patch, failing)


async def relay_without_splice(scene: Scene, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    real, calls = os.splice, 0

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def splice_or_fail(source: int, sink: int, size: int) -> int:
        nonlocal calls
        calls += 1
        if failing == "first" or (calls > 20 and calls % 2 == (failing == "sink")):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(source, sink, min(size, 10_000))

    if failing == "pipe2":
        monkeypatch.setattr(os, "pipe2", refuse)
    else:
        monkeypatch.setattr(os, "splice", splice_or_fail)
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    sending = tasks.ensure_future(sent_and_ended(near.peer, UP))
    assert await soon(all_of(far.peer)) == UP
    await soon(sending)
    far.peer.shutdown(socket.SHUT_WR)
    assert (await soon(running)).a_to_b == len(UP)


@pytest.mark.full
@over_one
async def test_relay_closes_a_pipe_that_is_not_used(scene: Scene) -> None:
    near, far = await two_wires(scene)
    running = await begin(scene.flavour.relay(near.sock, far.sock))
    sending = tasks.ensure_future(in_thread(near.peer.sendall, UP))
    await soon(in_thread(read_exactly, far.peer, len(UP)))
    await soon(sending)
    if scene.flavour.name != "portable":
        assert len(splice._allowed) == splice._MAX_PIPES - 1
    await eventually(lambda: len(splice._allowed) == splice._MAX_PIPES)
    near.peer.sendall(b"and it works on")
    assert await soon(in_thread(read_exactly, far.peer, 15)) == b"and it works on"
    for peer in (near.peer, far.peer):
        peer.shutdown(socket.SHUT_WR)
    assert (await soon(running)).a_to_b == len(UP) + 15


@pytest.mark.full
@in_clear
async def test_sockets_wait_again_after_a_relay(scene: Scene) -> None:
    near, far = await two_wires(scene)
    assert (await soon(scene.flavour.relay(near.sock, far.sock, idle_timeout=0.01))).reason == "idle"
    for wire in (near, far):
        reading = await begin(wire.sock.recv_some(), A_WHILE)
        assert not reading.done()
        wire.peer.sendall(b"x")
        assert await soon(reading) == b"x"
        sending = await begin(wire.sock.send(bytes(20_000_000)), A_WHILE)
        assert not sending.done()
        await soon(in_thread(read_exactly, wire.peer, 20_000_000))
        await soon(sending)
        with pytest.raises(SocketTimeout):
            await wire.sock.recv(1, timeout=0)


async def unconnected(scene: Scene) -> Sock:
    return scene.socket()


@over_one
async def test_relay_refuses_bad_arguments_before_anything_else(scene: Scene) -> None:
    near, far = await two_wires(scene)
    fresh = await unconnected(scene)
    with pytest.raises(ValueError):
        await soon(scene.flavour.relay(near.sock, near.sock))
    with pytest.raises(OSError, match="relay"):
        await soon(scene.flavour.relay(near.sock, fresh))
    for name in ("idle_timeout", "half_close_timeout"):
        for value, error in ((-1, ValueError), ("1", TypeError), (True, TypeError)):
            with pytest.raises(error, match=name):
                await soon(scene.flavour.relay(near.sock, far.sock, **{name: value}))
    with pytest.raises(TypeError, match="progress"):
        await soon(scene.flavour.relay(near.sock, far.sock, progress=5))


@pytest.mark.full
@over_one
async def test_an_exception_of_progress_ends_the_relay(scene: Scene) -> None:
    near, far = await two_wires(scene)

    def fail(*_: int) -> None:
        raise ZeroDivisionError

    running = await begin(scene.flavour.relay(near.sock, far.sock, progress=fail))
    near.peer.sendall(b"x")
    with pytest.raises(ZeroDivisionError):
        await soon(running)
    assert await soon(in_thread(read_exactly, far.peer, 1)) == b"x"
