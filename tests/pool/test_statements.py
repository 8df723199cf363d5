"""What a pool says of the statements that ran on its connections: in rows of its own, and of its holders."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteConnectionPool, SQLiteDatabase, StatementStats

from ..support.worker import Gate

ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i FROM n"


def pool_on(database: Path, **settings: Any) -> SQLiteConnectionPool[aiosqlite.Connection]:
    return SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, **settings)


def by_statement(pool: SQLiteConnectionPool[aiosqlite.Connection]) -> dict[str, StatementStats]:
    return {row.statement: row for row in pool.statements()}


async def test_each_way_to_run_sql_is_a_call_of_its_statement(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection("GET /notes") as connection:
        await connection.execute("SELECT 1")
        await connection.execute_fetchall("SELECT 2")
        cursor = await connection.cursor()
        await cursor.execute("SELECT 3")
        await cursor.executemany("INSERT INTO note (text) VALUES (?)", [("a",), ("b",)])
        await connection.execute_insert("INSERT INTO note (text) VALUES (?)", ("c",))
        await connection.executescript("-- nothing")
        await connection.commit()
        await cursor.close()
        rows = by_statement(pool)
        assert {statement: row.calls for statement, row in rows.items()} == {
            "SELECT ?": 3,
            "INSERT INTO note (text) VALUES (?)": 2,
            "": 1,
            "COMMIT": 1,
        }
        insert = rows["INSERT INTO note (text) VALUES (?)"]
        assert (insert.operation, insert.rows_changed, insert.labels) == ("INSERT", 3, ("GET /notes",))
        assert insert.run_total > 0
        assert rows["SELECT ?"].rows == 3
        assert rows["COMMIT"].errors == 0


async def test_rows_that_are_fetched_later_belong_to_their_statement(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        cursor = await connection.execute(ROWS)
        assert len(list(await cursor.fetchall())) == 200
        (row,) = pool.statements()
        # What was read ahead is counted by the call; the rest by the fetch.
        assert (row.calls, row.rows) == (1, 200)


@pytest.mark.parametrize("read_ahead", [0, 64])
async def test_a_statement_that_fails_is_an_error_of_its_statement(database: Path, read_ahead: int) -> None:
    async with pool_on(database, read_ahead=read_ahead) as pool, pool.connection() as connection:
        with pytest.raises(sqlite3.OperationalError):
            await connection.execute("SELECT missing")
        (row,) = pool.statements()
        assert (row.statement, row.calls, row.errors) == ("SELECT missing", 1, 1)


async def test_what_is_no_sql_is_no_statement(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        with pytest.raises(TypeError):
            await connection.execute(7)  # type: ignore[arg-type]
        await connection.create_function("f", 0, lambda: 1)
        assert pool.statements() == ()


async def test_a_reset_forgets_what_ran(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        await connection.execute("SELECT 1")
        pool.reset_statements()
        assert (pool.statements(), pool.statements().forgotten) == ((), 0)


async def test_a_table_of_statements_is_a_value(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        await connection.execute("SELECT 1")
        table = pool.statements()
    for again in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert (again, again.forgotten) == (table, 0)


async def test_a_holder_says_which_statement_runs_and_for_how_long(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database, acquisition_timeout=0.05) as pool, pool.connection("GET /report") as connection:
            await gate.install(connection)
            running = asyncio.create_task(connection.execute_fetchall("SELECT gate() WHERE 'secret' = 'secret'"))
            await gate.reached.wait()
            (holder,) = pool.holders()
            assert (holder.statement, holder.statement_runs) == ("SELECT gate() WHERE ? = ?", True)
            assert " s of it in SELECT gate() WHERE ? = ?" in str(holder)

            async def wait() -> str:
                with pytest.raises(PoolConnectionAcquireTimeoutError) as error:
                    await pool.acquire()
                return str(error.value)

            assert " s of it in SELECT gate() WHERE ? = ?" in await asyncio.create_task(wait())
            gate.open()
            await running
            (holder,) = pool.holders()
            assert (holder.statement, holder.statement_runs) == ("SELECT gate() WHERE ? = ?", False)
            assert ", last in SELECT gate() WHERE ? = ? for " in str(holder)


async def test_a_long_statement_is_short_in_a_text(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        await connection.execute(f"SELECT 1 AS {'x' * 500}")
        (holder,) = pool.holders()
        assert f"{'x' * 100}..." in str(holder)
        assert len(str(holder)) < 400


async def test_a_holder_that_ran_nothing_yet_says_nothing_of_a_statement(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
        async with pool.connection() as connection:
            await connection.create_function("f", 0, lambda: 1)
            (holder,) = pool.holders()
            assert (holder.statement, holder.statement_time) == (None, 0.0)


async def test_single_statements_of_a_database_are_recorded_where_they_ran(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        await db.execute("INSERT INTO note (text) VALUES ('a')", label="POST /notes")
        await db.fetch_all("SELECT * FROM note")
        with pytest.raises(sqlite3.OperationalError):
            await db.execute("INSERT INTO missing VALUES (1)")
        (read,) = db.readers.statements()
        assert (read.statement, read.calls, read.rows, read.labels) == ("SELECT * FROM note", 1, 1, ("fetch_all",))
        written = by_statement(db.writer)
        insert = written["INSERT INTO note (text) VALUES (?)"]
        assert (insert.calls, insert.errors, insert.rows_changed, insert.labels) == (1, 0, 1, ("POST /notes",))
        assert written["INSERT INTO missing VALUES (?)"].errors == 1


async def test_single_statements_count_the_rows_that_they_return(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        returning = "INSERT INTO note (text) VALUES ('a'), ('b') RETURNING id"
        assert await db.fetch_all(returning) == [(1,), (2,)]
        assert await db.fetch_one("SELECT text FROM note") == ("a",)
        assert await db.fetch_val("SELECT text FROM note WHERE id = 7") is None
        assert [row.rows for row in db.writer.statements()] == [2]
        assert {row.statement: row.rows for row in db.readers.statements()} == {
            "SELECT text FROM note": 1,
            "SELECT text FROM note WHERE id = ?": 0,
        }
