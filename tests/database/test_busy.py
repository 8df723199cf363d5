"""Other processes hold the database; a real one does, until it is told to let go."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import sqlite3
from pathlib import Path

import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.database.busy import busy_kind, pauses
from aiosqlitepool.events import BusyRetried, TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import add, first, insert, leave_wal, texts
from ..support.files import notes
from ..support.other import other_process


def test_pauses_double_until_they_are_long_enough() -> None:
    assert list(itertools.islice(pauses(math.inf), 7)) == [0.001, 0.002, 0.004, 0.008, 0.016, 0.025, 0.025]


def test_busy_is_told_from_a_stale_snapshot_and_from_everything_else(database: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as failed:
        with contextlib.closing(sqlite3.connect(":memory:")) as empty:
            empty.execute("SELECT * FROM nothing")
    assert busy_kind(failed.value) is None
    assert busy_kind(ValueError()) is None
    assert busy_kind(sqlite3.OperationalError("made by hand")) is None
    one, other = (sqlite3.connect(database, timeout=0, isolation_level=None) for _ in range(2))
    one.execute("BEGIN")
    one.execute("SELECT * FROM note").fetchall()
    add(other, "a")
    with pytest.raises(sqlite3.OperationalError) as failed:
        add(one, "b")
    assert busy_kind(failed.value) == "snapshot"
    one.execute("ROLLBACK")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError) as failed:
        add(one, "b")
    assert busy_kind(failed.value) == "busy"
    one.close()
    other.close()


async def test_a_block_waits_for_another_process(db: SQLiteDatabase, database: Path, recorder: Recorder) -> None:
    async def block() -> None:
        async with db.write(label="mine") as connection:
            await insert(connection, "mine")

    async with other_process(database, "BEGIN IMMEDIATE", "INSERT INTO note (text) VALUES ('theirs')") as other:
        writing = asyncio.create_task(block())
        event = await first(db.writer)
        assert isinstance(event, BusyRetried)
        assert (event.pool, event.kind, event.pause, event.label) == ("app.db/write", "busy", 0.001, "mine")
        await other.does("COMMIT")
        await writing
    assert notes(database) == ["theirs", "mine"]
    (told,) = recorder.of(TransactionEnded)
    assert told.retries == len(recorder.of(BusyRetried)) >= 1


async def test_functions_wait_for_another_process_and_run_once(db: SQLiteDatabase, database: Path) -> None:
    async with other_process(database, "BEGIN IMMEDIATE") as other:
        writing = [asyncio.create_task(db.run_write(add, str(number), retry=False)) for number in range(10)]
        await first(db.writer)
        await other.does("ROLLBACK")
        await asyncio.gather(*writing)
    assert sorted(notes(database)) == [str(number) for number in range(10)]


async def test_it_waits_for_another_process_though_nobody_listens(database: Path) -> None:
    async with SQLiteDatabase(database) as db, other_process(database, "BEGIN IMMEDIATE") as other:
        writing = asyncio.create_task(db.run_write(add, "mine"))
        await asyncio.sleep(0.2)  # some attempts
        await other.does("ROLLBACK")
        await writing
    assert notes(database) == ["mine"]


async def test_a_process_that_holds_on_for_too_long_is_an_error_of_sqlite(database: Path, recorder: Recorder) -> None:
    async with (
        SQLiteDatabase(database, acquisition_timeout=0.1, subscribers=[recorder]) as db,
        other_process(database, "BEGIN IMMEDIATE"),
    ):
        for attempt in (db.run_write(add, "a"), db.write().__aenter__()):
            with pytest.raises(sqlite3.OperationalError, match="locked") as failed:
                await attempt
            assert failed.value.__notes__ == [
                "pool 'app.db/write': another connection locked the database until the timeout of 0.1 s. Shorten its "
                "transactions or raise the timeout"
            ]
    # Neither began: both callers got an error, so both count as failed.
    told = recorder.of(TransactionEnded)
    assert [event.outcome for event in told] == ["failed", "failed"]
    assert all(event.wait_time >= 0 for event in told)
    assert notes(database) == []


async def test_with_no_limit_it_waits_for_ever_and_can_be_cancelled(database: Path, recorder: Recorder) -> None:
    async with (
        SQLiteDatabase(database, acquisition_timeout=None, subscribers=[recorder]) as db,
        other_process(database, "BEGIN IMMEDIATE") as other,
    ):
        writing = asyncio.create_task(db.run_write(add, "never"))
        await first(db.writer)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert recorder.of(TransactionEnded) == []
        await other.does("ROLLBACK")
        assert await db.run_write(add, "kept") == 1


async def test_readers_do_not_notice_that_another_process_writes(db: SQLiteDatabase, database: Path) -> None:
    async with other_process(database, "BEGIN IMMEDIATE", "INSERT INTO note (text) VALUES ('theirs')") as other:
        assert await db.run_read(texts) == []
        await other.does("COMMIT")
        assert await db.run_read(texts) == ["theirs"]


# -- without a WAL, readers of other processes hold up the commit


def without_wal(database: Path, **settings: object) -> SQLiteDatabase:
    return SQLiteDatabase(database, on_connect=leave_wal, **settings)  # type: ignore[arg-type]


async def test_a_block_waits_to_commit_and_then_does(database: Path, recorder: Recorder) -> None:
    async def block() -> None:
        async with db.write() as connection:
            await insert(connection, "mine")

    async with without_wal(database, subscribers=[recorder]) as db, other_process(database, "BEGIN") as other:
        assert await other.does("SELECT text FROM note") == "[]"
        writing = asyncio.create_task(block())
        await first(db.writer)
        await other.does("COMMIT")
        await writing
    assert notes(database) == ["mine"]
    (told,) = recorder.of(TransactionEnded)
    assert (told.outcome, told.retries) == ("committed", len(recorder.of(BusyRetried)))


async def test_a_block_that_may_not_commit_in_time_is_rolled_back(database: Path, recorder: Recorder) -> None:
    async with without_wal(database, acquisition_timeout=0.1, subscribers=[recorder]) as db:
        async with other_process(database, "BEGIN") as other:
            await other.does("SELECT text FROM note")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                async with db.write() as connection:
                    await insert(connection, "never")
        assert await db.run_write(add, "kept") == 1
    assert [event.outcome for event in recorder.of(TransactionEnded)] == ["failed", "committed"]


async def test_a_function_waits_to_commit_in_its_thread_and_runs_once(database: Path) -> None:
    async with without_wal(database) as db, other_process(database, "BEGIN") as other:
        await other.does("SELECT text FROM note")
        ran, loop = asyncio.Event(), asyncio.get_running_loop()

        def insert_once(native: sqlite3.Connection) -> None:
            assert not ran.is_set()
            add(native, "mine")
            loop.call_soon_threadsafe(ran.set)

        writing = asyncio.create_task(db.run_write(insert_once, retry=False))
        await ran.wait()
        await other.does("COMMIT")
        await writing
    assert notes(database) == ["mine"]


@pytest.mark.parametrize("timeout", [0.05, None])
async def test_a_function_that_may_not_commit_is_run_again_only_if_it_may(
    database: Path, timeout: float | None, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    monkeypatch.setattr("aiosqlitepool.database.transaction._COMMIT_TIMEOUT", 0.05)
    async with (
        without_wal(database, acquisition_timeout=timeout, subscribers=[recorder]) as db,
        other_process(database, "BEGIN") as other,
    ):
        await other.does("SELECT text FROM note")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await db.run_write(add, "never", retry=False)
        assert recorder.of(BusyRetried) == []
        if timeout is None:
            writing = asyncio.create_task(db.run_write(add, "kept"))
            await first(db.writer)
            await other.does("COMMIT")
            await writing
    assert notes(database) == (["kept"] if timeout is None else [])
