"""Standard input to the peer, the peer to standard output, both ways at once.

The main thread carries what the peer sends; a daemon thread, `_Upload`, carries the input. So a terminal at which
nobody types does not keep the command from ending.

Who ends first:

- The input: the peer is told (half-close), and what it still sends is waited for.
- The peer. One cannot know whether it went away or only has nothing more to say. A terminal is not waited for. A
  peer that never sent a byte is taken for one that only receives, a backup say, and gets the input to its end. Any
  other gets what comes without a pause.

An input that breaks off is not passed off as a whole one: the connection is reset.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from wireline import ClosedError, SocketTimeout
from wireline.cli._outcome import InputRefused, Stage, during
from wireline.cli._peer import Peer
from wireline.cli._progress import Counters, show_progress
from wireline.cli._signals import Signals
from wireline.cli._stdio import CrlfTranslator, Input, Output

# Seconds in which input has to come once the peer has ended; the value is socat's. At a terminal it is only the time
# that a thread may need to pass on what it has in hand.
_PAUSE = 0.5
_TERMINAL_PAUSE = 0.05

_PEER_GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class Conversation:
    """One peer, one input, one output."""

    def __init__(
        self, peer: Peer, source: Input, output: Output, *, timeout: float | None = None, crlf: bool = False
    ) -> None:
        """Prepare; nothing moves before ``run``.

        Args:
            peer: closed at the end.
            source: the bytes for the peer.
            output: where the peer's bytes go.
            timeout: seconds that the peer may be silent once the input has ended.
            crlf: whether line ends of the input become carriage return and line feed.
        """
        self._peer = peer
        self._source = source
        self._output = output
        self._limit = timeout if peer.silence is None else peer.silence
        self._counters = Counters(source.size)
        self._upload = _Upload(peer, source, self._counters, crlf=crlf)

    def run(self, signals: Signals) -> None:
        """Move bytes until both sides are done.

        Raises:
            Failure: whatever ended it otherwise.
            ClosedError: a signal did.
        """
        try:
            # Nothing may be drawn between what somebody types and what the peer answers.
            dialogue = self._source.is_terminal and self._output.is_terminal
            with (
                during(Stage.TALK, self._peer.name),
                signals.ended_by(self._stop),
                show_progress(self._counters, wanted=not dialogue) as clear_line,
            ):
                self._upload.start()
                self._talk(clear_line)
        except BaseException:
            self._stop()
            raise
        self._peer.close()

    def _talk(self, clear_line: Callable[[], None]) -> None:
        try:
            while (data := self._receive()) is not None:
                if self._output.is_terminal:
                    clear_line()
                self._output.write(data)
                self._counters.received += len(data)
            self._upload.settle(self._pause())
        except ClosedError:
            # The upload may have closed the peer, and then it knows why.
            self._upload.check()
            raise

    def _stop(self) -> None:
        self._peer.close(abort=not self._upload.complete)
        self._upload.cancel()

    def _receive(self) -> bytes | None:
        """Wait for bytes. The limit counts from the last ones, and not before the input has ended."""
        since = monotonic()
        wait = self._limit
        while True:
            try:
                return self._peer.receive(wait)
            except SocketTimeout as error:
                wait = self._time_left(since)
                if wait > 0:
                    continue
                if self._peer.silence is not None:
                    return None
                raise TimeoutError(f"nothing came for {self._limit:g} s") from error

    def _time_left(self, since: float) -> float:
        limit = self._limit or 0.0
        ended = self._upload.ended_at
        return limit if ended is None else max(since, ended) + limit - monotonic()

    def _pause(self) -> float | None:
        """Seconds that the input may pause once the peer has ended; None waits for its end."""
        if self._source.is_terminal:
            return _TERMINAL_PAUSE
        return _PAUSE if self._counters.received else None


class _Upload:
    """The input on its way to the peer, in a thread of its own.

    Attributes:
        ended_at: when there was no more to send, for whatever reason; None before.
    """

    def __init__(self, peer: Peer, source: Input, counters: Counters, *, crlf: bool) -> None:
        self._peer = peer
        self._source = source
        self._counters = counters
        self._translator = CrlfTranslator() if crlf else None
        # Translated, a chunk may be twice as long.
        self._chunk = peer.chunk // 2 if crlf else peer.chunk
        self._waiting = False
        self._done = threading.Event()
        self._error: Exception | None = None
        self.ended_at: float | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="wireline-upload", daemon=True).start()

    @property
    def complete(self) -> bool:
        """Whether the peer got all of the input, as far as one can know."""
        return self._done.is_set() and self._error is None

    def cancel(self) -> None:
        """Let nobody wait for the input any more. What is being read of it is not sent."""
        self._error = self._error or ClosedError()
        self._done.set()

    def check(self) -> None:
        """Raise what kept the input from reaching the peer, if anything did."""
        if isinstance(self._error, _PEER_GONE):
            raise InputRefused from self._error
        if self._error is not None:
            raise self._error

    def settle(self, pause: float | None) -> None:
        """Wait for the end of the input, or until none came for ``pause`` seconds; then check."""
        taken = self._counters.taken
        while not self._done.wait(pause):
            if self._waiting and taken == self._counters.taken:
                return
            taken = self._counters.taken
        self.check()

    def _run(self) -> None:
        try:
            self._copy()
        except _PEER_GONE as error:
            # The reader will come to it by itself, after everything that the peer sent before.
            self._error = error
        except Exception as error:  # noqa: BLE001 - it is raised in the main thread
            self._error = error
            self._peer.close(abort=True)
        self.ended_at = monotonic()
        self._done.set()

    def _copy(self) -> None:
        while chunk := self._read():
            self._counters.taken += len(chunk)
            data = self._translator.translate(chunk) if self._translator else chunk
            self._peer.send(data)
            self._counters.sent += len(data)
        self._peer.end_input()

    def _read(self) -> bytes:
        self._waiting = True
        chunk = self._source.read(self._chunk)
        self._waiting = False
        return chunk
