# Made by 'wireline twin' from ../aio/__init__.py: edit that file.
# From line 7 on, line N here is line N - 2 there.
# isort: skip_file
# fmt: off
"""The client for tasks; ``make twins`` makes the one for threads of it."""
from examples.postgres.blocking.connection import Connection, make_pool
__all__ = ["Connection", "make_pool"]
