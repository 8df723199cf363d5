"""Failures of the database itself, apart from those of statements: what events and transactions say of them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.database.busy import locked
from aiosqlitepool.events import BusyRetried, DatabaseFailed, ErrorInfo, TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, first, insert, leave_wal, until_waiting
from ..support.other import other_process

LONG = "x" * 100_000
FULL = ErrorInfo("sqlite3.OperationalError", "database or disk is full", "SQLITE_FULL")


@pytest.fixture
async def full(database: Path, recorder: Recorder) -> AsyncIterator[SQLiteDatabase]:
    """A database of at most ten pages, so that a long text does not fit."""
    pragmas = {"max_page_count": 10}
    async with SQLiteDatabase(database, pragmas=pragmas, subscribers=[recorder]) as db:
        yield db


def failures(recorder: Recorder) -> list[tuple[str, ErrorInfo, str | None, str | None]]:
    return [(event.pool, event.error, event.label, event.statement) for event in recorder.of(DatabaseFailed)]


def ends(recorder: Recorder) -> list[tuple[str, str | None]]:
    return [(event.outcome, event.error and event.error.code) for event in recorder.of(TransactionEnded)]


async def test_a_function_on_a_full_disk_has_failed_and_was_not_rolled_back_by_its_program(
    full: SQLiteDatabase, recorder: Recorder
) -> None:
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await full.run_write(add, LONG, label="POST /notes")
    assert failures(recorder) == [("app.db/write", FULL, "POST /notes", None)]
    (event,) = recorder.of(TransactionEnded)
    assert (event.outcome, event.error) == ("failed", FULL)


async def test_the_failure_of_a_function_behind_another_has_its_own_label(
    full: SQLiteDatabase, recorder: Recorder
) -> None:
    with Hold() as hold:
        working = asyncio.create_task(full.run_write(hold, label="GET /notes"))
        await hold.reached.wait()
        failing = asyncio.create_task(full.run_write(add, LONG, label="POST /notes"))
        await until_waiting(full, 1)
        hold.let_go()
        await working
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await failing
    assert failures(recorder) == [("app.db/write", FULL, "POST /notes", None)]


async def test_a_block_on_a_full_disk_has_failed_and_the_event_names_the_statement(
    full: SQLiteDatabase, recorder: Recorder
) -> None:
    with pytest.raises(sqlite3.OperationalError, match="full"):
        async with full.write(label="POST /notes") as connection:
            await insert(connection, LONG)
    assert failures(recorder) == [("app.db/write", FULL, "POST /notes", "INSERT INTO note (text) VALUES (?)")]
    assert ends(recorder) == [("failed", "SQLITE_FULL")]


async def test_a_failure_is_emitted_before_its_caller_goes_on(full: SQLiteDatabase, recorder: Recorder) -> None:
    told = []
    with contextlib.suppress(sqlite3.OperationalError):
        async with full.write() as connection:
            try:
                await insert(connection, LONG)
            finally:
                told = failures(recorder)
    assert [error for _, error, _, _ in told] == [FULL]


async def test_an_error_of_the_program_or_of_its_statement_is_no_failure(
    db: SQLiteDatabase, recorder: Recorder
) -> None:
    with pytest.raises(KeyError):
        async with db.write():
            raise KeyError("no")
    with pytest.raises(sqlite3.IntegrityError):
        await db.run_write(lambda native: native.execute("INSERT INTO note (id) VALUES (1), (1)").close())
    assert ends(recorder) == [("rolled_back", None), ("rolled_back", "SQLITE_CONSTRAINT_PRIMARYKEY")]
    assert [event.error and event.error.type for event in recorder.of(TransactionEnded)] == [
        "KeyError",
        "sqlite3.IntegrityError",
    ]
    assert failures(recorder) == []


async def test_what_commits_has_no_error(db: SQLiteDatabase, recorder: Recorder) -> None:
    await db.run_write(add, "a")
    assert ends(recorder) == [("committed", None)]


async def test_a_lock_is_a_failure_when_the_database_gives_up_and_not_before(
    database: Path, recorder: Recorder
) -> None:
    async with (
        SQLiteDatabase(database, acquisition_timeout=0.5, subscribers=[recorder]) as db,
        other_process(database, "BEGIN IMMEDIATE"),
    ):
        for attempt in (db.run_write(add, "a", label="one"), db.write("two").__aenter__()):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await attempt
    assert [(error.code, label) for _, error, label, _ in failures(recorder)] == [
        ("SQLITE_BUSY", "one"),
        ("SQLITE_BUSY", "two"),
    ]
    assert len(recorder.of(BusyRetried)) > 2
    assert ends(recorder) == [("failed", "SQLITE_BUSY")] * 2


async def test_a_lock_that_is_waited_for_is_no_failure(database: Path, recorder: Recorder) -> None:
    async with (
        SQLiteDatabase(database, on_connect=leave_wal, subscribers=[recorder]) as db,
        other_process(database, "BEGIN IMMEDIATE") as other,
    ):
        writing = asyncio.create_task(db.run_write(add, "a"))
        await first(db.writer)
        await other.does("COMMIT")
        await writing
    assert ends(recorder) == [("committed", None)]
    assert failures(recorder) == []


async def test_without_a_subscriber_that_wants_it_the_caller_gets_its_error_all_the_same(database: Path) -> None:
    async with (
        SQLiteDatabase(database, pragmas={"max_page_count": 10}, acquisition_timeout=0.1) as db,
    ):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await db.run_write(add, LONG)
        async with other_process(database, "BEGIN IMMEDIATE"):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await db.run_write(add, "a")


async def test_a_lock_that_ends_a_function_that_is_not_called_again_is_a_failure(
    db: SQLiteDatabase, recorder: Recorder
) -> None:
    """Bug: it was told only when the database had waited for it."""

    def find_a_lock(_: sqlite3.Connection) -> None:
        raise locked()

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await db.run_write(find_a_lock, label="once", retry=False)
    assert [event.label for event in recorder.of(DatabaseFailed)] == ["once"]


async def test_a_file_that_is_damaged_is_told_by_its_readers(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, subscribers=[recorder]) as db:
        await db.run_write(add, LONG)
        await db.checkpoint()
    damage(database)
    recorder.clear()
    async with SQLiteDatabase(database, subscribers=[recorder]) as db:
        with pytest.raises(sqlite3.DatabaseError, match="malformed"):
            await db.fetch_all("SELECT text FROM note")
    # A newer SQLite finds it again when it brings its statistics up to date, at the end.
    (pool, error, label, statement), *_ = failures(recorder)
    assert (pool, error.database_code) == ("app.db/read", "SQLITE_CORRUPT")
    assert (label, statement) == ("fetch_all", "SELECT text FROM note")


def damage(database: Path) -> None:
    """Overwrite all pages but the first, which has the schema."""
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (database.stat().st_size - 4096))


async def test_the_writer_knows_the_size_of_its_file_and_what_its_disk_has_left(
    db: SQLiteDatabase, database: Path
) -> None:
    stats = db.writer.stats()
    assert stats.database_bytes == database.stat().st_size
    assert stats.disk_free is not None
    assert 0 < stats.disk_free <= shutil.disk_usage(database.parent).total
    assert (db.readers.stats().database_bytes, db.readers.stats().disk_free) == (None, None)


async def test_a_database_in_memory_has_no_file_and_no_disk(memory: SQLiteDatabase) -> None:
    stats: Any = memory.writer.stats()
    assert (stats.database_bytes, stats.disk_free, stats.wal_bytes) == (None, None, 0)


async def test_a_file_that_is_gone_has_no_size(db: SQLiteDatabase, database: Path) -> None:
    database.rename(database.with_name("moved.db"))
    assert db.writer.stats().database_bytes is None
    assert db.writer.stats().disk_free is not None
    database.with_name("moved.db").rename(database)


def test_a_directory_that_is_gone_has_no_disk(tmp_path: Path) -> None:
    db = SQLiteDatabase(tmp_path / "gone" / "app.db")
    assert db.writer.stats().disk_free is None
