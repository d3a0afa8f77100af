"""The command ``wireline``. It uses public names of the library only."""

from __future__ import annotations

import contextlib
import errno
import gc
import sys
from collections.abc import Sequence

__all__ = ["main"]

OUT_OF_DESCRIPTORS = "too many open files; raise the limit of open files with 'ulimit -n'"
"""The sentence about an EMFILE that is about no peer: Python needs a descriptor for each module that it loads."""

_INTERRUPTED = 130
"""Exit code after a SIGINT: 128 and the number of the signal, as a shell reports it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the words after the program's name; those of the process by default.

    Returns:
        The exit code.
    """
    # Imports are most of the start-up time, and the collector finds nothing in them: it is off until the command runs.
    collects = gc.isenabled()
    gc.disable()
    # A SIGINT during them ends the command without a traceback, as later.
    try:
        from wireline.cli._main import run

        return run(argv)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        # In the imports, or in the report of another error: nothing more can be loaded to say so.
        if error.errno != errno.EMFILE:
            raise
        # With `2>&-`, `sys.stderr` is None, in place of which `print` takes standard output.
        with contextlib.suppress(AttributeError, OSError):
            sys.stderr.write(f"wireline: {OUT_OF_DESCRIPTORS}\n")
        return 1
    finally:
        (gc.enable if collects else gc.disable)()
