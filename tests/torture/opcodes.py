"""Doing something before the n-th bytecode instruction that the library executes, as a signal handler would.

``sys.monitoring`` tells each instruction on 3.12 and later, ``sys.settrace`` on 3.11 (where ``f_trace_opcodes`` works
more than once). CPython runs signal handlers after calls, at the beginning of functions and at backward jumps, and some
calls run them while they wait; so an instruction says also whether a real signal could have been handled there.
"""

from __future__ import annotations

import dis
import functools
import linecache
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import wireline

LIBRARY = os.path.dirname(os.path.abspath(wireline.__file__)) + os.sep

_CHECKED = re.compile("CALL|RESUME|JUMP_BACKWARD|POP_JUMP_BACKWARD|YIELD")
"""The instructions that are followed by a look at pending signals. After a YIELD a generator begins with RESUME."""

_UNCHECKED = re.compile("NO_INTERRUPT|CALL_INTRINSIC|PRECALL")

_WAITS = re.compile(
    r"\.(recv\w*|send\w*|poll|_poll|select|acquire|wait\w*|accept|connect\w*|join|shutdown|close)\("
)
"""Calls that run signal handlers while they wait, and give up if one of these raises."""

_TOOL = 4
_NEAR = 2


class Interrupted(Exception):
    """The exception of the handler."""


@dataclass(frozen=True)
class Place:
    """The place where it happened.

    Attributes:
        where: function, line and instruction.
        reachable: whether a real signal can be handled there.
        returning: whether every function of the library on the stack was about to return: nothing could be done any
            more to keep the result.
        finalizing: whether a finalizer was running, whose exceptions the interpreter only reports.
    """

    where: str
    reachable: bool
    returning: bool
    finalizing: bool


class Interrupter:
    """Calls ``action`` before instruction number ``at`` that this thread executes in the library.

    A context manager; ``count`` is how many there were, ``place`` where the action was called, or None. With ``at`` 0
    the action is never called, and ``reachable`` lists the numbers of those where a real signal can be handled.
    """

    def __init__(
        self, at: int, action: Callable[[], None], announce: Callable[[Place], None] = lambda _: None
    ) -> None:
        self.count = 0
        self.place: Place | None = None
        self.reachable: list[int] = []
        self._at = at
        self._action = action
        self._announce = announce
        self._last: dict[int, int] = {}
        self._latest: tuple[FrameType | None, str] = (None, "")
        self._thread = threading.get_ident()

    def __enter__(self) -> Interrupter:
        _listen(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        _listen(None)

    def _seen(self, frame: FrameType, offset: int) -> None:
        if threading.get_ident() != self._thread or self.place is not None:
            return
        if sys.version_info < (3, 12) and _is_finalizing(frame):
            return  # to switch the tracing off there crashes CPython 3.11
        self.count += 1
        if self.count == self._at or not self._at:
            called = self._latest[1] if self._latest[0] is frame else ""
            place = _place(frame, offset, self._last.get(id(frame)), called)
            if place.reachable:
                self.reachable.append(self.count)
        if self.count == self._at:
            self.place = place
            self._latest = (
                None,
                "",
            )  # a frame that is kept here would keep the objects of the interrupted call
            _listen(None)
            self._announce(self.place)
            self._action()
        else:
            self._last[id(frame)] = offset
            # The caller of the function that is running: the next instruction of the caller follows its return.
            self._latest = (frame.f_back, frame.f_code.co_name)


if sys.version_info >= (3, 12):
    _listener: Callable[[FrameType, int], None] | None = None
    _known: set[CodeType] = set()

    def _listen(listener: Callable[[FrameType, int], None] | None) -> None:
        global _listener
        monitoring = sys.monitoring
        if not _known and listener is not None:
            monitoring.use_tool_id(_TOOL, "wireline torture")
            monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, _instruction)
        if listener is not None:
            for code in _codes():
                if code not in _known:
                    _known.add(code)
                    monitoring.set_local_events(_TOOL, code, monitoring.events.INSTRUCTION)
        _listener = listener

    def _instruction(code: CodeType, offset: int) -> None:
        if _listener is not None:
            _listener(sys._getframe(1), offset)

    _modules_seen = 0
    _found: list[CodeType] = []

    def _codes() -> list[CodeType]:
        """Every code object of the library that is loaded by now."""
        global _modules_seen
        modules = [name for name in sys.modules if name == "wireline" or name.startswith("wireline.")]
        if len(modules) != _modules_seen:
            _modules_seen = len(modules)
            found: dict[CodeType, None] = {}
            for name in modules:
                for value in list(vars(sys.modules[name]).values()):
                    _collect(value, found, 0)
            _found[:] = found
        return _found

    def _collect(value: Any, found: dict[CodeType, None], depth: int) -> None:
        if isinstance(value, CodeType):
            if value in found or not value.co_filename.startswith(LIBRARY):
                return
            found[value] = None
            for constant in value.co_consts:
                _collect(constant, found, depth)
        elif isinstance(value, type):
            if value.__module__.startswith("wireline") and depth < 3:
                for member in list(vars(value).values()):
                    _collect(member, found, depth + 1)
        elif isinstance(value, property):
            for function in (value.fget, value.fset):
                _collect(function, found, depth)
        elif isinstance(value, staticmethod | classmethod | functools.partial | functools.cached_property):
            _collect(getattr(value, "__func__", None) or getattr(value, "func", None), found, depth)
        else:
            while hasattr(value, "__wrapped__"):
                value = value.__wrapped__
            _collect_function(value, found, depth)

    def _collect_function(value: Any, found: dict[CodeType, None], depth: int) -> None:
        code = getattr(value, "__code__", None)
        if isinstance(code, CodeType):
            _collect(code, found, depth)

else:

    def _listen(listener: Callable[[FrameType, int], None] | None) -> None:
        if listener is None:
            sys.settrace(None)
            return

        def local(frame: FrameType, event: str, _: object) -> Any:
            if event == "opcode":
                listener(frame, frame.f_lasti)
            return local

        def entered(frame: FrameType, _: str, __: object) -> Any:
            if not frame.f_code.co_filename.startswith(LIBRARY):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return local

        sys.settrace(entered)


@functools.cache
def _instructions(code: CodeType) -> tuple[list[dis.Instruction], list[int]]:
    """The instructions, and for each offset, those of the caches between them included, which of them it belongs to."""
    found = list(dis.get_instructions(code))
    index = [0] * len(code.co_code)
    for i, instruction in enumerate(found):
        index[instruction.offset :] = [i] * (len(index) - instruction.offset)
    return found, index


def _place(frame: FrameType, offset: int, last: int | None, called: str) -> Place:
    code = frame.f_code
    instructions, index = _instructions(code)
    here = index[offset]
    opname = instructions[here].opname
    before = instructions[here - 1].opname if here else "RESUME"
    if before != "RESUME" and last is not None:
        before = instructions[index[last]].opname
    line = linecache.getline(code.co_filename, frame.f_lineno or 0)  # some instructions are of no line
    waits = opname.startswith("CALL") and _WAITS.search(line)
    checked = _CHECKED.search(before) and not _UNCHECKED.search(before)
    if before.startswith("YIELD") and opname != "RESUME":
        checked = None  # an exception is thrown into the generator, where it is closed: it goes straight to its handler
    if opname == "PUSH_EXC_INFO":
        checked = None  # an exception goes from the instruction that raised it straight to its handler
    # The interpreter enters a function in Python by itself, and returns without a look at the signals. A function that
    # C calls (`__init__`, and all with `*args` on 3.11) is another matter.
    if called and called != "__init__" and (before != "CALL_FUNCTION_EX" or sys.version_info >= (3, 12)):
        checked = None
    where = f"{os.path.basename(code.co_filename)}:{frame.f_lineno} {code.co_qualname}, before {opname}"
    return Place(where, bool(waits or checked), _all_return(frame, here), _is_finalizing(frame))


def place_of(frame: FrameType | None) -> Place:
    """Where a real signal was handled: ``frame`` is the argument of its handler."""
    while frame is not None and not frame.f_code.co_filename.startswith(LIBRARY):
        frame = frame.f_back
    if frame is None:
        return Place("outside of the library", True, True, False)
    code = frame.f_code
    instructions, index = _instructions(code)
    here = _next(frame)
    after = instructions[index[frame.f_lasti]].opname
    where = f"{os.path.basename(code.co_filename)}:{frame.f_lineno} {code.co_qualname}, after {after}"
    return Place(where, True, _all_return(frame, here), _is_finalizing(frame))


def _next(frame: FrameType) -> int:
    """The instruction that follows the running call of ``frame``."""
    instructions, index = _instructions(frame.f_code)
    here = index[frame.f_lasti]
    # On 3.11 the pair PRECALL, CALL makes one call.
    return here + (2 if instructions[here].opname == "PRECALL" else 1)


def _is_finalizing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _all_return(frame: FrameType | None, here: int) -> bool:
    while frame is not None and frame.f_code.co_filename.startswith(LIBRARY):
        instructions, _ = _instructions(frame.f_code)
        following = instructions[here : here + _NEAR]
        # `lines` hands its lines out with YIELD.
        if not any(instruction.opname.startswith(("RETURN", "YIELD")) for instruction in following):
            return False
        frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(LIBRARY):
            here = _next(frame)
    return True
