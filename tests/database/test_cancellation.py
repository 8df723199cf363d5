"""One test for each moment at which a caller can be cancelled, and what the database looks like afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.driver import AiosqliteAdapter
from aiosqlitepool.events import TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, first, held_writer, insert, never_writes, texts, until_waiting
from ..support.files import notes
from ..support.other import other_process
from ..support.storm import assert_whole, quiet
from ..support.worker import Gate


@pytest.fixture(autouse=True)
async def nothing_is_left(db: SQLiteDatabase) -> AsyncIterator[None]:
    yield
    for pool in (db.writer, db.readers):
        await quiet(pool)
        await assert_whole(pool)
    assert await db.run_write(lambda native: native.execute("PRAGMA user_version = 1").close()) is None


async def cancelled(task: asyncio.Task[object], times: int = 1) -> None:
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


def outcomes(recorder: Recorder) -> list[str]:
    return [event.outcome for event in recorder.of(TransactionEnded)]


async def test_a_function_cancelled_in_the_queue_never_runs(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    async with held_writer(db):
        waiting = asyncio.create_task(db.run_write(add, "never"))
        await until_waiting(db, 1)
        await cancelled(waiting)
    assert notes(database) == []
    assert outcomes(recorder) == ["committed"]


async def test_a_function_cancelled_behind_another_in_the_worker_never_runs(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    with Hold() as hold:
        running = asyncio.create_task(db.run_write(hold))
        await hold.reached.wait()
        behind = asyncio.create_task(db.run_write(add, "never"))
        await asyncio.sleep(0.01)
        await cancelled(behind)
        hold.let_go()
        await running
    assert notes(database) == []
    assert outcomes(recorder) == ["committed"]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_function_cancelled_while_it_runs_is_waited_for_and_committed(
    db: SQLiteDatabase, database: Path, recorder: Recorder, times: int
) -> None:
    with Hold() as hold:

        def hold_and_add(native: sqlite3.Connection) -> None:
            hold(native)
            add(native, "kept")

        await hold.cancel_inside(asyncio.create_task(db.run_write(hold_and_add)), times)
    assert notes(database) == ["kept"]
    assert outcomes(recorder) == ["committed"]


async def test_a_function_that_fails_after_it_was_cancelled_is_rolled_back_in_silence(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    with Hold() as hold:

        def fails(native: sqlite3.Connection) -> None:
            add(native, "never")
            hold(native)
            raise KeyError

        await hold.cancel_inside(asyncio.create_task(db.run_write(fails)))
    assert notes(database) == []
    assert outcomes(recorder) == ["rolled_back"]


async def test_a_function_cancelled_between_two_attempts_never_runs(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    async with other_process(database, "BEGIN IMMEDIATE"):
        waiting = asyncio.create_task(db.run_write(add, "never"))
        await first(db.writer)
        await cancelled(waiting)
    assert notes(database) == []
    assert outcomes(recorder) == []


async def test_a_block_cancelled_in_the_queue_never_begins(db: SQLiteDatabase, recorder: Recorder) -> None:
    async with held_writer(db):
        waiting = asyncio.create_task(never_writes(db))
        await until_waiting(db, 1)
        await cancelled(waiting)
    assert outcomes(recorder) == ["committed"]


async def test_a_block_cancelled_while_it_waits_for_another_process_never_begins(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    async with other_process(database, "BEGIN IMMEDIATE"):
        waiting = asyncio.create_task(never_writes(db))
        await first(db.writer)
        await cancelled(waiting)
    assert outcomes(recorder) == []


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_block_is_rolled_back(
    db: SQLiteDatabase, database: Path, recorder: Recorder, times: int
) -> None:
    entered = asyncio.Event()

    async def block() -> None:
        async with db.write() as connection:
            await insert(connection, "never")
            entered.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(block())
    await entered.wait()
    await cancelled(writing, times)
    assert notes(database) == []
    assert outcomes(recorder) == ["rolled_back"]


async def test_a_block_cancelled_in_the_middle_of_a_statement_is_rolled_back(
    db: SQLiteDatabase, database: Path
) -> None:
    with Gate() as gate:

        async def block() -> None:
            async with db.write() as connection:
                await gate.install(connection)
                await connection.execute("INSERT INTO note (text) VALUES (gate())")

        await gate.cancel_inside(asyncio.create_task(block()))
    assert notes(database) == []


async def test_a_block_cancelled_while_it_commits_has_committed_or_not_as_its_event_says(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    for turns in range(12):

        async def block(text: str) -> None:
            async with db.write() as connection:
                await insert(connection, text)

        writing = asyncio.create_task(block(str(turns)))
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await quiet(db.writer)
    assert len(notes(database)) == outcomes(recorder).count("committed")


async def test_a_block_within_a_block_that_is_cancelled_takes_back_only_itself(
    db: SQLiteDatabase, database: Path
) -> None:
    async with db.write() as connection:
        await insert(connection, "before")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                async with db.write():
                    await insert(connection, "never")
                    await asyncio.Event().wait()
        await insert(connection, "after")
    assert notes(database) == ["before", "after"]


async def test_a_block_within_a_block_that_is_cancelled_again_and_again_takes_back_itself(
    db: SQLiteDatabase, database: Path
) -> None:
    inside = asyncio.Event()

    async def outer() -> None:
        async with db.write() as connection:
            await insert(connection, "before")
            try:
                async with db.write():
                    await insert(connection, "never")
                    inside.set()
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                await insert(connection, "after")

    writing = asyncio.create_task(outer())
    await inside.wait()
    writing.cancel()
    await asyncio.sleep(0)  # it is on its way back by now, which ends in the worker
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert notes(database) == ["before", "after"]


async def test_a_snapshot_that_is_cancelled_is_over(db: SQLiteDatabase, recorder: Recorder) -> None:
    entered = asyncio.Event()

    async def block() -> None:
        async with db.read(snapshot=True):
            entered.set()
            await asyncio.Event().wait()

    reading = asyncio.create_task(block())
    await entered.wait()
    await cancelled(reading)
    assert await db.run_read(texts) == []
    assert outcomes(recorder) == ["rolled_back", "committed"]


async def test_a_loop_that_is_late_is_no_reason_to_replace_a_connection(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: what had stopped at once was taken for stuck when the loop did not look for 5 ms."""

    async def late(_: AiosqliteAdapter, done: asyncio.Future[object]) -> None:
        await asyncio.wait((done,))
        raise TimeoutError

    monkeypatch.setattr(AiosqliteAdapter, "interrupt_in_flight", late)
    with Hold() as hold:
        reading = asyncio.create_task(db.run_read(hold))
        await hold.reached.wait()
        reading.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((reading,))
    await quiet(db.readers)
    assert (reading.cancelled(), db.readers.stats().idle) == (True, 1)
