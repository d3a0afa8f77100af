"""Fuzz the engine's input with atheris: ``python -m tests.tls.fuzz_engine -max_total_time=60``.

It is a program of its own because atheris ends its process. The options are libFuzzer's.
"""

from __future__ import annotations

import resource
import sys

import atheris

with atheris.instrument_imports(include=["wireline._core"]):
    pass

from tests.core.test_tls import connected as connected_cores
from tests.core.test_tls import said as core_said
from tests.core.test_tls_engine import VERSIONS, connected, new_pair, said, survives
from wireline.errors import EndOfStreamError
from wireline.tls import SslError


def fuzz_engine(data: atheris.FuzzedDataProvider) -> None:
    """Feed fuzzed bytes at the start, after the handshake, or after a part of a valid stream."""
    version = VERSIONS[data.ConsumeIntInRange(0, 1)]
    end, established = data.ConsumeIntInRange(0, 1), data.ConsumeBool()
    pair = (connected if established else new_pair)(version)
    places = data.ConsumeIntListInRange(4, 0, 1000)
    if not established:
        pair[end].handshake()
        survives(pair[end], data.ConsumeBytes(4096), places)
        return
    good = said(pair[1 - end], b"one", bytes(50))
    kept = good[: data.ConsumeIntInRange(0, len(good))]
    survives(pair[end], kept + data.ConsumeBytes(4096), places)


def fuzz_core(data: atheris.FuzzedDataProvider) -> None:
    """Feed fuzzed bytes between valid records; only the plaintext of the valid records may be received."""
    client, server = connected_cores(VERSIONS[data.ConsumeIntInRange(0, 1)])
    client.feed(core_said(server, b"good"))
    client.feed(data.ConsumeBytes(4096))
    if not client.ended:
        client.feed(core_said(server, b"more"))
    client.feed(b"")
    received = client.recv_some(100)
    assert received in (b"good", b"goodmore"), received
    try:
        client.recv_exactly(1)
    except (SslError, EndOfStreamError):
        return
    raise AssertionError("the stream was truncated without an error")


def fuzz(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    (fuzz_engine if provider.ConsumeBool() else fuzz_core)(provider)


MEMORY = 500 * 2**20
"""The limit of the program's memory, in bytes."""


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
