"""The bytes that arrived and were not taken yet.

Theory of operation. Bytes that a search has seen, or may see, are in one of two places, never in both:

* ``_head``, an immutable ``bytes`` with a read position. Slicing a kept ``bytes`` is the cheapest way to hand out
  small pieces (219 ns a line; a ``bytearray`` took 350, a ``memoryview`` 636), so this is the normal place.
* ``_tail``, a ``bytearray`` that grows while a request is waiting for more than has arrived. It is there only then.

Behind the head, where there is no tail, may be ``_pieces``: large ones that arrived together, such as the records of
one read of a TLS connection. They stay apart for a request that takes many of them, as bulk does, and are then copied
once. A search joins them to the head or the tail first.

New bytes join the head if that copies no more bytes than are new; otherwise they grow the tail. The tail becomes the
head when something is taken. A request is only fed while it cannot be answered, so it leaves behind less than the last
piece that arrived: every byte is copied a bounded number of times, however small the pieces are.

A search starts where the last one stopped, so a line that arrives in a thousand pieces is searched once.

``lines`` is the fast lane: whole lines, split ahead together and stored in reverse, so that ``lines.pop()`` is the next
line. That is one atomic operation for threads and half the cost of a search. ``frames`` is the same for length-prefixed
messages of one format. As many bytes are split ahead as were taken as lines, or as frames of that format, without
another read in between (``run``): a caller that alternates them with other reads never pays for it. An attempt that
splits nothing sets the count to 0. Every other method puts back first the lines or frames that were not taken, so the
two views always agree.

The methods ``ready_...`` answer most reads of bytes that are there, for a fifth of what a request costs. They may run
in a thread that does not have the core, and may be interrupted by a signal handler. So they compute the answer first,
and then look at the slot of the core (``Slot``) and at their own state, and take the answer, in lines without a call:
there CPython runs no handler and no other thread, up to the end of the Python functions that return the answer as it
is. ``next_line``, ``next_frame`` and ``consume`` are for the owner of the core, and take in the same way.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Protocol

from wireline._core.frames import Frame, FrameFormat
from wireline._core.lines import EMPTY_LINE, line_at, split_lines
from wireline.options import MAX_FRAME_SIZE

_NEWLINE = b"\n"

# Splitting ahead starts once this many bytes were taken as lines, or as frames, one after the other. A guess: about ten
# header lines, so that a short exchange of "a line, then its body" stays on the plain path.
PRESPLIT_AFTER = 512

# Pieces of fewer bytes than this, on the average, are joined at once: an object has 33 bytes besides its own, and 8 are
# for it in a list.
_JOIN_BELOW = 1024

# Splitting ahead goes no further than this many bytes at once. So no line of the fast lane is longer than a plain
# `recv_line` may return, and a peer that sends empty lines costs little (a list takes 8 bytes for each).
_PRESPLIT_MAX = 64 * 1024


BufferState = tuple[bytes, int, int, bytearray | None, int, tuple[bytes, ...], int, object]
"""A state that ``ReceiveBuffer.restore`` goes back to: head, start and size; the tail, and its size then; the pieces;
``received``, or less than 0; and the object that was fed last (see ``fed``). A plain tuple: each read makes one.
"""


def fed(state: BufferState) -> object:
    """Return the object that was fed last before the state was noted."""
    return state[7]


class Undoable(Protocol):
    """A core."""

    undo: BufferState | None


Slot = Sequence[Undoable]
"""The core, while no call reads; else nothing. A core with ``undo`` must recover first."""


class ReceiveBuffer:
    """A queue of bytes that can be searched, peeked at and taken from the front.

    Attributes:
        frame_format: of the frames that were split off ahead, or that were taken last.
        frames: whole frames split off ahead, the next one last. One of ``lines`` and ``frames`` is empty.
        lines: whole lines split off ahead, the next one last. It is always the same list.
        received: bytes that arrived, with those that were returned without a way through the buffer.
        run: bytes that were taken one after the other as lines, or as frames of ``frame_format``.
        size: unread bytes besides these lines or frames: all of them after ``unsplit``.
    """

    __slots__ = (
        "_head",
        "_measured",
        "_pieces",
        "_search_needle",
        "_searched",
        "_shown",
        "_shown_at",
        "_start",
        "_tail",
        "_terminator_size",
        "frame_format",
        "frames",
        "lines",
        "received",
        "run",
        "size",
    )

    def __init__(self) -> None:
        self._head = b""
        self._start = 0
        self._tail: bytearray | None = None
        self._pieces: list[bytes] | None = None  # most connections never have any
        self._search_needle: bytes | tuple[bytes, ...] | FrameFormat = b""
        self._searched = 0
        self.run = 0
        self._terminator_size = 0
        self._shown = self._shown_at = 0
        self._measured = (0, 0)
        self.frame_format: FrameFormat | None = None
        self.frames: Sequence[Frame] = ()  # a list when there are any
        self.lines: list[bytes] = []
        self.received = 0
        self.size = 0

    def __len__(self) -> int:
        return self.size + self._size_ahead()

    def __bool__(self) -> bool:
        """Whether there is anything. Unlike the length, it does not walk along the lines split ahead."""
        return bool(self.size or self.lines or self.frames)

    def feed(self, data: bytes) -> None:
        """Append bytes that arrived."""
        self._append(data)
        self.received += len(data)

    def _append(self, data: bytes) -> None:
        if self.lines or self.frames:
            self.unsplit()
        if self._pieces:
            self._join(self._pieces)
        unread = self.size
        self.size += len(data)
        if not unread:
            self._head = data
            self._start = 0
        elif self._tail:
            self._tail += data
        elif unread <= len(data):
            self._head = self._head[self._start :] + data
            self._start = 0
        else:
            self._tail = bytearray(memoryview(self._head)[self._start :])
            self._tail += data
            self._head = b""
            self._start = 0

    def feed_pieces(self, pieces: list[bytes]) -> None:
        """Append bytes that arrived in pieces; large ones are joined when they are taken or searched.

        Args:
            pieces: a list that is given away.
        """
        size = sum(map(len, pieces))
        if self._tail or size < _JOIN_BELOW * len(pieces):
            self.feed(b"".join(pieces))
            return
        if self.lines or self.frames:
            self.unsplit()
        if self._pieces:
            self._pieces += pieces
        else:
            self._pieces = pieces
        self.size += size
        self.received += size

    def _join(self, pieces: list[bytes]) -> None:
        """Join the pieces to the head or the tail, for a search."""
        self._pieces = None
        data = b"".join(pieces)
        self.size -= len(data)
        self._append(data)

    def state(self, fed: object = None) -> BufferState:
        """Note the content, with what was split ahead as if it were not."""
        tail, pieces = self._tail, self._pieces
        if tail is None and pieces is None and not self.lines and not self.frames:
            return self._head, self._start, self.size, None, 0, (), self.received, fed
        while True:
            split: Sequence[object] = self.lines or self.frames
            count = len(split)
            ahead = self._size_ahead()
            tail_size = 0 if tail is None else len(tail)
            behind = tuple(pieces or ())
            # Until this line another thread may have taken some of them. From here on there is no call.
            if not split[count:] and (not count or split[count - 1 :]):
                return (
                    self._head,
                    self._start - ahead,
                    self.size + ahead,
                    tail,
                    tail_size,
                    behind,
                    self.received,
                    fed,
                )

    def restore(self, state: BufferState) -> None:
        """Go back to a state. It may be interrupted anywhere and done again: a bytearray only ever grows."""
        self._head, self._start, self.size, tail, tail_size, pieces, received, _ = state
        if received >= 0:
            self.received = received
        self._tail = tail
        if tail is not None:
            del tail[tail_size:]
        self._pieces = list(pieces) or None
        self._searched = self.run = 0
        self.lines.clear()
        self.frames = ()

    def find(self, delimiter: bytes, limit: int) -> int:
        """Look for ``delimiter`` in the first ``limit`` bytes; its offset from the front, or -1."""
        self._begin_search(delimiter)
        if self._tail:
            found = self._tail.find(delimiter, self._searched, limit)
        else:
            start = self._start
            found = self._head.find(delimiter, start + self._searched, start + limit)
            if found >= 0:
                return found - start
            if not self.size:  # the caller is about to wait: let go of the memory
                self._drop(0)
        if found < 0:
            self._searched = max(0, min(self.size, limit) - len(delimiter) + 1)
        return found

    def find_end(self, delimiters: tuple[bytes, ...], limit: int) -> int:
        """Return where the first delimiter to end in the first ``limit`` bytes ends; -1 if there is none."""
        if len(delimiters) == 1:
            found = self.find(delimiters[0], limit)
            return found if found < 0 else found + len(delimiters[0])
        self._begin_search(delimiters)
        text, start = (self._tail, 0) if self._tail else (self._head, self._start)
        stop = start + min(self.size, limit)
        best = -1
        for delimiter in delimiters:
            found = text.find(delimiter, start + self._searched, stop)
            if found >= 0:
                best = stop = found + len(delimiter)
        if best < 0:
            self._searched = max(0, min(self.size, limit) - max(map(len, delimiters)) + 1)
            return -1
        return best - start

    def measure(self, form: FrameFormat, operation: str) -> tuple[int, int] | None:
        """Return the sizes of the header and the payload of the first frame, as ``FrameFormat.measure`` does."""
        self._begin_search(form)
        if self._searched:
            return self._measured  # a function is not asked again for each piece of the payload
        text, start = (self._tail, 0) if self._tail else (self._head, self._start)
        measured = form.measure(text, start, operation)
        if measured is not None:
            self._measured = measured
            self._searched = 1
        return measured

    def _begin_search(self, needle: bytes | tuple[bytes, ...] | FrameFormat) -> None:
        """Put everything into the head or the tail, and go on with the last search, or begin another one."""
        self._join_all()
        if needle != self._search_needle:
            self._search_needle = needle
            self._searched = 0

    def _join_all(self) -> None:
        if self.lines or self.frames:
            self.unsplit()
        if self._pieces:
            self._join(self._pieces)

    def tail(self, count: int) -> bytes:
        """A copy of the last ``count`` unread bytes, of fewer if there are not as many."""
        if self._tail:
            return bytes(self._tail[-count:])
        return self._head[max(self._start, len(self._head) - count) :]

    def byte_at(self, offset: int) -> int:
        """The value of one unread byte."""
        return self._tail[offset] if self._tail else self._head[self._start + offset]

    def peek(self, size: int) -> bytes:
        """The first ``size`` bytes, which must be there. They stay."""
        self._gather()
        start = self._start
        return self._head[start : start + size]

    def _gather(self) -> None:
        """Move everything into the head."""
        self._join_all()
        if self._tail:
            self._head = bytes(self._tail)
            self._start = 0
            self._tail = None

    def take(self, size: int) -> bytes:
        """Remove and return the first ``size`` bytes, which must be there."""
        self.run = 0
        if self._pieces:
            return self._take_from_pieces(size, self._pieces)
        if size == self.size and not self._start and not self._tail:
            # The commonest case: all of what one system call brought. No copy then, and no more calls.
            data = self._head
            self._head = b""
            self.size = self._searched = 0
            return data
        data = self.peek(size)
        self._drop(size)
        return data

    def _take_from_pieces(self, size: int, pieces: list[bytes]) -> bytes:
        """The same of the head and the pieces behind it: one copy, of just what is taken."""
        self.size -= size
        self._searched = 0
        taken = [self._head[self._start : self._start + size]]
        missing = size - len(taken[0])
        if not missing:
            self._start += size
            return taken[0]
        whole = 0
        for piece in pieces:
            if len(piece) > missing:
                break
            missing -= len(piece)
            whole += 1
        taken += pieces[:whole]
        del pieces[:whole]
        self._head = pieces.pop(0) if missing else b""
        self._start = missing
        taken.append(self._head[:missing])
        return b"".join(taken)

    def ready_bytes(self, size: int, slot: Slot) -> bytes | None:
        """Remove and return the first ``size`` bytes, if they are in the head alone; else None."""
        if type(size) is not int or not 0 < size <= self.size or self._tail or self._pieces:
            return None
        # As `_take_ready`, without the call: there is none since the caller looked.
        try:
            if slot[0].undo is not None or self.lines or self.frames:
                return None
        except IndexError:
            return None
        end = self._start + size
        data = self._head[self._start : end]
        self.run = self._searched = 0
        self.size -= size
        if self.size:
            self._start = end
        else:  # let go of the memory
            self._head = b""
            self._start = 0
        return data

    def ready_fields(self, form: struct.Struct, slot: Slot) -> tuple[Any, ...] | None:
        """Remove and unpack the first ``form.size`` bytes, if they are in the head alone; else None."""
        head, start = self._head, self._start
        size = form.size
        end = start + size
        if not start < end <= len(head) or self._tail or self._pieces:
            return None
        fields = form.unpack_from(head, start)
        # As `_take_ready`, without the call.
        try:
            if (
                slot[0].undo is not None
                or self.lines
                or self.frames
                or self._head is not head
                or self._start != start
            ):
                return None
        except IndexError:
            return None
        self.run = self._searched = 0
        self.frame_format = None
        self.size -= size
        if self.size:
            self._start = end
        else:
            self._head = b""
            self._start = 0
        return fields

    def ready_line(self, max_length: int, slot: Slot) -> bytes | None:
        """Remove and return the first line, if it is in the head alone and nothing is to be split ahead; else None."""
        head, start = self._head, self._start
        searched = self._searched if self._search_needle is _NEWLINE else 0
        newline = head.find(b"\n", start + searched, start + max_length + 1)
        if newline < 0 or self._tail or self._pieces:
            return None
        end = newline + 1
        line = line_at(head, start, newline)
        run = end - start + (self.run if self.frame_format is None else 0)
        if run >= PRESPLIT_AFTER:
            return None
        # As `_take_ready`, without the call.
        try:
            if (
                slot[0].undo is not None
                or self.lines
                or self.frames
                or self._head is not head
                or self._start != start
            ):
                return None
        except IndexError:
            return None
        self.run = run
        self._searched = 0
        self.frame_format = None
        self.size -= end - start
        if self.size:
            self._start = end
        else:
            self._head = b""
            self._start = 0
        return line

    def ready_frame_of(
        self, header: object, length_field: int, length_adjust: int, max_size: int, slot: Slot
    ) -> Frame | None:
        """Do what ``ready_frame`` does, for the parts of a format; None unless it is the format of the last frame.

        The parts must be the same objects, which were checked then: equal ones may be of a wrong type.
        """
        form = self.frame_format
        if (
            form is not None
            and form.header is header
            and form.length_adjust is length_adjust
            and form.length_field is length_field
            and form.max_size is max_size
        ):
            return self.ready_frame(form, slot)
        return None

    def ready_frame(self, form: FrameFormat, slot: Slot) -> Frame | None:
        """Remove and return the first frame, if it is in the head alone and nothing is to be split ahead; else None."""
        try:
            if self.frame_format is form and slot[0].undo is None and self.frames:
                frame = self.frames[-1]
                del self.frames[-1]  # type: ignore[attr-defined] # a list, because it is not empty
                return frame
        except IndexError:
            return None  # another call is reading, or the socket is closed
        head, start = self._head, self._start
        # Of a closed socket, or while a call reads, a header function is not asked: it may raise.
        found = form.first(head, start) if slot and len(head) - start >= form.header_size else None
        if found is None:
            return None
        frame, end = found
        run = end - start + (self.run if self.frame_format is form else 0)
        return frame if self._take_ready(head, start, end, slot, run, form) else None

    def ready_view(self, size: int, slot: Slot) -> memoryview | None:
        """Do what ``show`` does, if the bytes are in the head alone; else return None."""
        head, start = self._head, self._start
        if type(size) is not int or not 0 < size <= len(head) - start:
            return None
        # The view is of immutable bytes: it may be kept.
        view = memoryview(head)[start:]
        if not self._take_ready(head, start, start, slot):
            return None
        self._shown_at = self.received - self.size
        self._shown = self.size
        return view

    def ready_consume(self, size: int, slot: Slot) -> bool:
        """Do what ``consume`` does, if the bytes are in the head alone; else return False."""
        head, start, shown = self._head, self._start, self._shown
        if size > shown or self.received - self.size != self._shown_at:
            return False
        if not self._take_ready(head, start, start + size, slot):
            return False
        self._shown = shown - size
        self._shown_at += size
        return True

    def _take_ready(
        self, head: bytes, start: int, end: int, slot: Slot, run: int = 0, form: FrameFormat | None = None
    ) -> bool:
        """Remove the bytes of the head from ``start`` to ``end``, if nothing has changed since the caller looked.

        Args:
            head: the head that the caller has looked at.
            start: where it began.
            end: where the rest begins.
            slot: the slot of the core.
            run: the ``run`` from now on.
            form: the ``frame_format`` from now on.

        Returns:
            Whether they were removed. If not, the owner of the core is to look closer.
        """
        try:
            if slot[0].undo is not None or self._head is not head or self._start != start:
                return False
        except IndexError:
            return False  # another call is reading, or the socket is closed
        if self._tail or self._pieces or self.lines or self.frames or run >= PRESPLIT_AFTER:
            return False
        self.run = run
        self.frame_format = form
        self._searched = 0
        self.size -= end - start
        if self.size:
            self._start = end
        else:  # let go of the memory
            self._head = b""
            self._start = 0
        return True

    def take_line(self, size: int, consumed: int) -> bytes:
        """Remove ``consumed`` bytes, a line with its terminator, and return the first ``size`` of them."""
        line = self.peek(size)
        self._searched = 0
        if self.run + consumed >= PRESPLIT_AFTER and self.frame_format is None:
            self._advance_and_split_lines(self._start + consumed)
        else:
            self.run += consumed
            self._advance(self._start + consumed)
        return line

    def next_line(self, max_length: int) -> bytes | None:
        """Remove and return the first line, ``EMPTY_LINE`` for an empty one. The common case of ``find_line``.

        Returns:
            The line, or None: it is not whole, too long, or not in the head alone, and ``find_line`` must look closer.
        """
        if self.frame_format is not None:
            self._change_format(None)
        lines = self.lines
        if lines:
            line = lines[-1]
            if len(line) > max_length or not lines:  # `close` clears them, in any thread
                return None
            del lines[-1]
            return line
        if self._tail or self._pieces:
            return None
        if self._search_needle != _NEWLINE:
            self._search_needle = _NEWLINE
            self._searched = 0
        head, start = self._head, self._start
        newline = head.find(b"\n", start + self._searched, start + max_length + 2)
        if newline < 0:
            self._searched = min(self.size, max_length + 2)
            return None
        whole = line_at(head, start, newline)
        # Too long only by its end: `find_line` finds out.
        if len(whole) > max_length and whole is not EMPTY_LINE:
            return None
        end = newline + 1
        self._searched = 0
        if self.run + end - start >= PRESPLIT_AFTER:
            self._advance_and_split_lines(end)
        else:
            self.run += end - start
            self._advance(end)
        return whole

    def next_frame(self, form: FrameFormat) -> Frame | None:
        """Remove and return the first frame. The common case of ``StreamCore.recv_frame``.

        Returns:
            The frame, or None: it is not whole, refused, or not in the head alone, and the core must look closer.
        """
        if self.frame_format is not form:
            self._change_format(form)
        if self.frames:
            frame = self.frames[-1]
            del self.frames[-1]  # type: ignore[attr-defined] # a list, because it is not empty
            return frame
        if self.size < form.header_size or self._tail or self._pieces:
            return None
        found = form.first(self._head, self._start)
        if found is None:
            return None
        frame, end = found
        self._searched = 0
        if self.run + end - self._start >= PRESPLIT_AFTER:
            self._advance_and_split_frames(end, form)
        else:
            self.run += end - self._start
            self._advance(end)
        return frame

    def _change_format(self, form: FrameFormat | None) -> None:
        """Begin to take frames of another format, or lines."""
        if self.lines or self.frames:
            self.unsplit()
        self.run = 0
        self.frame_format = form

    def show(self, size: int) -> memoryview | None:
        """Return a view of all unread bytes, which stay; None if there are fewer than ``size``."""
        if self.lines or self.frames:
            self.unsplit()
        if self.size < size:  # before `_gather`, which would copy everything once for each piece that arrives
            return None
        self._gather()
        # The view is of immutable bytes: it may be kept.
        view = memoryview(self._head)[self._start :]
        self._shown_at = self.received - self.size  # the bytes taken so far
        self._shown = self.size
        return view

    def consume(self, size: int) -> bool:
        """Remove ``size`` bytes of those that ``show`` has shown; False if there are not so many, or they were read."""
        self._gather()
        shown = self._shown
        if size > shown or self.received - self.size != self._shown_at:
            return False
        self.run = self._searched = 0
        self._advance(self._start + size)
        self._shown = shown - size
        self._shown_at += size
        return True

    def unread(self, data: bytes) -> bool:
        """Put bytes back in front; False if more than ``MAX_FRAME_SIZE`` bytes were put back than taken."""
        if self.lines or self.frames:
            self.unsplit()
        if self.size + len(data) - self.received > MAX_FRAME_SIZE:
            return False
        if self._tail:
            self._gather()
        size = len(data)
        front = self._start - size
        pieces = self._pieces
        if front >= 0 and self._head.startswith(data, front):
            data = self._head  # the bytes that were taken last: nothing is copied
        else:
            front = 0
            rest = self._head[self._start :]
            if len(rest) < _JOIN_BELOW:
                data += rest
            else:
                pieces = [rest, *(pieces or ())]
        # No signal handler can run in these lines.
        self._shown = self._searched = self.run = 0
        self._head = data
        self._start = front
        self._pieces = pieces
        self.size += size
        return True

    def release_memory(self) -> None:
        """Free the memory of lines that were split ahead and are all taken."""
        self._head = b""
        self._start = 0

    def _drop(self, size: int) -> None:
        self._searched = 0
        self._advance(self._start + size)

    # No signal handler can run after the first store of the next three methods.

    def _advance(self, end: int) -> None:
        """Remove the bytes of the head up to ``end``."""
        self.size -= end - self._start
        if self.size:
            self._start = end
        else:  # let go of the memory
            self._head = b""
            self._start = 0

    def _advance_and_split_lines(self, end: int) -> None:
        """The same, and move whole lines to the fast lane: as many bytes of them as were taken as lines before."""
        taken = self.run + end - self._start
        stop = self._head.rfind(b"\n", end, end + min(taken, _PRESPLIT_MAX)) + 1
        split = split_lines(self._head[end:stop]) if stop > end else None
        if split is None:
            self.run = 0
            self._advance(end)
            return
        split[0].reverse()
        lines = self.lines
        ahead, self._terminator_size = split
        self.run = taken + stop - end
        self.size -= stop - self._start
        self._start = stop  # and the head stays, for `unsplit`
        lines += ahead

    def _advance_and_split_frames(self, end: int, form: FrameFormat) -> None:
        """The same with frames."""
        taken = self.run + end - self._start
        frames, stop = form.split(self._head, end, end + min(taken, _PRESPLIT_MAX))
        if not frames:
            self.run = 0
            self._advance(end)
            return
        frames.reverse()
        self.run = taken + stop - end
        self.size -= stop - self._start
        self._start = stop
        self.frames = frames

    def unsplit(self) -> None:
        """Put back the lines or frames that were split off ahead and not taken."""
        size = self._size_ahead()
        lines = self.lines
        # No signal handler can run in these lines.
        self._start -= size
        self.size += size
        self.run = 0
        self.frames = ()
        del lines[:]

    def drop_ahead(self) -> None:
        """Forget what was split off ahead: this side has closed the socket."""
        self.frames = ()
        self.frame_format = None  # its function may refer to the socket
        self._search_needle = b""
        self.lines.clear()

    def _size_ahead(self) -> int:
        """Bytes of the head that ``lines`` or ``frames`` stand for."""
        if self.frames:
            assert self.frame_format is not None
            return self.frame_format.size_of(self.frames)
        lines = self.lines
        if not lines:
            return 0
        empty = lines.count(EMPTY_LINE) * len(EMPTY_LINE)
        return sum(map(len, lines)) - empty + len(lines) * self._terminator_size


EMPTY = ReceiveBuffer()
"""The buffer of a socket that is not connected. Nothing is ever fed to it."""
