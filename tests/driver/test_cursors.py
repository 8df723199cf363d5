"""Cursors that read ahead give what plain sqlite3 cursors give, with fewer trips to the worker thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiosqlitepool import PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.driver import cursors
from aiosqlitepool.driver.completions import Completions
from aiosqlitepool.driver.cursors import ReadAheadCursor

from ..support.limiter import limit_here
from ..support.worker import jobs

ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i, i * i FROM n"


@pytest.fixture
def native() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def ahead(native: sqlite3.Connection, limit: int = 64) -> ReadAheadCursor:
    cursor = native.cursor(ReadAheadCursor)
    cursor.limit = limit
    return cursor


def pool_on(database: Path, **settings: Any) -> SQLiteConnectionPool[aiosqlite.Connection]:
    return SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, **settings)


# -- the same as sqlite3


def fail_at(value: int, at: int) -> int:
    if value == at:
        raise ValueError("the function fails here")
    return value


STATEMENTS = (
    *(ROWS.format(rows) for rows in (1, 2, 3, 7)),
    "SELECT 1 WHERE 0",
    "SELECT fail_at(value, 3) FROM json_each('[1, 2, 3, 4]')",
    "INSERT INTO t (n) VALUES (1), (2) RETURNING n",
    "INSERT INTO t (n) VALUES (1)",
    "UPDATE t SET n = n + 1",
    "PRAGMA user_version",
    "SELECT no_such_column",
    "",
)
STEPS = st.one_of(
    st.tuples(st.just("execute"), st.sampled_from(STATEMENTS)),
    st.tuples(st.just("fetchone")),
    st.tuples(st.just("fetchmany")),
    st.tuples(st.just("fetchmany"), st.integers(-1, 5)),
    st.tuples(st.just("fetchall")),
    st.tuples(st.just("__next__")),
    st.tuples(st.just("executemany"), st.just("INSERT INTO t (n) VALUES (?)"), st.just([(1,), (2,)])),
    st.tuples(st.just("executescript"), st.just("SELECT 1; SELECT 2")),
    st.tuples(st.just("arraysize"), st.integers(1, 4)),
    st.tuples(st.just("row_factory"), st.sampled_from([None, sqlite3.Row, lambda _, row: list(row)])),
    st.tuples(st.just("close")),
)


def outcome(cursor: sqlite3.Cursor, step: tuple[Any, ...]) -> object:
    name, *args = step
    try:
        if name in ("arraysize", "row_factory"):
            return setattr(cursor, name, args[0])
        result = getattr(cursor, name)(*args)
    except Exception as error:
        return type(error), str(error)
    if isinstance(result, sqlite3.Cursor):
        return cursor.description, cursor.lastrowid
    return plain(result)


def plain(value: object) -> object:
    if isinstance(value, list):
        return [plain(each) for each in value]
    return ("Row", *value) if isinstance(value, sqlite3.Row) else value


@settings(max_examples=500)
@given(st.lists(STEPS, max_size=8), st.integers(1, 4))
def test_every_call_gives_what_a_plain_cursor_gives(steps: list[tuple[Any, ...]], limit: int) -> None:
    made = []
    for reads_ahead in (False, True):
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as native:
            native.create_function("fail_at", 2, fail_at)
            native.execute("CREATE TABLE t (n)")
            cursor = ahead(native, limit) if reads_ahead else native.cursor()
            # Last, or a plain cursor would change what it has not read yet.
            made.append(([outcome(cursor, step) for step in steps], native.execute("SELECT n FROM t").fetchall()))
    assert made[0] == made[1]


def test_a_row_factory_that_is_set_between_execute_and_fetch_makes_the_rows(native: sqlite3.Connection) -> None:
    cursor = ahead(native).execute("SELECT 1 AS one UNION ALL SELECT 2")
    assert cursor.fetchone() == (1,)
    cursor.row_factory = sqlite3.Row
    assert cursor.fetchone()["one"] == 2


def test_an_error_in_a_later_row_is_raised_where_that_row_would_have_been(native: sqlite3.Connection) -> None:
    native.create_function("fail_at", 2, fail_at)
    cursor = ahead(native).execute("SELECT fail_at(value, 3) FROM json_each('[1, 2, 3, 4]')")
    assert cursor.fetchone() == (1,)
    with pytest.raises(sqlite3.OperationalError, match="user-defined function raised exception"):
        cursor.fetchall()


def test_rows_that_take_long_are_not_read_ahead(native: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "READ_AHEAD_TIME", 0.0)
    cursor = ahead(native).execute(ROWS.format(10))
    assert cursor.can_serve("fetchone")
    assert not cursor.can_serve("fetchmany", 2)
    assert not cursor.is_done
    assert len(cursor.fetchall()) == 10


def test_the_rows_behind_the_limit_are_fetched_when_they_are_asked_for(native: sqlite3.Connection) -> None:
    cursor = ahead(native, limit=3).execute(ROWS.format(7))
    assert cursor.can_serve("fetchmany", 3)
    assert not cursor.can_serve("fetchmany", 4)
    assert not cursor.can_serve("fetchmany", 0)
    assert not cursor.can_serve("fetchall")
    assert [row[0] for row in cursor.fetchmany(5)] == [1, 2, 3, 4, 5]
    assert [row[0] for row in cursor.fetchmany(5)] == [6, 7]
    assert cursor.is_done


def test_a_cursor_that_was_read_ahead_to_its_end_lets_the_transaction_commit(native: sqlite3.Connection) -> None:
    native.execute("CREATE TABLE t (n)")
    native.execute("BEGIN")
    cursor = ahead(native).execute("INSERT INTO t (n) VALUES (1) RETURNING n")
    native.execute("COMMIT")
    assert cursor.fetchone() == (1,)


def test_an_interrupt_is_raised_at_once_and_not_at_a_row_that_may_never_be_fetched(native: sqlite3.Connection) -> None:
    native.create_function("stop", 1, lambda value: native.interrupt() or value)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        ahead(native).execute(
            "SELECT value FROM json_each('[1]') UNION ALL SELECT stop(value) FROM json_each('[2, 3]')"
        )


# -- trips to the worker thread


async def test_a_statement_and_all_its_rows_take_one_trip(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        before = jobs(connection)
        async with connection.execute(ROWS.format(20)) as cursor:
            assert [row[0] async for row in cursor] == list(range(1, 21))
        cursor = await connection.execute(ROWS.format(3))
        assert await cursor.fetchone() == (1, 1)
        assert await cursor.fetchmany(1) == [(2, 4)]
        assert await cursor.fetchmany() == [(3, 9)]
        assert await cursor.fetchall() == []
        assert jobs(connection) - before == 2


async def test_a_cursor_of_its_own_takes_one_trip_more(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        before = jobs(connection)
        cursor = await connection.cursor()
        await cursor.execute(ROWS.format(3))
        assert len(await cursor.fetchall()) == 3
        assert jobs(connection) - before == 2


async def test_many_rows_arrive_whole_and_in_order(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        async with connection.execute(ROWS.format(1000)) as cursor:
            assert [row[0] async for row in cursor] == list(range(1, 1001))
        cursor = await connection.execute(ROWS.format(1000))
        assert await cursor.fetchone() == (1, 1)
        assert len(await cursor.fetchall()) == 999


async def test_what_the_worker_has_to_do_comes_before_a_row_that_was_read_ahead(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        cursor = await connection.execute("SELECT 1")
        again = asyncio.create_task(cursor.execute("SELECT 2"))
        await asyncio.sleep(0)
        assert await cursor.fetchone() == (2,)
        await again


async def test_rows_that_were_read_ahead_end_with_their_lease(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT 1")
        with pytest.raises(PoolUsageError):
            await cursor.fetchone()
        await cursor.close()


async def test_a_pool_that_does_not_read_ahead_has_plain_cursors(database: Path) -> None:
    async with pool_on(database, read_ahead=0) as pool, pool.connection() as connection:
        for cursor in (await connection.cursor(), await connection.execute("SELECT 1")):
            assert type(cursor._cursor) is sqlite3.Cursor


async def test_cursors_of_the_users_own_are_left_alone(database: Path) -> None:
    class Own(sqlite3.Connection):
        def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
            return super().cursor(factory)

    class Connection(aiosqlite.Connection):
        def execute(self, *args: Any) -> Any:
            return super().execute(*args)

    def own() -> Any:
        return Connection(lambda: sqlite3.connect(database, factory=Own), 64)

    for factory in (own, lambda: aiosqlite.connect(database, factory=Own)):
        async with SQLiteConnectionPool(factory, 1) as pool, pool.connection() as connection:
            cursor = await connection.execute("SELECT 1 UNION ALL SELECT 2")
            assert type(cursor._cursor) is sqlite3.Cursor
            assert await cursor.fetchall() == [(1,), (2,)]


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), ("64", TypeError), (True, TypeError)])
def test_read_ahead_is_a_number_of_rows(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"read_ahead must be .*{value!r}"):
        SQLiteConnectionPool(lambda: aiosqlite.connect(":memory:"), read_ahead=value)


async def test_a_cursor_whose_next_row_fails_is_closed_in_the_worker(database: Path) -> None:
    no_text = "SELECT 'a' UNION ALL SELECT CAST(x'ff' AS TEXT) UNION ALL SELECT 'b'"
    async with pool_on(database) as pool, pool.connection() as connection:
        cursor = await connection.execute(no_text)
        assert await cursor.fetchone() == ("a",)
        await cursor.close()
        assert not {type(each).__name__ for each in gc.get_referents(cursor._cursor)} & {"Statement"}


# -- what the limiter is told


async def test_the_limiter_knows_the_sql_that_has_returned_many_rows(database: Path) -> None:
    limit_here()
    limiter = Completions.of(asyncio.get_running_loop()).limiter
    many, other, third = (f"{ROWS.format(300)} LIMIT {limit}" for limit in (300, 299, 298))
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            await connection.execute_fetchall(ROWS.format(3))
            await connection.execute_fetchall(many)
            cursor = await connection.execute(other)
            await cursor.fetchall()
            await connection.execute_fetchall(f"{many} -- {'x' * 100_000}")
        await pool.fetch_all(third)
        await pool.fetch_all(third)
    assert limiter.many_rows == {many, other, third}
