"""What a plain pool says of a database that fails: the same as a `SQLiteDatabase`, for each statement."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import DatabaseFailed, ErrorInfo
from aiosqlitepool.testing import Recorder

INSERT = "INSERT INTO note (text) VALUES (?)"


async def test_a_statement_on_a_full_disk_is_told_with_its_code_and_its_label(
    database: Path, recorder: Recorder
) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), name="app.db", subscribers=[recorder]) as pool:
        async with pool.connection(label="POST /notes") as connection:
            await connection.execute_fetchall("PRAGMA max_page_count = 10")
            with pytest.raises(sqlite3.OperationalError, match="full"):
                await connection.execute(INSERT, ("x" * 100_000,))
    error = ErrorInfo("sqlite3.OperationalError", "database or disk is full", "SQLITE_FULL")
    assert recorder.of(DatabaseFailed) == [DatabaseFailed("app.db", error, "POST /notes", INSERT)]


async def test_a_lock_is_a_failure_because_nothing_tries_again(database: Path, recorder: Recorder) -> None:
    async with (
        SQLiteConnectionPool(lambda: aiosqlite.connect(database, timeout=0), subscribers=[recorder]) as pool,
        pool.connection() as connection,
    ):
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await connection.execute("BEGIN IMMEDIATE")
    assert [event.error.code for event in recorder.of(DatabaseFailed)] == ["SQLITE_BUSY"]


async def test_an_error_of_a_statement_is_no_failure_of_the_database(database: Path, recorder: Recorder) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), subscribers=[recorder]) as pool:
        for statement in ("SELECT * FROM nothing", "INSERT INTO note (id) VALUES (1), (1)"):
            with pytest.raises(sqlite3.Error):
                await pool.execute(statement)
    assert recorder.of(DatabaseFailed) == []
