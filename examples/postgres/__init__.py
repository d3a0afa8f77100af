"""A client of PostgreSQL: one source for both flavours, ``examples.postgres.aio`` and its twin ``.blocking``."""

from examples.postgres.protocol import Config, PostgresError, ProtocolError, Result

__all__ = ["Config", "PostgresError", "ProtocolError", "Result"]
