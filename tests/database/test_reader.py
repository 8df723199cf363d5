from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.events import LeakReturned, LeakSuspected, TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, first, insert, texts, texts_now
from ..support.files import notes
from ..support.worker import ENDLESS, began

WRITES = [
    "INSERT INTO note (text) VALUES ('no')",
    "CREATE TABLE other (id)",
    "CREATE TEMP TABLE other (id)",
    "DELETE FROM note",
]


@pytest.mark.parametrize("statement", WRITES)
async def test_a_reader_cannot_write(db: SQLiteDatabase, statement: str) -> None:
    async with db.read() as connection:
        with pytest.raises(sqlite3.OperationalError, match="readonly database"):
            await connection.execute(statement)
    with pytest.raises(sqlite3.OperationalError, match="readonly database"):
        await db.run_read(lambda native: native.execute(statement).close())


@pytest.mark.parametrize("max_age", [None, 60])
@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_reader_that_tried_to_write_is_told_what_can(
    database: Path, max_age: float | None, snapshot: bool
) -> None:
    told = ["a connection that reads cannot write: use write(), run_write() or execute()"]
    async with SQLiteDatabase(database, reader_max_age=max_age) as db:
        with pytest.raises(sqlite3.OperationalError, match="readonly database") as in_a_block:
            async with db.read(snapshot=snapshot) as connection:
                await connection.execute(WRITES[0])
        with pytest.raises(sqlite3.OperationalError, match="readonly database") as in_a_function:
            await db.run_read(lambda native: native.execute(WRITES[0]).close())
        with pytest.raises(sqlite3.OperationalError, match="syntax error") as something_else:
            async with db.read() as connection:
                await connection.execute("SELEC 1")
    assert in_a_block.value.__notes__ == in_a_function.value.__notes__ == told
    assert not hasattr(something_else.value, "__notes__")


async def test_a_reader_within_another_that_tried_to_write_is_told_so_once(db: SQLiteDatabase) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly database") as told:
        async with db.read(), db.read() as connection:
            await connection.execute(WRITES[0])
    assert len(told.value.__notes__) == 1


async def test_a_reader_that_may_not_read_the_wal_is_not_told_that_it_tried_to_write(db: SQLiteDatabase) -> None:
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY_CANTINIT
    with pytest.raises(sqlite3.OperationalError):
        async with db.read():
            raise error
    assert not hasattr(error, "__notes__")


async def test_a_reader_writes_only_after_somebody_has_switched_that_on_by_hand(
    db: SQLiteDatabase, database: Path
) -> None:
    async with db.read() as connection:
        await connection.execute("PRAGMA query_only = 0")
        await insert(connection, "asked for")
    assert notes(database) == ["asked for"]


async def test_each_statement_of_a_block_sees_what_is_committed_by_then(db: SQLiteDatabase) -> None:
    async with db.read() as connection:
        assert await texts_now(connection) == []
        await db.run_write(add, "a")
        assert await texts_now(connection) == ["a"]


async def test_a_snapshot_sees_one_moment_from_its_beginning(db: SQLiteDatabase, recorder: Recorder) -> None:
    async with db.read(snapshot=True, label="report") as connection:
        await db.run_write(add, "a")
        assert await texts_now(connection) == []
    (_, event) = recorder.of(TransactionEnded)
    assert (event.pool, event.outcome, event.label) == ("app.db/read", "committed", "report")
    assert await db.run_read(texts) == ["a"]


async def test_a_snapshot_that_raises_is_rolled_back(db: SQLiteDatabase, recorder: Recorder) -> None:
    with pytest.raises(KeyError):
        async with db.read(snapshot=True):
            raise KeyError
    with pytest.raises(KeyError):
        async with db.read(snapshot=True) as connection:
            await connection.close()
            raise KeyError
    assert [event.outcome for event in recorder.of(TransactionEnded)] == ["rolled_back"] * 2
    assert await db.run_read(texts) == []


async def test_a_function_sees_one_moment_and_returns_what_it_read(db: SQLiteDatabase, recorder: Recorder) -> None:
    with Hold() as hold:

        def twice(native: sqlite3.Connection) -> tuple[list[str], list[str]]:
            before = texts(native)
            hold(native)
            return before, texts(native)

        reading = asyncio.create_task(db.run_read(twice))
        await hold.reached.wait()
        await db.run_write(add, "a")
        hold.let_go()
        assert await reading == ([], [])
    assert [(event.pool, event.label) for event in recorder.of(TransactionEnded)] == [
        ("app.db/write", "add"),
        ("app.db/read", "twice"),
    ]


async def test_what_a_function_raises_reaches_its_caller(db: SQLiteDatabase) -> None:
    def fails(native: sqlite3.Connection) -> None:
        raise KeyError("k")

    with pytest.raises(KeyError, match="k"):
        await db.run_read(fails)


async def test_a_cancelled_function_is_interrupted(db: SQLiteDatabase) -> None:
    started, loop = asyncio.Event(), asyncio.get_running_loop()

    def endless(native: sqlite3.Connection) -> None:
        native.create_function("began", 0, lambda: loop.call_soon_threadsafe(started.set) and 1)
        native.execute(ENDLESS).fetchall()

    reading = asyncio.create_task(db.run_read(endless))
    await started.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(60):
        while db.readers.stats().used:
            await asyncio.sleep(0.001)


async def test_readers_go_on_while_a_transaction_writes(db: SQLiteDatabase) -> None:
    async with db.write() as connection:
        await insert(connection, "a")
        assert await asyncio.gather(*(db.run_read(texts) for _ in range(20))) == [[]] * 20


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_block_that_reads_for_too_long_is_ended(database: Path, snapshot: bool) -> None:
    async with SQLiteDatabase(database, reader_max_age=0.05) as db:
        with pytest.raises(TimeoutError, match=r"open for longer than reader_max_age=0\.05 s"):
            async with db.read(snapshot=snapshot) as connection:
                await began(connection)
                await connection.execute_fetchall(ENDLESS)
        async with db.readers.connection() as connection:  # which has no such limit
            assert await texts_now(connection) == []


async def test_a_function_that_reads_for_too_long_is_ended(database: Path) -> None:
    def endless(native: sqlite3.Connection) -> None:
        native.create_function("began", 0, lambda: 1)
        native.execute(ENDLESS).fetchall()

    async with SQLiteDatabase(database, reader_max_age=0.05) as db:
        with pytest.raises(TimeoutError, match="reader_max_age"):
            await db.run_read(endless)


async def test_a_timeout_of_the_blocks_own_is_not_taken_for_the_readers_age(database: Path) -> None:
    async with SQLiteDatabase(database, reader_max_age=60) as db:
        with pytest.raises(TimeoutError, match=r"^my own$"):
            async with db.read():
                raise TimeoutError("my own")


async def test_a_block_that_reads_for_long_is_told_of(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, reader_warn_after=0.01, subscribers=[recorder]) as db:
        async with db.read(label="report"):
            event = await first(db.readers, LeakSuspected)
        assert isinstance(event, LeakSuspected)
        assert event.holder.label == "report"
    assert len(recorder.of(LeakReturned)) == 1
