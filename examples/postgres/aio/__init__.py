"""The client for tasks; ``make twins`` makes the one for threads of it."""

from examples.postgres.aio.connection import Connection, make_pool

__all__ = ["Connection", "make_pool"]
