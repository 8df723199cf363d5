from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.database.pragmas import checked_pragmas, pragmas_for

from ..support.other import other_process

WRITER = {"busy_timeout": 20, "journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "temp_store": 2}
READER = {
    "busy_timeout": 30_000,
    "query_only": 1,
    "synchronous": 1,
    "foreign_keys": 1,
    "temp_store": 2,
    "cache_size": -16_000,
}


async def pragmas_of(connection: aiosqlite.Connection, *names: str) -> dict[str, Any]:
    return {name: next(iter(await connection.execute_fetchall(f"PRAGMA {name}")))[0] for name in names}


async def test_each_role_has_its_pragmas(db: SQLiteDatabase) -> None:
    async with db.writer.connection() as connection:
        assert await pragmas_of(connection, *WRITER, "query_only") == {**WRITER, "query_only": 0}
    async with db.read() as connection:
        assert await pragmas_of(connection, *READER, "journal_mode") == {**READER, "journal_mode": "wal"}


def test_what_others_depend_on_comes_first() -> None:
    mine = {"user_version": 7, "journal_mode": "WAL", "page_size": 8192, "auto_vacuum": "FULL"}
    names = [name for name, _ in pragmas_for("write", mine)]
    assert names[:3] == ["page_size", "auto_vacuum", "journal_mode"]
    assert names[-2:] == ["busy_timeout", "user_version"]
    assert len(set(names)) == len(names)


def test_what_is_the_writers_business_is_not_set_by_readers() -> None:
    names = [name for name, _ in pragmas_for("read", {"journal_mode": "WAL", "page_size": 8192, "mmap_size": 0})]
    assert names == [
        "synchronous",
        "foreign_keys",
        "temp_store",
        "cache_size",
        "query_only",
        "busy_timeout",
        "mmap_size",
    ]


async def test_pragmas_of_ones_own_override(tmp_path: Path) -> None:
    own = {"FOREIGN_KEYS": False, "cache_size": -100, "page_size": 8192, "encoding": "UTF-16le", "busy_timeout": 7}
    async with SQLiteDatabase(tmp_path / "own.db", pragmas=own) as db:
        await db.run_write(lambda native: native.execute("CREATE TABLE note (id)").close())
        for pool in (db.writer, db.readers):
            async with pool.connection() as connection:
                assert await pragmas_of(connection, *(name.lower() for name in own)) == {
                    "foreign_keys": 0,
                    "cache_size": -100,
                    "page_size": 8192,
                    "encoding": "UTF-16le",
                    "busy_timeout": 7,
                }


@pytest.mark.parametrize(
    ("pragmas", "error", "message"),
    [
        ({"foreign_key": 1}, ValueError, "knows no pragma 'foreign_key'; did you mean 'foreign_keys'"),
        ({"xyzzyxyzzy": 1}, ValueError, r"knows no pragma 'xyzzyxyzzy'$"),
        ({"query_only": 0}, ValueError, "'query_only' cannot be set: it is on for readers and off for the writer"),
        ({"synchronous": "NORMALL"}, ValueError, "synchronous must be a number or a word .* did you mean 'NORMAL'"),
        (
            {"synchronous": "Qqqqq"},
            ValueError,
            "synchronous must be a number or a word that SQLite knows, not 'Qqqqq'$",
        ),
        (
            {"cache_size": "16MB"},
            ValueError,
            "not '16MB': SQLite would read 16 and ignore the rest. Write a plain number",
        ),
        ({"journal_mode": "DELETE"}, ValueError, "journal_mode must be WAL, not 'DELETE': in any other mode, readers"),
        ({"journal_mode": 1}, ValueError, "journal_mode must be WAL, not 1"),
        ({"locking_mode": "EXCLUSIVE"}, ValueError, "locking_mode cannot be EXCLUSIVE: no second connection can use"),
        ({"cache_size": "1; DROP TABLE note"}, ValueError, "cache_size must be one word or number"),
        ({"cache_size": None}, TypeError, "cache_size must be a str, a number or a bool, not None"),
        ({7: 1}, TypeError, "pragmas must have strings as names, not 7"),
        ([("cache_size", 1)], TypeError, "pragmas must be a mapping"),
    ],
)
def test_a_pragma_that_makes_no_sense_is_an_error_that_names_it(
    pragmas: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SQLiteDatabase("app.db", pragmas=pragmas)


@pytest.mark.parametrize("value", ["-16000", "+7", "0x10", 16, 1.5, "wal", "Wal"])
def test_numbers_and_words_of_sqlite_are_taken(value: str | float) -> None:
    name = "journal_mode" if str(value).lower() == "wal" else "cache_size"
    assert checked_pragmas({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("application_id", 7), ("user_version", 3), ("user_version", 0), ("auto_vacuum", "FULL")),
        *(("page_size", 8192), ("encoding", "UTF-16le"), ("journal_size_limit", 1000)),
    ],
)
async def test_a_pragma_that_belongs_to_the_file_is_the_writers_alone(
    tmp_path: Path, name: str, value: str | int
) -> None:
    assert name not in dict(pragmas_for("read", {name: value}))
    assert (name, str(value)) in pragmas_for("write", {name: value})
    async with SQLiteDatabase(tmp_path / "app.db", pragmas={name: value}) as db:
        await db.run_write(lambda native: native.execute("CREATE TABLE note (id)").close())
        assert await db.run_read(lambda native: native.execute("SELECT * FROM note").fetchall()) == []


async def test_what_is_in_the_file_already_is_not_set_again(database: Path) -> None:
    own = {"user_version": 3}
    async with SQLiteDatabase(database, pragmas=own):
        pass
    async with other_process(database, "BEGIN IMMEDIATE"):
        async with SQLiteDatabase(database, pragmas=own, acquisition_timeout=0) as db:
            async with db.read() as connection:
                assert await pragmas_of(connection, *own) == own


async def test_what_a_migration_writes_into_the_file_stays_there(database: Path) -> None:
    async with SQLiteDatabase(database, pragmas={"user_version": 3}) as db:
        async with db.writer.connection() as connection:
            await connection.execute("PRAGMA user_version = 4")
        async with db.writer.connection() as connection:
            assert await pragmas_of(connection, "user_version") == {"user_version": 4}


def test_none_and_no_pragmas_are_the_same() -> None:
    assert checked_pragmas(None) == checked_pragmas({}) == {}


async def test_a_journal_mode_that_sqlite_refuses_is_an_error(tmp_path: Path) -> None:
    db = SQLiteDatabase(f"file:{tmp_path}/odd.db?mode=memory")
    with pytest.raises(sqlite3.OperationalError, match="'WAL': .* stayed in journal mode 'memory'. Use") as failed:
        await db.open()
    assert failed.value.__notes__[0] == f"database: file:{tmp_path}/odd.db?mode=memory"
