"""One stream of bytes: the answer to every kind of read, and what is sent. The one object a socket talks to.

A request (``recv``, ``recv_line``, ...) has exactly four outcomes: the bytes; ``None`` for "not yet"; the end, which
each request reports in its own way; or an exception. The socket only waits: it makes the request, and while the answer
is None, it receives ``recv_size`` bytes, gives them to ``accept`` and makes the request again. Mostly nothing was
there before, and what one system call gives is the answer: ``accept`` then returns it without a way through the
buffer.

Nothing is consumed before the request can be answered whole. For this reason a timeout or a cancellation loses
nothing: the request leaves every byte where the next one finds it.

An exception of a signal handler may end a call at any moment, and loses nothing either. A socket whose calls can be
interrupted puts the received bytes into ``inbox`` first, where ``accept_inbox`` takes them, and ``undo`` is the state
of the buffer before the request took something out of it. Both are cleared when the caller has its answer; a call that
finds one of them set goes back by ``recover``.

The end is permanent. It is an orderly one (``feed(b"")``) or an error (``fail``), and every read reports it after
everything that arrived before it (R12).

A core also decides how a message is sent. A plain stream needs no decision: the ``sender`` is the socket itself, and
the other methods have nothing to do. ``TlsCore`` has the same methods with more in them, so a socket never asks whether
there is TLS.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from wireline._core.buffer import PRESPLIT_AFTER, BufferState, ReceiveBuffer, fed
from wireline._core.frames import Frame, FrameFormat
from wireline._core.lines import EMPTY_LINE, Line, find_line, whole_line
from wireline._core.sizes import check_max_length, check_size
from wireline.errors import EndOfStreamError, LineTooLongError, copy_for_reraise
from wireline.options import (
    BUFFER_SIZE,
    DEFAULT_FLAGS,
    MAX_FRAME_SIZE,
    SAFE_DISCONN,
    SocketFlag,
    check_flags,
    effective_flags,
    is_disconnection_error,
)

# A request that lacks as many bytes as this asks for just these: they need not be copied out of a larger piece, and
# reading ahead would not save a system call. A guess: a quarter of a buffer.
_LARGE = BUFFER_SIZE // 4

# The most bytes of one receive. A larger request takes several, so that memory follows the bytes that arrive and not
# the number that the caller wrote. A guess: large enough for the cost of a system call not to matter.
_MAX_RECV = 1024 * 1024


Delimiter = bytes | bytearray | tuple[bytes | bytearray, ...]
"""The argument of ``recv_until``: one delimiter, or several."""


NOTHING: BufferState = (b"", 0, 0, None, 0, (), -1, None)
"""The state of an empty buffer, which has counted nothing since."""

COUNTED: BufferState = (b"", 0, 0, None, 0, (), -2, None)
"""The state of an empty buffer, which has counted the ``inbox`` as received, and has not got its bytes."""


class Direct(enum.Enum):
    """When the bytes of the next receive are the answer of the request, if they are not more than ``direct_limit``."""

    SOME = "always"
    LINE = "if they are just one line"
    ALL = "if they are that many; and the request needs every one of the ``recv_size`` bytes"


SOME, LINE, ALL = Direct


class Sender(Protocol):
    """What sends plaintext: a ``socket.socket``, or one that encrypts it first."""

    def send(self, data: bytes | memoryview, flags: int, /) -> int:
        """Send the front of ``data`` in one attempt; return how many bytes were taken."""
        ...

    def shutdown(self, how: int, /) -> None:
        """End the stream that is sent."""


class StreamCore:
    """Bytes in, answers out.

    Attributes:
        buffered: it receives more than it needs, and keeps the rest.
        default_flags: what ``DEFAULT_FLAGS`` stand for.
        direct, direct_limit: after a request answered None: how ``accept`` may use the next bytes as they are. The
            limit is 0 where it may not: something is in the buffer, or the request needs to look closer.
        fast_recv_ok: the last receive was an answer as it was: the buffer is empty, the stream has not ended, and
            ``recv_size`` is right for another ``recv_some`` of at most a buffer, or ``recv_line``.
        inbox: what was received and is not in the buffer yet: bytes, or the error that ended the stream.
        message_incomplete: a send has begun to send a message and has not finished. The ``sender`` sets it, and clears
            it if all is sent at once; else the sending call clears it.
        pending_reset: the reset that a send found. The system reports it once; the next read of an end reports it
            again.
        recv_size: bytes to receive, valid after a request answered None.
        send_in_flight: the system is sending ``unsent`` at this moment, and how much of it is gone is not known. The
            sending call sets it.
        undo: the state of the buffer to go back to if the running call is interrupted; None while the buffer is as
            it was before the call. Before a request of a core that is not empty, the caller calls ``note``.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_repeatable",
        "buffer",
        "buffered",
        "default_flags",
        "direct",
        "direct_limit",
        "fast_recv_ok",
        "inbox",
        "message_incomplete",
        "pending_reset",
        "recv_size",
        "send_in_flight",
        "undo",
    )

    is_tls: ClassVar[bool] = False
    """Whether the bytes on the wire are encrypted."""

    @property
    def reads_ahead(self) -> bool:
        """Whether bytes may be received that no call has asked for."""
        return self.buffered or self.is_tls

    seals: ClassVar[bool] = False
    """Whether its ``sender`` takes bytes even if the system cannot: then they count as sent."""
    sender_references: ClassVar[int] = 0
    """How many references to this object its ``sender`` has."""

    # What of a message is encrypted and not sent yet, and whether there is something to send. A plain stream has none.
    unsent: bytes | memoryview = b""
    has_output: bool = False
    accepted: int = 0

    def __init__(self, *, buffered: bool = True) -> None:
        self.buffer = ReceiveBuffer()
        self.buffered = buffered
        self.default_flags = SAFE_DISCONN
        self.direct = SOME
        self.direct_limit = 0
        self.fast_recv_ok = False
        self._repeatable = False  # `recv_size` is right for the next request too, whatever that is
        self._ended = False
        self._error: OSError | None = None
        self.pending_reset: OSError | None = None
        self.inbox: bytes | OSError | None = None
        self.undo: BufferState | None = None
        self.recv_size = 0
        self.message_incomplete = self.send_in_flight = False

    def __len__(self) -> int:
        """Bytes that can be read without the network."""
        return len(self.buffer)

    def __bool__(self) -> bool:
        """Whether a byte can be read without the network."""
        return bool(self.buffer or self.inbox)

    def wire_traffic(self, payload_sent: int) -> tuple[int, int]:
        """Return the bytes that were received and sent on the wire."""
        return self.buffer.received, payload_sent

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._ended

    def accept(self, data: bytes) -> bytes | None:
        """Take what was received after a request had no answer, in a call that nothing can interrupt.

        Args:
            data: the bytes; ``b""`` for the orderly end.

        Returns:
            The answer of that request, if the bytes are exactly that. None: the request is to be made again.
        """
        if (size := len(data)) and size <= self.direct_limit:
            # No way through the buffer: most messages are one receive each.
            direct = self.direct
            answer = data if direct is SOME else whole_line(data) if direct is LINE else self._block(data)
            if answer is not None:
                self.buffer.received += size
                self.fast_recv_ok = self._repeatable
                return answer
        self.feed(data)
        return None

    def accept_inbox(self) -> bytes | None:
        """Do the same with the ``inbox``, in a call that may be interrupted. An answer stays there until ``done``."""
        data = self.inbox
        if type(data) is bytes and (size := len(data)) and size <= self.direct_limit:
            direct = self.direct
            answer = data if direct is SOME else whole_line(data) if direct is LINE else self._block(data)
            if answer is not None:
                # Both: no signal handler can run in between.
                self.buffer.received += size
                self.undo = COUNTED
                self.fast_recv_ok = self._repeatable
                return answer
        self._feed_inbox()
        return None

    def _block(self, data: bytes) -> bytes | None:
        return data if len(data) == self.direct_limit else None

    def feed(self, data: bytes) -> None:
        """Take received bytes into the buffer; ``b""`` is the orderly end."""
        self.fast_recv_ok = False
        if data:
            self.buffer.feed(data)
        elif self.pending_reset is not None:
            self.fail(self.pending_reset)
        else:
            self._ended = True

    def fail(self, error: OSError) -> None:
        """Take the error that ended the stream."""
        self.fast_recv_ok = False
        self._ended = True
        self._error = error.with_traceback(None)  # its frames would keep the socket alive

    def renew_lock(self) -> None:
        """In a forked child: be usable whatever the parent's threads did. There is no lock here."""

    # Sending. All but `sender` and `final_bytes` is for the call that holds the write lock.

    def sender(self, sock: Sender) -> Sender:
        """Return what sends the messages of this stream by ``sock``."""
        return sock

    def pending_output(self) -> bytes | memoryview:
        """Return the encrypted bytes to send next; ``b""`` if there are none."""
        return b""

    def flush(self, send: Callable[[bytes | memoryview, int], int], flags: int) -> bool:
        """Send the encrypted bytes that are there as far as there is room; return whether that was all."""
        return True

    def push(self, send: Callable[[bytes | memoryview, int], int], flags: int) -> bool:
        """Make one attempt to send ``pending_output``; return whether all of it is gone."""
        return True

    def sent(self, count: int) -> bool:
        """Note that so many bytes of ``pending_output`` were sent; return whether that was all."""
        return True

    def final_bytes(self) -> bytes:
        """Return what is to be sent before the descriptor is closed."""
        return b""

    # For calls that may be interrupted.

    def note(self) -> None:
        """Before a request: recover from one that was interrupted, and note what to go back to if this one is."""
        if self.undo is not None or self.inbox is not None:
            self.recover()
        self.undo = self.buffer.state()

    def _feed_inbox(self) -> None:
        data = self.inbox
        if isinstance(data, OSError):
            self.fail(data)
        elif data is not None:
            if self.undo is None:
                self.undo = NOTHING  # else it was noted before the request
            self._note_received()
            self.feed(data)
        self._empty_inbox()

    def _note_received(self) -> None:
        """Before the empty buffer is fed: note what it has received, without the ``inbox``."""
        if self.undo is NOTHING:
            self.undo = (*NOTHING[:-2], self.buffer.received, None)
        elif self.undo is COUNTED and type(self.inbox) is bytes:
            self.undo = (*NOTHING[:-2], self.buffer.received - len(self.inbox), None)

    def _empty_inbox(self) -> None:
        # In this order, and with the object itself noted: between the two statements it is known that it was fed.
        self.undo = self.buffer.state(self.inbox)
        self.inbox = None

    def done(self) -> None:
        """The caller has its answer."""
        self.undo = self.inbox = None

    def recover(self) -> None:
        """Recover from a call that was interrupted at any point, this one included."""
        self._go_back()
        self.done()

    def _go_back(self) -> None:
        if self.undo is None:
            self.undo = self.buffer.state()
        self._note_received()
        self.buffer.restore(self.undo)
        if self.inbox is not None and fed(self.undo) is not self.inbox:
            self._feed_inbox()

    # The requests. Each is named after the method of the socket that makes it.

    def recv(self, size: int, flags: SocketFlag = DEFAULT_FLAGS) -> bytes | None:
        """``size`` bytes, fewer only at the end; of an unbuffered stream, what one system call gave."""
        if flags is not DEFAULT_FLAGS:
            check_flags(flags)
        if type(size) is not int or size < 0:
            size = check_size(size)
        buffer = self.buffer
        if buffer.lines or buffer.frames:
            buffer.unsplit()
        have = buffer.size
        if have < size and not self._ended and (self.buffered or not have):
            if self.buffered:
                self._want_all(size, 0 if have or flags is not DEFAULT_FLAGS else size)
            else:
                self._want(size)
            return None
        return self._deliver(min(have, size), flags) if have or not size else self._eof_result(flags)

    def recv_some(self, max_size: int, flags: SocketFlag = DEFAULT_FLAGS) -> bytes | None:
        """At least one byte and at most ``max_size``."""
        if flags is not DEFAULT_FLAGS:
            check_flags(flags)
        if type(max_size) is not int or max_size < 0:
            max_size = check_size(max_size, "max_size")
        buffer = self.buffer
        if buffer.lines or buffer.frames:
            buffer.unsplit()
        have = buffer.size
        if have or not max_size:
            return self._deliver(max_size if max_size < have else have, flags)
        if self._ended:
            return self._eof_result(flags)
        self._want(max_size, SOME, max_size if flags is DEFAULT_FLAGS else 0)
        return None

    def recv_exactly(self, size: int, operation: str = "recv_exactly") -> bytes | None:
        """``size`` bytes, not one fewer."""
        if type(size) is not int or size < 0:
            size = check_size(size)
        buffer = self.buffer
        if buffer.lines or buffer.frames:
            buffer.unsplit()
        have = buffer.size
        if have >= size:
            return buffer.take(size)
        if self._ended:
            raise self._incomplete_error(operation, f"{size} bytes")
        self._want_all(size, 0 if have else size)
        return None

    def recv_struct(self, form: struct.Struct) -> tuple[Any, ...] | None:
        """The fields of the first ``form.size`` bytes."""
        data = self.recv_exactly(form.size, "recv_struct")
        if data is None:
            self.direct_limit = 0  # the bytes are not the answer
            return None
        return form.unpack(data)

    def fill(self, size: int) -> memoryview | None:
        """A view of at least ``size`` bytes, and of all that are there. They stay (R15)."""
        if check_size(size) > MAX_FRAME_SIZE:
            raise ValueError(f"size is at most {MAX_FRAME_SIZE} bytes (MAX_FRAME_SIZE), not {size}")
        view = self.buffer.show(size)
        if view is None:
            if self._ended:
                raise self._incomplete_error("fill", f"{size} bytes")
            self._want_all(size, 0)
        return view

    def wait_readable(self) -> bool | None:
        """True if a read would not wait: there are bytes, the end, or an error."""
        buffer = self.buffer
        if buffer.size or buffer.lines or buffer.frames or self._ended:
            return True
        self._want_all(1, 0)
        return None

    def consume(self, size: int) -> bytes:
        """Remove bytes that ``fill`` has shown. It needs no more bytes, and so it is never "not yet"."""
        size = check_size(size)
        if not self.buffer.consume(size):
            raise ValueError(
                f"consume: there was another read since `fill`, or it showed fewer than {size} bytes"
            )
        return b""

    def unread(self, data: bytes) -> bytes:
        """Put bytes back in front. As ``consume``, it is never "not yet"."""
        self.fast_recv_ok = False
        if not self.buffer.unread(data):
            raise ValueError(
                f"unread: more than {MAX_FRAME_SIZE} bytes (MAX_FRAME_SIZE) that were never read"
            )
        return b""

    def recv_frame(self, form: FrameFormat) -> Frame | None:
        """One length-prefixed message."""
        return self._frame(form, "recv_frame")

    def frames(self, form: FrameFormat, flags: SocketFlag) -> Frame | bytes | None:
        """The same for the iterator: ``b""`` at the end of the stream, if that is between two messages."""
        buffer = self.buffer
        if self._ended and not buffer:
            return self._eof_result(flags)
        return self._frame(form, "frames", flags)

    def _frame(self, form: FrameFormat, operation: str, flags: SocketFlag = DEFAULT_FLAGS) -> Frame | None:
        buffer = self.buffer
        frame = buffer.next_frame(form)
        if frame is not None:
            return frame
        measured = buffer.measure(form, operation)
        have = buffer.size
        if measured is None:
            missing = max(form.header_size - have, 1)
        elif sum(measured) <= have:
            header_size, payload_size = measured
            whole = buffer.take(header_size + payload_size)
            return Frame(form.fields(whole[:header_size]), whole[header_size:])
        else:
            missing = sum(measured) - have
        if self._ended:
            raise self._incomplete_error(operation, "a whole frame", flags)
        if not have:
            buffer.release_memory()
        self._want_all(have + missing, 0)
        return None

    def skip(self, size: int) -> bytes | None:
        """The ``size`` bytes to skip. They are kept until they are all there (R5, R8)."""
        return self.recv_exactly(size, "skip")

    def recv_until(self, delimiter: Delimiter, max_length: int) -> bytes | None:
        """Everything up to and including the delimiter that ends first, at most ``max_length`` bytes."""
        max_length = check_size(max_length, "max_length")
        delimiters = check_delimiters(delimiter)
        buffer = self.buffer
        end = buffer.find_end(delimiters, max_length)
        if end >= 0:
            return buffer.take(end)
        have = buffer.size
        if have >= max_length:
            raise LineTooLongError("recv_until", max_length)
        if self._ended:
            raise self._incomplete_error("recv_until", f"the delimiter {delimiter!r}")
        self._want(min(*map(self._bytes_missing, delimiters), max_length - have))
        return None

    def recv_line(
        self, max_length: int, on_long: str = "truncate", flags: SocketFlag = DEFAULT_FLAGS
    ) -> bytes | None:
        """One line, ``EMPTY_LINE`` for an empty one, ``b""`` at the end, even in the middle of a line (R8)."""
        if flags is not DEFAULT_FLAGS:
            check_flags(flags)
        if type(max_length) is not int or max_length < 1:
            max_length = check_max_length(max_length)
        if on_long not in ("truncate", "raise"):
            raise ValueError(f"on_long is 'truncate' or 'raise', not {on_long!r}")
        buffer = self.buffer
        line = None
        direct_limit = 0
        if buffer.size or buffer.lines or buffer.frames:
            # Nearly every line is whole, short and not to be kept; `find_line` is for the others.
            if flags is DEFAULT_FLAGS and (whole := buffer.next_line(max_length)) is not None:
                return whole
            line = find_line(buffer, max_length, self._ended)
        else:
            if buffer.run >= PRESPLIT_AFTER:
                buffer.release_memory()
            if flags is DEFAULT_FLAGS:
                direct_limit = max_length
        if line is None:
            return self._end_or_want_line(direct_limit, flags)
        if line.too_long and on_long == "raise":
            raise LineTooLongError("recv_line", max_length)
        return self._deliver_line(line, flags)

    def _end_or_want_line(self, direct_limit: int, flags: SocketFlag) -> bytes | None:
        if self._ended:
            return self._eof_result(flags)
        self._want(1, LINE, direct_limit)
        return None

    def pending_line(self) -> bytes:
        """A copy of the bytes of an unfinished line."""
        return self.buffer.peek(len(self.buffer))

    def _deliver(self, size: int, flags: SocketFlag) -> bytes:
        if flags is not DEFAULT_FLAGS and SocketFlag.PEEK in flags:
            return self.buffer.peek(size)
        return self.buffer.take(size)

    def _deliver_line(self, line: Line, flags: SocketFlag) -> bytes:
        if flags is not DEFAULT_FLAGS and SocketFlag.PEEK in flags:
            return self.buffer.peek(line.size) or EMPTY_LINE
        return self.buffer.take_line(line.size, line.consumed) or EMPTY_LINE

    def _want(self, amount: int, direct: Direct = SOME, limit: int = 0) -> None:
        """Set how much to receive (a buffer at least, if buffered) and how ``accept`` may use it."""
        self.fast_recv_ok = False
        self.direct = direct
        self.direct_limit = limit
        # A request for more gets it in fewer system calls: messages of 1 MiB, read by 256 KiB, take half the CPU time.
        self._repeatable = self.buffered and amount <= BUFFER_SIZE
        self.recv_size = BUFFER_SIZE if self._repeatable else min(amount, _MAX_RECV)

    def _want_all(self, size: int, limit: int) -> None:
        """The same for a request that needs all of ``size`` bytes; ``limit`` is 0 if some of them are there."""
        amount = size - self.buffer.size
        if amount < _LARGE:
            self._want(amount)
        else:
            # The kernel may wait for all of them, and no byte is copied a second time.
            self.fast_recv_ok = self._repeatable = False
            self.direct = ALL
            self.recv_size = min(amount, _MAX_RECV)
            self.direct_limit = limit if limit <= _MAX_RECV else 0

    def _bytes_missing(self, delimiter: bytes) -> int:
        """The fewest bytes that could complete ``delimiter``, given how much of it is there."""
        last = self.buffer.tail(len(delimiter) - 1) if len(delimiter) > 1 else b""
        while not delimiter.startswith(last):
            last = last[1:]
        return len(delimiter) - len(last)

    def _is_disconnection(self, error: OSError, flags: SocketFlag) -> bool:
        return is_disconnection_error(effective_flags(flags, self.default_flags), error)

    def _eof_result(self, flags: SocketFlag) -> bytes:
        if self._error is None or self._is_disconnection(self._error, flags):
            return b""
        raise copy_for_reraise(self._error)

    def _incomplete_error(
        self, operation: str, wanted: str, flags: SocketFlag = DEFAULT_FLAGS
    ) -> EndOfStreamError | OSError:
        """The exception for a stream that ended inside a request which must be answered whole."""
        if self._error is not None and not self._is_disconnection(self._error, flags):
            return copy_for_reraise(self._error)
        shortfall = EndOfStreamError(operation, self.pending_line(), wanted)
        shortfall.__cause__ = self._error
        return shortfall


def check_delimiters(delimiter: Delimiter) -> tuple[bytes, ...]:
    """Return the delimiters as bytes.

    Raises:
        TypeError: one of them is neither bytes nor a bytearray.
        ValueError: there is none, or an empty one.
    """
    if type(delimiter) is bytes and delimiter:
        return (delimiter,)
    several = delimiter if isinstance(delimiter, tuple) else (delimiter,)
    for each in several:
        if not isinstance(each, bytes | bytearray):
            raise TypeError(f"the delimiter is bytes, not {type(each).__name__}")
    if not all(several):
        raise ValueError("the delimiter is empty")
    if not several:
        raise ValueError("there is no delimiter in the tuple")
    return tuple(map(bytes, several))
