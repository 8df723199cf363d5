"""Execution options: what may be said, and of what."""

from __future__ import annotations

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase

from .models import Note


def labels(pool: SQLiteConnectionPool) -> set[str]:
    return {label for row in pool.statements() for label in row.labels}


def test_a_role_that_does_not_exist_is_refused_when_it_is_said_of_an_engine(over_db: AsyncEngine) -> None:
    with pytest.raises(
        exc.ArgumentError, match="sqlite_role must be one of 'auto', 'read', 'write', 'upgrade', not 'w'"
    ):
        over_db.execution_options(sqlite_role="w")


async def test_a_role_that_does_not_exist_is_refused_when_it_is_said_of_a_connection(over_db: AsyncEngine) -> None:
    async with over_db.connect() as connection:
        with pytest.raises(exc.ArgumentError, match="not 1"):
            await connection.execution_options(sqlite_role=1)


async def test_a_role_that_does_not_exist_is_refused_when_it_is_said_of_a_statement(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(exc.ArgumentError, match="not 'writer'"):
            await connection.execute(text("SELECT 1"), execution_options={"sqlite_role": "writer"})


def test_a_label_that_is_no_text_is_refused(over_db: AsyncEngine) -> None:
    with pytest.raises(TypeError, match="label must be a str or None, not 7"):
        over_db.execution_options(label=7)


async def test_the_label_of_an_engine_names_its_statements(over_pool: AsyncEngine, pool: SQLiteConnectionPool) -> None:
    async with over_pool.execution_options(label="GET /notes").connect() as connection:
        await connection.execute(text("SELECT 1"))
        assert [holder.label for holder in pool.holders()] == ["GET /notes"]
    assert labels(pool) == {"GET /notes"}


async def test_the_label_of_a_statement_names_it(over_pool: AsyncEngine, pool: SQLiteConnectionPool) -> None:
    async with over_pool.connect() as connection:
        await connection.execute(text("SELECT 1"), execution_options={"label": "one"})
        await connection.stream(text("SELECT 2"), execution_options={"label": "two"})
    assert labels(pool) == {"one", "two"}


async def test_the_label_of_the_first_statement_names_a_transaction_of_a_database(
    over_db: AsyncEngine, db: SQLiteDatabase
) -> None:
    async with over_db.connect() as connection:
        await connection.execute(text("SELECT * FROM note"), execution_options={"label": "report"})
        assert [holder.label for holder in db.readers.holders()] == ["report"]
    async with over_db.execution_options(label="POST /notes").begin() as connection:
        await connection.execute(Note.__table__.insert().values(text="a"))
        assert [holder.label for holder in db.writer.holders()] == ["POST /notes"]
