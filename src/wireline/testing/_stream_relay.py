"""Two connected sockets tied together: what comes from one goes to the other, both ways, with or without faults.

Theory of operation. Each direction has a thread, which reads, sends, and so is held back by a slow reader: there is
nothing between that could grow. How each kind of end travels:

- An end (half-close) goes on as an end, after everything that came before it. The other direction goes on.
- A connection that breaks is no end. What came before it is delivered, and then the other side gets a reset.
- A side that takes no more is either gone, and then the other direction finds out, after it has delivered what that
  side has still said. Or it only does not listen; then what is sent to it waits until that side has ended.

Over a Unix socket there is no reset, so that the other side sees an end instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from wireline import AF_UNIX, BUFFER_SIZE, ClosedError, SocketFlag, SocketTimeout
from wireline._os.linger import DEFAULT_LINGER
from wireline.options import DONT_WAIT, NO_SIGNAL
from wireline.testing._delay_line import DelayLine, Ending
from wireline.testing._faults import NO_FAULTS, Faults
from wireline.testing._tls_records import HOLD_TIME, CloseNotifyFilter

if TYPE_CHECKING:
    from wireline.net import Socket

__all__ = ["StreamRelay"]

# Without `SAFE_DISCONN`: a reset is an error here, not an end.
_NO_FLAGS = SocketFlag(0)

# Seconds between two looks whether a peer has everything, which nothing announces. A guess.
_POLL_INTERVAL = 0.002

# Seconds that a `send` may take to return once it is done. A guess.
_SEND_RETURN_TIME = 0.05


class StreamRelay:
    """Two connected sockets of ``wireline.net``, tied together.

    Attributes:
        to_server: bytes that the server was given.
        to_client: bytes that the client was given.
        failed_socket: the socket that failed, once one has.
    """

    def __init__(
        self, client: Socket, server: Socket, faults: Faults = NO_FAULTS, *, number: int = 0
    ) -> None:
        """Prepare; nothing moves before ``run``.

        Args:
            client: one side; its reads and writes belong to the relay from now on.
            server: the other side, likewise.
            faults: what is wrong with the network between them.
            number: of this connection among those that have the same faults: each has random numbers of its own.
        """
        self.failed_socket: Socket | None = None
        self._client = client
        self._server = server
        self._error: OSError | None = None
        self._aborted = threading.Event()
        self._lock = threading.Lock()
        self._up = _Direction(client, server, faults, f"{number}/to server", self)
        self._down = _Direction(server, client, faults, f"{number}/to client", self)
        self._up.opposite, self._down.opposite = self._down, self._up

    @property
    def to_server(self) -> int:
        """How many bytes the server was given."""
        return self._up.moved

    @property
    def to_client(self) -> int:
        """How many bytes the client was given."""
        return self._down.moved

    def run(self) -> None:
        """Copy both ways until both sides have ended, then close both. What a fault has done is no error.

        Raises:
            OSError: one side failed, and ``failed_socket`` is its socket. The other side received everything that had
                arrived before, and then a reset.
            ClosedError: ``abort`` was called.
        """
        thread = threading.Thread(target=self._down.run, name="wireline-relay", daemon=True)
        try:
            thread.start()
            self._up.run()
            thread.join()
        except BaseException:
            self._reset()
            raise
        if self._error is not None:
            raise self._error
        if self._aborted.is_set():
            raise ClosedError("run: the relay was aborted")
        self._client.close()
        self._server.close()

    def abort(self) -> None:
        """Reset both connections, from any thread; what is under way is lost."""
        self._aborted.set()
        self._reset()

    def _lose(self, error: OSError, failed_socket: Socket) -> None:
        """A side is gone: the other one must not take that for an end."""
        with self._lock:
            if self.failed_socket is None and not self._aborted.is_set():
                self._error, self.failed_socket = error, failed_socket
        self._reset()

    def _reset(self) -> None:
        self._down.reset_sink()
        self._up.reset_sink()
        self._up.reset.set()
        self._down.reset.set()


class _Direction:
    """From one socket to the other."""

    opposite: _Direction

    def __init__(self, source: Socket, sink: Socket, faults: Faults, seed: str, relay: StreamRelay) -> None:
        self._source = source
        self._sink = sink
        self._faults = faults
        self._seed = seed
        self._relay = relay
        self.moved = 0
        self.ending = False
        self._mid_send = threading.Lock()
        self.reset = threading.Event()
        self.over = threading.Event()

    def run(self) -> None:
        """Copy until the end, whatever that is."""
        try:
            if self._faults == NO_FAULTS:
                self._copy()
            else:
                self._copy_through(DelayLine(self._faults, self._seed))
        except ClosedError:
            pass  # the other direction, or `abort`, has closed both
        except _SendFailure as failure:
            self.over.set()
            # Whatever the sink has said before it left comes first.
            self.opposite.over.wait()
            self._relay._lose(failure.error, self._sink)
        except OSError as error:
            self._settle()
            self._relay._lose(error, self._source)
        finally:
            self.over.set()

    def _copy(self) -> None:
        while data := self._receive(None):
            self._send(data)
        self._end()

    def _copy_through(self, line: DelayLine) -> None:
        """The same, as the faults have it."""
        in_clear = not (self._source.is_ssl or self._sink.is_ssl)
        records = CloseNotifyFilter() if self._faults.drop_tls_close and in_clear else None
        source_input = _Input(self._receive, line, records)
        while True:
            while (piece := line.take(monotonic())) is not None:
                self._send(piece)
            if source_input.closed and line.is_empty:
                break
            wait = line.seconds_to_wait(monotonic())
            if source_input.closed or not line.has_capacity:
                if self.reset.wait(wait):
                    raise ClosedError
            else:
                source_input.fill(wait)
        if line.ending is Ending.RESET:
            self._settle()
            self._relay._reset()
        elif line.ending is Ending.TRUNCATE:
            self._cut()
            while self._receive(None):
                pass
        elif source_input.error is not None:
            raise source_input.error
        elif self._faults.drop_tls_close:
            self._cut()
        else:
            self._end()

    def _receive(self, timeout: float | None) -> bytes:
        data = self._source.recv_some(BUFFER_SIZE, timeout, _NO_FLAGS)
        if not data and self._was_reset():
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return data

    def _was_reset(self) -> bool:
        """Whether what reads as an end is a reset.

        The system tells of a reset once. If it was the opposite direction's `send` that was told, a read finds an end.
        What cannot be sent to any more, and was not ended by us, is gone. (A Unix socket whose peer has closed it as it
        should cannot be sent to either.)
        """
        with self._source._use("recv_some") as raw:
            if raw.family == AF_UNIX:
                return False
            try:
                raw.send(b"", DONT_WAIT | NO_SIGNAL)
            except BlockingIOError:
                return False
            except OSError:
                return not self.opposite.ending
        return False

    def _end(self) -> None:
        self.ending = True
        with self._sending():
            self._sink.shutdown_write()

    def _send(self, data: bytes) -> None:
        with self._sending():
            self._sink.send(data, _NO_FLAGS)
        self.moved += len(data)

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        """Tell a failure of the sink from one of the source."""
        with self._mid_send:
            try:
                yield
            except ClosedError:
                raise
            except OSError as error:
                raise _SendFailure(error) from error

    def reset_sink(self) -> None:
        """Close the sink with a reset.

        A `send` that is just returning would be taken for one that waits, and woken by ending the stream: the peer
        would see an end before the reset. One that does wait has so much before that end that it never gets out.
        """
        between_sends = self._mid_send.acquire(timeout=_SEND_RETURN_TIME)
        try:
            self._sink.close(linger=0)
        finally:
            if between_sends:
                self._mid_send.release()

    def _cut(self) -> None:
        """End the connection below TLS: FIN, and no word of it."""
        self.ending = True
        with self._sending(), self._sink._use("shutdown_write") as raw:
            raw.shutdown(socket.SHUT_WR)

    def _settle(self) -> None:
        """Before a reset, which throws away what is not sent: wait until the sink's peer has it, or takes no more."""
        with contextlib.suppress(OSError), self._sink._use("close") as raw:  # closed already
            left, limit = _unacked(raw), monotonic() + DEFAULT_LINGER
            while left and monotonic() < limit and not self.reset.wait(_POLL_INTERVAL):
                before, left = left, _unacked(raw)
                if left < before:
                    limit = monotonic() + DEFAULT_LINGER


def _unacked(sock: socket.socket) -> int:
    """How many bytes the peer has not acknowledged (where the system tells; elsewhere none)."""
    try:
        import fcntl
        import termios

        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
    except (ImportError, OSError):
        return 0


class _Input:
    """Where bytes get into a line.

    Attributes:
        closed: nothing more comes in.
        error: what closed it, if it was no end.
    """

    def __init__(
        self,
        receive: Callable[[float | None], bytes],
        line: DelayLine,
        records: CloseNotifyFilter | None,
    ) -> None:
        self._receive = receive
        self._line = line
        self._records = records
        self._held_since = 0.0
        self._ended = False
        self.error: OSError | None = None

    @property
    def closed(self) -> bool:
        return self._ended or self._line.ending is not None

    def fill(self, wait: float | None) -> None:
        """Wait for bytes, at most that long, and put them in."""
        patience = self._patience()
        waits = [seconds for seconds in (wait, patience) if seconds is not None]
        try:
            data = self._receive(min(waits, default=None))
        except SocketTimeout:
            if patience is not None and self._patience() == 0.0:
                self._put(self._release())
        except ClosedError:
            raise
        except OSError as error:
            # What is under way arrives before the bad news.
            self._ended, self.error = True, error
        else:
            self._ended = not data
            self._put(self._filtered(data))

    def _put(self, data: bytes) -> None:
        if data:
            self._line.put(data, monotonic())

    def _filtered(self, data: bytes) -> bytes:
        if self._records is None:
            return data
        if not data:
            return self._records.end()
        passed = self._records.feed(data)
        self._held_since = monotonic()
        return passed

    def _patience(self) -> float | None:
        """Seconds for which something may still be held back; None if nothing is."""
        if self._records is None or not self._records.may_be_data:
            return None
        return max(0.0, self._held_since + HOLD_TIME - monotonic())

    def _release(self) -> bytes:
        return self._records.release() if self._records is not None else b""


class _SendFailure(Exception):
    """The sink does not take it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error
