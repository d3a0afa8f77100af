"""One stream of bytes, and the answer to every kind of read. The one thing a socket talks to.

A request (``recv``, ``recv_line``, ...) has exactly four outcomes: the bytes; ``None`` for "not yet", and then
``want`` says how many bytes to ask the network for; the end, which each request words in its own way; or an
exception. The socket only waits: ask, and while the answer is None, receive ``want`` bytes, ``feed`` them, ask again.

Nothing is consumed before the request can be answered whole. That is the reason why a timeout or a cancellation
loses nothing: the half-answered request leaves every byte where the next one finds it.

A call may be ended by an exception at any moment (a signal handler's), and still loses nothing. A socket whose calls
can be interrupted puts what the network gave into ``inbox`` before anything else, and ``undo`` remembers the buffer
as it was before the request took something out of it. Both are cleared when the caller has its answer; a call that
finds one of them set goes back by ``recover``.

The end is sticky. It may be an orderly one (``feed(b"")``) or an error (``fail``), and it is reported after
everything that arrived before it, every time it is asked for (R12).
"""

from __future__ import annotations

import operator
from typing import ClassVar

from wireline._core.buffer import BufferState, ReceiveBuffer, fed
from wireline._core.lines import EMPTY_LINE, Line, find_line
from wireline.errors import EndOfStreamError, LineTooLongError, copy_for_reraise
from wireline.options import BUFFER_SIZE, SAFE_DISCONN, SocketFlag, check_flags, is_disconnection_error

# A request that lacks as many bytes as this asks for just these: they need not be copied out of a larger piece, and
# reading ahead would not save a system call. A guess: a quarter of a buffer.
_LARGE = BUFFER_SIZE // 4

# The most that is asked of the network at once. A larger request comes in pieces, so that memory follows the bytes
# that arrive and not the number that the caller wrote. A guess: large enough for a system call not to count.
_LARGEST_WANT = 1024 * 1024


NOTHING: BufferState = (b"", 0, 0, None, 0, (), None)
"""The state of an empty buffer."""


class StreamCore:
    """Bytes in, answers out.

    Attributes:
        at_rest: the last thing that happened is that ``feed_some`` or ``take_in`` gave its answer whole: nothing is
            there, no end has come, and ``want`` is right for another ``recv_some`` of at most a buffer.
        buffered: it asks the network for more than it needs, and keeps the rest.
        want: bytes to ask the network for, valid after a request answered None.
        from_scratch: after ``recv_some``, ``recv_line``, ``recv`` or ``recv_exactly`` answered None: nothing is there
            yet, and if what comes next is no more than was asked for, just one line (and the stream is ``plain``), or
            all that was asked for, it is the answer.
        want_whole: the request needs every one of these bytes, so nothing is lost by waiting for them together.
        broken: the reset that a send was told of. The system tells it once, and the next read of an end.
        inbox: what the network gave and the buffer does not have yet: bytes, or the error that ended the stream.
        undo: the buffer as it is to be if the running call does not come to its end; None while the buffer is
            as it was before the call. Before a request of a core that is not empty, the caller notes it (``note``).
        lines: whole lines, which a plain ``recv_line`` may take with ``lines.pop()``.
    """

    __slots__ = (
        "_buffer",
        "_ended",
        "_error",
        "at_rest",
        "broken",
        "buffered",
        "from_scratch",
        "inbox",
        "lines",
        "undo",
        "want",
        "want_whole",
    )

    plain: ClassVar[bool] = True
    """Whether what is fed is what the requests answer."""

    def __init__(self, *, buffered: bool = True) -> None:
        self._buffer = ReceiveBuffer()
        self.buffered = buffered
        self.at_rest = False
        self._ended = False
        self._error: OSError | None = None
        self.broken: OSError | None = None
        self.lines = self._buffer.lines
        self.inbox: bytes | OSError | None = None
        self.undo: BufferState | None = None
        self.from_scratch = False
        self.want = 0
        self.want_whole = False

    def __len__(self) -> int:
        """Bytes that can be read without the network."""
        return len(self._buffer)

    def __bool__(self) -> bool:
        """Whether a byte can be read without the network."""
        return bool(self._buffer or self.inbox)

    @property
    def ended(self) -> bool:
        """Whether no more bytes will come."""
        return self._ended

    def feed(self, data: bytes) -> None:
        """Take what the network gave; ``b""`` is the orderly end."""
        self.at_rest = False
        if data:
            self._buffer.feed(data)
        elif self.broken is not None:
            self.fail(self.broken)
        else:
            self._ended = True

    def feed_some(self, data: bytes, most: int) -> bytes | None:
        """Take what the network gave to a ``recv_some`` for which nothing was there; the answer, if that is it whole.

        Args:
            data: one byte at least.
            most: what ``recv_some`` was asked for.
        """
        if len(data) <= most:
            self.at_rest = self.buffered and self.want == BUFFER_SIZE
            return data
        self.feed(data)
        return None

    def fail(self, error: OSError) -> None:
        """Take the error that ended the stream."""
        self.at_rest = False
        self._ended = True
        self._error = error.with_traceback(None)  # its frames would keep the socket alive

    def renew_lock(self) -> None:
        """In a forked child: be usable whatever the parent's threads did. There is no lock here."""

    # For calls that may be interrupted.

    def note(self) -> None:
        """Before a request: go on after one that was interrupted, and note what to go back to if this one is."""
        if self.undo is not None or self.inbox is not None:
            self.recover()
        self.undo = self._buffer.state()

    def take_in(self, most: int = 0) -> bytes | None:
        """Take what is in ``inbox``, after a request that had no answer.

        Args:
            most: bytes up to which it is the answer of a ``recv_some`` for which nothing was there; 0: it is not.

        Returns:
            The answer, if that is it whole; it also stays in ``inbox`` until ``done``.
        """
        data = self.inbox
        if type(data) is bytes and data:
            if len(data) <= most:
                self.at_rest = self.buffered and self.want == BUFFER_SIZE
                return data
            if self.want_whole and self.from_scratch and len(data) == self.want:
                return data  # no joining of pieces, no way through the buffer: what bulk costs a bare socket
        self._feed_inbox()
        return None

    def _feed_inbox(self) -> None:
        data = self.inbox
        if isinstance(data, OSError):
            self.fail(data)
        elif data is not None:
            if self.undo is None:
                self.undo = NOTHING  # else it was noted before the request
            self.feed(data)
        self._taken_in()

    def _taken_in(self) -> None:
        # In this order, and with the object itself noted: between the two it is clear that it was fed.
        self.undo = self._buffer.state(self.inbox)
        self.inbox = None

    def done(self) -> None:
        """The caller has its answer."""
        self.undo = self.inbox = None

    def recover(self) -> None:
        """Go on after a call that was interrupted at any point, this one included."""
        self._go_back()
        self.done()

    def _go_back(self) -> None:
        if self.undo is None:
            self.undo = self._buffer.state()
        self._buffer.restore(self.undo)
        if self.inbox is not None and fed(self.undo) is not self.inbox:
            self._feed_inbox()

    # The requests. Each is named after the method of the socket that makes it.

    def recv(self, size: int, flags: SocketFlag = SAFE_DISCONN) -> bytes | None:
        """``size`` bytes, fewer only at the end; of an unbuffered stream, what one system call gave."""
        if flags is not SAFE_DISCONN:
            check_flags(flags)
        if type(size) is not int or size < 0:
            size = check_size(size)
        buffer = self._buffer
        if buffer.lines:
            buffer.give_back()
        have = buffer.size
        if have < size and not self._ended and (self.buffered or not have):
            self.from_scratch = not have and size <= _LARGEST_WANT and flags is SAFE_DISCONN
            self._not_yet(size - have, all_needed=self.buffered)
            return None
        return self._give(min(have, size), flags) if have or not size else self._at_end(flags)

    def recv_some(self, max_size: int, flags: SocketFlag = SAFE_DISCONN) -> bytes | None:
        """At least one byte and at most ``max_size``."""
        if flags is not SAFE_DISCONN:
            check_flags(flags)
        if type(max_size) is not int or max_size < 0:
            max_size = check_size(max_size, "max_size")
        buffer = self._buffer
        if buffer.lines:
            buffer.give_back()
        have = buffer.size
        if have or not max_size:
            return self._give(max_size if max_size < have else have, flags)
        if self._ended:
            return self._at_end(flags)
        self.from_scratch = True
        self._not_yet(max_size)
        return None

    def recv_exactly(self, size: int, operation: str = "recv_exactly") -> bytes | None:
        """``size`` bytes, not one fewer."""
        if type(size) is not int or size < 0:
            size = check_size(size)
        buffer = self._buffer
        if buffer.lines:
            buffer.give_back()
        have = buffer.size
        if have >= size:
            return buffer.take(size)
        if self._ended:
            raise self._too_short(operation, f"{size} bytes")
        self.from_scratch = not have and size <= _LARGEST_WANT
        self._not_yet(size - have, all_needed=True)
        return None

    def skip(self, size: int) -> bytes | None:
        """The ``size`` bytes that are skipped. They are kept until they are all there (R5, R8)."""
        return self.recv_exactly(size, "skip")

    def recv_until(self, delimiter: bytes, max_length: int) -> bytes | None:
        """Everything up to and including ``delimiter``, at most ``max_length`` bytes."""
        max_length = check_size(max_length, "max_length")
        if not isinstance(delimiter, bytes):
            raise TypeError(f"the delimiter is bytes, not {type(delimiter).__name__}")
        if not delimiter:
            raise ValueError("the delimiter is empty")
        found = self._buffer.find(delimiter, max_length)
        if found >= 0:
            return self._buffer.take(found + len(delimiter))
        have = self._buffer.size
        if have >= max_length:
            raise LineTooLongError("recv_until", max_length)
        if self._ended:
            raise self._too_short("recv_until", f"the delimiter {delimiter!r}")
        self._not_yet(min(self._missing(delimiter), max_length - have))
        return None

    def recv_line(
        self, max_length: int, on_long: str = "truncate", flags: SocketFlag = SAFE_DISCONN
    ) -> bytes | None:
        """One line, ``EMPTY_LINE`` for an empty one, ``b""`` at the end, even in the middle of a line (R8)."""
        if flags is not SAFE_DISCONN:
            check_flags(flags)
        if type(max_length) is not int or max_length < 1:
            max_length = check_size(max_length, "max_length")
            if max_length < 1:
                raise ValueError("max_length must be at least 1 byte")
        if on_long not in ("truncate", "raise"):
            raise ValueError(f"on_long is 'truncate' or 'raise', not {on_long!r}")
        buffer = self._buffer
        line = None
        if buffer.size or buffer.lines:
            if flags is SAFE_DISCONN and (whole := buffer.next_line(max_length)) is not None:
                return whole
            line = find_line(buffer, max_length, self._ended)
            self.from_scratch = False
        else:
            buffer.let_go()
            self.from_scratch = self.plain
        if line is None:
            if self._ended:
                return self._at_end(flags)
            self._not_yet(1)
            return None
        if line.too_long and on_long == "raise":
            raise LineTooLongError("recv_line", max_length)
        return self._give_line(line, flags) or EMPTY_LINE

    def pending_line(self) -> bytes:
        """A copy of the bytes of an unfinished line."""
        return self._buffer.peek(len(self._buffer))

    def _give(self, size: int, flags: SocketFlag) -> bytes:
        if flags is not SAFE_DISCONN and SocketFlag.PEEK in flags:
            return self._buffer.peek(size)
        return self._buffer.take(size)

    def _give_line(self, line: Line, flags: SocketFlag) -> bytes:
        if flags is not SAFE_DISCONN and SocketFlag.PEEK in flags:
            return self._buffer.peek(line.size)
        return self._buffer.take_line(line.size, line.consumed)

    def _not_yet(self, amount: int, *, all_needed: bool = False) -> None:
        """Say how much to ask for: one big gulp, or of an unbuffered stream nothing that was not asked for."""
        self.at_rest = False
        self.want_whole = all_needed and amount >= _LARGE
        # Who asks for more gets it in fewer system calls: messages of 1 MiB, read by 256 KiB, take half the CPU time.
        if self.buffered and not self.want_whole and amount <= BUFFER_SIZE:
            self.want = BUFFER_SIZE
        else:
            self.want = min(amount, _LARGEST_WANT)

    def _missing(self, delimiter: bytes) -> int:
        """The fewest bytes that could complete ``delimiter``, given how much of it is there."""
        last = self._buffer.last(len(delimiter) - 1) if len(delimiter) > 1 else b""
        while not delimiter.startswith(last):
            last = last[1:]
        return len(delimiter) - len(last)

    def _at_end(self, flags: SocketFlag) -> bytes:
        if self._error is None or is_disconnection_error(flags, self._error):
            return b""
        raise copy_for_reraise(self._error)

    def _too_short(self, operation: str, wanted: str) -> EndOfStreamError | OSError:
        """The exception for a stream that ended inside a request which must be answered whole."""
        if self._error is not None and not is_disconnection_error(SAFE_DISCONN, self._error):
            return copy_for_reraise(self._error)
        shortfall = EndOfStreamError(operation, self.pending_line(), wanted)
        shortfall.__cause__ = self._error
        return shortfall


def check_size(size: int, name: str = "size") -> int:
    """Return ``size`` as an int that is not negative.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is negative.
    """
    if type(size) is not int:
        if isinstance(size, bool):
            raise TypeError(f"{name} is a number of bytes, not a bool")
        try:
            size = operator.index(size)
        except TypeError:
            raise TypeError(f"{name} is a number of bytes, not {type(size).__name__}") from None
    if size < 0:
        raise ValueError(f"{name} must not be negative, got {size}")
    return size
