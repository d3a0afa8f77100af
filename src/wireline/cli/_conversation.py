"""Standard input to the peer and received data to standard output, both at once.

The main thread writes the received data; a daemon thread, `_Upload`, sends the input. So the command can end while a
terminal still waits for input.

The side that ends first decides how the conversation ends:

- The input: the sending direction is closed (half-close), at once or when the peer has been silent for a while, and the
  rest of the peer's data is awaited. `EndOfInput` has the times. The upload thread keeps them: the main thread may be
  blocked in a read.
- The peer: it may have exited, or only have no more to send; the two look the same. Input from a terminal ends at once.
  A peer that has sent nothing probably only receives, such as a backup, and gets all of the input. Any other peer gets
  the input until it pauses.

After an error the connection is reset: the peer must not mistake the data for complete, or for received.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic

from wireline import ClosedError, SocketTimeout
from wireline.cli._end_of_input import EndOfInput
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import Failure, InputRefused, Stage, during
from wireline.cli._peer import Peer
from wireline.cli._progress import Counters, show_progress
from wireline.cli._stdio import CrlfTranslator, Input, Output

# Seconds that the input may pause once the peer has ended; the value is socat's. Input from a terminal has ended; its
# value is the time that the upload thread may need to send what it has read.
_INPUT_TIMEOUT = 0.5
_TERMINAL_INPUT_TIMEOUT = 0.05

_HALF_CLOSE = EndOfInput()

_DISCONNECTED = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class Conversation:
    """One peer, one input, one output."""

    def __init__(
        self,
        peer: Peer,
        source: Input,
        output: Output,
        *,
        timeout: float | None = None,
        crlf: bool = False,
        at_eof: EndOfInput = _HALF_CLOSE,
        progress: bool = True,
    ) -> None:
        """Prepare; ``run`` moves the data.

        Args:
            peer: closed at the end.
            source: the data for the peer.
            output: the destination of the received data.
            timeout: seconds that the peer may send nothing once the input has ended, and once the sending direction is
                closed, if it will be.
            crlf: whether line ends of the input become carriage return and line feed.
            at_eof: what happens at the end of input.
            progress: whether a terminal shows a progress line. It would be mixed with lines that the peer prints.
        """
        self._peer = peer
        self._source = source
        self._output = output
        self._limit = timeout if peer.reply_timeout is None else peer.reply_timeout
        self._counters = Counters(source.size)
        # What is typed and received would be mixed with it, too.
        self._progress = progress and not (source.is_terminal and output.is_terminal)
        self._upload = _Upload(peer, source, self._counters, crlf=crlf, at_eof=at_eof)

    @property
    def counters(self) -> Counters:
        """The bytes moved so far."""
        return self._counters

    @property
    def quit(self) -> bool:
        """Whether this side ended the conversation, a given time after the end of input."""
        return self._upload.quit

    def run(self, signals: Signals) -> None:
        """Move data until both sides are done.

        Raises:
            Failure: an error ended it.
            ClosedError: a signal ended it.
        """
        try:
            with (
                during(Stage.TALK, self._peer.name),
                signals.ended_by(self._stop),
                show_progress(self._counters, wanted=self._progress) as clear_line,
            ):
                self._upload.start()
                self._download(clear_line)
        except Failure:
            # A graceful end would tell the peer that all its data was received.
            self._peer.close(abort=True)
            self._upload.cancel()
            raise
        except BaseException:
            self._stop()
            raise
        self._peer.close()

    def _download(self, clear_line: Callable[[], None]) -> None:
        try:
            while (data := self._receive()) is not None:
                self._upload.heard_at = monotonic()
                if self._output.is_terminal:
                    clear_line()
                self._output.write(data)
                self._counters.received += len(data)
            self._upload.peer_ended.set()
            self._upload.wait_until_done(self._input_timeout())
        except ClosedError:
            # If the upload has closed the peer after an error, this raises the error.
            self._upload.raise_error()
            if not self._upload.quit:
                raise

    def _stop(self) -> None:
        self._peer.close(abort=not self._upload.complete)
        self._upload.cancel()

    def _receive(self) -> bytes | None:
        """Wait for data. The time limit starts with the last data, and not before the input has ended."""
        since = monotonic()
        wait = self._limit
        while True:
            try:
                return self._peer.receive(wait)
            except SocketTimeout as error:
                wait = self._time_left(since)
                if wait > 0:
                    continue
                if self._peer.reply_timeout is not None:
                    return None
                raise TimeoutError(f"no data received for {self._limit:g} s") from error

    def _time_left(self, since: float) -> float:
        limit = self._limit or 0.0
        ended = self._upload.ended_at
        return limit if ended is None else max(since, ended) + limit - monotonic()

    def _input_timeout(self) -> float | None:
        """Seconds that the input may pause once the peer has ended; None waits for the end of the input."""
        if self._source.is_terminal:
            return _TERMINAL_INPUT_TIMEOUT
        return _INPUT_TIMEOUT if self._counters.received else None


class _Upload:
    """Sends the input to the peer, in its own thread, and ends the sending direction.

    Attributes:
        ended_at: when sending ended, for whatever reason; None before.
        heard_at: when the peer sent the last data.
        peer_ended: the peer sends no more data.
        quit: whether the upload closed the connection because it was time.
    """

    def __init__(
        self, peer: Peer, source: Input, counters: Counters, *, crlf: bool, at_eof: EndOfInput
    ) -> None:
        self._peer = peer
        self._source = source
        self._counters = counters
        self._translator = CrlfTranslator() if crlf else None
        # The translation may double the length of a chunk.
        self._chunk = peer.chunk // 2 if crlf else peer.chunk
        self._at_eof = at_eof
        self._reading = False
        self._all_sent = False
        self._done = threading.Event()
        self._error: Exception | None = None
        self.ended_at: float | None = None
        self.heard_at = 0.0
        self.peer_ended = threading.Event()
        self.quit = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="wireline-upload", daemon=True).start()

    @property
    def complete(self) -> bool:
        """Whether all of the input was sent."""
        return self._all_sent and self._error is None

    def cancel(self) -> None:
        """End `wait_until_done`. Input that is still being read is not sent."""
        self._error = self._error or ClosedError()
        self.peer_ended.set()
        self._done.set()

    def raise_error(self) -> None:
        """Raise the error that ended the upload, if there was one."""
        if isinstance(self._error, _DISCONNECTED):
            raise InputRefused from self._error
        if self._error is not None:
            raise self._error

    def wait_until_done(self, timeout: float | None) -> None:
        """Wait until all input is sent, or until none was read for ``timeout`` seconds; then raise its error."""
        taken = self._counters.taken
        while not self._done.wait(timeout):
            if self._reading and taken == self._counters.taken:
                return
            taken = self._counters.taken
        self.raise_error()

    def _run(self) -> None:
        try:
            self._copy()
            self._end()
        except _DISCONNECTED as error:
            # The main thread notices the disconnection too, after all data that the peer sent before it.
            self._error = error
        except Exception as error:  # noqa: BLE001 - it is raised in the main thread
            self._error = error
            self._peer.close(abort=True)
        self.ended_at = self.ended_at or monotonic()
        self._done.set()

    def _copy(self) -> None:
        while chunk := self._read():
            self._counters.taken += len(chunk)
            data = self._translator.translate(chunk) if self._translator else chunk
            self._peer.send(data)
            self._counters.sent += len(data)

    def _end(self) -> None:
        """Close the sending direction and the connection when it is time for each."""
        silence, quit_after = self._at_eof
        self._all_sent = True
        now = self.heard_at = monotonic()
        quit_at = math.inf if quit_after is None else now + quit_after
        if silence is not None:
            while (left := min(self.heard_at + silence, quit_at) - monotonic()) > 0:
                if self.peer_ended.wait(left):
                    break
            if self._error is not None:  # cancelled
                return
            if self.peer_ended.is_set():
                self._peer.raise_reset()
            self._peer.end_input()
        self.ended_at = monotonic()
        if quit_after is not None and not self.peer_ended.wait(max(0.0, quit_at - monotonic())):
            self.quit = True
            self._peer.close()

    def _read(self) -> bytes:
        self._reading = True
        chunk = self._source.read(self._chunk)
        self._reading = False
        return chunk
