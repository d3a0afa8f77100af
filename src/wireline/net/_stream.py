"""The blocking flavour: ask the core, and while it has no answer, wait and feed it.

How a stream waits: without a timeout inside ``recv`` and ``send`` themselves, for the descriptor blocks and the
kernel's wait is one system call instead of three. With a timeout in ``poll``, then ``MSG_DONTWAIT``. Where there is
no such flag the descriptor does not block and every wait is a ``poll`` (or ``select``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeVar, TypeVarTuple

from wireline import _promises
from wireline._arguments import Buffer, joined, require_resizable, sendable, writable
from wireline._datagram import Datagram
from wireline._descriptor import shut_down_writing
from wireline._sansio.deadline import Deadline, check_timeout
from wireline._sansio.lines import EMPTY_LINE
from wireline._sansio.stream import StreamCore, check_size
from wireline.errors import BusyError, SocketTimeout
from wireline.net._secured import SecuredSocket
from wireline.net._wait import start_deadline
from wireline.options import (
    BUFFER_SIZE,
    DONT_WAIT,
    MAX_LINE_LENGTH,
    NO_SIGNAL,
    SAFE_DISCONN,
    ReadLineResult,
    SocketFlag,
    check_flags,
)

__all__ = ["BlockingStream"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@_promises.documented(_promises.SocketPromises)
class BlockingStream(SecuredSocket):
    """The part of a ``Socket`` that reads and writes a connected stream."""

    _module = "wireline.net"
    last_bytes_sent: int
    _kernel_waits = bool(DONT_WAIT)

    # What a datagram socket does instead, in the class below.

    def recv_from(
        self, size: int, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> Datagram:
        raise NotImplementedError

    def _send_datagram(self, operation: str, payload: bytes | memoryview, deadline: Deadline | None) -> int:
        raise NotImplementedError

    # Waiting.

    def _read(
        self,
        request: Callable[[StreamCore, *Ts], bytes | None],
        timeout: float | None,
        *args: *Ts,
        most: int = 0,
    ) -> bytes:
        """Make one request of the core, and wait until it has an answer.

        Args:
            request: a method of the core.
            timeout: seconds to wait.
            args: its arguments.
            most: what comes next is the answer if nothing was there before, and it has no more bytes; 0 if it is not
                that simple.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        try:
            core = self._resting.pop()
        except IndexError:
            core = self._core_or_refusal(request.__name__)
        try:
            answer = request(core, *args)
            deadline: Deadline | None = None
            while answer is None:
                try:
                    answer = self._fill(
                        core, request.__name__, most, wait=timeout is None and self._kernel_waits
                    )
                except BlockingIOError:
                    # A deadline only now: where something is there, a timeout costs neither an object nor a clock.
                    deadline = deadline or start_deadline(timeout)
                    self._wait_for_input(request.__name__, deadline)
                    continue
                if answer is None and (answer := request(core, *args)) is None:
                    if self._disposal is not None:  # who always finds something is not woken by `close`
                        self._raise_if_closed(request.__name__)
                    # A timeout of 0 goes on while the kernel has something: it does not wait, and gets all that is.
                    if timeout:
                        deadline = deadline or Deadline(timeout, time.monotonic())
                        if deadline.passed(time.monotonic()):
                            raise SocketTimeout(request.__name__, timeout)
            return answer
        finally:
            self._resting.append(core)
            if self._disposal is not None:
                self._last_one_out()

    def _core_or_refusal(self, operation: str) -> StreamCore:
        """Say why there is no core to be had, or take it if only ``detach`` had it in hand for a moment."""
        if self._core is None:
            self._refuse(operation)
        with self._lock:
            self._open_sock(operation)
            try:
                return self._resting.pop()
            except IndexError:
                raise BusyError(f"{operation}: another thread is reading this socket") from None

    # Reading.

    def recv(self, size: int, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN) -> bytes:
        if self._core is None and self._is_datagram:
            return self.recv_from(size, flags, timeout).data
        return self._read(StreamCore.recv, timeout, size, flags)

    def recv_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
    ) -> int:
        target = writable(buffer, size)
        data = self.recv(len(target), timeout, flags)
        target[: len(data)] = data
        return len(data)

    def recv_some(
        self, max_size: int = BUFFER_SIZE, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN
    ) -> bytes:
        most = max_size if flags is SAFE_DISCONN and type(max_size) is int else 0
        if timeout is None and 0 < most <= BUFFER_SIZE:
            # One message after the other: no question to a core whose answer is known, and no call (half of our time).
            resting = self._resting
            try:
                core = resting.pop()
            except IndexError:
                pass  # then it is no stream, or somebody else is reading
            else:
                try:
                    if core.at_rest:
                        data = self._sock.recv(core.want)
                        if 0 < len(data) <= most:
                            return data
                        self._feed(core, data, "recv_some")
                except BlockingIOError:
                    pass  # where the kernel does not wait
                except OSError as error:
                    self._fail(core, error, "recv_some")
                finally:
                    resting.append(core)
                    if self._disposal is not None:
                        self._last_one_out()
        if self._core is None and self._is_datagram:
            return self.recv_from(max_size, flags, timeout).data
        return self._read(StreamCore.recv_some, timeout, max_size, flags, most=most)

    def recv_exactly(self, size: int, timeout: float | None = None) -> bytes:
        return self._read(StreamCore.recv_exactly, timeout, size)

    def recv_until(
        self, delimiter: bytes, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None
    ) -> bytes:
        return self._read(StreamCore.recv_until, timeout, delimiter, max_length)

    def recv_line(
        self,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> bytes:
        # The fast lane: a line that was split off ahead, at the cost of `list.pop`.
        lines = self._lines
        if lines and flags is SAFE_DISCONN and on_long == "truncate":
            if timeout is not None:
                check_timeout(timeout)
            if max_length is not MAX_LINE_LENGTH:
                max_length = check_size(max_length, "max_length")
            try:
                line = lines.pop()
            except IndexError:
                pass  # another thread took the last one in between
            else:
                # No line ahead is longer than the default: that is not asked in each call.
                if max_length is MAX_LINE_LENGTH or len(line) <= max_length:
                    return line
                lines.append(line)
        return self._read(StreamCore.recv_line, timeout, max_length, on_long, flags)

    def recv_line_into(
        self,
        buffer: bytearray,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> int:
        require_resizable(buffer)
        buffer[:] = self.recv_line(timeout, flags, max_length, on_long=on_long)
        return len(buffer)

    def try_recv_line(self, max_length: int = MAX_LINE_LENGTH) -> tuple[ReadLineResult, bytes]:
        try:
            line = self.recv_line(0, max_length=max_length)
        except SocketTimeout:
            assert self._core is not None
            partial = self._core.pending_line()
            return (ReadLineResult.PARTIAL_LINE if partial else ReadLineResult.NONE), partial
        if line:
            return ReadLineResult.FULL_LINE, line
        assert self._core is not None
        return ReadLineResult.DISCONNECTED, self._core.pending_line()

    def lines(self, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None) -> Iterator[bytes]:
        timeout = check_timeout(timeout)
        if check_size(max_length, "max_length") < 1:
            raise ValueError("max_length must be at least 1 byte")
        self._open_sock("lines")
        if self._core is None:
            self._refuse("lines")
        return self._iterate_lines(max_length, timeout)

    def _iterate_lines(self, max_length: int, timeout: float | None) -> Iterator[bytes]:
        ahead = self._lines
        unlimited = max_length >= BUFFER_SIZE  # no line is split off ahead that is longer
        while True:
            try:
                line = ahead.pop() if ahead and unlimited else b""
            except IndexError:  # another thread took the last one in between
                line = b""
            if not line:
                line = self.recv_line(timeout, SAFE_DISCONN, max_length, on_long="raise")
                if not line:
                    return
            yield b"" if line == EMPTY_LINE else line

    def skip(self, size: int, timeout: float | None = None) -> None:
        self._read(StreamCore.skip, timeout, size)

    # Writing.

    def send(self, data: Buffer, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None) -> None:
        payload = data if type(data) is bytes else sendable(data)
        if flags is not SAFE_DISCONN:
            check_flags(flags)
        deadline = None if timeout is None else start_deadline(check_timeout(timeout))
        turn = self._turn
        if turn.queue or not turn.held.acquire(False):  # what `try_acquire` does, without the call
            if self._core is None and self._is_datagram:
                self.last_bytes_sent = self._send_datagram("send", payload, deadline)
                return
            self._queue_to_write("send", deadline)
        if self._secure is not None:
            self._send_secure(self._secure, payload, flags, deadline)
            return
        sent = 0
        try:
            if deadline is None and DONT_WAIT and payload:
                sent = self._sock.send(payload, NO_SIGNAL)
            while sent < len(payload):
                rest = memoryview(payload)[sent:] if sent else payload
                sent += self._send_once("send", rest, deadline, sent)
        except SocketTimeout:
            raise
        except OSError as error:
            if self._is_real(error, flags, "send"):
                raise
        finally:
            self.last_bytes_sent = sent
            turn.held.release()
            if turn.queue:
                turn.pass_on()
            if self._disposal is not None:
                self._last_one_out()

    def send_many(
        self, parts: Iterable[Buffer], flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> None:
        payload = joined(parts)
        self._open_sock("send_many")
        self._require("send_many", datagram=False)
        self.send(payload, flags, timeout)

    def send_some(self, data: Buffer, timeout: float | None = None) -> int:
        payload = sendable(data)
        deadline = start_deadline(check_timeout(timeout))
        if self._core is None and self._is_datagram:
            return self._send_datagram("send_some", payload, deadline)
        self._take_turn("send_some", deadline)
        try:
            if self._secure is not None:
                return self._send_a_slice(self._secure, payload, deadline)
            return self._send_once("send_some", payload, deadline, 0) if payload else 0
        except SocketTimeout:
            raise
        except OSError as error:
            self._is_real(error, SocketFlag(0), "send_some")
            raise
        finally:
            self._let_go_of_turn()

    def try_send(self, data: Buffer) -> bool:
        payload = sendable(data)
        if self._core is None and self._is_datagram:
            try:
                return self._send_datagram("try_send", payload, start_deadline(0)) == len(payload)
            except OSError:
                return False
        if not self._turn.try_acquire():
            return False
        try:
            if self._secure is not None:
                self.last_bytes_sent = sent = self._try_send_secure(self._secure, payload)
                return sent == len(payload) and not self._secure.rest
            return not payload or self._sock.send(payload, DONT_WAIT | NO_SIGNAL) == len(payload)
        except OSError as error:
            self._note_reset(error)
            return False
        finally:
            self._let_go_of_turn()

    def __iand__(self, data: Buffer) -> Self:
        """Send all of ``data``: ``sock &= data`` is ``sock.send(data)``."""
        self.send(data)
        return self

    def _take_turn(self, operation: str, deadline: Deadline | None) -> None:
        if not self._turn.try_acquire():
            self._queue_to_write(operation, deadline)

    def _queue_to_write(self, operation: str, deadline: Deadline | None) -> None:
        if self._core is None:
            self._refuse(operation)
        if not self._turn.acquire(deadline):
            self._raise_if_closed(operation)
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds, 0)

    def shutdown_write(self, timeout: float | None = None) -> None:
        deadline = start_deadline(check_timeout(timeout))
        self._take_turn("shutdown_write", deadline)
        try:
            self._write_shut = True
            if self._secure is not None:
                self._say_goodbye(self._secure, deadline)
            else:
                shut_down_writing(self._sock)
        finally:
            self._let_go_of_turn()
