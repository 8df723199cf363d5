"""What would end the transaction of a block or a function is refused before it happens."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolUsageError, SQLiteDatabase
from aiosqlitepool.database.guard import control_word
from aiosqlitepool.events import TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import add, insert, texts, texts_now
from ..support.files import notes

Use = Callable[[aiosqlite.Connection], Awaitable[Any]]


async def through_a_cursor(connection: aiosqlite.Connection, method: str, *args: Any) -> None:
    cursor = await connection.cursor()
    await getattr(cursor, method)(*args)


ENDS: Iterable[tuple[str, Use]] = [
    ("commit()", lambda connection: connection.commit()),
    ("rollback()", lambda connection: connection.rollback()),
    ("executescript()", lambda connection: connection.executescript("CREATE TABLE a (x); CREATE TABLE")),
    ("executescript()", lambda connection: connection.executescript("-- nothing")),
    ("executescript()", lambda connection: through_a_cursor(connection, "executescript", "SELECT 1")),
    ("COMMIT", lambda connection: connection.execute("COMMIT")),
    ("COMMIT", lambda connection: connection.execute_fetchall("commit transaction")),
    ("COMMIT", lambda connection: connection.execute_insert("COMMIT")),
    ("COMMIT", lambda connection: connection.executemany("COMMIT", [])),
    ("END", lambda connection: through_a_cursor(connection, "execute", "-- done\n ; /* really */ END;")),
    ("END", lambda connection: through_a_cursor(connection, "executemany", "End", [])),
    ("ROLLBACK", lambda connection: connection.execute("ROLLBACK")),
    ("PRAGMA foreign_keys", lambda connection: connection.execute("PRAGMA foreign_keys = OFF")),
    ("BEGIN", lambda connection: connection.execute("BEGIN IMMEDIATE")),
    ("VACUUM", lambda connection: connection.execute("VACUUM")),
]


@pytest.mark.parametrize(("what", "use"), ENDS)
async def test_a_block_refuses_what_would_end_its_transaction_and_goes_on(
    db: SQLiteDatabase, database: Path, what: str, use: Use
) -> None:
    async with db.write() as connection:
        await insert(connection, "before")
        with pytest.raises(PoolUsageError) as refused:
            await use(connection)
        assert str(refused.value).startswith(f"{what} inside a transaction of the database: ")
        assert connection.in_transaction
        await insert(connection, "after")
        assert notes(database) == []
    assert notes(database) == ["before", "after"]


async def test_nothing_is_stored_if_the_refusal_ends_the_block(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    with pytest.raises(PoolUsageError, match="committed at the end of its block"):
        async with db.write() as connection:
            await insert(connection, "never")
            await connection.commit()
    assert notes(database) == []
    assert [event.outcome for event in recorder.of(TransactionEnded)] == ["rolled_back"]


async def test_a_block_within_a_block_refuses_the_same(db: SQLiteDatabase, database: Path) -> None:
    async with db.write() as connection:
        await insert(connection, "outer")
        with pytest.raises(PoolUsageError, match="commit"):
            async with db.write():
                await insert(connection, "never")
                await connection.commit()
    assert notes(database) == ["outer"]


@pytest.mark.parametrize(("what", "use"), ENDS)
async def test_a_snapshot_refuses_the_same(db: SQLiteDatabase, what: str, use: Use) -> None:
    async with db.read(snapshot=True) as connection:
        with pytest.raises(PoolUsageError, match="inside a transaction of the database"):
            await use(connection)
        assert await texts_now(connection) == []


async def test_what_only_looks_like_an_end_is_not_refused(db: SQLiteDatabase, database: Path) -> None:
    async with db.write() as connection:
        await connection.execute("SAVEPOINT mine")
        await insert(connection, "never")
        await connection.execute("ROLLBACK /* not all */ TRANSACTION TO mine")
        await connection.execute("ROLLBACK TO mine")
        await connection.execute("RELEASE mine")
        await connection.execute("/* a */ SELECT CASE WHEN 1 THEN 2 /* b */ END")
        assert await connection.execute_fetchall("PRAGMA foreign_keys") == [(1,)]
        assert "BEGIN TRANSACTION;" in [line async for line in connection.iterdump()]
        with pytest.raises(TypeError):
            await connection.execute(None)  # type: ignore[arg-type]
        await insert(connection, "kept")
    assert notes(database) == ["kept"]


async def test_a_block_cannot_wait_for_a_backup_of_itself(db: SQLiteDatabase) -> None:
    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as copy:
        async with db.write() as connection:
            with pytest.raises(PoolUsageError, match=r"Use db\.backup\(\)"):
                await connection.backup(copy)
            with pytest.raises(PoolUsageError, match=r"Use db\.backup\(\)"):
                await db.run_write(lambda native: native.backup(copy))
        async with db.read(snapshot=True) as connection:
            await connection.backup(copy)
        assert texts(copy) == []


async def test_what_follows_a_rollback_of_sqlites_own_is_not_committed_on_its_own(
    db: SQLiteDatabase, database: Path
) -> None:
    await db.run_write(lambda native: native.execute("CREATE UNIQUE INDEX one ON note (text)").close())
    with pytest.raises(PoolUsageError, match="SQLite itself rolled this transaction back"):
        async with db.write() as connection:
            with pytest.raises(sqlite3.IntegrityError):
                await connection.execute("INSERT OR ROLLBACK INTO note (text) VALUES ('a'), ('a')")
            await insert(connection, "never")
    assert notes(database) == []


@pytest.mark.parametrize("end", ["commit", "rollback", "executescript", "__exit__"])
@pytest.mark.parametrize("run", ["run_write", "run_read"])
async def test_a_function_cannot_end_its_transaction_with_a_method(
    db: SQLiteDatabase, database: Path, run: str, end: str
) -> None:
    args = {"executescript": ["SELECT 1"], "__exit__": [None, None, None]}.get(end, [])

    def function(native: sqlite3.Connection) -> str:
        if run == "run_write":
            add(native, "kept")
        with pytest.raises(PoolUsageError) as refused:
            getattr(native, end)(*args)
        assert native.in_transaction
        return str(refused.value)

    assert "inside a transaction of the database: " in await getattr(db, run)(function)
    assert notes(database) == ["kept"] * (run == "run_write")


async def test_an_isolation_level_that_is_set_ends_no_transaction(db: SQLiteDatabase, database: Path) -> None:
    with contextlib.suppress(KeyError):
        async with db.write() as connection:
            await insert(connection, "never")
            connection.isolation_level = None
            assert connection.in_transaction
            connection.isolation_level = "DEFERRED"
            with pytest.raises(PoolUsageError, match="isolation_level = None inside a transaction"):
                connection.isolation_level = None
            raise KeyError
    assert notes(database) == []
    async with db.writer.connection() as connection:
        assert connection.isolation_level == "DEFERRED"
        connection.isolation_level = None
        assert connection.isolation_level is None


async def test_connections_without_such_a_transaction_refuse_nothing(db: SQLiteDatabase, database: Path) -> None:
    async with db.writer.connection() as connection:
        await connection.execute("BEGIN")
        await insert(connection, "kept")
        await connection.commit()
        await connection.executescript("BEGIN; INSERT INTO note (text) VALUES ('too'); COMMIT; PRAGMA foreign_keys = 0")
        await connection.rollback()
        with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as copy:
            await connection.backup(copy)
    async with db.read() as connection:
        await connection.execute("BEGIN")
        assert await texts_now(connection) == ["kept", "too"]
        await connection.execute("COMMIT")


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("COMMIT", "COMMIT"),
        ("\ufeff; -- a\n/* b\n*/commit", "COMMIT"),
        ("end/**/transaction", "END"),
        ("begin", "BEGIN"),
        ("VACUUM", "VACUUM"),
        ("ROLLBACK", "ROLLBACK"),
        ("ROLLBACK TRANSACTION;", "ROLLBACK"),
        ("ROLLBACK -- all\n TO x", None),
        ("ROLLBACK TRANSACTION TO x", None),
        ("COMMITTED", None),
        ("-- COMMIT", None),
        ("/* COMMIT", None),
        ("EXPLAIN COMMIT", None),
        ("", None),
        ("PRAGMA foreign_keys", None),
        ("PRAGMA foreign_keys;", None),
        ("PRAGMA foreign_key_check(note)", None),
        ("PRAGMA defer_foreign_keys = ON", None),
        ("pragma foreign_keys=0", "PRAGMA foreign_keys"),
        ('PRAGMA main . "foreign_keys" (off)', "PRAGMA foreign_keys"),
    ],
)
def test_the_word_that_controls_a_transaction_is_found(sql: str, word: str | None) -> None:
    assert control_word(sql) == word
