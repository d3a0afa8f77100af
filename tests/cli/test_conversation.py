"""Conversations with a fake peer: which side ends first, which end is awaited, how failures are reported."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Iterator

import pytest

from wireline import ClosedError, SocketTimeout
from wireline.cli._conversation import Conversation
from wireline.cli._end_of_input import EndOfInput
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import ExitCode, Failure, Stage, classify
from wireline.cli._stdio import Input, NoInput, Output


class FakePeer:
    """Sends the given data, and records what it receives."""

    name = "fake"
    chunk = 1000

    def __init__(self, *says: bytes | Exception | None, silence: float | None = None) -> None:
        self.reply_timeout = silence
        self.heard = b""
        self.input_ended = threading.Event()
        self.aborted: bool | None = None
        self.send_error: Exception | None = None
        self.reset_error: Exception | None = None
        self._says: queue.Queue[bytes | Exception | None] = queue.Queue()
        for word in says:
            self._says.put(word)

    def receive(self, timeout: float | None) -> bytes | None:
        try:
            word = self._says.get(timeout=timeout)
        except queue.Empty:
            raise SocketTimeout("recv_some", timeout or 0.0) from None
        if isinstance(word, Exception):
            raise word
        return word

    def say(self, *words: bytes | Exception | None) -> None:
        for word in words:
            self._says.put(word)

    def send(self, data: bytes) -> None:
        if self.send_error:
            raise self.send_error
        self.heard += data

    def end_input(self) -> None:
        self.input_ended.set()

    def raise_reset(self) -> None:
        if self.reset_error:
            raise self.reset_error

    def close(self, *, abort: bool = False) -> None:
        if self.aborted is None:
            self.aborted = abort
            self.say(ClosedError())


class Pipes:
    """Standard input and output of a conversation under test, and the other ends of both."""

    def __init__(self) -> None:
        self._source, self._typing = os.pipe()
        self._screen, self._output = os.pipe()
        self.input = Input(self._source)
        self.output = Output(self._output)

    def type(self, data: bytes) -> None:
        os.write(self._typing, data)

    def end_input(self) -> None:
        os.close(self._typing)

    def shown(self) -> bytes:
        """All output so far; there must be some."""
        return os.read(self._screen, 1 << 16)

    def stop_reading(self) -> None:
        os.close(self._screen)

    def close(self) -> None:
        for fd in (self._typing, self._screen, self._output, self._source):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    with contextlib.suppress(OSError):
        pipes.end_input()
    # An upload may still be reading: it must see the end before its descriptor is closed.
    for thread in threading.enumerate():
        if thread.name == "wireline-upload":
            thread.join()
    pipes.close()


def talk(peer: FakePeer, pipes: Pipes, **options: float | bool | EndOfInput) -> None:
    Conversation(peer, pipes.input, pipes.output, **options).run(Signals())  # type: ignore[arg-type]


def failing(peer: FakePeer, pipes: Pipes, **options: float | bool | EndOfInput) -> Failure:
    with pytest.raises(Failure) as caught:
        talk(peer, pipes, **options)
    return caught.value


def test_both_directions_and_the_half_close(pipes: Pipes) -> None:
    peer = FakePeer()
    conversation = threading.Thread(target=talk, args=(peer, pipes))
    conversation.start()
    pipes.type(b"question")
    pipes.end_input()
    assert peer.input_ended.wait(5)
    peer.say(b"answer", None)
    conversation.join()
    assert peer.heard == b"question"
    assert pipes.shown() == b"answer"
    assert peer.aborted is False


def test_crlf(pipes: Pipes) -> None:
    peer = FakePeer()
    pipes.type(b"a\nb\r\n")
    pipes.end_input()
    peer.say(None)
    talk(peer, pipes, crlf=True)
    assert peer.heard == b"a\r\nb\r\n"


def test_crlf_never_makes_a_chunk_too_long_for_the_peer(pipes: Pipes) -> None:
    peer = FakePeer()
    sizes = []
    peer.send = lambda data: sizes.append(len(data))  # type: ignore[method-assign]
    pipes.type(b"\n" * 1500)
    pipes.end_input()
    peer.say(None)
    talk(peer, pipes, crlf=True)
    assert max(sizes) == peer.chunk
    assert sum(sizes) == 3000


def test_after_the_peer_has_replied_and_closed_the_input_is_not_awaited(pipes: Pipes) -> None:
    peer = FakePeer(b"bye", None)
    talk(peer, pipes)  # the input stays open, and nothing is written
    assert peer.aborted is False
    assert not peer.input_ended.is_set()


def test_a_peer_that_ended_gets_the_input_that_is_available(pipes: Pipes) -> None:
    class SlowPeer(FakePeer):
        def send(self, data: bytes) -> None:
            # Longer than the input may pause: data that is being sent does not count as a pause.
            threading.Event().wait(0.3)
            super().send(data)

    peer = SlowPeer(b"hello", None)
    pipes.type(b"x" * 2500)
    pipes.end_input()
    talk(peer, pipes)
    assert len(peer.heard) == 2500
    assert peer.input_ended.is_set()


def test_a_peer_that_only_receives_gets_all_of_the_input(pipes: Pipes) -> None:
    peer = FakePeer(None)
    conversation = threading.Thread(target=talk, args=(peer, pipes))
    conversation.start()
    # Longer than the pause after a peer that has sent data.
    conversation.join(0.7)
    assert conversation.is_alive()
    pipes.type(b"late")
    pipes.end_input()
    conversation.join()
    assert peer.heard == b"late"
    assert peer.aborted is False


def test_input_from_a_terminal_is_not_awaited(pipes: Pipes) -> None:
    pipes.input.is_terminal = True
    talk(FakePeer(None), pipes)


def test_input_that_cannot_be_delivered_is_reported(pipes: Pipes) -> None:
    peer = FakePeer(b"no more", None)
    peer.send_error = BrokenPipeError(errno.EPIPE, "Broken pipe")
    pipes.type(b"data")
    outcome = classify(failing(peer, pipes))
    assert outcome.code is ExitCode.TRUNCATED
    assert "before it received all of the input" in outcome.sentence
    # Data received before is not lost.
    assert pipes.shown() == b"no more"
    assert peer.aborted is True


def test_a_reset_after_the_end_of_the_peer_is_reported(pipes: Pipes) -> None:
    peer = FakePeer(None)
    peer.reset_error = BrokenPipeError(errno.EPIPE, "Broken pipe")
    pipes.type(b"data")
    pipes.end_input()
    outcome = classify(failing(peer, pipes, at_eof=EndOfInput(10.0)))
    assert outcome.code is ExitCode.TRUNCATED


def test_a_reset_is_reported_and_the_data_before_it_is_written(pipes: Pipes) -> None:
    peer = FakePeer(b"half of", ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
    pipes.end_input()
    assert classify(failing(peer, pipes)).code is ExitCode.TRUNCATED
    assert pipes.shown() == b"half of"


def test_a_peer_that_accepts_no_data_times_out(pipes: Pipes) -> None:
    peer = FakePeer()
    peer.send_error = SocketTimeout("send", 3, 0)
    pipes.type(b"data")
    assert classify(failing(peer, pipes, timeout=3.0)).code is ExitCode.TIMEOUT
    assert peer.aborted is True


def test_a_peer_that_sends_nothing_after_the_end_of_input_times_out(pipes: Pipes) -> None:
    pipes.end_input()
    outcome = classify(failing(FakePeer(), pipes, timeout=0.05))
    assert outcome == (ExitCode.TIMEOUT, "fake timed out: no data received for 0.05 s")


def test_the_time_limit_starts_at_the_end_of_input(pipes: Pipes) -> None:
    peer = FakePeer()
    conversation = threading.Thread(target=talk, args=(peer, pipes), kwargs={"timeout": 0.05})
    conversation.start()
    conversation.join(0.3)
    assert conversation.is_alive()
    peer.say(b"done", None)
    conversation.join()


def test_the_time_limit_counts_from_the_last_byte(pipes: Pipes) -> None:
    peer = FakePeer()
    pipes.end_input()
    conversation = threading.Thread(target=talk, args=(peer, pipes), kwargs={"timeout": 0.4})
    conversation.start()
    for _ in range(3):
        conversation.join(0.2)
        peer.say(b".")
    peer.say(None)
    conversation.join()
    assert pipes.shown() == b"..."


def test_a_peer_without_an_end_of_stream_ends_by_timeout(pipes: Pipes) -> None:
    peer = FakePeer(b"reply", silence=0.05)
    pipes.type(b"ask")
    pipes.end_input()
    talk(peer, pipes)
    assert pipes.shown() == b"reply"
    assert peer.heard == b"ask"


def test_an_empty_datagram_is_not_an_end(pipes: Pipes) -> None:
    peer = FakePeer(b"", b"more", silence=0.05)
    pipes.end_input()
    talk(peer, pipes)
    assert pipes.shown() == b"more"


def test_input_that_cannot_be_read_to_its_end_resets_the_connection(
    tmp_path: os.PathLike[str], pipes: Pipes
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    peer = FakePeer()
    try:
        with pytest.raises(Failure) as caught:
            Conversation(peer, Input(directory), pipes.output).run(Signals())
    finally:
        os.close(directory)
    assert caught.value.stage is Stage.INPUT
    assert peer.aborted is True
    assert not peer.input_ended.is_set()


def test_output_that_cannot_be_written(pipes: Pipes) -> None:
    pipes.stop_reading()
    assert failing(FakePeer(b"data"), pipes).stage is Stage.OUTPUT


def test_without_input_the_half_close_is_immediate(pipes: Pipes) -> None:
    peer = FakePeer(b"data", None)
    Conversation(peer, NoInput(), pipes.output).run(Signals())
    assert peer.input_ended.is_set()
    assert pipes.shown() == b"data"


def test_a_socket_closed_by_this_side_is_not_a_failure(pipes: Pipes) -> None:
    with pytest.raises(ClosedError):
        talk(FakePeer(ClosedError()), pipes)


@pytest.mark.parametrize("says", [(), (None,)], ids=["the peer", "the input"])
def test_a_signal_ends_waiting_for(says: tuple[None, ...], pipes: Pipes) -> None:
    peer = FakePeer(*says)
    signals = Signals()
    # The signal arrived before the conversation, which must end at once.
    with signals.ended_by(lambda: None):
        signals.receive(2)
    with pytest.raises(ClosedError):
        Conversation(peer, pipes.input, pipes.output).run(signals)
    assert peer.aborted is True


# The end of input.


def test_the_sending_direction_stays_open_until_the_peer_is_silent(pipes: Pipes) -> None:
    peer = FakePeer()
    pipes.end_input()
    at_eof = EndOfInput(half_close_after=0.4)
    conversation = threading.Thread(target=talk, args=(peer, pipes), kwargs={"at_eof": at_eof})
    began = time.monotonic()
    conversation.start()
    for _ in range(4):
        assert not peer.input_ended.wait(0.2)
        peer.say(b".")
    last = time.monotonic()
    assert peer.input_ended.wait(5)
    assert time.monotonic() - last > 0.3
    assert time.monotonic() - began > 1.1
    peer.say(None)
    conversation.join()
    assert pipes.shown() == b"...."


def test_a_peer_that_ends_is_not_waited_for_until_it_would_be_silent(pipes: Pipes) -> None:
    peer = FakePeer(b"answer", None)
    pipes.type(b"question")
    pipes.end_input()
    began = time.monotonic()
    talk(peer, pipes, at_eof=EndOfInput(half_close_after=10))
    assert time.monotonic() - began < 5
    assert peer.heard == b"question"
    assert peer.aborted is False


def test_the_time_limit_starts_with_the_half_close(pipes: Pipes) -> None:
    peer = FakePeer()
    pipes.end_input()
    conversation = threading.Thread(
        target=talk, args=(peer, pipes), kwargs={"timeout": 0.6, "at_eof": EndOfInput(half_close_after=0.5)}
    )
    conversation.start()
    assert peer.input_ended.wait(5)
    conversation.join(0.3)  # 0.8 s after the end of input
    assert conversation.is_alive()
    peer.say(None)
    conversation.join()


def test_without_a_half_close_the_peer_ends_it(pipes: Pipes) -> None:
    peer = FakePeer()
    pipes.end_input()
    at_eof = EndOfInput(half_close_after=None)
    conversation = threading.Thread(target=talk, args=(peer, pipes), kwargs={"at_eof": at_eof})
    conversation.start()
    conversation.join(0.2)
    assert conversation.is_alive()
    peer.say(b"bye", None)
    conversation.join()
    assert not peer.input_ended.is_set()
    assert pipes.shown() == b"bye"


@pytest.mark.parametrize("quit_after", [0.0, 0.1])
def test_it_ends_a_given_time_after_the_input(quit_after: float, pipes: Pipes) -> None:
    pipes.type(b"question")
    pipes.end_input()
    for half_close_after, heard in ((None, b"question"), (0.0, b""), (10.0, b"")):  # the input ends once
        peer = FakePeer(b"data")
        at_eof = EndOfInput(half_close_after, quit_after)
        conversation = Conversation(peer, pipes.input, pipes.output, at_eof=at_eof)
        conversation.run(Signals())
        assert conversation.quit
        assert peer.heard == heard
        assert peer.aborted is False


def test_a_peer_that_ends_before_it_is_time_to_quit(pipes: Pipes) -> None:
    peer = FakePeer(None)
    pipes.end_input()
    conversation = Conversation(peer, pipes.input, pipes.output, at_eof=EndOfInput(0.0, 10.0))
    conversation.run(Signals())
    assert not conversation.quit


def test_a_signal_while_the_peer_is_silent(pipes: Pipes) -> None:
    peer = FakePeer()
    pipes.end_input()
    signals = Signals()
    timer = threading.Timer(0.1, signals.receive, (2,))
    timer.start()
    with pytest.raises(ClosedError):
        Conversation(peer, pipes.input, pipes.output, at_eof=EndOfInput(10.0, 20.0)).run(signals)
    timer.join()
    assert peer.aborted is False  # all of the input was sent
    assert not peer.input_ended.is_set()
