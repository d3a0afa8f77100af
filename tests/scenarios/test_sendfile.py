"""W11: a file is sent from where it is, whole among the sends, within its deadline, and the count is right."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios import tasks
from tests.scenarios.flavours import in_thread
from tests.scenarios.scene import (
    A_WHILE,
    Scene,
    Wire,
    all_of,
    begin,
    eventually,
    over_every_stream,
    over_one,
    over_one_and_tls,
    pattern,
    raw_option,
    read_exactly,
    soon,
)
from wireline import ClosedError, SocketTimeout

pytestmark = [pytest.mark.anyio, over_every_stream]

DATA = pattern(3_000_000)
MANY = 40_000_000
"""Bytes that no connection holds."""


@contextlib.contextmanager
def file_of(data: bytes = DATA, *, at: int = 0) -> Iterator[Any]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(at)
        yield file


@contextlib.contextmanager
def large_file() -> Iterator[Any]:
    """A file of zeroes that takes no space."""
    with tempfile.TemporaryFile() as file:
        file.truncate(MANY)
        yield file


def zeroes() -> Any:
    return open("/dev/zero", "rb")


@pytest.mark.parametrize("timeout", [None, 20], ids=["no-timeout", "timeout"])
async def test_W11_every_byte_of_a_file_arrives_and_its_position_stays(
    wire: Wire, timeout: float | None
) -> None:
    raw_option(wire.sock, socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    got = await begin(all_of(wire.peer))
    with file_of(at=5) as file:
        assert await soon(wire.sock.sendfile(file, timeout=timeout)) == len(DATA)
        assert wire.sock.last_bytes_sent == len(DATA)
        assert await soon(wire.sock.sendfile(file, 1_000, 300_000, timeout)) == 300_000
        assert await soon(wire.sock.sendfile(file, 10, 0, timeout)) == 0
        assert wire.sock.last_bytes_sent == 0
        assert await soon(wire.sock.sendfile(file, len(DATA) - 5, 100, timeout)) == 5, "the file has no more"
        assert await soon(wire.sock.sendfile(file, len(DATA) + 5, None, timeout)) == 0
        assert await soon(wire.sock.sendfile(file, 2**63 - 1, None, timeout)) == 0
        assert file.tell() == 5
    assert wire.sock.stats.bytes_sent == len(DATA) + 300_000 + 5
    wire.sock.close(linger=5)
    assert await soon(got) == DATA + DATA[1_000:301_000] + DATA[-5:]


@over_one_and_tls
async def test_W11_objects_without_a_descriptor_of_their_own_are_read_and_set_back(wire: Wire) -> None:
    """sendfile(2) from the descriptor of a ``GzipFile`` would send the compressed bytes."""
    data = DATA[:600_000]
    got = await begin(all_of(wire.peer))
    with tempfile.NamedTemporaryFile() as named:
        named.write(gzip.compress(data, 1))
        named.flush()
        with gzip.open(named.name) as unpacked:
            files = [unpacked, io.BytesIO(data), io.BufferedReader(io.BytesIO(data))]  # type: ignore[list-item,arg-type]
            for file in files:
                file.seek(7)
                assert await soon(wire.sock.sendfile(file, 100)) == len(data) - 100  # type: ignore[arg-type]
                assert file.tell() == 7
        named.seek(0)
        named.truncate()
        named.write(data)  # and not flushed: what was written counts
        assert await soon(wire.sock.sendfile(named)) == len(data)
        assert named.tell() == len(data)
    wire.sock.close(linger=5)
    assert await soon(got) == data[100:] * 3 + data


async def test_W11_a_sendfile_that_ran_out_of_time_says_how_much_was_sent(scene: Scene) -> None:
    for timeout in (0, 0.05):
        await run_out_of_time(await scene.wire(), timeout)


async def run_out_of_time(wire: Wire, timeout: float) -> None:
    data = pattern(20_000_000)
    with file_of(data) as file:
        with pytest.raises(SocketTimeout, match="sendfile") as caught:
            await wire.sock.sendfile(file, 3, timeout=timeout)
        sent = caught.value.bytes_sent
        assert wire.sock.last_bytes_sent == sent
        assert 0 < sent < len(data) - 3
        rest = await begin(wire.sock.sendfile(file, 3 + sent))
        got = await soon(in_thread(read_exactly, wire.peer, len(data) - 3))
        assert await soon(rest) == len(data) - 3 - sent
    assert got == data[3:]


@pytest.mark.full
@over_one
async def test_W11_a_fast_reader_does_not_stretch_the_deadline(wire: Wire) -> None:
    """No wait notices the deadline, as there is always room."""
    with zeroes() as file:
        reading = await begin(all_of(wire.peer, 1 << 20))
        with pytest.raises(SocketTimeout) as caught:
            await soon(wire.sock.sendfile(file, timeout=0.1))
    wire.sock.close()
    assert len(await soon(reading)) == caught.value.bytes_sent


@over_one_and_tls
async def test_W11_a_sendfile_is_whole_among_the_sends(wire: Wire) -> None:
    raw_option(wire.sock, socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    with file_of(b"f" * 900_000) as file:
        calls = [
            tasks.ensure_future(call)
            for letter in b"ab"
            for call in (wire.sock.send(bytes([letter]) * 300_000), wire.sock.sendfile(file, letter, 300_000))
        ]
        got = await soon(in_thread(read_exactly, wire.peer, 1_200_000))
        await soon(tasks.gather(*calls))
    assert all(len(set(got[start : start + 300_000])) == 1 for start in range(0, len(got), 300_000))


@pytest.mark.parametrize("timeout", [None, 20], ids=["no-timeout", "timeout"])
async def test_W11_close_wakes_a_sendfile(wire: Wire, timeout: float | None) -> None:
    with large_file() as file:
        sending = await begin(wire.sock.sendfile(file, timeout=timeout), A_WHILE)
        assert not sending.done()
        wire.sock.close()
        with pytest.raises(ClosedError):
            await soon(sending)
        with pytest.raises(ClosedError):
            await soon(wire.sock.sendfile(file))


@pytest.mark.full
async def test_W11_a_peer_that_goes_away_is_an_error(wire: Wire) -> None:
    with large_file() as file:
        sending = await begin(wire.sock.sendfile(file), A_WHILE)
        wire.peer.close()
        for again in (sending, wire.sock.sendfile(file), wire.sock.sendfile(io.BytesIO(bytes(100_000)))):
            with pytest.raises((BrokenPipeError, ConnectionResetError)) as caught:
                await soon(again)
            assert any("sendfile" in note for note in caught.value.__notes__)


@pytest.mark.full
async def test_W11_a_file_that_shrinks_ends_early(wire: Wire) -> None:
    with large_file() as file:
        sending = await begin(wire.sock.sendfile(file, count=MANY), A_WHILE)
        file.truncate(MANY // 2)
        got = await begin(all_of(wire.peer))
        assert await soon(sending) == MANY // 2
        wire.sock.close(linger=5)
        assert len(await soon(got)) == MANY // 2


@over_one
async def test_W11_where_the_system_refuses_sendfile_the_file_is_read(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EINVAL, ENOSYS, EOVERFLOW: of file systems and descriptors that cannot; from the second call on, too."""
    real = os.sendfile
    calls = 0
    refusals = [errno.EINVAL, errno.ENOSYS, errno.EOVERFLOW]

    def refusing(out: int, fd: int, offset: int, count: int) -> int:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise OSError(refusals[0], os.strerror(refusals[0]))
        return real(out, fd, offset, min(count, 10_000))

    monkeypatch.setattr(os, "sendfile", refusing)
    got = await begin(all_of(wire.peer))
    with file_of(at=5) as file:
        while refusals:
            assert await soon(wire.sock.sendfile(file)) == len(DATA)
            del refusals[0]
        assert file.tell() == 5
    wire.sock.close(linger=5)
    assert await soon(got) == DATA * 3


@pytest.mark.full
@over_one
async def test_W11_an_error_of_the_disk_is_raised_and_the_socket_works_on(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "sendfile", failing)
    monkeypatch.setattr(os, "pread", failing)
    with file_of() as file, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await soon(wire.sock.sendfile(file))
    await soon(wire.sock.send(b"well"))
    assert read_exactly(wire.peer, 4) == b"well"


@pytest.mark.full
@over_one
async def test_W11_a_sigpipe_that_is_not_ignored_is_not_sent(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sendfile(2) has no MSG_NOSIGNAL, and a program may have restored the default action, which ends it."""
    from wireline._os import file_part

    monkeypatch.setattr(file_part, "sigpipe_is_ignored", lambda: False)
    monkeypatch.setattr(os, "sendfile", lambda *_: pytest.fail("it was called"))
    got = await begin(all_of(wire.peer))
    with file_of() as file:
        assert await soon(wire.sock.sendfile(file)) == len(DATA)
    wire.sock.close(linger=5)
    assert await soon(got) == DATA


@pytest.mark.full
@over_one
async def test_W11_a_reader_goes_on_while_a_file_is_sent(wire: Wire) -> None:
    """With a timeout the descriptor does not block meanwhile, which the reader must not notice."""
    answers = bytearray()

    async def read() -> None:
        while len(answers) < 2_000:
            answers.extend(await wire.sock.recv_some())

    reading = await begin(read())
    with large_file() as file:
        sending = await begin(wire.sock.sendfile(file, timeout=20), A_WHILE)
        for _ in range(200):
            wire.peer.send(b"0123456789")
        await soon(reading)
        assert not sending.done()
        receiver = threading.Thread(target=read_exactly, args=(wire.peer, MANY))
        receiver.start()
        assert await soon(sending) == MANY
        await eventually(lambda: not receiver.is_alive())
        receiver.join()
    again = await begin(wire.sock.recv_some(), A_WHILE)
    wire.peer.send(b"x")
    assert await soon(again) == b"x"
