"""Exceptions at the moments at which CPython runs signal handlers, each in its turn.

CPython 3.11 to 3.13 runs them after a call of something that is not Python, at the entry of a Python function, and at a
jump backwards. A tracer of single instructions raises at a given one of these moments.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Callable

__all__ = ["Interruption", "interrupted", "switched"]

_JUMPS = ("JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")


class Interruption(Exception):
    """The exception of the handler."""


@functools.cache
def _names(code: types.CodeType) -> dict[int, str]:
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}


class _Tracer:
    """Raises once, at one of the moments in the files that it looks at."""

    def __init__(self, files: tuple[str, ...], moment: int) -> None:
        self._files = files
        self._left = moment
        self._before: dict[types.FrameType, str] = {}
        self.raised = False

    def happen(self) -> None:
        raise Interruption

    def __call__(self, frame: types.FrameType, event: str, _: object) -> Callable[..., object] | None:
        if event == "call":
            # A test's replacement of a function that is not Python counts as not Python.
            if frame.f_back in self._before and frame.f_globals["__name__"].startswith("wireline."):
                self._before[frame.f_back] = "a call of Python"  # the moment was at its entry
            if not frame.f_code.co_filename.endswith(self._files):
                return None
            frame.f_trace_opcodes = True
            self._before[frame] = ""
        elif event == "opcode":
            name = _names(frame.f_code)[frame.f_lasti]
            before, self._before[frame] = self._before.get(frame, ""), name
            if before.startswith("CALL") or before in ("RESUME", _JUMPS[0]):
                if self._left == 0:
                    self.raised = True
                    self._left -= 1
                    self.happen()
                self._left -= 1
        elif event == "return":
            self._before.pop(frame, None)
        return self


def interrupted(call: Callable[[], object], moment: int, *files: str) -> bool:
    """Make a call, and raise in it at one moment of the code in ``files``; whether it had so many.

    CPython 3.13 tells the instructions of a function from its second call on.

    Raises:
        Interruption: it had, and let the exception pass.
    """
    return _traced(call, _Tracer(files, moment))


class _Switch(_Tracer):
    """Lets another thread run, at a moment at which it may."""

    def __init__(self, files: tuple[str, ...], moment: int, other: Callable[[], object]) -> None:
        super().__init__(files, moment)
        self.happen = other  # type: ignore[assignment,method-assign]


def switched(call: Callable[[], object], moment: int, other: Callable[[], object], *files: str) -> bool:
    """Make a call, and at one moment of the code in ``files`` another; whether it had so many."""
    return _traced(call, _Switch(files, moment, other))


def _traced(call: Callable[[], object], tracer: _Tracer) -> bool:
    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for it when tracing begins, and not later
    sys.settrace(tracer)
    try:
        call()
    finally:
        sys.settrace(before)
    return tracer.raised
