"""The blocking flavour: ask the core, and while it has no answer, wait and feed it.

How a stream waits: without a timeout inside ``recv`` and ``send`` themselves, for the descriptor blocks and the
kernel's wait is one system call instead of three. With a timeout in ``poll``, then ``MSG_DONTWAIT``. Where there is
no such flag the descriptor does not block and every wait is a ``poll`` (or ``select``).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeVarTuple

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.lines import EMPTY_LINE
from wireline._core.named import LINES, RECV_INTO, RECV_LINE_INTO, TRY_RECV_LINE
from wireline._core.stream import SOME, StreamCore, check_size
from wireline._os.datagram import Datagram, Received
from wireline._os.descriptor import KERNEL_WAITS, shut_down_writing
from wireline._os.process import process
from wireline._validation import Buffer, joined, require_resizable, sendable, writable
from wireline.errors import SocketTimeout, WirelineError, rename
from wireline.net._poll import start_deadline
from wireline.net._secured import SecuredSocket
from wireline.net._write_lock import Permit
from wireline.options import (
    BUFFER_SIZE,
    MAX_LINE_LENGTH,
    NO_SIGNAL,
    SAFE_DISCONN,
    ReadLineResult,
    SocketFlag,
    check_flags,
)

__all__ = ["BlockingStream"]

Ts = TypeVarTuple("Ts")


class BlockingStream(SecuredSocket):
    """The part of a ``Socket`` that reads and writes a connected stream."""

    _module = "wireline.net"
    last_bytes_sent: int
    _kernel_waits = KERNEL_WAITS

    # What a datagram socket does instead, in the class below.

    def _receive_one(self, operation: str, size: int, flags: SocketFlag, timeout: float | None) -> Datagram:
        raise NotImplementedError

    def _receive_into(
        self, operation: str, target: memoryview, flags: SocketFlag, timeout: float | None
    ) -> Received:
        raise NotImplementedError

    def _send_datagram(self, operation: str, payload: bytes | memoryview, deadline: Deadline | None) -> int:
        raise NotImplementedError

    # Waiting.

    def _read(
        self,
        request: Callable[[StreamCore, *Ts], bytes | None],
        timeout: float | None,
        *args: *Ts,
        into: memoryview | None = None,
    ) -> bytes:
        """Make one request of the core, and wait until it has an answer.

        Args:
            request: a method of the core.
            timeout: seconds to wait.
            args: its arguments.
            into: a buffer for a copy of the answer.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self._quiet_epoch is not process.epoch:
            self._arrive()
        resting = self._resting
        try:
            core = resting.pop()
        except IndexError:
            core = self._take_core_or_raise(request.__name__)
        try:
            if core.undo is not None or core.inbox is not None or core._buffer.size or core.lines:
                core.note()
            answer = request(core, *args)
            deadline: Deadline | None = None
            while answer is None:
                if not self._fill(core, request.__name__, wait=timeout is None and self._kernel_waits):
                    # A deadline only now: where something is there, a timeout costs neither an object nor a clock.
                    deadline = deadline or start_deadline(timeout)
                    self._wait_for_input(request.__name__, deadline)
                    continue
                answer = core.accept(core.inbox)  # type: ignore[arg-type] # `_fill` has set it
                if answer is None and (answer := request(core, *args)) is None:
                    if (
                        self._quiet_epoch is None
                    ):  # a call that always finds something is not woken by `close`
                        self._raise_if_closed(request.__name__)
                    # A timeout of 0 goes on while the kernel has something: it does not wait, and gets all that is.
                    if timeout:
                        deadline = deadline or Deadline(timeout, time.monotonic())
                        if deadline.passed(time.monotonic()):
                            raise SocketTimeout(request.__name__, timeout)
            if into is not None:
                into[: len(answer)] = answer  # before it is forgotten: it is not the caller's yet
        except BaseException as error:
            self._end_interrupted_read(core, error)
            del core  # the traceback would keep it
            raise
        # From here to the `return` there is no place for a signal handler: the caller gets what is forgotten here.
        core.undo = core.inbox = None
        resting += self._guard.cores
        if self._quiet_epoch is not process.epoch:
            self._leave()
        return answer

    def _end_interrupted_read(self, core: StreamCore, error: BaseException) -> None:
        """Put the core back after an exception. The next call undoes what was done to it (``StreamCore.recover``)."""
        resting = self._resting
        if not resting:
            resting += self._guard.cores
        if not isinstance(error, WirelineError):  # a timeout leaves none of the frames that have the core
            self._guard.interrupted = True
        if self._quiet_epoch is not process.epoch:
            self._leave()

    # Reading.

    def recv(self, size: int, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN) -> bytes:
        """Receive ``size`` bytes; ``b""`` means that the peer is done.

        A buffered stream gives all ``size`` bytes, and fewer only at its end. An unbuffered one gives what one
        system call does. A datagram socket gives the next datagram, cut to ``size``. A timeout or a cancellation
        loses nothing: what has arrived stays for the next read, whichever that is.

        Args:
            size: bytes; 0 is answered at once on a stream.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            The bytes.

        Raises:
            SocketTimeout: time ran out first.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``. As any
                failure of the connection, it is reported after everything that arrived before it.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """
        if self._core is None and self._is_datagram:
            return self._receive_one("recv", size, flags, timeout).data
        return self._read(StreamCore.recv, timeout, size, flags)

    def recv_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
    ) -> int:
        """Receive into the caller's buffer as ``recv`` does; 0 means that the peer is done.

        A timeout or a cancellation loses nothing and leaves the buffer as it was.

        Args:
            buffer: something writable and contiguous.
            size: bytes; None fills the buffer.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            How many bytes of the buffer were written.

        Raises:
            SocketTimeout: time ran out first.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError: the buffer cannot be written to.
            ValueError: ``size`` is negative or more than the buffer has, or ``timeout`` is negative.
        """
        target = writable(buffer, size)
        if self._core is None and self._is_datagram:
            return self._receive_into("recv_into", target, flags, timeout).size
        return len(self._read(RECV_INTO, timeout, len(target), flags, into=target))

    def recv_some(
        self, max_size: int = BUFFER_SIZE, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN
    ) -> bytes:
        """Receive what there is, as soon as there is one byte; ``b""`` means that the peer is done.

        A datagram socket gives the next datagram, cut to ``max_size``. A timeout or a cancellation loses nothing:
        what has arrived stays for the next read.

        Args:
            max_size: the most bytes to return. More than ``BUFFER_SIZE``, up to 1 MiB, also asks the kernel for as
                much at once, which bulk data gain from.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            At least one byte, from the buffer first; ``b""`` at the end.

        Raises:
            SocketTimeout: time ran out before a byte came.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """
        if (
            timeout is None
            and flags is SAFE_DISCONN
            and (max_size is BUFFER_SIZE or (type(max_size) is int and 0 < max_size <= BUFFER_SIZE))
        ):
            # One message after the other: the core would answer "not yet", so no request is made (half of our time).
            resting = self._resting
            try:
                core = resting.pop()
            except IndexError:
                pass  # then it is no stream, or another thread is reading
            else:
                try:
                    if core.fast_recv_ok and core.inbox is None:
                        for core.inbox in self._receive:  # no signal handler can run in between: see `_fill`
                            break
                        data = core.inbox
                        if (
                            core.is_tls and data
                        ):  # what `accept` does without TLS is in the next line, without the call
                            core.direct = SOME
                            core.direct_limit = max_size
                            data = core.accept(data)
                        if data and len(data) <= max_size:
                            core.undo = core.inbox = None
                            resting += self._guard.cores
                            if self._quiet_epoch is not process.epoch:
                                self._leave()
                            return data
                except BlockingIOError:
                    pass  # where the kernel does not wait
                except OSError as error:
                    if not self._is_the_systems(error):
                        self._end_interrupted_read(core, error)
                        raise
                    core.inbox = error
                except BaseException as error:
                    self._end_interrupted_read(core, error)
                    raise
                resting += self._guard.cores
                del core  # a reference of a call that is over would look like one of a reader
                if self._quiet_epoch is not process.epoch:
                    self._leave()
                    self._raise_if_closed("recv_some")  # then it was `close` that woke us
        if self._core is None and self._is_datagram:
            return self._receive_one("recv_some", max_size, flags, timeout).data
        return self._read(StreamCore.recv_some, timeout, max_size, flags)

    def recv_exactly(self, size: int, timeout: float | None = None) -> bytes:
        """Receive ``size`` bytes, not one fewer.

        A timeout or a cancellation loses nothing: what has arrived stays for the next read.

        Args:
            size: bytes.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The bytes.

        Raises:
            EndOfStreamError: the peer was done, or gone, before. The bytes that came are its ``partial``, and stay
                readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or negative.
        """
        return self._read(StreamCore.recv_exactly, timeout, size)

    def recv_until(
        self, delimiter: bytes, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None
    ) -> bytes:
        """Receive everything up to a delimiter, and the delimiter.

        A timeout or a cancellation loses nothing: what has arrived stays for the next read.

        Args:
            delimiter: one byte at least.
            max_length: the most bytes to return, the delimiter included.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The bytes; they end with ``delimiter``.

        Raises:
            LineTooLongError: ``max_length`` bytes came and the delimiter was not among them. They stay readable.
            EndOfStreamError: the peer was done, or gone, before the delimiter. The bytes that came are its
                ``partial``, and stay readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an empty delimiter; an argument is of the wrong type, or
                negative.
        """
        return self._read(StreamCore.recv_until, timeout, delimiter, max_length)

    def recv_line(
        self,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> bytes:
        r"""Receive a line without its end; ``b""`` means that the peer is done.

        A line ends at ``\r\n`` or ``\n``; a lone ``\r`` is data. An empty line is ``b"\r\n"``, whichever way it
        ended. A line that the peer left unfinished is not returned; its bytes stay readable with ``recv`` or
        ``recv_some``. A timeout or a cancellation loses nothing: what has arrived of a line stays for the next read.

        Args:
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the line for the next read. ``SAFE_DISCONN`` takes a reset for the end.
            max_length: bytes that a line may have, without its end; at least 1.
            on_long: what to do with a longer line. ``"truncate"`` returns its first ``max_length`` bytes, and the
                next read goes on with the rest; ``"raise"`` raises and consumes nothing.

        Returns:
            The line.

        Raises:
            LineTooLongError: the line is longer, and ``on_long`` is ``"raise"``.
            SocketTimeout: time ran out before the line was complete.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or out of its range.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        # The fast lane: a line that was split off ahead, at the cost of `list.pop`.
        lines = self._lines
        if (
            lines
            and flags is SAFE_DISCONN
            # No line ahead is longer than the default: that is not asked in each call.
            and (max_length is MAX_LINE_LENGTH or self._fits(check_size(max_length, "max_length")))
            and on_long == "truncate"
            and self._core.undo is None  # type: ignore[union-attr]
            # Again, for `_fits` is a call, in which `close` may have come. Between here and `del` there is none:
            # neither a signal handler nor another thread can be in between.
            and lines
        ):
            line = lines[-1]
            del lines[-1]
            return line
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
        r"""Receive a line as ``recv_line`` does, and make it the content of ``buffer``.

        A timeout or a cancellation loses nothing and leaves the buffer as it was.

        Args:
            buffer: what was in it is replaced; it becomes as long as the line.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the line for the next read. ``SAFE_DISCONN`` takes a reset for the end.
            max_length: bytes that a line may have, without its end; at least 1.
            on_long: ``"truncate"`` or ``"raise"``, see ``recv_line``.

        Returns:
            How many bytes the line has: 2 for an empty one, which is ``b"\r\n"``, and 0 when the peer is done.

        Raises:
            LineTooLongError: the line is longer, and ``on_long`` is ``"raise"``.
            SocketTimeout: time ran out before the line was complete.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: ``buffer`` is no bytearray, this is a datagram socket, or another argument is of
                the wrong type or out of its range.
        """
        require_resizable(buffer)
        buffer[:] = self._read(RECV_LINE_INTO, timeout, max_length, on_long, flags)
        return len(buffer)

    def _fits(self, max_length: int) -> bool:
        """Whether the next line that was split off ahead has at most ``max_length`` bytes."""
        return all(len(line) <= max_length for line in self._lines[-1:])

    def try_recv_line(self, max_length: int = MAX_LINE_LENGTH) -> tuple[ReadLineResult, bytes]:
        r"""Return a line if a whole one has arrived, and say what there is if not. It never waits.

        Args:
            max_length: bytes that a line may have, without its end; at least 1. A longer one is truncated.

        Returns:
            ``FULL_LINE`` and the line, an empty one as ``b"\r\n"``; ``PARTIAL_LINE`` and a copy of what there is
            of it; ``DISCONNECTED``, with a copy of what the peer left unfinished; or ``NONE`` and ``b""``.

        Raises:
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; ``max_length`` is no int, or less than 1.
        """
        try:
            line = self._read(TRY_RECV_LINE, 0, max_length, "truncate", SAFE_DISCONN)
        except SocketTimeout:
            assert self._core is not None
            partial = self._core.pending_line()
            return (ReadLineResult.PARTIAL_LINE if partial else ReadLineResult.NONE), partial
        if line:
            return ReadLineResult.FULL_LINE, line
        assert self._core is not None
        return ReadLineResult.DISCONNECTED, self._core.pending_line()

    def lines(self, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over the lines that the peer sends, without their ends; an empty one is ``b""``.

        It ends when the peer is done; the bytes of a line that was left unfinished stay readable with ``recv``. A
        timeout or a cancellation ends this iterator and loses nothing: what has arrived stays for the next read,
        another ``lines()`` for example.

        Args:
            max_length: bytes that a line may have, without its end; at least 1.
            timeout: seconds for each line; None waits for ever, 0 never waits.

        Returns:
            The iterator.

        Raises:
            LineTooLongError: a line is longer. Its bytes stay readable.
            SocketTimeout: time ran out before a line was complete.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or out of its range.
        """
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
            line = b""
            # The core is not kept in a variable: one that an interrupted call has lost would be taken for held.
            if ahead and unlimited and self._core.undo is None:  # type: ignore[union-attr]
                line = ahead[-1]
                del ahead[-1]
            else:
                line = self._read(LINES, timeout, max_length, "raise", SAFE_DISCONN)
                if not line:
                    return
            yield b"" if line == EMPTY_LINE else line

    def skip(self, size: int, timeout: float | None = None) -> None:
        """Receive ``size`` bytes and drop them.

        A timeout or a cancellation loses nothing: no byte is dropped, and none leaves the memory, before all of
        them are there.

        Args:
            size: bytes.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            EndOfStreamError: the peer was done, or gone, before. The bytes that came are its ``partial``, and stay
                readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or negative.
        """
        self._read(StreamCore.skip, timeout, size)

    # Writing.

    def send(self, data: Buffer, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None) -> None:
        """Send all of ``data``.

        Whoever sends at the same time takes turns: every ``send`` goes out whole. The buffer is the caller's again
        when the call returns. A timeout or a cancellation leaves the rest unsent; ``last_bytes_sent`` says how many
        bytes went out. On a datagram socket ``data`` is one datagram.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none. An empty one sends nothing on a stream.
            flags: with ``SAFE_DISCONN`` a peer that is gone is no error: the data cannot be delivered.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            SocketTimeout: time ran out; on a stream ``bytes_sent`` says how many bytes went out before.
            BrokenPipeError, ConnectionResetError: the peer is gone, and ``flags`` lack ``SAFE_DISCONN``; or this
                side has called ``shutdown_write``.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """
        deadline = None
        if type(data) is bytes and flags is SAFE_DISCONN and timeout is None:
            payload: bytes | memoryview = data
        else:
            self.last_bytes_sent = 0  # for what is refused here
            payload = data if type(data) is bytes else sendable(data)
            check_flags(flags)
            deadline = start_deadline(check_timeout(timeout))
        writing = self._writing
        free = writing.free
        try:
            permit = None if writing.queue else free.pop()
        except IndexError:
            permit = None
        if permit is None:
            self.last_bytes_sent = 0
            if self._core is None and self._is_datagram:
                self.last_bytes_sent = self._send_datagram("send", payload, deadline)
                return
            permit = self._queue_to_write("send", deadline)
        # The core is not kept in a variable here: it would look like one that a reader holds.
        sent, before = 0, self._core.accepted  # type: ignore[union-attr] # it is there: the lock was free
        try:
            # Mostly all of it fits. If not, and without a deadline, the kernel waits until all is sent.
            if deadline is None and self._kernel_waits and payload:
                sent = self._sender.send(payload, NO_SIGNAL)
            while sent != len(payload) or self._core.unsent:  # type: ignore[union-attr]
                sent += self._send_more(payload, sent, deadline)
            self.last_bytes_sent = sent
        except BaseException as error:
            # A signal handler may have interrupted the core after it took bytes, and before we counted them.
            self.last_bytes_sent = max(sent, self._core.accepted - before)  # type: ignore[union-attr]
            if isinstance(error, SocketTimeout) or not isinstance(error, OSError):
                raise
            if self._is_real(error, flags, "send"):
                raise
        finally:
            free += writing.permits
            if writing.queue:
                writing.wake_next()
            if self._quiet_epoch is not process.epoch:
                self._leave()
            if self._core.has_output:  # type: ignore[union-attr]
                self._send_output()  # of a read, which found the lock taken

    def _send_more(self, payload: bytes | memoryview, sent: int, deadline: Deadline | None) -> int:
        """Wait for room, and send the next piece of a message; return how many bytes it has."""
        assert self._core is not None
        self._flush(self._core, "send", deadline, sent)
        if sent == len(payload):
            self._core.message_incomplete = False
            return 0
        return self._send_once("send", memoryview(payload)[sent:] if sent else payload, deadline, sent)

    def send_many(
        self, parts: Iterable[Buffer], flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> None:
        """Send many pieces, in order, as if they were one.

        For many small messages at once, as a server has that answers a client which did not wait for each answer: it
        costs one system call and, on TLS, one record where a ``send`` for each costs one of both for every message.
        The pieces are put together in memory first, so a large one is better off with a ``send`` of its own. A timeout
        or a cancellation leaves the rest unsent, as of ``send``.

        Args:
            parts: an iterable of ``bytes`` or other buffers.
            flags: as for ``send``.
            timeout: as for ``send``.

        Raises:
            TypeError: ``parts`` is no iterable of buffers (one buffer is none), or this is a datagram socket.
            SocketTimeout: time ran out; ``bytes_sent`` counts the bytes of all pieces together.
            BrokenPipeError, ConnectionResetError, ClosedError, OSError, ValueError: as for ``send``.
        """
        self.last_bytes_sent = 0
        payload = joined(parts)
        self._open_sock("send_many")
        self._require("send_many", datagram=False)
        try:
            self.send(payload, flags, timeout)
        except (OSError, WirelineError) as error:
            rename(error, "send", "send_many")
            raise

    def send_some(self, data: Buffer, timeout: float | None = None) -> int:
        """Send what there is room for with one low-level send.

        A timeout or a cancellation has sent nothing.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none.
            timeout: seconds to wait for room; None waits for ever, 0 never waits.

        Returns:
            How many bytes went out: at least one, unless ``data`` is empty.

        Raises:
            SocketTimeout: time ran out before there was room.
            BrokenPipeError, ConnectionResetError: the peer is gone, or this side has called ``shutdown_write``.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """
        self.last_bytes_sent = 0
        payload = sendable(data)
        deadline = start_deadline(check_timeout(timeout))
        if self._core is None and self._is_datagram:
            self.last_bytes_sent = self._send_datagram("send_some", payload, deadline)
            return self.last_bytes_sent
        permit = self._acquire_permit("send_some", deadline)
        sent = 0
        try:
            assert self._core is not None
            self._flush(self._core, "send_some", deadline, 0)
            if payload:
                if self._core.seals:
                    self._wait_for_room("send_some", deadline)  # a timeout is to have sent nothing
                sent = self._send_once("send_some", payload, deadline, 0)
                # A whole record, or the peer waits for its rest while we wait for its answer.
                with contextlib.suppress(SocketTimeout):  # the next send takes the rest along
                    self._flush(self._core, "send_some", deadline)
                self._core.message_incomplete = False
            return sent
        except SocketTimeout:
            raise
        except OSError as error:
            self._is_real(error, SocketFlag(0), "send_some")
            raise
        finally:
            self.last_bytes_sent = sent
            del permit
            self._release_permit()

    def try_send(self, data: Buffer) -> bool:
        """Send ``data`` as far as there is room, and say whether all of it went out. It never waits.

        It is a plain call in both flavours. ``last_bytes_sent`` says how many bytes went out.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none.

        Returns:
            True only if all of it went out: False if there was room for a part or nothing, if another task or thread
            is sending, and after any error of the socket.

        Raises:
            TypeError: ``data`` is no buffer.
        """
        self.last_bytes_sent = 0
        payload = sendable(data)
        if self._core is None and self._is_datagram:
            try:
                self.last_bytes_sent = self._send_datagram("try_send", payload, start_deadline(0))
            except OSError:
                return False
            return self.last_bytes_sent == len(payload)
        permit = self._writing.try_acquire()
        if permit is None:
            return False
        try:
            assert self._core is not None
            self.last_bytes_sent = self._send_available(self._core, payload)
            return self.last_bytes_sent == len(payload) and not self._core.unsent
        finally:
            del permit
            self._release_permit()

    def __iand__(self, data: Buffer) -> Self:
        """Send all of ``data``: ``sock &= data`` is ``sock.send(data)``."""
        self.send(data)
        return self

    def _acquire_permit(self, operation: str, deadline: Deadline | None) -> Permit:
        return self._writing.try_acquire() or self._queue_to_write(operation, deadline)

    def _queue_to_write(self, operation: str, deadline: Deadline | None) -> Permit:
        if self._core is None:
            self._refuse(operation)
        if self._quiet_epoch is not process.epoch:
            self._arrive()
        permit = self._writing.acquire(deadline, self, operation)
        if permit is None:
            self._raise_if_closed(operation)
            if deadline is None:
                self._refuse(operation)
            raise SocketTimeout(operation, deadline.seconds, 0)
        return permit

    def shutdown_write(self, timeout: float | None = None) -> None:
        """Send the end of the stream, and go on reading: half-close.

        It waits for those who are sending. A timeout or a cancellation leaves the stream as it is, open for
        writing. A peer that is gone needs no telling.

        Args:
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            SocketTimeout: time ran out first.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket was never connected.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """
        deadline = start_deadline(check_timeout(timeout))
        permit = self._acquire_permit("shutdown_write", deadline)
        try:
            assert self._core is not None
            self._write_shut = True
            self._flush(self._core, "shutdown_write", deadline)
            shut_down_writing(self._sender)
            self._flush(self._core, "shutdown_write", deadline)  # `close_notify`
        finally:
            del permit
            self._release_permit()
