"""How a TLS stream ends, in every order of the peer's close_notify, its reset, and the errors of our sends."""

from __future__ import annotations

import errno
import itertools
import ssl
from collections.abc import Callable

import pytest

from tests.core.test_tls import connected, one_loop_or_shared, out, said
from tests.core.test_tls_engine import both_versions
from wireline._core.tls import TlsCore
from wireline.options import SAFE_DISCONN, SocketFlag
from wireline.tls import TruncatedError

Step = Callable[[TlsCore, bytes], object]


def reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "reset by peer")


def found_by_a_send(core: TlsCore, _: bytes) -> None:
    core.pending_reset = reset()


def fails_to_send(core: TlsCore, _: bytes) -> None:
    """The state after a send whose ciphertext is not taken."""
    if core.engine.may_write:
        core.seal(b"more")
    core.pending_reset = reset()


def asks(core: TlsCore, _: bytes) -> None:
    try:
        core.recv_some(100)
    except TruncatedError:
        assert not core.engine.ended


STEPS: dict[str, Step] = {
    "goodbye": lambda core, wire: core.feed(wire),
    "reset by a read": lambda core, _: core.fail(reset()),
    "reset by a send": found_by_a_send,
    "failed send": fails_to_send,
    "fin": lambda core, _: core.feed(b""),
    "read": asks,
    "our goodbye": lambda core, _: core.close_notify(),
}
ENDS = ("reset by a read", "fin")


@one_loop_or_shared
@both_versions
def test_FA4_every_order_of_close_notify_reset_sends_and_reads(version: ssl.TLSVersion, shared: bool) -> None:
    """FA4: close_notify and then a reset that a send had found was a RecursionError out of the next read."""
    for order in itertools.permutations(STEPS, 4):
        if order[-1] not in ENDS:
            continue
        core, peer = connected(version, shared=shared)
        wire = said(peer, b"data")
        peer.close_notify()
        wire += out(peer)
        dead = False
        for name in order:
            # The network gives nothing after its end.
            if not (dead and name in (*ENDS, "goodbye")):
                STEPS[name](core, wire)
            dead = dead or name in ENDS
        clean = "goodbye" in order and not any(
            end in order and order.index(end) < order.index("goodbye") for end in ENDS
        )
        assert core.ended, order
        if clean:
            assert "read" in order[order.index("goodbye") :] or core.recv_some(100) == b"data", order
            for flags in (SAFE_DISCONN, SocketFlag(0)):
                assert core.recv_some(100, flags) == b"", order
        else:
            for flags in (SAFE_DISCONN, SocketFlag(0)):
                with pytest.raises(TruncatedError):
                    core.recv_some(100, flags)


def test_FA4_a_truncation_says_which_reset_a_send_had_found() -> None:
    """FA4: the system tells of a reset once; the read that finds only the end of the wire names it as the cause."""
    core, _ = connected(ssl.TLSVersion.TLSv1_3)
    core.pending_reset = cause = reset()
    core.feed(b"")
    with pytest.raises(TruncatedError) as caught:
        core.recv_some(100)
    assert caught.value.__cause__ is cause
