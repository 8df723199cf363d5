"""Connections that hold a lease, or that no pool of this package has."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.sqlalchemy import create_async_engine

from .models import Note

WRITE = insert(Note).values(text="a")


def is_locked(path: Path) -> bool:
    """Whether a transaction that writes is open."""
    other = sqlite3.connect(path, timeout=0)
    try:
        other.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    finally:
        other.close()
    return False


async def test_the_driver_connection_is_the_handle_of_a_lease(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    async with over_pool.connect() as connection:
        handle: Any = (await connection.get_raw_connection()).driver_connection
        assert await (await handle.execute("SELECT 7")).fetchone() == (7,)
        assert pool.stats().used == 1
    assert pool.stats().used == 0


@pytest.mark.parametrize("streams", [False, True])
async def test_a_transaction_over_a_pool_that_says_it_writes_begins_immediately(
    streams: bool, over_pool: AsyncEngine, tmp_path: Path
) -> None:
    async with over_pool.execution_options(sqlite_role="write").connect() as connection:
        for _ in range(2):  # it has begun when the second one comes
            if streams:
                await (await connection.stream(text("SELECT 1"))).all()
            else:
                await connection.execute(text("SELECT 1"))
            assert is_locked(tmp_path / "pool.db")
    assert not is_locked(tmp_path / "pool.db")


async def test_in_autocommit_no_transaction_begins(over_pool: AsyncEngine, tmp_path: Path) -> None:
    engine = over_pool.execution_options(sqlite_role="write", isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        assert not is_locked(tmp_path / "pool.db")


async def test_a_connection_that_was_given_back_says_so(over_pool: AsyncEngine) -> None:
    async with over_pool.connect() as connection:
        kept: Any = (await connection.get_raw_connection()).dbapi_connection

    with pytest.raises(sqlite3.ProgrammingError, match="this connection was released to its pool"):
        kept.commit()
    kept.rollback()
    kept.close()


async def test_a_connection_without_a_pool_that_is_closed_is_a_lost_one(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db", poolclass=NullPool)
    async with engine.connect() as connection:
        await (await connection.get_raw_connection()).driver_connection.close()  # type: ignore[union-attr]
        with pytest.raises(exc.OperationalError, match="(?i)no active connection|connection closed") as caught:
            await connection.execute(text("SELECT 1"))
        assert caught.value.connection_invalidated
    await engine.dispose()


async def test_an_error_of_another_kind_stays_what_it_is(over_pool: AsyncEngine) -> None:
    def set_level(connection: Any) -> None:
        connection.connection.dbapi_connection.isolation_level = "NONSENSE"

    async with over_pool.connect() as connection:
        with pytest.raises(ValueError, match="isolation_level"):
            await connection.run_sync(set_level)
