"""Nothing of a statement that has finished is kept by an idle connection: neither its arguments nor its rows."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase


class Traced:
    """Makes arguments and rows, and knows which of them are alive."""

    def __init__(self) -> None:
        self._refs = list[weakref.ref[Any]]()

    class Text(str):
        """A str that can be referenced weakly."""

    class Row:
        def __init__(self, values: tuple[Any, ...]) -> None:
            self.values = values

    def text(self) -> str:
        text = self.Text("x")
        self._refs.append(weakref.ref(text))
        return text

    def row(self, cursor: object, values: tuple[Any, ...]) -> Row:
        row = self.Row(values)
        self._refs.append(weakref.ref(row))
        return row

    async def until_dead(self) -> None:
        """Wait until none is alive: a worker thread answers a moment before it has dropped what it was asked."""
        assert self._refs
        async with asyncio.timeout(10):
            while any(ref() is not None for ref in self._refs):
                await asyncio.sleep(0.001)


@pytest.fixture
def traced() -> Iterator[Traced]:
    """While the garbage collector is off: what waits for it is kept."""
    gc.disable()
    yield Traced()
    gc.enable()


async def fetched(connection: aiosqlite.Connection, traced: Traced) -> None:
    connection.row_factory = traced.row
    await connection.execute_fetchall("SELECT ?", (traced.text(),))


async def executed(connection: aiosqlite.Connection, traced: Traced) -> None:
    await connection.execute("INSERT INTO note (text) VALUES (?)", (traced.text(),))


async def executed_many(connection: aiosqlite.Connection, traced: Traced) -> None:
    await connection.executemany("INSERT INTO note (text) VALUES (?)", [(traced.text(),) for _ in range(2)])


async def half_read(connection: aiosqlite.Connection, traced: Traced) -> None:
    connection.row_factory = traced.row
    cursor = await connection.execute("SELECT ? UNION SELECT 2", (traced.text(),))
    await cursor.fetchone()


async def failed(connection: aiosqlite.Connection, traced: Traced) -> None:
    await connection.execute("SELECT nothing(?)", (traced.text(),))


async def failed_many(connection: aiosqlite.Connection, traced: Traced) -> None:
    await connection.executemany("INSERT INTO note (nothing) VALUES (?)", [(traced.text(),)])


@pytest.mark.parametrize("work", [fetched, executed, executed_many, half_read, failed, failed_many])
async def test_a_block_leaves_no_argument_and_no_row(
    work: Callable[[aiosqlite.Connection, Traced], Awaitable[None]], database: Path, traced: Traced
) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
        with contextlib.suppress(sqlite3.Error):
            async with pool.connection() as connection:
                await work(connection, traced)
        assert pool.stats().idle == 1
        await traced.until_dead()


@pytest.mark.parametrize("statement", ["SELECT ?", "SELECT nothing(?)"])
@pytest.mark.parametrize("method", ["run_read", "run_write"])
async def test_a_function_leaves_no_argument_and_no_row(
    method: str, statement: str, database: Path, traced: Traced
) -> None:
    def run(native: sqlite3.Connection, text: str) -> None:
        native.row_factory = traced.row
        native.execute(statement, (text,)).fetchall()

    async with SQLiteDatabase(database) as db:
        with contextlib.suppress(sqlite3.Error):
            await getattr(db, method)(run, traced.text())
        await traced.until_dead()


async def test_what_the_factory_has_run_is_not_kept(database: Path, traced: Traced) -> None:
    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        await fetched(connection, traced)
        return connection

    async with SQLiteConnectionPool(connect, 1, min_size=1):
        await traced.until_dead()


async def insert_one(connection: aiosqlite.Connection) -> None:
    await connection.execute("INSERT INTO note (text) VALUES ('x')")
    await connection.commit()


async def insert_many(connection: aiosqlite.Connection) -> None:
    await connection.executemany("INSERT INTO note (text) VALUES (?)", [(each,) for each in "abc"])
    await connection.commit()


async def insert_returning(connection: aiosqlite.Connection) -> None:
    async with connection.execute("INSERT INTO note (text) VALUES ('x') RETURNING id") as cursor:
        await cursor.fetchone()
    await connection.commit()


async def read_one(connection: aiosqlite.Connection) -> None:
    await (await connection.execute("SELECT 1 UNION SELECT 2")).fetchone()


async def read_all(connection: aiosqlite.Connection) -> None:
    async with connection.execute(
        "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n) SELECT x FROM n LIMIT 1000"
    ) as cursor:
        await cursor.fetchall()


async def run_script(connection: aiosqlite.Connection) -> None:
    await connection.executescript("SELECT 1; SELECT 2")


@pytest.mark.parametrize("work", [insert_one, insert_many, insert_returning, read_one, read_all, run_script])
async def test_a_release_asks_the_garbage_collector_nothing(
    database: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[aiosqlite.Connection], Awaitable[None]]
) -> None:
    """Without the GIL, that stops all threads, and costs more than all else of a release."""
    asked: list[object] = []

    def get_referents(*objects: object) -> list[Any]:
        asked.extend(objects)
        return []

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
        connection = await pool.acquire()
        await work(connection)
        with monkeypatch.context() as watched:
            watched.setattr(gc, "get_referents", get_referents)
            await pool.release(connection)
    assert asked == []
