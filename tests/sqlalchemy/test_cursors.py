"""What SQLAlchemy's results are fetched from."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import event, exc, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from aiosqlitepool import SQLiteConnectionPool

from .models import Note

THREE = [{"text": "a"}, {"text": "b"}, {"text": "c"}]


async def add_three(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(Note), THREE)


async def test_rows_come_in_order_however_they_are_fetched(engine: AsyncEngine) -> None:
    await add_three(engine)
    async with engine.connect() as connection:
        result = await connection.execute(select(Note.text).order_by(Note.id))
        assert result.fetchone() == ("a",)
        assert result.fetchmany(1) == [("b",)]
        assert result.fetchall() == [("c",)]
        assert result.fetchone() is None


async def test_a_result_can_be_iterated(engine: AsyncEngine) -> None:
    await add_three(engine)
    async with engine.connect() as connection:
        assert [row.text for row in await connection.execute(select(Note).order_by(Note.id))] == ["a", "b", "c"]


async def test_rows_can_be_streamed(engine: AsyncEngine) -> None:
    await add_three(engine)
    async with engine.connect() as connection:
        result = await connection.stream(select(Note.text).order_by(Note.id))
        assert await result.fetchone() == ("a",)
        assert await result.fetchmany(1) == [("b",)]
        assert [row async for row in result] == [("c",)]


async def test_a_stream_that_is_left_half_read_keeps_nothing(engine: AsyncEngine) -> None:
    await add_three(engine)
    async with engine.connect() as connection:
        async with connection.stream(select(Note)) as result:
            await result.fetchone()
    await add_three(engine)
    async with engine.connect() as connection:
        assert len((await connection.execute(select(Note))).all()) == 6


async def test_a_statement_that_changes_rows_says_how_many(engine: AsyncEngine) -> None:
    await add_three(engine)
    async with engine.begin() as connection:
        assert (await connection.execute(update(Note).values(text="z"))).rowcount == 3


async def test_an_inserted_row_has_its_key(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        assert (await connection.execute(insert(Note).values(text="a"))).inserted_primary_key == (1,)


async def test_what_a_statement_returns_can_be_streamed(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        result = await connection.stream(insert(Note).values(text="a").returning(Note.id))
        assert await result.all() == [(1,)]


async def test_many_parameters_can_be_executed_where_results_are_streamed(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        streams = await connection.execution_options(stream_results=True)
        await streams.run_sync(lambda sync: sync.execute(text("INSERT INTO note (text) VALUES (:text)"), THREE).close())
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM note"))).scalar_one() == 3


async def test_rows_are_tuples_whatever_the_connection_makes(over_pool: AsyncEngine) -> None:
    await add_three(over_pool)

    def rows(connection: Any, _: object) -> None:
        connection.driver_connection.row_factory = lambda cursor, row: {"never": "seen"}

    event.listen(over_pool.sync_engine, "checkout", lambda connection, record, fairy: rows(connection, record))
    async with over_pool.connect() as connection:
        assert (await connection.execute(text("SELECT 1, 2"))).one() == (1, 2)
        assert await (await connection.stream(text("SELECT 1, 2"))).one() == (1, 2)


async def test_a_statement_with_all_its_rows_is_one_operation(
    pool: SQLiteConnectionPool, over_pool: AsyncEngine
) -> None:
    await add_three(over_pool)
    pool.reset_statements()
    async with over_pool.connect() as connection:
        (await connection.execute(select(Note))).all()
    (row,) = pool.statements()
    assert (row.calls, row.rows) == (1, 3)


async def test_a_cursor_of_the_driver_can_be_used_as_the_dbapi_says(engine: AsyncEngine) -> None:
    def use(connection: Any) -> None:
        dbapi = connection.connection.dbapi_connection
        with dbapi.cursor() as cursor:
            cursor.setinputsizes(None)
            assert cursor.execute("SELECT 1 UNION SELECT 2 UNION SELECT 3").fetchmany() == [(1,)]
            assert list(cursor) == [(2,), (3,)]
            assert cursor.fetchall() == []
        assert dbapi.execute("SELECT ?", (7,)).fetchone() == (7,)

    async with engine.connect() as connection:
        await connection.run_sync(use)


async def test_a_streaming_cursor_of_the_driver_can_be_used_as_the_dbapi_says(engine: AsyncEngine) -> None:
    def use(connection: Any) -> None:
        cursor = connection.connection.dbapi_connection.cursor(server_side=True)
        assert (cursor.description, cursor.rowcount, cursor.lastrowid) == (None, -1, None)
        with pytest.raises(sqlite3.ProgrammingError, match="the cursor is closed, or has executed nothing"):
            cursor.fetchone()
        cursor.execute("SELECT 1 AS a UNION SELECT 2 UNION SELECT 3")
        assert [each[0] for each in cursor.description] == ["a"]
        assert (cursor.rowcount, cursor.lastrowid) in {(-1, None), (-1, 0)}
        assert cursor.fetchmany(1) == [(1,)]
        assert list(cursor) == [(2,), (3,)]
        cursor.execute("SELECT 4")
        assert list(cursor.fetchall()) == [(4,)]
        cursor.close()
        cursor.close()

    async with engine.connect() as connection:
        await connection.run_sync(use)


async def test_a_sync_result_of_a_stream_is_refused_as_sqlalchemy_refuses_it(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        streams = await connection.execution_options(stream_results=True)
        with pytest.raises(exc.InvalidRequestError):
            await streams.execute(text("SELECT 1"))


async def test_an_error_of_sqlite_is_that_of_sqlalchemy(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(exc.OperationalError, match="no such table: nowhere"):
            await connection.execute(text("SELECT * FROM nowhere"))
        with pytest.raises(exc.OperationalError, match="no such table: nowhere"):
            await connection.stream(text("SELECT * FROM nowhere"))
