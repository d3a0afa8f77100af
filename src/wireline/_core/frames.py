"""Length-prefixed messages: what a header says, and where the message ends (R16)."""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from wireline._core.sizes import check_size
from wireline.errors import FrameError, FrameTooLongError

__all__ = ["Frame", "FrameFormat", "Header", "frame_format", "struct_of"]

# A `Frame` without the call of its `__new__`, which is Python.
_new_tuple = cast("Callable[[type[Frame], tuple[Any, bytes]], Frame]", tuple.__new__)

MAX_HEADER_SIZE = 64 * 1024
"""The most bytes that a header callable may ask for before it knows the size of the frame."""

# No more frames than this are split ahead at once: a peer that sends empty ones makes 120 bytes of memory of each.
_MOST_AHEAD = 4096

Header = str | bytes | struct.Struct | Callable[[memoryview], tuple[int, int] | None]
"""A ``struct`` format, or a function of the bytes that have arrived: ``(header_size, payload_size)``, or None for "more
bytes needed"."""


class Frame(NamedTuple):
    """One length-prefixed message."""

    fields: Any
    """The fields of the header, a tuple; the bytes of the header if that is measured by a function."""
    payload: bytes
    """The bytes after the header."""


class FrameFormat:
    """The arguments of ``recv_frame`` and ``frames`` that describe the messages of a peer. Immutable.

    Attributes:
        header: a ``struct`` format, or a function that measures headers.
        header_size: bytes of a header, the fewest if they vary.
        max_size: bytes that a payload may have.
        unpack_from, length_field, length_adjust: of a header with a ``struct`` format; ``unpack_from`` is None if a
            function measures the header.
    """

    __slots__ = (
        "_measure",
        "header",
        "header_size",
        "length_adjust",
        "length_field",
        "max_size",
        "unpack_from",
    )

    def __init__(self, header: Header, length_field: int, length_adjust: int, max_size: int) -> None:
        self.header = header
        self.length_field = _integer("length_field", length_field)
        self.length_adjust = _integer("length_adjust", length_adjust)
        self.max_size = check_size(max_size, "max_size")
        self.header_size = 1
        self.unpack_from: Callable[[bytes | bytearray, int], tuple[Any, ...]] | None = None
        self._measure: Callable[[memoryview], tuple[int, int] | None] | None = None
        if not isinstance(header, str | bytes | struct.Struct):
            if not callable(header):
                raise TypeError(f"the header is a struct format or a function, not {type(header).__name__}")
            self._measure = header
            return
        form = struct_of(header)
        fields = form.unpack(bytes(form.size))
        if not -len(fields) <= self.length_field < len(fields):
            raise ValueError(f"length_field is {length_field}, and the header has {len(fields)} fields")
        if type(fields[self.length_field]) is not int:
            kind = type(fields[self.length_field]).__name__
            raise TypeError(f"field {length_field} of the header is the length, and no integer but {kind}")
        self.header_size = form.size
        self.unpack_from = form.unpack_from

    def measure(self, data: bytes | bytearray, start: int, operation: str) -> tuple[int, int] | None:
        """Return the sizes of the first header and of its payload; None if more bytes are needed to know.

        Args:
            data: the bytes that have arrived.
            start: where in ``data`` the header begins.
            operation: the call, for errors.

        Raises:
            FrameError, FrameTooLongError: the size of the payload is negative, or above ``max_size``.
            TypeError, ValueError: the function has returned something else.
        """
        if len(data) - start < self.header_size:
            return None
        if self._measure is not None:
            # Of immutable bytes: the function may keep what it is given.
            front = data if type(data) is bytes else bytes(data[start : start + MAX_HEADER_SIZE])
            view = memoryview(front)[start if front is data else 0 :][:MAX_HEADER_SIZE]
            measured = _sizes(self._measure(view))
            if measured is None:
                if len(view) >= MAX_HEADER_SIZE:
                    raise FrameTooLongError(operation, len(view), MAX_HEADER_SIZE, "the header has")
                return None
            header_size, payload_size = measured
        else:
            assert self.unpack_from is not None
            header_size = self.header_size
            payload_size = self.unpack_from(data, start)[self.length_field] + self.length_adjust
        if payload_size < 0:
            raise FrameError(operation, payload_size, self.max_size)
        if payload_size > self.max_size:
            raise FrameTooLongError(operation, payload_size, self.max_size)
        return header_size, payload_size

    def first(self, data: bytes, start: int) -> tuple[Frame, int] | None:
        """Return the frame at ``start`` and where it ends; None if it is not whole, or refused."""
        if self.unpack_from is None:
            try:
                measured = self.measure(data, start, "")
            except FrameError:
                return None
            if measured is None:
                return None
            header_size, size = measured
            fields: Any = data[start : start + header_size]
        else:
            header_size = self.header_size
            fields = self.unpack_from(data, start)
            size = fields[self.length_field] + self.length_adjust
            if not 0 <= size <= self.max_size:
                return None
        begin = start + header_size
        end = begin + size
        if end > len(data):
            return None
        return _new_tuple(Frame, (fields, data[begin:end])), end

    def split(self, data: bytes, start: int, stop: int) -> tuple[list[Frame], int]:
        """Return the whole frames that begin at ``start`` and end at ``stop`` or before, and where the last one ends.

        It stops at a frame that is refused: the error is raised when that is the next one.
        """
        stop = min(stop, len(data))
        frames: list[Frame] = []
        unpack_from = self.unpack_from
        if unpack_from is None:
            for _ in range(_MOST_AHEAD):
                found = self._first_or_error(data, start) if start < stop else None
                if found is None or found[1] > stop:
                    break
                frames.append(found[0])
                start = found[1]
            return frames, start
        pairs: list[tuple[Any, bytes]] = []
        append = pairs.append
        header_size, field = self.header_size, self.length_field
        adjust = self.length_adjust + header_size
        longest = self.max_size + header_size
        stop = min(stop, start + _MOST_AHEAD * header_size)
        last = stop - header_size
        while start <= last:
            fields = unpack_from(data, start)
            size = fields[field] + adjust
            end = start + size
            if end > stop or not header_size <= size <= longest:
                break
            append((fields, data[start + header_size : end]))
            start = end
        return list(map(_new_tuple, itertools.repeat(Frame), pairs)), start

    def _first_or_error(self, data: bytes, start: int) -> tuple[Frame, int] | None:
        """Return what ``first`` does, and None if the function raises: it will again when this frame is the next one.

        An exception of a signal handler is not repeated, and must not get lost.
        """
        try:
            return self.first(data, start)
        except Exception as error:
            try:
                self.first(data, start)
            except type(error):
                return None
            raise

    def size_of(self, frames: Sequence[Frame]) -> int:
        """Return the bytes that whole frames of this format have."""
        payloads = sum(len(frame.payload) for frame in frames)
        if self.unpack_from is None:
            return payloads + sum(len(frame.fields) for frame in frames)
        return payloads + self.header_size * len(frames)

    def fields(self, header: bytes) -> Any:
        """Return the ``fields`` of a whole header."""
        return header if self.unpack_from is None else self.unpack_from(header, 0)


def _sizes(measured: object) -> tuple[int, int] | None:
    if measured is None:
        return None
    if not isinstance(measured, tuple) or len(measured) != 2:
        raise TypeError(f"a header function returns (header_size, payload_size) or None, not {measured!r}")
    header_size, payload_size = (_integer("a size in a frame", size) for size in measured)
    if not 1 <= header_size <= MAX_HEADER_SIZE:
        raise ValueError(f"a header has 1 to {MAX_HEADER_SIZE} bytes, not {header_size}")
    return header_size, payload_size


def _integer(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    return value


def struct_of(form: str | bytes | struct.Struct) -> struct.Struct:
    """Return a ``struct.Struct``.

    Raises:
        TypeError: it is neither that nor a format.
        ValueError: the format is wrong.
    """
    if isinstance(form, struct.Struct):
        return form
    if not isinstance(form, str | bytes):
        raise TypeError(f"a struct format is needed, not {type(form).__name__}")
    return _compiled(form)


@functools.lru_cache(maxsize=256)
def _compiled(form: str | bytes) -> struct.Struct:
    try:
        return struct.Struct(form)
    except struct.error as error:
        raise ValueError(f"not a struct format: {form!r} ({error})") from None


_cached_format = functools.lru_cache(maxsize=256, typed=True)(FrameFormat)


def frame_format(header: Header, length_field: int, length_adjust: int, max_size: int) -> FrameFormat:
    """Return the ``FrameFormat`` of these arguments, the same one for equal arguments.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or is out of range.
    """
    # A function may be a new object in each call: the cache would only keep it alive.
    if type(header) is str or type(header) is struct.Struct or type(header) is bytes:
        try:
            return _cached_format(header, length_field, length_adjust, max_size)
        except TypeError:
            pass  # an argument that cannot be a key: its error is raised below
    return FrameFormat(header, length_field, length_adjust, max_size)
