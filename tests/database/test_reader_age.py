"""`reader_max_age`: the connection is taken from its holder, who is not cancelled, wherever it is by then."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import aiosqlite
import anyio
import pytest

from aiosqlitepool import PoolUsageError, SQLiteDatabase
from aiosqlitepool.events import ConnectionReleased, RolledBackOnReturn, TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.clock import let_pass
from ..support.databases import Hold, add, texts
from ..support.storm import assert_whole, quiet
from ..support.worker import ENDLESS, began

# Seconds, which pass when a test says so.
MAX_AGE = 60.0
TOO_LONG = r"^pool 'app\.db/read': a read was open for longer than reader_max_age=60\.0 s\. Raise reader_max_age or"


@pytest.fixture
async def db(database: Path, recorder: Recorder) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(database, readers=1, reader_max_age=MAX_AGE, subscribers=[recorder]) as db:
        await db.run_write(add, "a")
        yield db
        await quiet(db.readers)
        await assert_whole(db.readers)


async def taken_back(db: SQLiteDatabase) -> None:
    """Let the read grow too old, and wait until the only reader connection is back in the pool."""
    await let_pass(MAX_AGE)
    async with asyncio.timeout(60):
        await quiet(db.readers)


async def fails(work: Awaitable[Any]) -> None:
    with pytest.raises(TimeoutError, match=TOO_LONG):
        await work


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_connection_comes_back_while_its_holder_does_something_else(
    db: SQLiteDatabase, recorder: Recorder, snapshot: bool
) -> None:
    with pytest.raises(TimeoutError, match=TOO_LONG):
        async with db.read(snapshot=snapshot) as connection:
            await connection.execute_fetchall("SELECT 1")
            await taken_back(db)
            assert db.readers.stats().idle == 1
            assert await db.run_read(texts) == ["a"]  # the only reader has a new holder, and this one goes on
    assert len(recorder.of(ConnectionReleased)) == 3
    assert [event.outcome for event in recorder.of(TransactionEnded)].count("rolled_back") == snapshot
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["transaction"] * snapshot


async def test_the_next_holder_is_refused_nothing_because_of_the_last_one(db: SQLiteDatabase) -> None:
    with pytest.raises(TimeoutError):
        async with db.read(snapshot=True):
            await taken_back(db)
            async with db.read() as connection:
                assert await connection.execute_fetchall("SELECT text FROM note") == [("a",)]


async def test_a_snapshot_that_was_taken_back_no_longer_pins_the_wal(db: SQLiteDatabase) -> None:
    with pytest.raises(TimeoutError):
        async with db.read(snapshot=True):
            await db.run_write(add, "b")
            assert (await db.checkpoint()).result == "partial"
            await taken_back(db)
            assert (await db.checkpoint()).result == "complete"


async def test_every_later_use_of_the_connection_says_why(db: SQLiteDatabase) -> None:
    with pytest.raises(TimeoutError):
        async with db.read() as connection:
            cursor = await connection.execute("SELECT 1 UNION ALL SELECT 2")
            await taken_back(db)
            await fails(connection.execute("SELECT 1"))
            await fails(cursor.fetchone())
            with pytest.raises(TimeoutError, match=TOO_LONG):
                _ = connection.row_factory
            await cursor.close()
    await fails(connection.execute("SELECT 1"))


async def test_a_connection_that_went_back_in_time_says_so(db: SQLiteDatabase) -> None:
    async with db.read() as connection:
        pass
    await let_pass(MAX_AGE)
    with pytest.raises(PoolUsageError, match="went back to the pool"):
        await connection.execute("SELECT 1")


async def test_all_statements_that_run_or_wait_end_each_with_an_error_of_its_own(db: SQLiteDatabase) -> None:
    with pytest.raises(TimeoutError):
        async with db.read() as connection:
            running = await began(connection)
            statements = [asyncio.create_task(connection.execute_fetchall(ENDLESS)) for _ in range(3)]
            await running.wait()
            await let_pass(MAX_AGE)
            errors = await asyncio.gather(*statements, return_exceptions=True)
            for error in errors:
                assert isinstance(error, TimeoutError)
                assert "reader_max_age" in str(error)
            assert len(set(map(id, errors))) == 3


async def test_a_function_that_no_interrupt_reaches_does_not_keep_its_caller(db: SQLiteDatabase) -> None:
    with Hold() as hold:
        reading = asyncio.create_task(db.run_read(hold))
        await hold.reached.wait()
        await let_pass(MAX_AGE)
        await fails(reading)
        assert await db.run_read(texts) == ["a"]


async def test_the_consumer_of_a_generator_that_it_left_is_not_cancelled(db: SQLiteDatabase) -> None:
    async def rows() -> AsyncIterator[sqlite3.Row]:
        async with db.read() as connection:
            async for row in await connection.execute("VALUES (1), (2), (3)"):
                yield row

    generator = rows()
    async for _ in generator:
        break
    await taken_back(db)
    with pytest.raises(TimeoutError, match=TOO_LONG):
        async for _ in generator:
            pass
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_one_task_can_read_for_too_long_twice(db: SQLiteDatabase) -> None:
    async def read() -> aiosqlite.Connection:
        async with db.read() as connection:
            handles.append(connection)
            await taken_back(db)
        raise AssertionError("the block ended as if nothing had been")

    handles: list[aiosqlite.Connection] = []
    await fails(read())
    await fails(read())
    for handle in handles:
        await fails(handle.execute("SELECT 1"))


async def test_an_exception_on_its_way_goes_on(db: SQLiteDatabase) -> None:
    with pytest.raises(KeyError, match="k"):
        async with db.read():
            await taken_back(db)
            raise KeyError("k")


async def test_a_cancellation_on_its_way_goes_on(db: SQLiteDatabase) -> None:
    with pytest.raises(TimeoutError, match=r"^$"):
        async with asyncio.timeout(MAX_AGE), db.read():
            await let_pass(MAX_AGE)
    with anyio.move_on_after(MAX_AGE) as scope:
        async with db.read():
            await let_pass(MAX_AGE)
    assert scope.cancelled_caught


async def test_a_read_that_ends_in_time_leaves_no_timer_behind(db: SQLiteDatabase, recorder: Recorder) -> None:
    for snapshot in (False, True):
        async with db.read(snapshot=snapshot) as connection:
            await connection.execute_fetchall("SELECT 1")
        await db.run_read(texts)
    released = len(recorder.of(ConnectionReleased))
    await let_pass(MAX_AGE)
    assert len(recorder.of(ConnectionReleased)) == released


async def test_a_holder_whose_database_was_closed_meanwhile_is_not_taken_from_again(database: Path) -> None:
    db = SQLiteDatabase(database, reader_max_age=MAX_AGE)
    await db.open()
    with pytest.raises(TimeoutError):
        async with db.read():
            with pytest.warns(ResourceWarning, match="under their holders"):
                await db.close(timeout=0)
            await let_pass(MAX_AGE)
    assert db.readers.stats().state == "closed"
