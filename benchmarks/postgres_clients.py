"""Clients of PostgreSQL: the example of this project, psycopg and asyncpg, each as its documentation says.

A row of COPY OUT has 100 bytes. asyncpg gives blocks of many rows; the others give each row by itself.
"""

from __future__ import annotations

import asyncio
import io

from benchmarks._client_trial import ClientTrial
from examples.postgres import Config, aio, blocking

_QUERY = "SELECT lpad(number::text, 99, '0') FROM generate_series(1, {}) AS number"
_ADD = "SELECT $1::int + 1"
_ADD_PSYCOPG = "SELECT %s::int + 1"


def _expected_rows(count: int) -> bytes:
    return b"".join(b"%099d\n" % number for number in range(1, count + 1))


def _config(trial: ClientTrial) -> Config:
    return Config("127.0.0.1", trial.port)


# COPY OUT.


def copy_out(trial: ClientTrial) -> None:
    expected = _expected_rows(trial.batch)
    with blocking.Connection.connect(_config(trial)) as connection:
        for count in trial.batches():
            copied = io.BytesIO()
            for row in connection.copy_out(f"COPY ({_QUERY.format(count)}) TO STDOUT"):
                copied.write(row)
            trial.check(copied.getvalue(), expected)


def psycopg_copy_out(trial: ClientTrial) -> None:
    import psycopg

    expected = _expected_rows(trial.batch)
    with psycopg.connect(host="127.0.0.1", port=trial.port, user="postgres") as connection:
        for count in trial.batches():
            copied = io.BytesIO()
            with connection.cursor().copy(f"COPY ({_QUERY.format(count)}) TO STDOUT") as copy:
                for row in copy:
                    copied.write(row)
            trial.check(copied.getvalue(), expected)


async def _copy_out(trial: ClientTrial) -> None:
    expected = _expected_rows(trial.batch)
    async with await aio.Connection.connect(_config(trial)) as connection:
        for count in trial.batches():
            copied = io.BytesIO()
            async for row in connection.copy_out(f"COPY ({_QUERY.format(count)}) TO STDOUT"):
                copied.write(row)
            trial.check(copied.getvalue(), expected)


async def _asyncpg_copy_out(trial: ClientTrial) -> None:
    import asyncpg

    expected = _expected_rows(trial.batch)
    connection = await asyncpg.connect(host="127.0.0.1", port=trial.port, user="postgres", ssl=False)
    for count in trial.batches():
        copied = io.BytesIO()

        async def write(block: bytes, copied: io.BytesIO = copied) -> None:
            copied.write(block)

        await connection.copy_from_query(_QUERY.format(count), output=write)
        trial.check(copied.getvalue(), expected)
    await connection.close()


def async_copy_out(trial: ClientTrial) -> None:
    asyncio.run(_copy_out(trial))


def asyncpg_copy_out(trial: ClientTrial) -> None:
    asyncio.run(_asyncpg_copy_out(trial))


# Queries, one after the other.


def query(trial: ClientTrial) -> None:
    with blocking.Connection.connect(_config(trial)) as connection:
        for count in trial.batches():
            found = [connection.query(_ADD, number).rows for number in range(count)]
            trial.check(found, [[(str(number + 1),)] for number in range(count)])


def psycopg_query(trial: ClientTrial) -> None:
    import psycopg

    with psycopg.connect(host="127.0.0.1", port=trial.port, user="postgres") as connection:
        for count in trial.batches():
            found = [connection.execute(_ADD_PSYCOPG, (number,)).fetchall() for number in range(count)]
            trial.check(found, [[(number + 1,)] for number in range(count)])


async def _query(trial: ClientTrial) -> None:
    async with await aio.Connection.connect(_config(trial)) as connection:
        for count in trial.batches():
            results = [await connection.query(_ADD, number) for number in range(count)]
            trial.check([each.rows for each in results], [[(str(number + 1),)] for number in range(count)])


async def _asyncpg_query(trial: ClientTrial) -> None:
    import asyncpg

    connection = await asyncpg.connect(host="127.0.0.1", port=trial.port, user="postgres", ssl=False)
    for count in trial.batches():
        found = [await connection.fetchval(_ADD, number) for number in range(count)]
        trial.check(found, list(range(1, count + 1)))
    await connection.close()


def async_query(trial: ClientTrial) -> None:
    asyncio.run(_query(trial))


def asyncpg_query(trial: ClientTrial) -> None:
    asyncio.run(_asyncpg_query(trial))
