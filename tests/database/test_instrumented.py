"""OpenTelemetry's own instrumentation of sqlite3, which wraps connections and cursors in proxies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.events import RolledBackOnReturn
from aiosqlitepool.testing import Recorder

from ..support.databases import add
from ..support.files import notes

sqlite3 = pytest.importorskip("opentelemetry.instrumentation.sqlite3")


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    instrumentor = sqlite3.SQLite3Instrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


async def test_a_cursor_that_is_half_read_is_closed(database: Path, recorder: Recorder) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            cursor = await connection.cursor()
            await cursor.execute("SELECT 1 UNION SELECT 2")
            await cursor.fetchone()
        async with pool.connection() as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT 1")
            await cursor.fetchall()
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["cursor"]


async def test_a_half_read_cursor_of_a_block_lets_the_wal_be_emptied(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        async with db.read() as connection:
            cursor = await connection.cursor()
            await cursor.execute("SELECT 1 UNION SELECT 2")
            await cursor.fetchone()
        await db.run_write(add, "a")
        assert (await db.checkpoint()).result == "complete"


async def test_a_cancelled_statement_is_interrupted(database: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
        with contextlib.suppress(TimeoutError):
            async with pool.connection() as connection, asyncio.timeout(0.05), connection.cursor() as cursor:
                await cursor.execute(endless)
        async with pool.connection() as connection:
            assert list(await connection.execute_fetchall("SELECT 1")) == [(1,)]


async def test_a_backup_is_the_database(database: Path, tmp_path: Path) -> None:
    async with SQLiteDatabase(database) as db:
        await db.run_write(add, "a")
        await db.backup(tmp_path / "copy.db")
    assert notes(tmp_path / "copy.db") == ["a"]
