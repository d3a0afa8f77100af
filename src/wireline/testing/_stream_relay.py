"""A relay between two connected sockets, in both directions, with or without faults.

Theory of operation. Without faults it is ``wireline.net.relay``. With faults, or a tap, each direction has a thread
that reads and sends. The delay line in between is limited, so a slow reader holds the sender back. How the ends of a
stream are relayed:

- A half-close is relayed after all data before it. The other direction goes on.
- A connection that breaks is not an end: its data is delivered first, and then the other side is reset.
- A side to which we cannot send may be gone: then the other direction notices it, after delivering that side's data. Or
  it does not read any more: then the data for it waits until that side has ended.

A Unix socket has no reset: its peer sees an end of the stream instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from wireline import AF_UNIX, BUFFER_SIZE, ClosedError, SocketFlag, SocketTimeout
from wireline._os.linger import unacked
from wireline._relay_common import ACK_INTERVAL, AckWait
from wireline.net import relay
from wireline.options import DONT_WAIT, NO_SIGNAL
from wireline.testing._delay_line import DelayLine, Ending
from wireline.testing._faults import NO_FAULTS, Faults
from wireline.testing._tls_records import HOLD_TIME, CloseNotifyFilter

if TYPE_CHECKING:
    from wireline.net import Socket

__all__ = ["StreamRelay"]

# Without `SAFE_DISCONN` a reset is an error, not an end.
_NO_FLAGS = SocketFlag(0)

# Seconds that `send` may take to return after its last system call. A guess.
_SEND_RETURN_TIME = 0.05


class StreamRelay:
    """Relays bytes between two connected sockets of ``wireline.net``.

    Attributes:
        to_server: the bytes sent to the server.
        to_client: the bytes sent to the client.
        failed_socket: the socket that failed; None before.
    """

    def __init__(
        self,
        client: Socket,
        server: Socket,
        faults: Faults = NO_FAULTS,
        *,
        number: int = 0,
        tap: Callable[[Socket, bytes], object] | None = None,
    ) -> None:
        """Prepare a relay; ``run`` starts it.

        Args:
            client: one side. Only the relay may read and write it from now on.
            server: the other side.
            faults: of the network between them.
            number: of the connection, which selects its random numbers.
            tap: called with the socket that is about to get a piece, and its bytes; ``b""`` is the end. Each direction
                calls it in a thread of its own, and waits for it. An exception that it raises resets both connections
                and leaves ``run``.
        """
        self.failed_socket: Socket | None = None
        self._client = client
        self._server = server
        self._faults = faults
        self._tap = tap
        self._error: Exception | None = None
        self._aborted = threading.Event()
        self._lock = threading.Lock()
        self._up = _Direction(client, server, faults, f"{number}/to server", self)
        self._down = _Direction(server, client, faults, f"{number}/to client", self)
        self._up.opposite, self._down.opposite = self._down, self._up

    @property
    def to_server(self) -> int:
        """The number of bytes sent to the server."""
        return self._up.moved

    @property
    def to_client(self) -> int:
        """The number of bytes sent to the client."""
        return self._down.moved

    def run(self) -> None:
        """Relay until both sides have ended, then close both. The effect of a fault is not an error.

        Without faults and tap no other call may use the sockets meanwhile; see ``wireline.net.relay``.

        Raises:
            OSError: one side failed, and ``failed_socket`` is its socket. The other side received everything that had
                arrived before, and then a reset.
            ClosedError: ``abort`` was called, or another part of the program has closed a socket.
        """
        try:
            if self._faults == NO_FAULTS and self._tap is None:
                self._run_without_faults()
            else:
                self._run_in_threads()
        except BaseException:
            self._reset()
            raise
        if self._error is not None:
            raise self._error
        if self._aborted.is_set():
            raise ClosedError("run: the relay was aborted")
        self._client.close()
        self._server.close()

    def _run_without_faults(self) -> None:
        def show(to_server: int, to_client: int) -> None:
            self._up.moved, self._down.moved = to_server, to_client

        report = relay(self._client, self._server, progress=show)
        if report.error is not None:
            self._lose(report.error, self._client if report.failed == "a" else self._server)

    def _run_in_threads(self) -> None:
        thread = threading.Thread(target=self._down.run, name="wireline-relay", daemon=True)
        thread.start()
        self._up.run()
        thread.join()

    def abort(self) -> None:
        """Reset both connections, from any thread. Data in flight is lost."""
        self._aborted.set()
        self._reset()

    def _show(self, sink: Socket, data: bytes) -> None:
        """Call the tap with what ``sink`` is about to get.

        Raises:
            _TapFailure: the tap raised an exception.
        """
        if self._tap is None:
            return
        try:
            self._tap(sink, data)
        except Exception as error:
            raise _TapFailure(error) from error

    def _lose(self, error: Exception, failed_socket: Socket | None) -> None:
        """Record that a side failed, and reset the other side, which must not see an end of the stream."""
        with self._lock:
            if self._error is None and not self._aborted.is_set():
                self._error, self.failed_socket = error, failed_socket
        self._reset()

    def _reset(self) -> None:
        # First: then a direction that finds its socket closed knows why.
        self._up.reset.set()
        self._down.reset.set()
        self._down.reset_sink()
        self._up.reset_sink()


class _Direction:
    """One direction.

    Attributes:
        moved: the bytes sent.
        ending: FIN was sent, or is about to be.
        reset: set when the relay resets both connections.
        over: set when `run` returns.
    """

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
        """Copy until this direction ends."""
        try:
            self._copy(DelayLine(self._faults, self._seed))
        except ClosedError:
            if not self.reset.is_set():  # from outside, by the idle limit of a server for example
                self._relay.abort()
        except _SendFailure as failure:
            self.over.set()
            # First deliver what the sink has sent before it failed.
            self.opposite.over.wait()
            self._relay._lose(failure.error, self._sink)
        except _TapFailure as failure:
            self._relay._lose(failure.error, None)
        except OSError as error:
            self._wait_acked()
            self._relay._lose(error, self._source)
        finally:
            self.over.set()

    def _copy(self, line: DelayLine) -> None:
        is_plain = not (self._source.is_ssl or self._sink.is_ssl)
        records = CloseNotifyFilter() if self._faults.drop_tls_close and is_plain else None
        source = _Input(self._receive, line, records)
        while True:
            while (piece := line.take(monotonic())) is not None:
                self._send(piece)
            if source.closed and line.is_empty:
                break
            wait = line.seconds_to_wait(monotonic())
            if not source.closed and line.has_capacity:
                source.fill(wait)
            elif self.reset.wait(wait):
                raise ClosedError
        self._end_with_faults(line, source)

    def _end_with_faults(self, line: DelayLine, source: _Input) -> None:
        if line.ending is Ending.RESET:
            self._wait_acked()
            self._relay._reset()
        elif line.ending is Ending.TRUNCATE:
            self._send_fin_below_tls()
            # The source must not be blocked by a full send buffer.
            while self._receive(None):
                pass
        elif source.error is not None:
            raise source.error
        elif self._faults.drop_tls_close:
            self._send_fin_below_tls()
        else:
            self._end()

    def _receive(self, timeout: float | None) -> bytes:
        data = self._source.recv_some(BUFFER_SIZE, timeout, _NO_FLAGS)
        if not data and self._was_reset():
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return data

    def _was_reset(self) -> bool:
        """Whether a read that returned an end has hidden a reset.

        The kernel reports a reset once. If the opposite direction's `send` got that report, a read returns an end. But
        then the socket cannot be sent to, although we have not ended it. (This does not hold for a Unix socket: after
        its peer's close(2) it cannot be sent to, either.)
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
        self._relay._show(self._sink, b"")
        self.ending = True
        with self._sending():
            self._sink.shutdown_write()

    def _send(self, data: bytes) -> None:
        self._relay._show(self._sink, data)
        with self._sending():
            self._sink.send(data, _NO_FLAGS)
        self.moved += len(data)

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        """Mark an error as one of the sink."""
        with self._mid_send:
            try:
                yield
            except ClosedError:
                raise
            except OSError as error:
                raise _SendFailure(error) from error

    def reset_sink(self) -> None:
        """Close the sink with a reset.

        `close` wakes a `send` by shutting the stream down. If that `send` is about to return, the FIN would be sent
        before the reset, so we wait for it a moment. If the send buffer is full, the FIN comes after data that is
        dropped.
        """
        between_sends = self._mid_send.acquire(timeout=_SEND_RETURN_TIME)
        try:
            self._sink.close(linger=0)
        finally:
            if between_sends:
                self._mid_send.release()

    def _send_fin_below_tls(self) -> None:
        """Send FIN without ``close_notify``."""
        self._relay._show(self._sink, b"")
        self.ending = True
        with self._sending(), self._sink._use("shutdown_write") as raw:
            raw.shutdown(socket.SHUT_WR)

    def _wait_acked(self) -> None:
        """Wait, before a reset that drops unsent data, until the peer of the sink has acknowledged all or stops to."""
        with contextlib.suppress(OSError), self._sink._use("close") as raw:  # closed already
            wait = AckWait(lambda: unacked(raw), monotonic())
            while not wait.is_over(monotonic()) and not self.reset.is_set():
                self.reset.wait(ACK_INTERVAL)


class _Input:
    """Receives bytes for a delay line.

    Attributes:
        closed: no more bytes will be received.
        error: the error that ended the source; None for an ordinary end.
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
        """Receive bytes for at most ``wait`` seconds, and put them into the line."""
        hold = self._hold_time()
        waits = [seconds for seconds in (wait, hold) if seconds is not None]
        try:
            data = self._receive(min(waits, default=None))
        except SocketTimeout:
            if hold is not None and self._hold_time() == 0.0:
                self._put(self._release())
        except ClosedError:
            raise
        except OSError as error:
            # Raised after the bytes in flight have arrived.
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

    def _hold_time(self) -> float | None:
        """Seconds until a record that is held back is released; None if there is none."""
        if self._records is None or not self._records.may_be_data:
            return None
        return max(0.0, self._held_since + HOLD_TIME - monotonic())

    def _release(self) -> bytes:
        return self._records.release() if self._records is not None else b""


class _Failure(Exception):
    """What ended a direction, other than an error of its source."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _TapFailure(_Failure):
    """An error of the tap."""


class _SendFailure(_Failure):
    """An error of the sink."""
