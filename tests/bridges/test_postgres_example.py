"""``examples/postgres`` in both flavours, with a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from examples.postgres import Config, PostgresError, ProtocolError, Result, blocking, scram
from tests.bridges.postgres_peers import (
    CONNECT,
    MAKE_POOL,
    in_both_flavours,
    man_in_the_middle,
    server,
)
from tests.bridges.servers import Postgres
from tests.tls import certificates
from wireline import ClosedError, SocketTimeout
from wireline.tls import SslContext, VerifyMode

pytestmark = pytest.mark.interop

ROWS = 100_000


@pytest.fixture(scope="module")
def config(postgres: Postgres) -> Config:
    return Config("127.0.0.1", postgres.port, password=postgres.password)


@pytest.fixture(scope="module")
def admin(config: Config) -> Iterator[blocking.Connection]:
    """Another session, which has made the users and tables of these tests."""
    with blocking.Connection.connect(config, 10) as connection:
        connection.script(
            "CREATE ROLE trusted LOGIN; CREATE ROLE in_clear LOGIN PASSWORD 'secret';"
            "SET password_encryption = md5; CREATE ROLE hashed LOGIN PASSWORD 'secret';"
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE odd LOGIN PASSWORD E'p\\u00e4ss\\u00a0\\u2168';"
            "CREATE TABLE words (number int PRIMARY KEY, word text)"
        )
        yield connection


def contexts() -> dict[str, SslContext]:
    """One for each version of TLS, and one that verifies nothing."""
    found = {}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        raw = ssl.create_default_context(cafile=certificates.ca_file())
        raw.minimum_version = raw.maximum_version = version
        found[version.name.replace("_", ".")] = SslContext.from_ssl(raw)
    return {**found, "unverified": SslContext(verify_mode=VerifyMode.NONE)}


async def pid_of(connection: Any) -> str:
    ((pid,),) = (await connection.query("SELECT pg_backend_pid()")).rows
    assert isinstance(pid, str)
    return pid


async def numbered(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b"%d\tword %d\n" % (number, number)


# Authentication.


@in_both_flavours
async def test_a_server_that_trusts_the_user_and_one_that_takes_scram(
    flavour: str, config: Config, admin: blocking.Connection
) -> None:
    users = {"trusted": "", "postgres": config.password, "odd": "p\u00e4ss IX"}
    for user, password in users.items():
        async with await CONNECT[flavour](replace(config, user=user, password=password)) as connection:
            assert (await connection.query("SELECT current_user")).rows == [(user,)]
            assert connection.parameters["client_encoding"] == "UTF8"


@in_both_flavours
async def test_scram_over_tls_with_and_without_binding(
    flavour: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    for bound in (True, False):
        if not bound:
            monkeypatch.setattr(scram, "end_point", lambda certificate: None)
        for name, context in contexts().items():
            async with await CONNECT[flavour](replace(config, tls=context)) as connection:
                ((version,),) = (await connection.query(asked)).rows
                assert version == ("TLSv1.3" if name == "unverified" else name)


@in_both_flavours
async def test_the_binding_finds_an_attacker_whose_certificate_is_trusted(
    flavour: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SslContext(ca_file=certificates.ca_file())
    with server(*[man_in_the_middle(config.port)] * 2) as attacker:
        attacked = replace(config, host="localhost", port=attacker.port, tls=context)
        with pytest.raises(PostgresError) as caught:
            await CONNECT[flavour](attacked)
        assert caught.value.sqlstate == "28000"
        # Without the binding the attacker gets in: it was the binding that found it.
        monkeypatch.setattr(scram, "end_point", lambda certificate: None)
        async with await CONNECT[flavour](attacked) as connection:
            assert (await connection.query("SELECT 1")).rows == [("1",)]


@in_both_flavours
async def test_a_wrong_password_and_methods_that_are_refused(
    flavour: str, config: Config, admin: blocking.Connection
) -> None:
    with pytest.raises(PostgresError) as caught:
        await CONNECT[flavour](replace(config, password="wrong"))
    assert (caught.value.severity, caught.value.sqlstate) == ("FATAL", "28P01")
    for user, method in {"in_clear": "clear text", "hashed": "MD5"}.items():
        with pytest.raises(ProtocolError, match=rf"asks for the password .*{method}; .* SCRAM-SHA-256$"):
            await CONNECT[flavour](replace(config, user=user))


# Queries.


@in_both_flavours
async def test_queries_with_parameters_and_scripts(flavour: str, config: Config) -> None:
    hostile = "'; DROP TABLE words; --"
    async with await CONNECT[flavour](config) as connection:
        result = await connection.query(
            "SELECT $1::int + 1 AS more, $2::text, $3::bytea, $4::text", 41, hostile, b"\0\xff", None
        )
        assert result == Result(
            "SELECT 1", ("more", "text", "bytea", "text"), [("42", hostile, "\\x00ff", None)]
        )
        assert await connection.query("") == Result("", (), [])
        assert [each.tag for each in await connection.script("SELECT 1; SELECT 2 WHERE false")] == [
            "SELECT 1",
            "SELECT 0",
        ]
        assert (
            len((await connection.query("SELECT repeat('x', 10), * FROM generate_series(1, 5000)")).rows)
            == 5000
        )
        with pytest.raises(ValueError, match="zero character"):
            await connection.query("SELECT 1\0")
        assert (await connection.query("SELECT 1")).rows == [("1",)]


@in_both_flavours
async def test_an_error_in_the_middle_leaves_the_connection_usable(flavour: str, config: Config) -> None:
    async with await CONNECT[flavour](config) as connection:
        for statement, sqlstate in {
            "SELECT 10 / (5 - number) FROM generate_series(1, 9) AS number": "22012",  # after four rows
            "SELECT nothing FROM nowhere": "42P01",
            "SELECT $1::int": "08P01",  # without its parameter
        }.items():
            with pytest.raises(PostgresError) as caught:
                await connection.query(statement)
            assert caught.value.sqlstate == caught.value.fields["C"] == sqlstate
            assert (await connection.query("SELECT $1::text", "on")).rows == [("on",)]
        with pytest.raises(PostgresError):
            await connection.script("BEGIN; SELECT 1/0")
        assert connection.transaction == "E"
        await connection.script("ROLLBACK")
        assert connection.transaction == "I"


@in_both_flavours
async def test_notices_go_to_the_callback(flavour: str, config: Config) -> None:
    async with await CONNECT[flavour](config) as connection:
        heard: list[PostgresError] = []
        getattr(connection, "_connection", connection).on_notice = heard.append
        await connection.script("DO $$ BEGIN RAISE NOTICE 'look' USING HINT = 'there'; END $$")
        assert [(each.severity, each.fields["M"], each.fields["H"]) for each in heard] == [
            ("NOTICE", "look", "there")
        ]


@in_both_flavours
async def test_cancel_ends_a_query_in_clear_and_over_tls(
    flavour: str, config: Config, admin: blocking.Connection
) -> None:
    for context in (None, SslContext(ca_file=certificates.ca_file())):
        async with await CONNECT[flavour](replace(config, tls=context)) as connection:
            pid = await pid_of(connection)
            query = asyncio.create_task(connection.query("SELECT pg_sleep(20)"))
            await asyncio.to_thread(wait_until_it_sleeps, admin, pid)
            await connection.cancel(5)
            with pytest.raises(PostgresError) as caught:
                await query
            assert caught.value.sqlstate == "57014"
            assert (await connection.query("SELECT 1")).rows == [("1",)]


def wait_until_it_sleeps(admin: blocking.Connection, pid: str) -> None:
    asked = "SELECT 1 FROM pg_stat_activity WHERE pid = $1::int AND wait_event = 'PgSleep'"
    while not admin.query(asked, pid).rows:
        pass


@in_both_flavours
async def test_a_timeout_leaves_the_connection_usable(flavour: str, config: Config) -> None:
    async with await CONNECT[flavour](config) as connection:
        with pytest.raises(SocketTimeout):
            await connection.query("SELECT pg_sleep(20)", timeout=0.05)
        with pytest.raises(SocketTimeout):  # it still runs, and the deadline covers waiting for its end
            await connection.query("SELECT 1", timeout=0.05)
        await connection.cancel(5)
        assert (await connection.query("SELECT 2", timeout=5)).rows == [("2",)]
        with pytest.raises(SocketTimeout):
            await connection.script("SELECT 1, pg_sleep(0.3)", timeout=0.05)
        assert (await connection.query("SELECT 3", timeout=5)).rows == [("3",)]


def test_a_cancelled_task_leaves_the_connection_usable_wherever_it_was(config: Config) -> None:
    async def main() -> None:
        connection = await CONNECT["async"](config)
        for turn in itertools.count(1):
            query = asyncio.create_task(connection.query("SELECT $1::int, pg_sleep(0.001)", turn))
            for _ in range(turn):
                await asyncio.sleep(0)
            if query.done() and not query.cancel():
                break
            query.cancel()
            with pytest.raises(asyncio.CancelledError):
                await query
            assert (await connection.query("SELECT $1::int", -turn)).rows == [(str(-turn),)]
        assert turn > 3
        connection.close()

    asyncio.run(main())


class Interrupted(Exception):
    """What a signal handler raises."""


def interrupt_before_line(number: int) -> None:
    """Raise in this thread before so many lines of the blocking connection have run, as a signal handler can."""
    left = number

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != blocking.connection.__file__:
            return None
        left -= event == "line"
        if left == 0:
            raise Interrupted
        return trace

    sys.settrace(trace)


def test_an_exception_of_a_signal_handler_causes_no_wrong_answer(config: Config) -> None:
    connection = blocking.Connection.connect(config, 10)
    tracing = sys.gettrace()
    unsure = 0
    for line in itertools.count(1):
        interrupt_before_line(line)
        try:
            connection.query("SELECT 'old'", timeout=5)
            break
        except Interrupted:
            pass
        finally:
            sys.settrace(tracing)
        try:
            assert connection.query("SELECT $1::int", line, timeout=0.3).rows == [(str(line),)]
        except SocketTimeout:  # the request was not sent, or the end of its answer was not noted
            unsure += 1
            connection.close()
        except ClosedError:
            pass
        if connection.is_closed:
            connection = blocking.Connection.connect(config, 10)
    connection.close()
    assert line > 20
    assert unsure < 10


# COPY.


@in_both_flavours
async def test_copy_both_ways(flavour: str, config: Config, admin: blocking.Connection) -> None:
    for context in (None, SslContext(ca_file=certificates.ca_file())):
        async with await CONNECT[flavour](replace(config, tls=context)) as connection:
            await connection.script("TRUNCATE words")
            tag = await connection.copy_in("COPY words FROM STDIN", numbered(ROWS), timeout=20)
            assert tag == f"COPY {ROWS}"
            rows = [row async for row in connection.copy_out("COPY words TO STDOUT", timeout=20)]
            assert rows == [row async for row in numbered(ROWS)]
            assert await connection.copy_in("COPY words FROM STDIN", numbered(0)) == "COPY 0"
            assert [row async for row in connection.copy_out("COPY words TO STDOUT (FORMAT binary)")][
                -1
            ] == b"\xff\xff"


@in_both_flavours
async def test_a_copy_out_that_is_left_early_is_skipped(flavour: str, config: Config) -> None:
    async with await CONNECT[flavour](config) as connection:
        rows = connection.copy_out(f"COPY (SELECT * FROM generate_series(1, {ROWS})) TO STDOUT")
        assert await anext(rows) == b"1\n"
        assert (await connection.query("SELECT 2")).rows == [("2",)]
        with pytest.raises(RuntimeError, match="another call"):
            async for _ in rows:
                pass
        assert (await connection.query("SELECT 3")).rows == [("3",)]


@in_both_flavours
async def test_a_copy_in_whose_rows_fail_does_nothing(
    flavour: str, config: Config, admin: blocking.Connection
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        async for row in numbered(20_000):
            yield row
        raise KeyError("no more")

    async with await CONNECT[flavour](config) as connection:
        await connection.script("TRUNCATE words")
        with pytest.raises(KeyError):
            await connection.copy_in("COPY words FROM STDIN", failing())
        assert (await connection.query("SELECT count(*) FROM words")).rows == [("0",)]


@in_both_flavours
async def test_an_error_of_the_server_ends_a_copy_in_early(
    flavour: str, config: Config, admin: blocking.Connection
) -> None:
    taken = 0

    async def wrong() -> AsyncIterator[bytes]:
        nonlocal taken
        yield b"this is no number\n"
        while taken < 100_000_000:
            yield b"1\tone\n" * 20_000
            taken += 1

    async with await CONNECT[flavour](config) as connection:
        with pytest.raises(PostgresError) as caught:
            await connection.copy_in("COPY words FROM STDIN", wrong())
        assert caught.value.sqlstate == "22P02"
        assert taken < 1_000_000
        assert (await connection.query("SELECT 1")).rows == [("1",)]


@in_both_flavours
async def test_a_copy_is_no_query_and_a_query_no_copy(
    flavour: str, config: Config, admin: blocking.Connection
) -> None:
    async def use(call: str, sql: str) -> None:
        async with await CONNECT[flavour](config) as connection:
            with pytest.raises(ProtocolError, match="COPY"):
                if call == "copy_out":
                    [row async for row in connection.copy_out(sql)]
                elif call == "copy_in":
                    await connection.copy_in(sql, numbered(3))
                else:
                    await getattr(connection, call)(sql)
            assert connection.is_closed

    for call in ("query", "script", "copy_out"):
        await use(call, "COPY words FROM STDIN")
    for call in ("query", "script", "copy_in"):
        await use(call, "COPY words TO STDOUT")
    for call in ("copy_in", "copy_out"):
        await use(call, "SELECT 1")


@in_both_flavours
async def test_a_session_that_is_terminated_during_a_copy(
    flavour: str, config: Config, admin: blocking.Connection
) -> None:
    async def rows_until_it_ends(pid: str) -> AsyncIterator[bytes]:
        admin.query("SELECT pg_terminate_backend($1::int, 5000)", pid)
        for number in itertools.count():
            yield b"%d\tword\n" % number * 10_000

    for direction in ("out", "in"):
        connection = await CONNECT[flavour](config)
        pid = await pid_of(connection)
        with pytest.raises((PostgresError, ConnectionError)) as caught:
            if direction == "in":
                await connection.copy_in("COPY words FROM STDIN", rows_until_it_ends(pid), timeout=10)
            rows = connection.copy_out(
                "COPY (SELECT repeat('x', 99) FROM generate_series(1, 1000000)) TO STDOUT"
            )
            assert await anext(rows) == b"x" * 99 + b"\n"
            admin.query("SELECT pg_terminate_backend($1::int)", pid)
            async for _ in rows:
                pass
        assert getattr(caught.value, "sqlstate", "57P01") == "57P01"
        assert connection.is_closed
        with pytest.raises(ClosedError):
            await connection.query("SELECT 1")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_that_closes_does_not_end_the_session_of_its_parent(config: Config) -> None:
    with blocking.Connection.connect(config, 10) as connection:
        child = os.fork()
        if child == 0:
            try:
                connection.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert connection.query("SELECT 1", timeout=5).rows == [("1",)]


# The pool.


@in_both_flavours
async def test_the_pool_uses_a_connection_again_unless_it_is_dead_or_unclean(
    flavour: str, config: Config, admin: blocking.Connection
) -> None:
    async with MAKE_POOL[flavour](config) as pool:

        async def pid_after(sql: str) -> str:
            async with pool.acquire(5) as connection:
                pid = await pid_of(connection)
                await connection.script(sql)
                return pid

        first = await pid_after("SELECT 1")
        assert await pid_after("SELECT 2") == first
        admin.query("SELECT pg_terminate_backend($1::int, 5000)", first)
        second = await pid_after("BEGIN")
        assert second != first
        third = await pid_after("SELECT 3")
        assert third != second
        async with pool.acquire(5) as connection:
            assert await pid_of(connection) == third
            with pytest.raises(PostgresError):
                await connection.query("SELECT 1/0")
        assert await pid_after("SELECT 4") == third
        assert pool.stats.created == 3
