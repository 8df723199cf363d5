"""A write block begins its transaction with its first statement, in the same trip to the worker thread."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.events import BusyRetried, TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, first, insert, until_waiting
from ..support.files import notes
from ..support.other import Other, other_process


@pytest.fixture
async def db(database: Path, recorder: Recorder) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(database, subscribers=[recorder]) as db:
        yield db


async def test_a_block_begins_with_its_first_statement(db: SQLiteDatabase, database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as other:
        async with db.write() as connection:
            other.execute("INSERT INTO note (text) VALUES ('other')")
            assert await connection.execute_fetchall("SELECT text FROM note") == [("other",)]
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO note (text) VALUES ('late')")


async def test_a_block_is_in_a_transaction_before_and_after_that(db: SQLiteDatabase) -> None:
    async with db.write() as connection:
        assert connection.in_transaction
        await insert(connection, "a")
        assert connection.in_transaction


async def test_a_block_without_a_statement_has_no_transaction(db: SQLiteDatabase, recorder: Recorder) -> None:
    async with db.write():
        pass
    with pytest.raises(KeyError):
        async with db.write():
            raise KeyError
    await db.run_write(add, "a")
    assert [event.outcome for event in recorder.of(TransactionEnded)] == ["committed"]


async def test_the_first_statement_waits_for_another_program(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    async with db.write("POST /notes") as connection:
        async with other_process(database, "BEGIN IMMEDIATE"):
            writing = asyncio.create_task(insert(connection, "a"))
            retried = await first(db.writer)
            assert not writing.done()
        await writing
        await insert(connection, "b")
    assert notes(database) == ["a", "b"]
    assert (type(retried), retried.label) == (BusyRetried, "POST /notes")
    assert [event.outcome for event in recorder.of(TransactionEnded)] == ["committed"]
    (row,) = [row for row in db.writer.statements() if row.operation == "INSERT"]
    assert (row.calls, row.errors) == (2, 0)


async def test_a_statement_may_follow_one_that_waited_for_too_long(database: Path) -> None:
    async with SQLiteDatabase(database, acquisition_timeout=0.1) as db, db.write() as connection:
        async with other_process(database, "BEGIN IMMEDIATE"):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await insert(connection, "never")
        await insert(connection, "a")
    assert notes(database) == ["a"]


async def test_statements_sent_together_wait_together(db: SQLiteDatabase, database: Path) -> None:
    async with db.write() as connection:
        async with other_process(database, "BEGIN IMMEDIATE"):
            writing = asyncio.gather(*(insert(connection, "a") for _ in range(5)))
            await first(db.writer)
        await writing
        assert connection.in_transaction
        with pytest.raises(KeyError):
            async with db.write():
                await insert(connection, "never")
                raise KeyError
    assert notes(database) == ["a"] * 5


async def in_a_savepoint(db: SQLiteDatabase) -> None:
    async with db.write() as connection:
        await insert(connection, "never")
        raise KeyError


async def test_a_savepoint_may_come_first(db: SQLiteDatabase, database: Path) -> None:
    async with db.write():
        with pytest.raises(KeyError):
            await in_a_savepoint(db)
        await db.run_write(add, "a")
    assert notes(database) == ["a"]


async def test_a_savepoint_that_comes_first_waits_for_another_program(db: SQLiteDatabase, database: Path) -> None:
    async def end(other: Other) -> None:
        await first(db.writer)
        await other.does("ROLLBACK")

    async with other_process(database, "BEGIN IMMEDIATE") as other, db.write():
        ending = asyncio.create_task(end(other))
        with pytest.raises(KeyError):
            await in_a_savepoint(db)
        await ending
        await db.run_write(add, "a")
    assert notes(database) == ["a"]


async def test_the_time_before_the_first_statement_is_no_wait(db: SQLiteDatabase, recorder: Recorder) -> None:
    async with db.write() as connection:
        entered = time.monotonic()
        await asyncio.sleep(0.05)
        idle = time.monotonic() - entered
        await insert(connection, "a")
    (event,) = recorder.of(TransactionEnded)
    assert 0 <= event.wait_time < idle
    assert event.duration < idle + 1


async def test_a_statement_that_is_under_way_at_the_end_is_committed(db: SQLiteDatabase, database: Path) -> None:
    with Hold() as hold:
        async with db.write() as connection:
            task = asyncio.create_task(connection._execute(hold, None))  # type: ignore[no-untyped-call]
            writing = asyncio.create_task(insert(connection, "a"))
            await hold.reached.wait()
            asyncio.get_running_loop().call_later(0.02, hold.let_go)
        await asyncio.gather(task, writing)
    assert notes(database) == ["a"]


async def test_a_statement_that_is_under_way_when_the_block_fails_is_rolled_back(
    db: SQLiteDatabase, database: Path
) -> None:
    with Hold() as hold:
        with pytest.raises(KeyError):
            async with db.write() as connection:
                task = asyncio.create_task(connection._execute(hold, None))  # type: ignore[no-untyped-call]
                writing = asyncio.create_task(insert(connection, "never"))
                await hold.reached.wait()
                asyncio.get_running_loop().call_later(0.02, hold.let_go)
                raise KeyError
        await asyncio.gather(task, writing, return_exceptions=True)
    await db.run_write(add, "next")
    assert notes(database) == ["next"]


async def test_a_first_statement_that_is_cancelled_keeps_the_transaction(db: SQLiteDatabase, database: Path) -> None:
    endless = "INSERT INTO note (text) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) "
    async with db.write() as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.execute(endless + "SELECT 'many' FROM n")
        await connection.execute("DELETE FROM note")
        await insert(connection, "a")
    assert notes(database) == ["a"]


async def test_another_database_of_the_file_waits_from_the_beginning_of_the_block(
    db: SQLiteDatabase, database: Path
) -> None:
    async with SQLiteDatabase(database) as other:
        async with db.write() as connection:
            writing = asyncio.create_task(other.run_write(add, "second"))
            await asyncio.sleep(0.03)  # longer than a turn, if others wait
            seen = await db.fetch_val("SELECT count(*) FROM note")
            await connection.execute("INSERT INTO note (text) VALUES (?)", (f"after {seen}",))
        await writing
    assert notes(database) == ["after 0", "second"]


async def test_the_next_holder_begins_nothing_of_the_one_before(db: SQLiteDatabase, database: Path) -> None:
    leaving = asyncio.Event()

    async def block() -> None:
        async with db.write():
            leaving.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await leaving.wait()
    waiting = asyncio.create_task(db.run_write(lambda native: native.in_transaction))
    await until_waiting(db, 1)
    task.cancel()
    assert await waiting
    connection: aiosqlite.Connection
    async with db.writer.connection() as connection:
        assert not connection.in_transaction
        await insert(connection, "on its own")
        assert not connection.in_transaction
    assert notes(database) == ["on its own"]
