from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import weakref
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.database.maintenance import Maintenance
from aiosqlitepool.events import Checkpointed, CheckpointFailed
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.databases import add, first, held_writer, texts_now
from ..support.files import notes
from ..support.other import other_process
from ..support.storm import nothing_left_behind


def maintenance_of(db: SQLiteDatabase, clock: Clock, above: int = 0) -> Maintenance:
    return Maintenance(db._writer, db._reader.pool, above, None, clock)


async def test_a_checkpoint_copies_the_wal_and_truncates_it(db: SQLiteDatabase, recorder: Recorder) -> None:
    await db.run_write(add, "a")
    assert db.writer.stats().wal_bytes
    event = await db.checkpoint()
    assert (event.pool, event.result, event.wal_bytes) == ("app.db/write", "complete", 0)
    assert event.pages == event.moved > 0
    assert event.checkpoint_time > 0
    assert recorder.of(Checkpointed) == [event]
    assert db.writer.stats().wal_bytes == 0


async def test_a_reader_keeps_a_checkpoint_partial(db: SQLiteDatabase) -> None:
    await db.run_write(add, "a")
    async with db.read(snapshot=True) as connection:
        assert await texts_now(connection) == ["a"]
        await db.run_write(add, "b")
        event = await db.checkpoint()
        assert (event.result, event.moved < event.pages) == ("partial", True)
        assert event.wal_bytes > 0
    assert (await db.checkpoint()).result == "complete"


async def test_a_checkpoint_that_another_process_prevents_is_partial(db: SQLiteDatabase, database: Path) -> None:
    await db.run_write(add, "a")
    async with other_process(database, "BEGIN", "SELECT 1 FROM note WHERE 0") as other:
        await db.run_write(add, "b")
        assert (await db.checkpoint()).result == "partial"
        await other.does("COMMIT")
    assert (await db.checkpoint()).result == "complete"


@pytest.mark.parametrize("factory", [aiosqlite.Row, lambda cursor, row: {"row": row}, lambda cursor, row: None])
async def test_a_checkpoint_ignores_the_row_factory_of_the_program(database: Path, factory: Any) -> None:
    async def rows(connection: aiosqlite.Connection) -> None:
        connection.row_factory = factory

    async with SQLiteDatabase(database, on_connect=rows) as db:
        await db.run_write(add, "a")
        assert (await db.checkpoint()).result == "complete"


async def test_checkpoints_may_be_left_to_another_program(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, checkpoint_above=None, wal_ceiling=0, subscribers=[recorder]) as db:
        clock = Clock()
        maintenance = Maintenance(db._writer, db._reader.pool, None, 0, clock)
        await db.run_write(lambda native: native.execute("CREATE TABLE big AS SELECT zeroblob(5000000)").close())
        await db.run_write(add, "a")
        clock.advance(60)
        await maintenance.run_due()
        assert recorder.of(Checkpointed) == []
        async with db.writer.connection() as connection:
            assert await connection.execute_fetchall("PRAGMA wal_autocheckpoint") == [(0,)]
        # An automatic checkpoint would have let the second transaction begin the WAL anew, and copied the first.
        assert database.stat().st_size < 100_000
        assert (db.writer.stats().wal_bytes or 0) > 5_000_000


async def test_a_large_wal_is_checkpointed_while_the_writer_is_idle(db: SQLiteDatabase, recorder: Recorder) -> None:
    maintenance = maintenance_of(db, Clock())
    await db.run_write(add, "a")
    async with held_writer(db):
        await maintenance.run_due()
        assert recorder.of(Checkpointed) == []
    await maintenance.run_due()
    (event,) = recorder.of(Checkpointed)
    assert event.wal_bytes == 0
    await maintenance.run_due()
    assert len(recorder.of(Checkpointed)) == 1


async def test_a_small_wal_is_not_checkpointed(db: SQLiteDatabase, recorder: Recorder) -> None:
    await db.run_write(add, "a")
    await maintenance_of(db, Clock(), above=1_000_000).run_due()
    assert recorder.of(Checkpointed) == []


async def test_a_large_wal_is_copied_while_the_writer_is_busy(db: SQLiteDatabase, recorder: Recorder) -> None:
    maintenance = maintenance_of(db, Clock())
    truncation = maintenance._truncation
    assert truncation is not None
    truncation.start()
    await db.run_write(add, "a")
    async with held_writer(db):
        await maintenance.run_due()
    assert [(event.result, event.wal_bytes > 0) for event in recorder.of(Checkpointed)] == [("complete", True)]


async def test_a_partial_checkpoint_is_repeated_after_30_seconds(db: SQLiteDatabase, recorder: Recorder) -> None:
    clock = Clock()
    maintenance = maintenance_of(db, clock)
    await db.run_write(add, "a")
    async with db.read(snapshot=True):
        await db.run_write(add, "b")
        for _ in range(3):
            await maintenance.run_due()
        assert [event.result for event in recorder.of(Checkpointed)] == ["partial"]
    clock.advance(31)
    await maintenance.run_due()
    assert [event.result for event in recorder.of(Checkpointed)] == ["partial", "complete"]


async def traced(db: SQLiteDatabase) -> list[str]:
    statements: list[str] = []
    async with db.writer.connection() as connection:
        # A newer SQLite traces also what its own statements run, as comments.
        await connection.set_trace_callback(lambda sql: None if sql.startswith("--") else statements.append(sql))
    return statements


async def test_statistics_are_brought_up_to_date_every_few_hours(db: SQLiteDatabase) -> None:
    statements, clock = await traced(db), Clock()
    maintenance = maintenance_of(db, clock, above=1_000_000)
    await maintenance.run_due()
    assert statements == []
    clock.advance(4 * 3600)
    await maintenance.run_due()
    await maintenance.run_due()
    assert statements == ["PRAGMA analysis_limit = 400", "PRAGMA optimize = 0x10002"]


async def test_statistics_wait_until_no_other_process_writes(
    db: SQLiteDatabase, database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether `PRAGMA optimize` writes anything differs between versions of SQLite.
    monkeypatch.setattr("aiosqlitepool.database.maintenance._optimize", lambda native: add(native, "written"))
    clock = Clock()
    maintenance = maintenance_of(db, clock, above=1_000_000)
    clock.advance(4 * 3600)
    with caplog.at_level(logging.WARNING, "aiosqlitepool"):
        async with other_process(database, "BEGIN IMMEDIATE"):
            await maintenance.run_due()
        assert notes(database) == []
        await maintenance.run_due()
        await maintenance.run_due()
        assert notes(database) == ["written"]
    assert caplog.text == ""


async def test_statistics_are_brought_up_to_date_at_the_end(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        statements = await traced(db)
    assert statements[-1] == "PRAGMA optimize = 0x10002"


async def test_a_maintenance_error_is_logged(db: SQLiteDatabase, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    maintenance = maintenance_of(db, clock, above=-1)
    clock.advance(4 * 3600)
    async with db.writer.connection() as connection:
        await connection._execute(connection._conn.set_authorizer, lambda *_: sqlite3.SQLITE_DENY)
    with caplog.at_level(logging.WARNING, "aiosqlitepool"):
        await maintenance.run_due()
    assert caplog.text.count("pool 'app.db/write': maintenance failed: not authorized") == 2
    async with db.writer.connection() as connection:
        await connection._execute(connection._conn.set_authorizer, None)


async def test_a_checkpoint_that_raises_is_told_and_raised(db: SQLiteDatabase, recorder: Recorder) -> None:
    await db.run_write(add, "a")
    async with db.writer.connection() as connection:
        await connection._execute(connection._conn.set_authorizer, lambda *_: sqlite3.SQLITE_DENY)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        await db.checkpoint()
    (event,) = recorder.of(CheckpointFailed)
    assert (event.pool, event.error.code, event.wal_bytes > 0) == ("app.db/write", "SQLITE_AUTH", True)
    async with db.writer.connection() as connection:
        await connection._execute(connection._conn.set_authorizer, None)


async def test_a_checkpoint_that_raises_is_raised_also_without_a_subscriber(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        async with db.writer.connection() as connection:
            await connection._execute(connection._conn.set_authorizer, lambda *_: sqlite3.SQLITE_DENY)
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            await db.checkpoint()
        async with db.writer.connection() as connection:
            await connection._execute(connection._conn.set_authorizer, None)


async def test_maintenance_runs_while_the_database_is_open(
    database: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiosqlitepool.database.maintenance._INTERVAL", 0.001)
    async with SQLiteDatabase(database, checkpoint_above=0, subscribers=[recorder]) as db:
        writing = asyncio.create_task(db.run_write(add, "a"))
        event = await first(db.writer, Checkpointed)
        await writing
        assert isinstance(event, Checkpointed)


async def test_maintenance_can_be_woken_at_any_time(db: SQLiteDatabase) -> None:
    woken = db._maintenance._woken
    woken.set()
    woken.set()
    while woken.is_set():
        await asyncio.sleep(0)


async def test_the_maintenance_task_does_not_keep_a_database_alive(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiosqlitepool.database.maintenance._INTERVAL", 0.001)
    with nothing_left_behind():
        db = SQLiteDatabase(database)
        await db.open()
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "app.db/write:maintenance"]
        gone = weakref.ref(db)
        with pytest.warns(ResourceWarning, match="was never closed"):
            del db
            while gone() is not None or not task.done():
                gc.collect()
                await asyncio.sleep(0.001)
    assert notes(database) == []


async def test_closing_does_not_wait_for_the_writer_to_bring_statistics_up_to_date(database: Path) -> None:
    db = SQLiteDatabase(database, acquisition_timeout=None)
    await db.open()
    statements = await traced(db)
    async with held_writer(db) as let_go:
        closing = asyncio.create_task(db.close())
        while db.readers.stats().state != "closed":
            await asyncio.sleep(0.001)
        let_go()
        await closing
    assert "PRAGMA optimize = 0x10002" not in statements
