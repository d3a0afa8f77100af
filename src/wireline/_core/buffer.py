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
line. That is one atomic operation for threads and half the cost of a search. As many bytes are split ahead as were
taken as lines without another read in between (``_line_run``): a caller that alternates lines with other reads never
pays for it. An attempt that splits nothing sets the count to 0. Every other method puts the lines that were not taken
back first, so the two views always agree.
"""

from __future__ import annotations

from wireline._core.lines import EMPTY_LINE, split_lines, whole_line

# Splitting ahead starts once this many bytes went by as lines, one after the other. A guess: about ten header lines,
# so that a short exchange of "a line, then its body" stays on the plain path.
_PRESPLIT_AFTER = 512

# Pieces of fewer bytes than this, on the average, are joined at once: an object has 33 bytes besides its own, and 8 are
# for it in a list.
_JOIN_BELOW = 1024

# Splitting ahead goes no further than this many bytes at once. So no line of the fast lane is longer than a plain
# `recv_line` may return, and a peer that sends empty lines costs little (a list takes 8 bytes for each).
_PRESPLIT_MAX = 64 * 1024


BufferState = tuple[bytes, int, int, bytearray | None, int, tuple[bytes, ...], object]
"""A state that ``ReceiveBuffer.restore`` goes back to: head, start and size; the tail, and its size then; the pieces;
and the object that was fed last (see ``fed``). A plain tuple: each read makes one.
"""


def fed(state: BufferState) -> object:
    """Return the object that was fed last before the state was noted."""
    return state[6]


class ReceiveBuffer:
    """A queue of bytes that can be searched, peeked at and taken from the front.

    Attributes:
        lines: whole lines split off ahead, the next one last.
        size: unread bytes besides these lines: all of them after ``unsplit``.
    """

    __slots__ = (
        "_head",
        "_line_run",
        "_pieces",
        "_search_needle",
        "_searched",
        "_start",
        "_tail",
        "_terminator_size",
        "lines",
        "size",
    )

    def __init__(self) -> None:
        self._head = b""
        self._start = 0
        self._tail: bytearray | None = None
        self._pieces: list[bytes] | None = None  # most connections never have any
        self._search_needle = b""
        self._searched = 0
        self._line_run = 0
        self._terminator_size = 0
        self.lines: list[bytes] = []
        self.size = 0

    def __len__(self) -> int:
        return self.size + self._size_of_lines()

    def __bool__(self) -> bool:
        """Whether there is anything. Unlike the length, it does not walk along the lines split ahead."""
        return bool(self.lines or self.size)

    def feed(self, data: bytes) -> None:
        """Append bytes that arrived."""
        if self.lines:
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
        if self.lines:
            self.unsplit()
        if self._pieces:
            self._pieces += pieces
        else:
            self._pieces = pieces
        self.size += size

    def _join(self, pieces: list[bytes]) -> None:
        """Join the pieces to the head or the tail, for a search."""
        self._pieces = None
        data = b"".join(pieces)
        self.size -= len(data)
        self.feed(data)

    def state(self, fed: object = None) -> BufferState:
        """Note the content, with the lines that were split ahead as if they were not."""
        tail, pieces = self._tail, self._pieces
        if tail is None and pieces is None and not self.lines:
            return self._head, self._start, self.size, None, 0, (), fed
        ahead = self._size_of_lines()
        return (
            self._head,
            self._start - ahead,
            self.size + ahead,
            tail,
            0 if tail is None else len(tail),
            tuple(pieces or ()),
            fed,
        )

    def restore(self, state: BufferState) -> None:
        """Go back to a state. It may be interrupted anywhere and done again: a bytearray only ever grows."""
        self._head, self._start, self.size, tail, tail_size, pieces, _ = state
        self._tail = tail
        if tail is not None:
            del tail[tail_size:]
        self._pieces = list(pieces) or None
        self._searched = self._line_run = 0
        self.lines.clear()

    def find(self, delimiter: bytes, limit: int) -> int:
        """Look for ``delimiter`` in the first ``limit`` bytes; its offset from the front, or -1."""
        if self.lines:
            self.unsplit()
        if self._pieces:
            self._join(self._pieces)
        if delimiter != self._search_needle:
            self._search_needle = delimiter
            self._searched = 0
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
        if self.lines:
            self.unsplit()
        if self._pieces:
            self._join(self._pieces)
        if self._tail:
            self._head = bytes(self._tail)
            self._start = 0
            self._tail = None
        start = self._start
        return self._head[start : start + size]

    def take(self, size: int) -> bytes:
        """Remove and return the first ``size`` bytes, which must be there."""
        self._line_run = 0
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

    def take_line(self, size: int, consumed: int) -> bytes:
        """Remove ``consumed`` bytes, a line with its terminator, and return the first ``size`` of them."""
        line = self.peek(size)
        self._drop(consumed)
        self._line_run += consumed
        if self._line_run >= _PRESPLIT_AFTER:
            self._presplit()
        return line

    def next_line(self, max_length: int) -> bytes | None:
        """Remove and return the first line, ``EMPTY_LINE`` for an empty one. The common case of ``find_line``.

        Returns:
            The line, or None: it is not whole, too long, or not in the head alone, and ``find_line`` must look closer.
        """
        if self.lines or self._tail or self._pieces:
            return None
        if self._search_needle != b"\n":
            self._search_needle = b"\n"
            self._searched = 0
        head, start = self._head, self._start
        newline = head.find(b"\n", start + self._searched, start + max_length + 2)
        if newline < 0:
            self._searched = min(self.size, max_length + 2)
            return None
        line = whole_line(head[start : newline + 1])
        # Too long only by its end: `find_line` finds out.
        if line is None or (len(line) > max_length and line is not EMPTY_LINE):
            return None
        consumed = newline + 1 - start
        self._line_run += consumed
        self._searched = 0
        self.size -= consumed
        if self.size:
            self._start = newline + 1
            if self._line_run >= _PRESPLIT_AFTER:
                self._presplit()
        else:  # let go of the memory
            self._head = b""
            self._start = 0
            if self._line_run >= _PRESPLIT_AFTER:
                self._line_run = 0
        return line

    def release_memory(self) -> None:
        """Free the memory of lines that were split ahead and are all taken."""
        self._head = b""
        self._start = 0

    def _drop(self, size: int) -> None:
        self._start += size
        self.size -= size
        self._searched = 0
        if not self.size:  # let go of the memory
            self._head = b""
            self._start = 0

    def _presplit(self) -> None:
        """Move whole lines to the fast lane: as many bytes of them as were taken as lines before."""
        reach = min(self._line_run, _PRESPLIT_MAX)
        end = self._head.rfind(b"\n", self._start, self._start + reach) + 1
        split = split_lines(self._head[self._start : end]) if end > self._start else None
        if split is None:
            self._line_run = 0
            return
        lines, self._terminator_size = split
        self._line_run += end - self._start
        self.size -= end - self._start
        self._start = end  # and the head stays, for `unsplit`
        lines.reverse()
        self.lines.extend(lines)

    def unsplit(self) -> None:
        """Undo ``_presplit`` for the lines that were not taken."""
        size = self._size_of_lines()
        self._start -= size
        self.size += size
        self._line_run = 0
        self.lines.clear()

    def _size_of_lines(self) -> int:
        """Bytes of the head that ``lines`` stand for."""
        lines = self.lines
        if not lines:
            return 0
        empty = lines.count(EMPTY_LINE) * len(EMPTY_LINE)
        return sum(map(len, lines)) - empty + len(lines) * self._terminator_size
