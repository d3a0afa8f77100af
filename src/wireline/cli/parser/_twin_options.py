"""Options and help of ``twin``."""

from __future__ import annotations

import argparse

from wireline.cli.parser import _option_types
from wireline.cli.parser._common_options import DEBUG_HELP, Command

SUMMARY = "make the blocking twin of async code"

ABOUT = """\
Make the blocking twin of a package, or of a single file, that is written on wireline.asyncnet.

ASYNC is a directory or a file; SYNC is where the twin is written. await, async, and the names of async interfaces are
replaced; comments, docstrings and the numbers of lines stay. The first comment of the twin says which file it was made
of. Only files with that comment are replaced or removed.

A comment at the end of a line, or on a line of its own, says what is different:

  # async: REASON       this line, with its block, is not in the twin
  # blocking: CODE      in the twin, this line is CODE

Each thing that has no twin, such as asyncio.gather, is reported with its place and what to write instead. Nothing is
written then, and the exit code is 1."""

EXAMPLES = """\
examples:
  wireline twin src/driver/aio src/driver/blocking
  wireline twin --check src/driver/aio src/driver/blocking
  wireline twin --rename AsyncClient=Client client_async.py client.py
"""


def describe(twin: argparse.ArgumentParser) -> None:
    """Add the options of ``twin``."""
    twin.set_defaults(load=_load)
    twin.add_argument("source", metavar="ASYNC", help="the directory or file that is written by hand")
    twin.add_argument("target", metavar="SYNC", help="the directory or file that is made of it")
    twin.add_argument(
        "--check",
        action="store_true",
        help="write nothing; print the differences on standard error and exit with 1 if there are any",
    )
    twin.add_argument(
        "--rename",
        metavar="OLD=NEW",
        type=_option_types.renamed,
        action="append",
        default=[],
        help="a name of your own that is another one in the twin; may be given more than once",
    )
    # SUPPRESS: otherwise the default here would overwrite a --debug before the command.
    twin.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG_HELP)


def _load() -> Command:
    from wireline.cli.twin import _twin

    return _twin.run
