"""FA26: an exception of a signal handler, at every moment at which there can be one, while TLS is read and sent."""

from __future__ import annotations

import contextlib
import itertools
import random
import ssl
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from tests.core.interrupts import Interruption, interrupted
from tests.core.test_tls import connected, one_loop_or_shared, out, said
from wireline._core.buffer import ReceiveBuffer
from wireline._core.locked_tls import LockedTlsSender
from wireline._core.tls import SEND_CHUNK, TlsCore
from wireline._core.tls_layers import InnerTlsEngine
from wireline.tls import SslError, TruncatedError

TLS1_3 = ssl.TLSVersion.TLSv1_3
CODE = ("tls_engine.py", "tls_layers.py", "tls.py", "locked_tls.py")
SENDING = (*CODE, "test_tls_interrupted.py")

one_or_two_layers = pytest.mark.parametrize("layers", [1, pytest.param(2, marks=pytest.mark.full)])


def read_all(core: TlsCore) -> bytes:
    taken = []
    while core:
        taken.append(core.recv_some(2**20) or b"")
    return b"".join(taken)


def cut(wire: bytes, *sizes: int) -> Iterator[bytes]:
    """Pieces as a kernel gives them; each is an object of its own."""
    for size in sizes:
        yield bytes(bytearray(wire[:size]))
        wire = wire[size:]
    yield bytes(bytearray(wire))


NEVER = 10**9


def every_moment(scene: Callable[[int, int], bool], targets: int) -> int:
    """Play a scene for each moment of each target; how many there were. It says whether there was such a moment."""
    played = 0
    for target in range(targets):
        moment = 0
        while scene(target, moment):
            moment += 1
        played += moment
    return played


Feed = Callable[[TlsCore, bytes], bytes | None]
HOW: dict[str, Feed] = {
    "feed": lambda core, data: core.feed(data),
    "feed_some": lambda core, data: core.feed_some(data, 2**20),
}


@pytest.mark.parametrize("first", [False, True], ids=["first data", "later"])
@one_or_two_layers
@pytest.mark.parametrize("how", HOW)
@one_loop_or_shared
def test_P5_no_byte_is_lost_or_doubled_when_a_read_is_interrupted(
    shared: bool, how: str, layers: int, first: bool
) -> None:
    """FA26: of 1,000 interruptions 255 broke decryption, for bytes were lost between recv and feed."""
    message = random.Random(1).randbytes(70_000)
    sizes = (30, 1000, 20_000, 3)

    def scene(target: int, moment: int) -> bool:
        core, peer = connected(TLS1_3, shared=shared, layers=layers)
        if not first:
            core.feed(said(peer, b"first"))
            assert core.recv_some(10) == b"first"
        taken, raised = b"", False
        wire = said(peer, message[:10]) + said(peer, message[10:])
        for number, piece in enumerate(cut(wire, *sizes)):
            answers: list[bytes | None] = []

            def feed(piece: bytes = piece, answers: list[bytes | None] = answers) -> None:
                answers.append(HOW[how](core, piece))

            try:
                interrupted(feed, moment if number == target else NEVER, *CODE)
            except Interruption:
                raised = True
                answers.append(HOW[how](core, piece))  # the step of a socket that has unfed or unsent bytes
            taken += read_all(core) if answers[-1] is None else answers[-1]
        assert core.engine.error is None, (target, moment)
        assert taken == message, (target, moment)
        return raised

    assert every_moment(scene, len(sizes) + 1) > 50


@one_or_two_layers
@one_loop_or_shared
def test_FA26_an_end_stays_an_end_when_it_is_interrupted(shared: bool, layers: int) -> None:
    """FA26: close_notify and the end of the wire after it stay so, whatever the moment of the interruption."""

    def scene(target: int, moment: int) -> bool:
        core, peer = connected(TLS1_3, shared=shared, layers=layers)
        wire, raised = said(peer, b"data"), False
        if target % 2:
            peer.close_notify()
            wire += out(peer)
        for number, piece in enumerate((wire, b"")):

            def feed(piece: bytes = piece) -> None:
                core.feed(piece)

            try:
                interrupted(feed, moment if number == target // 2 else NEVER, *CODE)
            except Interruption:
                raised = True
                core.feed(piece)
        assert core.recv_some(100) == b"data", moment
        if target % 2:
            assert core.recv_some(100) == b""
        else:
            with pytest.raises(TruncatedError):
                core.recv_some(100)
        return raised

    assert every_moment(scene, 4) > 20


def interrupt(*_: object) -> NoReturn:
    raise Interruption


@one_loop_or_shared
def test_FA26_an_exception_before_the_buffer_has_the_plaintext_loses_nothing(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, peer = connected(TLS1_3, shared=shared)
    core.feed(said(peer, b"first"))
    assert core.recv_some(10) == b"first"
    wire = said(peer, b"message")
    with monkeypatch.context() as patch:
        patch.setattr(ReceiveBuffer, "feed", interrupt)
        with pytest.raises(Interruption):
            core.feed(wire)
    core.feed(wire)
    assert core.recv_some(10) == b"message"


class Wire:
    """The end of a socket that takes what it likes, and keeps it."""

    def __init__(self) -> None:
        self.taken = b""
        self._calls = 0

    def send(self, data: bytes | memoryview, _: int) -> int:
        self._calls += 1
        if self._calls % 3 == 0:
            raise BlockingIOError
        size = len(data) if self._calls % 2 else max(1, len(data) // 3)
        self.taken += bytes(data[:size])
        return size


def send_all(sender: LockedTlsSender, wire: Wire, core: TlsCore, data: bytes) -> None:
    """Send a message as ``send`` does, without its waiting."""
    flush(wire, core)
    while data:
        data = data[sender.send(data, 0) :]
        flush(wire, core)


def flush(wire: Wire, core: TlsCore) -> None:
    while core.pending_output():
        with contextlib.suppress(BlockingIOError):
            core.push(wire.send, 0)


SIZES = (10, 40_000, SEND_CHUNK + 10)


@pytest.mark.parametrize("tickets", [False, True], ids=["client", "server"])
@one_or_two_layers
@one_loop_or_shared
def test_FA26_no_record_is_sent_twice_or_left_out_when_a_send_is_interrupted(
    shared: bool, layers: int, tickets: bool
) -> None:
    """FA26: of 1,000 interruptions 365 broke the peer's stream."""
    messages = [random.Random(size).randbytes(size) for size in SIZES]

    def scene(target: int, moment: int) -> bool:
        core, peer = connected(TLS1_3, shared=shared, layers=layers)
        if tickets:
            core, peer = peer, core
        wire, raised = Wire(), False
        sender = LockedTlsSender(core, wire)  # type: ignore[arg-type]
        for number, message in enumerate(messages):
            before = core.engine.accepted

            def send(message: bytes = message) -> None:
                send_all(sender, wire, core, message)

            try:
                interrupted(send, moment if number == target else NEVER, *SENDING)
            except Interruption:
                raised = True
                # A caller that continues after the bytes that were sent, and whose count is exact.
                send_all(sender, wire, core, message[core.engine.accepted - before :])
            assert core.engine.accepted - before == len(message), (target, moment)
        flush(wire, core)
        peer.feed(wire.taken)
        assert peer.engine.error is None, (target, moment)
        assert read_all(peer) == b"".join(messages), (target, moment)
        return raised

    assert every_moment(scene, len(messages)) > 50


def test_FA26_a_loss_inside_of_OpenSSLs_read_is_an_error_and_never_silent() -> None:
    """FA26: `ssl` runs signal handlers after it has decrypted, and drops the plaintext when one raises."""
    for shared in (False, True):
        for how in HOW.values():
            core, peer = connected(TLS1_3, shared=shared)
            core.feed(said(peer, b"first"))
            assert core.recv_some(10) == b"first"
            wire = said(peer, b"lost")
            engine = core.engine

            def drops(engine=engine):  # type: ignore[no-untyped-def]
                engine.read(2**14)
                raise Interruption

            good, engine.opened = engine.opened, iter(drops, None)
            with pytest.raises(Interruption):
                how(core, wire)
            engine.opened = good
            how(core, wire)
            for _ in range(2):
                with pytest.raises(SslError, match="the decrypted data is lost"):
                    core.recv_some(10)
            with pytest.raises(SslError):
                core.seal(b"more")


@one_loop_or_shared
def test_FA26_an_exception_out_of_OpenSSLs_write_is_no_lost_record(shared: bool) -> None:
    """FA26: `ssl` runs signal handlers after it has encrypted, too; the record is there, counts, and goes first."""
    for layers, size in itertools.product((1, 2), (10, 20_000, SEND_CHUNK)):
        core, peer = connected(TLS1_3, shared=shared, layers=layers)
        engine, message = core.engine, random.Random(size).randbytes(size)
        outermost = engine._outer if isinstance(engine, InnerTlsEngine) else engine
        good = outermost.write

        def encrypts_and_raises(data: bytes | memoryview, good: Callable[..., int] = good) -> int:
            good(data)
            raise Interruption

        outermost.write = encrypts_and_raises
        with pytest.raises(Interruption):
            core.seal(message)
        outermost.write = good
        went = engine.accepted
        assert 0 < went <= size
        peer.feed(out(core))
        peer.feed(said(core, message[went:]))
        assert read_all(peer) == message
