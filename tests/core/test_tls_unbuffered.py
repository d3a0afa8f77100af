"""An unbuffered TLS stream receives one record after the other: the next one waits in the kernel, for select to see."""

from __future__ import annotations

import itertools
import random
import ssl
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.interrupts import Interruption, interrupted
from tests.core.test_tls import arrive, connected, new_pair, out, said
from tests.core.test_tls_engine import versions
from tests.core.test_tls_interrupted import CODE, NEVER, every_moment
from tests.core.test_tls_layers import each_version, one_loop_or_shared
from wireline._core.tls import TlsCore
from wireline._core.tls_engine import RECORD
from wireline.options import BUFFER_SIZE

TLS1_3 = ssl.TLSVersion.TLSv1_3


class Kernel:
    """Has bytes, and gives no more than are asked for."""

    def __init__(self, wire: bytes = b"", most: Iterator[int] | None = None) -> None:
        self.wire = wire
        self._most = most or itertools.repeat(2**20)

    def recv(self, size: int) -> bytes:
        assert size > 0
        size = min(size, next(self._most))
        data, self.wire = self.wire[:size], self.wire[size:]
        return data


def receive(core: TlsCore, kernel: Kernel, size: int = BUFFER_SIZE) -> bytes:
    """Read as a socket does."""
    while (answer := core.recv_some(size)) is None:
        answer = arrive(core, kernel.recv(core.recv_size))
        if answer is not None:
            break
    core.done()
    return answer


@each_version
@one_loop_or_shared
def test_what_was_not_returned_is_in_the_kernel(version: ssl.TLSVersion, shared: bool) -> None:
    client, server = connected(version, buffered=False, shared=shared)
    messages = [b"one", b"two" * 5000, b"x" * RECORD, b"the last"]
    wires = [said(server, message) for message in messages]
    kernel = Kernel(b"".join(wires))
    for number, message in enumerate(messages, 1):
        assert receive(client, kernel) == message
        assert kernel.wire == b"".join(wires[number:])
        assert not client
        assert not client.engine.incoming.pending


@each_version
def test_only_the_rest_of_a_record_waits_inside(version: ssl.TLSVersion) -> None:
    client, server = connected(version, buffered=False)
    kernel = Kernel(said(server, b"a first record") + said(server, b"a second record"))
    second = len(said(server, b"a second record"))
    assert receive(client, kernel, 2) == b"a "
    assert len(client) == len(b"first record")
    assert len(kernel.wire) == second
    assert receive(client, kernel, 100) == b"first record"
    assert not client
    assert len(kernel.wire) == second


@each_version
@pytest.mark.parametrize("layers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_handshake_receives_nothing_that_follows_it(version: ssl.TLSVersion, layers: int) -> None:
    cores = new_pair(version, buffered=False)
    if layers == 2:
        for core, outer in zip(cores, connected(version, buffered=False), strict=True):
            core.enter_layer(outer)
    kernels, done, data = (Kernel(), Kernel()), [False, False], b"in one packet with the end of the handshake"
    for me in itertools.cycle((0, 1)):
        core, mine, other = cores[me], kernels[me], kernels[1 - me]
        while not done[me]:
            done[me] = core.handshake()
            other.wire += out(core)
            if done[me]:
                other.wire += said(core, data)
            elif mine.wire:
                core.feed(mine.recv(core.recv_size))
            else:
                break
        if all(done):
            break
    for core, kernel in zip(cores, kernels, strict=True):
        assert not core
        assert not core.engine.incoming.pending
        assert receive(core, kernel) == data
        assert not kernel.wire


@given(
    versions,
    st.lists(st.integers(1, 40_000), min_size=1, max_size=6),
    st.lists(st.integers(1, 5000), min_size=1, max_size=20),
    st.lists(st.sampled_from((1, 10, 1000, BUFFER_SIZE)), min_size=1, max_size=5),
    st.sampled_from((1, 1, 2)),
)
@settings(max_examples=40)  # each is a handshake for each layer
def test_every_cut_gives_the_same_bytes(
    version: ssl.TLSVersion, sizes: list[int], cuts: list[int], reads: list[int], layers: int
) -> None:
    client, server = connected(version, buffered=False, layers=layers)
    message = random.Random(len(cuts)).randbytes(sum(sizes))
    wire, start = b"", 0
    for size in sizes:
        wire += said(server, message[start : start + size])
        start += size
    server.close_notify()
    kernel = Kernel(wire + out(server), itertools.cycle(cuts))
    received = b""
    for size in itertools.cycle(reads):
        piece = receive(client, kernel, size)
        received += piece
        if not piece:
            break
    assert received == message
    assert not kernel.wire


@pytest.mark.full
@one_loop_or_shared
def test_P5_an_interruption_does_not_lose_the_place_in_a_record(shared: bool) -> None:
    messages = [random.Random(size).randbytes(size) for size in (5, 300, 20_000)]

    def scene(target: int, moment: int) -> bool:
        client, server = connected(TLS1_3, buffered=False, shared=shared)
        kernel = Kernel(b"".join(said(server, message) for message in messages), itertools.cycle((3, 700)))
        received, raised = b"", False
        for count in itertools.count():
            client.note()
            answer = client.recv_some(BUFFER_SIZE)
            if answer is None:
                client.inbox = kernel.recv(client.recv_size)
                try:
                    if count <= target:  # tracing is slow, and the rest is not of interest
                        interrupted(client.accept_inbox, moment if count == target else NEVER, *CODE)
                    else:
                        client.accept_inbox()
                except Interruption:
                    raised = True
                client.note()  # goes back, whether it was interrupted or its answer was not taken
            received += answer or b""
            client.done()
            if len(received) == sum(map(len, messages)):
                break
        assert received == b"".join(messages), (target, moment)
        assert not kernel.wire, (target, moment)
        return raised

    assert every_moment(scene, 6) > 50
