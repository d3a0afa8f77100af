"""Whether a call still holds a thing, or was ended by an exception before it could give the thing back.

Theory of operation. The things that one call at a time may have (the core, the permit to write) lie in a list of at
most one. ``list.pop`` takes one and ``+=`` gives it back; each is one operation of C, which neither another thread
nor a signal handler can divide. But a signal handler can raise an exception right after the ``pop``, before the thing
has a name: then no ``finally`` gives it back, and it is *abandoned*.

It is recognized by its references, which are counted exactly: a call that holds the thing refers to it from its frame
or its stack of values. With no references but those that are always there, no call has it. That is no different after
a fork, in the child: but there the frames of the parent's other threads may keep theirs forever (see ``adopt``).

A traceback keeps the frames of the calls that the exception ended, and with them their variables. These references are
counted out: the collector tells the variables of a frame whose call has ended, and none of one whose call runs. The
frames of the exception that is being handled now (``except`` and ``with`` close sockets) are found at once, those of
exceptions that are kept elsewhere only by a search.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["is_abandoned", "is_inside_a_call", "kept_by_tracebacks", "recovering", "running_owners"]

_OWN_FILES = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""The library's directory: what the names of its files begin with."""


class _Recovering:
    """Held while an abandoned thing is taken, so that one thread takes it. A fork replaces the lock."""

    def __init__(self) -> None:
        # Re-entrant: a finalizer or a signal handler may close another socket meanwhile. `with` on a lock of C is
        # entered and left without a moment in which a signal handler could keep it locked.
        self.lock = threading.RLock()


recovering = _Recovering()


def _in_child() -> None:
    recovering.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def is_abandoned(thing: object, references: int, *, search: bool) -> bool:
    """Whether no call holds ``thing``, which does not lie where it is when it is free.

    Args:
        thing: what one call at a time may have. The caller passes an expression, not a variable.
        references: how many there are to it when no call has it.
        search: look for tracebacks everywhere. It looks at every object of the process, so it is for a socket in which
            a call was interrupted.
    """
    if sys.getrefcount(thing) <= references + _OWN_REFERENCES:
        return True
    frames = _frames_of_tracebacks(thing, search=search)
    # They live until this count is made, so there are no fewer of them by then; with more it says "held".
    return sys.getrefcount(thing) - _references_in(frames, thing) <= references + _OWN_REFERENCES


def kept_by_tracebacks(thing: object) -> int:
    """How many references to ``thing`` only the traceback of the exception has that is being handled."""
    return _references_in(_frames_of_tracebacks(thing, search=False), thing)


def _frames_of_tracebacks(thing: object, *, search: bool) -> list[FrameType]:
    if search:
        return [referrer for referrer in gc.get_referrers(thing) if type(referrer) is FrameType]
    frames: dict[FrameType, None] = {}
    seen: list[BaseException] = []  # not a set: an exception may have an odd `__eq__`, or no hash
    error = sys.exception()
    while error is not None and not any(error is other for other in seen):
        seen.append(error)
        traceback = error.__traceback__
        while traceback is not None:
            frames[traceback.tb_frame] = None
            traceback = traceback.tb_next
        error = error.__context__
    return list(frames)


def _references_in(frames: list[FrameType], thing: object) -> int:
    return sum(referent is thing for frame in frames for referent in gc.get_referents(frame))


def _own_references(thing: object) -> int:
    return sys.getrefcount(thing)


# Those of a call like `is_abandoned`: its argument and that of `getrefcount`; the tuple is the one that is always
# there.
_OWN_REFERENCES = (lambda probe: _own_references(probe[0]))((object(),)) - 1


def is_inside_a_call(owner: object) -> bool:
    """Whether the running thread is in a signal handler that interrupted a method of ``owner``."""
    frame: FrameType | None = sys._getframe(1)
    # First the frames of the call that asks: files of this library, one after the other.
    while frame is not None and frame.f_code.co_filename.startswith(_OWN_FILES):
        frame = frame.f_back
    return any(owner is each for each in _owners(frame))


def running_owners() -> list[object]:
    """The objects of this library that the running thread is inside a method of."""
    return list(_owners(sys._getframe(1)))


def _owners(frame: FrameType | None) -> Iterator[object]:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OWN_FILES):
            yield frame.f_locals.get("self")
        frame = frame.f_back
