"""T12: TLS inside TLS, in memory: what ends a stream, what breaks it, and what the wire has, cut anywhere."""

from __future__ import annotations

import ssl

import pytest

from tests.core.test_tls import connected, new_pair, out, said, shake
from tests.tls.both import needs_the_bridge
from tests.tls.nested import NestedPeer
from tests.tls.test_floods import updates
from wireline._core.tls import TlsCore
from wireline._core.tls_engine import MOST_UNSENT
from wireline.options import SAFE_DISCONN
from wireline.tls import SslError, TruncatedError

TLS1_2, TLS1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

# One of each is in the sample.
each_version = pytest.mark.parametrize("version", [pytest.param(TLS1_2, marks=pytest.mark.full), TLS1_3])
each_pair_of_versions = pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (TLS1_2, TLS1_3),
        *(
            pytest.param(*pair, marks=pytest.mark.full)
            for pair in ((TLS1_2, TLS1_2), (TLS1_3, TLS1_2), (TLS1_3, TLS1_3))
        ),
    ],
)
one_loop_or_shared = pytest.mark.parametrize("shared", [pytest.param(False, marks=pytest.mark.full), True])


def layered(
    outer: ssl.TLSVersion, inner: ssl.TLSVersion, *, shared: bool = False, ragged_eof: bool = False
) -> tuple[list[TlsCore], list[TlsCore]]:
    """Two cores with TLS inside TLS between them; and the cores of the outer layer, which are not used any more."""
    around = connected(outer, shared=shared)
    within = new_pair(inner, shared=shared, ragged_eof=ragged_eof)
    for core, wire in zip(within, around, strict=True):
        core.enter_layer(wire)
    shake(*within)
    return within, around


def read_all(core: TlsCore) -> bytes:
    """Everything that was decrypted."""
    return b"".join(iter(lambda: core.recv_some(2**20) if core else b"", b""))  # type: ignore[arg-type]


def end_of(core: TlsCore) -> str:
    """How the stream has ended, if it has."""
    try:
        return "not yet" if core.recv(10) is None else "clean"
    except TruncatedError:
        return "truncated"


@each_pair_of_versions
def test_T12_an_end_anywhere_is_clean_only_after_the_inner_close_notify(
    outer: ssl.TLSVersion, inner: ssl.TLSVersion
) -> None:
    (_, server), _ = layered(outer, inner)
    before = len(said(server, b"message"))
    server.close_notify()
    announced = before + len(out(server))
    for size in range(announced + 1):
        (client, server), _ = layered(outer, inner)
        wire = said(server, b"message")
        wire += server.final_bytes()
        assert len(wire) > announced
        client.feed(wire[:size])
        client.feed(b"")
        assert read_all(client) == (b"message" if size >= before else b"")
        assert end_of(client) == ("clean" if size == announced else "truncated")


@each_version
def test_T12_the_end_of_the_outer_layer_alone_is_a_truncation(version: ssl.TLSVersion) -> None:
    (client, server), (_, around) = layered(version, version)
    wire = said(server, b"message")
    around.engine.close_notify()
    client.feed(wire + around.engine.outgoing.read())
    assert client.recv_some(100) == b"message"
    assert end_of(client) == "truncated"
    client.encrypt(b"writing goes on")
    server.feed(out(client))
    assert server.recv_some(100) == b"writing goes on"


def test_T12_each_context_says_whether_the_end_of_its_wire_is_an_end() -> None:
    (client, server), (_, around) = layered(TLS1_3, TLS1_3, ragged_eof=True)
    client.feed(said(server, b"message"))
    around.engine.close_notify()
    client.feed(around.engine.outgoing.read())
    assert read_all(client) == b"message"
    assert end_of(client) == "clean"
    # The outer context does not accept it, so a cut there is a truncation of the wire.
    (client, server), _ = layered(TLS1_3, TLS1_3, ragged_eof=True)
    client.feed(said(server, b"message"))
    client.feed(b"")
    assert client.recv_some(100) == b"message"
    assert end_of(client) == "truncated"


@each_version
def test_T12_an_end_in_the_middle_of_the_inner_handshake_is_an_error(version: ssl.TLSVersion) -> None:
    for how in ("the wire", "the outer layer"):
        around = connected(version)
        client = new_pair(version)[0]
        client.enter_layer(around[0])
        assert not client.handshake()
        assert out(client)
        around[1].engine.close_notify()
        client.feed(b"" if how == "the wire" else out(around[1]))
        with pytest.raises(TruncatedError, match="during the handshake"):
            client.handshake()
        with pytest.raises(SslError):
            client.encrypt(b"in one layer only?")


@each_version
def test_T12_damage_in_either_layer_ends_both(version: ssl.TLSVersion) -> None:
    def damaged(wire: bytes) -> bytes:
        return wire and wire[:-1] + bytes([wire[-1] ^ 1])

    for layer in ("outer", "inner"):
        (client, server), _ = layered(version, version)
        wire = said(server, b"good")
        if layer == "inner":
            sealed = server.engine.outgoing._outputs  # type: ignore[attr-defined]
            server.engine.outgoing._outputs = map(damaged, sealed)  # type: ignore[attr-defined]
            wire += said(server, b"bad")
        else:
            wire += damaged(said(server, b"bad"))
        client.feed(wire)
        assert client.recv_some(100) == b"good"
        for _ in range(2):
            with pytest.raises(SslError, match=r"(?i)decryption failed"):
                client.recv_some(100)
            with pytest.raises(SslError, match=r"(?i)decryption failed"):
                client.encrypt(b"more")
        # The alert: the peer finds out which layer it was.
        server.feed(client.final_bytes())
        with pytest.raises(SslError, match=r"(?i)alert"):
            server.recv_some(100)


@one_loop_or_shared
def test_T12_key_updates_in_both_layers_are_answered_in_their_layer(shared: bool) -> None:
    needs_the_bridge()
    (client, server), (_, around) = layered(TLS1_3, TLS1_3, shared=shared)
    client.feed(said(server, b"first"))
    assert client.recv_some(10) == b"first"
    calls: list[bool] = []
    client.on_output = lambda: calls.append(client.has_output)
    for round_number in range(3):
        message = b"message %d" % round_number
        wire = updates(around.engine.obj, around.engine.outgoing, 2)  # type: ignore[arg-type]
        inner = server.engine.outgoing._bio  # type: ignore[attr-defined]
        wire += updates_of_the_inner_layer(server, inner)
        client.feed(wire + said(server, message))
        assert client.recv_some(100) == message
        server.feed(out(client))
        client.feed(said(server, b"and on"))
        server.feed(said(client, b"and back"))
        assert (client.recv_some(10), server.recv_some(10)) == (b"and on", b"and back")
    assert True in calls


def updates_of_the_inner_layer(core: TlsCore, bio: ssl.MemoryBIO) -> bytes:
    made = updates(core.engine.obj, bio, 2)
    core.engine._outer.encrypt(made)  # type: ignore[attr-defined]
    return core.engine._outer.outgoing.read()  # type: ignore[attr-defined,no-any-return]


def test_FB16_a_flood_of_key_updates_in_the_outer_layer_is_bounded() -> None:
    needs_the_bridge()
    (client, server), (_, around) = layered(TLS1_3, TLS1_3)
    client.feed(said(server, b"first"))
    for _ in range(20):
        client.feed(updates(around.engine.obj, around.engine.outgoing, 600))  # type: ignore[arg-type]
        assert client.engine.outgoing.pending <= MOST_UNSENT + 32 * 1024
    assert client.recv_some(10) == b"first"
    with pytest.raises(SslError, match="wait to be sent"):
        client.recv_some(10)


# ------------------------------------------------------------------------------------- a peer that is not ours


def meet(core: TlsCore, peer: NestedPeer, layer: int) -> None:
    """Shake hands with a peer that is not ours, in one layer."""
    done = False
    while not (done and peer.established(layer)):
        done = done or core.handshake()
        peer.feed(out(core))
        peer.shake(layer)
        if wire := peer.output():
            core.feed(wire)


@each_pair_of_versions
@one_loop_or_shared
def test_T12_objects_of_the_standard_library_nested_in_each_other_are_a_peer(
    outer: ssl.TLSVersion, inner: ssl.TLSVersion, shared: bool
) -> None:
    for size in (1, 100, 20_000, 100_000):
        peer = NestedPeer(outer, inner)
        around = new_pair(outer, shared=shared)[0]
        meet(around, peer, 0)
        core = new_pair(inner, shared=shared)[0]
        core.enter_layer(around)
        meet(core, peer, 1)
        message = bytes(range(256)) * (size // 256 + 1)
        peer.feed(said(core, message))
        assert peer.read() == message
        peer.write(message)
        core.feed(peer.output())
        assert core.recv(len(message), SAFE_DISCONN) == message
        # The end: first the inner layer's, then the outer's, each in a record of its own.
        core.close_notify()
        peer.feed(out(core))
        assert peer.ends() == [False, True]
        peer.feed(core.final_bytes())
        assert peer.ends() == [True, True]
        peer.close(1)
        core.feed(peer.output())
        assert end_of(core) == "clean"


# ---------------------------------------------------------------------------------------------- what was there before


@one_loop_or_shared
def test_T12_what_the_outer_layer_has_not_sent_yet_is_sent_first(shared: bool) -> None:
    """The rest of a record that a timeout has cut, and the tickets of a server that has written nothing."""
    around = connected(TLS1_3, shared=shared)
    client, server = around
    begun = bytes(server.seal(b"half of it is sent"))
    assert not server.sent(10)
    client.feed(begun[:10])
    within = new_pair(TLS1_3, shared=shared)
    within[1].enter_layer(server)
    assert within[1].has_output
    client.feed(out(within[1]))
    assert client.recv_some(100) == b"half of it is sent"
    within[0].enter_layer(client)
    shake(*within)
    within[1].feed(said(within[0], b"hello"))
    assert within[1].recv_some(100) == b"hello"


def test_T12_a_message_that_is_not_whole_has_an_end_in_the_outer_layer_only() -> None:
    (client, server), _ = layered(TLS1_3, TLS1_3)
    wire = said(server, b"a part")
    server.message_incomplete = True
    client.feed(wire + server.final_bytes())
    assert client.recv_some(100) == b"a part"
    assert end_of(client) == "truncated"


def test_T12_a_failed_inner_handshake_alerts_the_inner_layer_and_ends_the_outer_one() -> None:
    around = connected(TLS1_3)
    client, server = new_pair(TLS1_3)
    client.enter_layer(around[0])
    server.enter_layer(around[1])
    client.handshake()
    server.feed(out(client))
    server.fail_handshake(TimeoutError("too slow"))
    client.feed(server.final_bytes())
    with pytest.raises(TruncatedError, match="during the handshake"):
        client.handshake()
    with pytest.raises(SslError, match="was not finished"):
        server.encrypt(b"in the outer layer?")
