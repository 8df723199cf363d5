"""Connections with autocommit=False (Python 3.12), where a transaction is always open."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.driver.unsaved import Unsaved
from aiosqlitepool.events import RolledBackOnReturn
from aiosqlitepool.testing import Recorder

from ..support.files import notes

Pool = SQLiteConnectionPool[aiosqlite.Connection]


class Emulated(sqlite3.Connection):
    """Does what a connection with autocommit=False does, in Python 3.11 too."""

    autocommit = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, isolation_level=None)
        self.execute("BEGIN")

    def commit(self) -> None:
        self.execute("COMMIT")
        self.execute("BEGIN")

    def rollback(self) -> None:
        self.execute("ROLLBACK")
        self.execute("BEGIN")

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        for statement in script.split(";"):
            cursor = self.execute(statement)
        return cursor


def connect(path: Path) -> aiosqlite.Connection:
    if sys.version_info >= (3, 12):
        return aiosqlite.connect(path, autocommit=False, timeout=0.2)
    return aiosqlite.connect(path, factory=Emulated, timeout=0.2)


@pytest.fixture
async def pool(database: Path, recorder: Recorder) -> AsyncIterator[Pool]:
    async with SQLiteConnectionPool(
        lambda: connect(database), 1, min_size=1, health_check_after=0, subscribers=[recorder]
    ) as pool:
        yield pool


@pytest.fixture
def other(database: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        yield other


def add(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("INSERT INTO note (text) VALUES (?)", (text,)).close()


async def test_no_connection_pins_a_snapshot_when_it_is_opened_released_or_checked(
    pool: Pool, database: Path, other: sqlite3.Connection
) -> None:
    texts = ["opened", "released", "checked"]
    for text in texts:
        add(other, text)
        # A connection that had read before could not write: SQLite would raise "database is locked" at once.
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('mine')")
            await connection.commit()
    assert notes(database) == [each for text in texts for each in (text, "mine")]


INSERT = "INSERT INTO note (text) VALUES ('new')"
WORK: list[tuple[list[str], list[str]]] = [
    ([], []),
    (["SELECT * FROM note"], []),
    (["UPDATE note SET text = 'b' WHERE id = 0"], []),
    ([INSERT], ["transaction"]),
    ([INSERT, "commit"], []),
    ([INSERT, "rollback"], []),
    ([INSERT, "commit", INSERT], ["transaction"]),
    ([INSERT, "COMMIT"], []),
    (["CREATE TABLE other (id)"], ["transaction"]),
    (["/* first */ -- then\n drop table note"], ["transaction"]),
    (["CREATE TABLE other (id)", "commit"], []),
]


@pytest.mark.parametrize(("work", "causes"), WORK, ids=lambda each: "; ".join(each) or "nothing")
async def test_what_is_rolled_back_is_reported_and_nothing_else(
    work: list[str], causes: list[str], pool: Pool, recorder: Recorder
) -> None:
    async with pool.connection() as connection:
        for each in work:
            if each in ("commit", "rollback"):
                await getattr(connection, each)()
            else:
                async with connection.execute(each) as cursor:
                    await cursor.fetchall()
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == causes


async def test_a_script_that_changes_the_schema_is_reported(pool: Pool, recorder: Recorder) -> None:
    async with pool.connection() as connection:
        await connection.executescript("SELECT 1; CREATE TABLE other (id);")
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["transaction"]


async def test_a_half_read_cursor_is_reported(pool: Pool, recorder: Recorder) -> None:
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
        )
        await cursor.fetchone()
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["cursor"]


def test_comments_before_a_statement_are_read_one_way_only() -> None:
    native = sqlite3.connect(":memory:")
    with contextlib.closing(native):
        unsaved = Unsaved(native)
        unsaved.noting(native.execute)("/* a */ " * 1_000 + "SELECT 1").close()  # would take longer than the universe
        assert not unsaved
        unsaved.noting(native.execute)("/* a */ -- b\n CREATE TABLE t (a)").close()
        assert unsaved


async def test_statements_of_such_a_connection_are_recorded(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute_fetchall("SELECT 7")
        assert pool.holders()[0].statement == "SELECT ?"
        assert [(row.statement, row.calls) for row in pool.statements()] == [("SELECT ?", 1)]


async def test_a_statement_alone_is_committed_and_no_lost_work(pool: Pool, database: Path, recorder: Recorder) -> None:
    assert (await pool.execute("INSERT INTO note (text) VALUES ('a')")).rows == 1
    assert await pool.fetch_val("INSERT INTO note (text) VALUES ('b') RETURNING id") == 2
    await pool.execute("CREATE TABLE other (id)")
    assert await pool.fetch_all("SELECT text FROM note") == [("a",), ("b",)]
    assert (notes(database), recorder.of(RolledBackOnReturn)) == (["a", "b"], [])
