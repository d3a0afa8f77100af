"""Clients of databases: the examples of this project beside the drivers that their users have today."""

from __future__ import annotations

from benchmarks._client import ClientContestant, ClientWork
from benchmarks._database import POSTGRES, REDIS
from benchmarks._rows import CpuRow

_COPY = ClientWork("COPY OUT", POSTGRES, 100, 50_000, 6)
_QUERY = ClientWork("query", POSTGRES, 4, 200, 10)
_PUBSUB = ClientWork("pub/sub", REDIS, 64, 10_000, 5)
_GET = ClientWork("GET", REDIS, 64, 500, 10)

_PG = "wireline PostgreSQL example"
_PG_ASYNC = f"{_PG}, async"
_RD = "wireline Redis example"
_RD_ASYNC = f"{_RD}, async"
_PSYCOPG = ("psycopg", "psycopg_binary")  # the second is its core in C
_REDIS = ("redis", "hiredis")

CONTESTANTS = [
    ClientContestant(name, work, f"benchmarks.{function}", program, needs)
    for name, work, function, program, needs in [
        ("wireline COPY OUT", _COPY, "postgres_clients:copy_out", _PG, ()),
        ("psycopg COPY OUT", _COPY, "postgres_clients:psycopg_copy_out", "psycopg", _PSYCOPG),
        ("wireline async COPY OUT", _COPY, "postgres_clients:async_copy_out", _PG_ASYNC, ()),
        ("asyncpg COPY OUT", _COPY, "postgres_clients:asyncpg_copy_out", "asyncpg", ("asyncpg",)),
        ("wireline query", _QUERY, "postgres_clients:query", _PG, ()),
        ("psycopg query", _QUERY, "postgres_clients:psycopg_query", "psycopg", _PSYCOPG),
        ("wireline async query", _QUERY, "postgres_clients:async_query", _PG_ASYNC, ()),
        ("asyncpg query", _QUERY, "postgres_clients:asyncpg_query", "asyncpg", ("asyncpg",)),
        ("wireline pub/sub", _PUBSUB, "redis_clients:messages", _RD, ()),
        ("redis-py pub/sub", _PUBSUB, "redis_clients:redis_py_messages", "redis-py", _REDIS),
        ("wireline async pub/sub", _PUBSUB, "redis_clients:async_messages", _RD_ASYNC, ()),
        ("redis.asyncio pub/sub", _PUBSUB, "redis_clients:redis_py_async_messages", "redis.asyncio", _REDIS),
        ("wireline GET", _GET, "redis_clients:commands", _RD, ()),
        ("redis-py GET", _GET, "redis_clients:redis_py_commands", "redis-py", _REDIS),
        ("wireline async GET", _GET, "redis_clients:async_commands", _RD_ASYNC, ()),
        ("redis.asyncio GET", _GET, "redis_clients:redis_py_async_commands", "redis.asyncio", _REDIS),
    ]
]

ROWS = [
    CpuRow("PostgreSQL COPY OUT 100 B / psycopg", "wireline COPY OUT", "psycopg COPY OUT", 0.9),
    CpuRow("PostgreSQL COPY OUT 100 B / asyncpg", "wireline COPY OUT", "asyncpg COPY OUT", 5),
    CpuRow("PostgreSQL COPY OUT 100 B: async / asyncpg", "wireline async COPY OUT", "asyncpg COPY OUT", 5),
    CpuRow("PostgreSQL query / psycopg", "wireline query", "psycopg query"),
    CpuRow("PostgreSQL query: async / asyncpg", "wireline async query", "asyncpg query"),
    CpuRow("Redis pub/sub / redis-py", "wireline pub/sub", "redis-py pub/sub", 1.25),
    CpuRow("Redis pub/sub: async / redis.asyncio", "wireline async pub/sub", "redis.asyncio pub/sub", 1.25),
    CpuRow("Redis GET / redis-py", "wireline GET", "redis-py GET", 1.25),
    CpuRow("Redis GET: async / redis.asyncio", "wireline async GET", "redis.asyncio GET", 1.25),
]
