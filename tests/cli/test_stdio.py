"""Standard input and output as descriptors, and the translation of line ends."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireline.cli._outcome import Failure, Stage
from wireline.cli._stdio import CrlfTranslator, Input, NoInput, Output


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [chunk for chunk in [*chunks, data] if chunk]


@given(
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n"])).map(b"".join),
    st.lists(st.integers(1, 4), max_size=9),
)
def test_crlf_is_the_same_wherever_the_chunks_are_cut(data: bytes, sizes: list[int]) -> None:
    translator = CrlfTranslator()
    translated = b"".join(translator.translate(chunk) for chunk in cut(data, sizes))
    assert translated == re.sub(rb"(?<!\r)\n", b"\r\n", data)


def test_input_has_the_remaining_size_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"0123456789")
    with path.open("rb", buffering=0) as file:
        file.read(4)
        source = Input(file.fileno())
        assert source.size == 6
        assert not source.is_terminal
        assert source.read(100) == b"456789"
        assert source.read(100) == b""


def test_input_of_unknown_size(pipe: tuple[int, int]) -> None:
    assert Input(pipe[0]).size is None


def test_no_input_has_ended() -> None:
    source = NoInput()
    assert (source.size, source.is_terminal, source.read(10)) == (None, False, b"")


def test_input_waits_on_a_non_blocking_descriptor(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], False)
    writer = threading.Timer(0.05, os.write, (pipe[1], b"late"))
    writer.start()
    assert Input(pipe[0]).read(10) == b"late"
    writer.join()


def test_input_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(Failure) as caught:
            Input(directory).read(10)
    finally:
        os.close(directory)
    assert caught.value.stage is Stage.INPUT


@pytest.mark.parametrize("blocking", [True, False])
def test_output_is_complete_with_a_slow_reader(pipe: tuple[int, int], blocking: bool) -> None:
    os.set_blocking(pipe[1], blocking)
    data = os.urandom(1 << 20)
    received: list[bytes] = []

    def read_slowly() -> None:
        while piece := os.read(pipe[0], 50_000):
            received.append(piece)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    Output(pipe[1]).write(data)
    os.close(pipe[1])
    reader.join()
    assert b"".join(received) == data


def test_output_without_a_reader_is_a_failure(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(Failure) as caught:
        Output(pipe[1]).write(b"data")
    assert caught.value.stage is Stage.OUTPUT
    assert isinstance(caught.value.cause, BrokenPipeError)
