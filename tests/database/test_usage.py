"""What a program may do wrong with a database, and what it says of it."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolClosedError, PoolUsageError, SQLiteDatabase
from aiosqlitepool.events import ConnectionAcquired, PoolEvent
from aiosqlitepool.testing import Recorder


async def test_a_closed_database_says_that_it_cannot_be_reopened(database: Path) -> None:
    db = SQLiteDatabase(database)
    async with db:
        pass
    message = r"database 'app\.db' is closed and cannot be reopened: make one per application, or per test"
    for use in (db.open, db.checkpoint):
        with pytest.raises(PoolClosedError, match=message):
            await use()
    for block in (db.read, db.write):
        with pytest.raises(PoolClosedError, match=message):
            block()


@pytest.mark.parametrize("method", ["open", "close"])
def test_without_an_asyncio_loop_the_database_says_that_it_needs_one(database: Path, method: str) -> None:
    coroutine = getattr(SQLiteDatabase(database), method)()
    with pytest.raises(PoolUsageError, match=r"database 'app\.db' needs asyncio.*Trio is not supported"):
        coroutine.send(None)


def test_no_readers_are_refused_with_name_and_value(database: Path) -> None:
    with pytest.raises(ValueError, match="readers must be at least 1, not 0"):
        SQLiteDatabase(database, readers=0)


async def test_a_label_of_a_block_may_be_given_by_position(db: SQLiteDatabase) -> None:
    async with db.read("GET /"), db.write("POST /"):
        assert [holder.label for pool in (db.readers, db.writer) for holder in pool.holders()] == ["GET /", "POST /"]
    async with db.readers.connection("GET /export"):
        assert [holder.label for holder in db.readers.holders()] == ["GET /export"]


async def test_a_subscriber_of_the_database_hears_of_both_pools_until_it_is_detached(database: Path) -> None:
    recorder = Recorder()
    async with SQLiteDatabase(database) as db:
        detach = db.subscribe(recorder)
        async with db.read(), db.write():
            pass
        assert {event.pool for event in recorder.of(ConnectionAcquired)} == {"app.db/read", "app.db/write"}
        detach()
        before = list(recorder.of(PoolEvent))
        async with db.read(), db.write():
            pass
        assert list(recorder.of(PoolEvent)) == before


async def test_a_subscriber_that_cannot_attach_to_both_pools_is_attached_to_neither(database: Path) -> None:
    class Half:
        def __init__(self) -> None:
            self.attached: list[Any] = []

        def attach(self, pool: Any) -> Any:
            if self.attached:
                raise KeyError(pool.name)
            self.attached.append(pool)
            return self.attached.clear

    half = Half()
    async with SQLiteDatabase(database) as db:
        with pytest.raises(KeyError, match="app.db/read"):
            db.subscribe(half)
    assert half.attached == []


async def test_what_is_no_subscriber_of_a_database_is_refused_by_name(db: SQLiteDatabase) -> None:
    with pytest.raises(TypeError, match=r"subscriber must have an attach\(pool\) method; 'prometheus' has none"):
        db.subscribe("prometheus")  # type: ignore[arg-type]


def test_one_subscriber_instead_of_a_list_is_refused(database: Path) -> None:
    for subscriber in (Recorder(), 7):
        with pytest.raises(TypeError, match="subscribers must be an iterable of subscribers, such as a list, not"):
            SQLiteDatabase(database, subscribers=subscriber)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["connection", "acquire", "events", "stats"])
async def test_what_only_its_pools_have_is_refused_with_the_way_to_it(db: SQLiteDatabase, name: str) -> None:
    with pytest.raises(
        AttributeError, match=rf"use read\(\) or write\(\), or {name} of its pools `writer` and `readers`"
    ):
        getattr(db, name)


async def test_what_neither_a_database_nor_its_pools_have_is_no_attribute(db: SQLiteDatabase) -> None:
    with pytest.raises(AttributeError, match=r"'SQLiteDatabase' object has no attribute 'fetchall'$"):
        db.fetchall  # type: ignore[attr-defined] # noqa: B018


async def test_a_lock_of_another_program_has_the_note_of_the_database_alone(database: Path) -> None:
    async with SQLiteDatabase(database, acquisition_timeout=0.1) as db:
        async with aiosqlite.connect(database) as other:
            await other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="database is locked") as caught:
                async with db.write():
                    pass
    (note,) = caught.value.__notes__
    assert note.startswith("pool 'app.db/write': another connection locked the database until the timeout")


async def test_a_block_that_raises_is_rolled_back_without_a_record(
    db: SQLiteDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyError):
        async with db.write() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('lost')")
            raise KeyError
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_database_in_memory_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with SQLiteDatabase(":memory:") as db, db.read(), db.read():
        pass
    assert caplog.records == []


# -- blocks


@pytest.mark.parametrize("method", ["read", "write", "maintenance"])
async def test_a_block_that_is_not_entered_by_async_with_says_so(database: Path, method: str) -> None:
    async with SQLiteDatabase(database) as db:
        call = "db.read" if method == "read" else "db.write"
        block: Any = getattr(db, method)("a label by position")
        with pytest.raises(PoolUsageError, match=rf"`async with {call}\(\) as connection:`"):
            await block
        with pytest.raises(PoolUsageError, match=rf"`async with {call}\(\) as connection:`"), block:
            pass
        assert block.__exit__(None, None, None) is None
        with pytest.raises(AttributeError, match=rf"it is no connection yet: `async with {call}\(\) as connection:`"):
            await block.execute("SELECT 1")
        async with block as connection:
            assert await connection.execute_fetchall("SELECT 1") == [(1,)]
